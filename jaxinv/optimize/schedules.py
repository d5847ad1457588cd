"""Schedules of the W projection (StyleGAN2 paper, appendix D; used by PTI's first step and by SAM).

`t` is the fraction of the run that is over: step / num_steps, in [0, 1).
"""

import jax.numpy as jnp
import numpy as np


def fraction(step, num_steps: int):
    """t of an integer step; in float64 where that is enabled, which int32 / int is not in JAX."""
    return jnp.asarray(step, float) / num_steps


def learning_rate_ramp(t, rampdown: float = 0.25, rampup: float = 0.05):
    """Factor on the learning rate: linear from 0 over `rampup`, cosine to 0 over `rampdown`."""
    down = jnp.minimum(1.0, (1.0 - t) / rampdown)
    down = 0.5 - 0.5 * jnp.cos(down * np.pi)
    return down * jnp.minimum(1.0, t / rampup)


def latent_noise_ramp(t, ramp: float = 0.75):
    """Factor on the noise added to w: quadratic from 1 to 0 over the first `ramp` of the run."""
    return jnp.maximum(0.0, 1.0 - t / ramp) ** 2
