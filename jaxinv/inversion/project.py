"""The pivot: optimises w and the noise maps of all identities at once (PTI section 3.1).

    w_p, n = argmin LPIPS(x, G(w, n; theta)) + lambda_n L_n(n)               (equation 1)

The generator is frozen. LPIPS is the VGG one at 256 pixels, Adam moves w [b, k, w_dim] and the
noise maps together, with the schedules of StyleGAN2's projector (StyleGAN2, appendix D).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxinv import latents, optimize
from jaxinv.errors import JaxinvError
from jaxinv.inversion import losses
from jaxinv.networks import lpips
from jaxinv.optimize import schedules
from jaxinv.pixels import area_resize
from jaxinv.types import Generator

START = 2**32 - 1  # the step whose random numbers are the first noise maps; never reached
METRICS = ('loss', 'lpips_vgg', 'noise_reg')
ROWS = optimize.Rows(variables=True, args={'target_features': 0, 'ids': 0})


class Settings(NamedTuple):
    """Settings of the projection; hashable, so that equal settings share a compiled program."""

    num_steps: int
    learning_rate: float  # peak; PTI's paper 5e-3, its code in effect 0.01, StyleGAN2's 0.1
    space: str = 'w'  # 'w' or 'w_plus'
    loss_size: int = 256  # pixels at which LPIPS is taken
    noise_weight: float = 1e5  # lambda_n
    initial_noise_factor: float = 0.05  # noise on w at the start, in units of w's spread; 0 = off
    lr_rampdown: float = 0.25  # fraction of the run
    lr_rampup: float = 0.05
    noise_ramp: float = 0.75
    batch_per_device: int = 0  # identities a device in one program (loops.in_parts); 0 = all
    chunk_steps: int = 20


def check(settings: Settings) -> None:
    """Raises JaxinvError for a setting that cannot be used."""
    if settings.space not in ('w', 'w_plus'):
        raise JaxinvError(f"pivot.space is {settings.space!r}; it can be 'w' or 'w_plus'.")
    for name in ('num_steps', 'loss_size', 'chunk_steps'):
        if getattr(settings, name) < 1:
            raise JaxinvError(f'pivot.{name} is {getattr(settings, name)}; it must be at least 1.')
    if settings.batch_per_device < 0:
        raise JaxinvError(
            f'pivot.batch_per_device is {settings.batch_per_device}; it must be at least 0, which is all at once.'
        )


class Projector(NamedTuple):
    settings: Settings
    loop: optimize.Loop
    prepare: Any  # (weights, lpips_weights, targets, ids, statistics, key) -> (state, args)


@functools.lru_cache(maxsize=8)
def make_projector(generator: Generator, settings: Settings) -> Projector:
    """The compiled projection for a generator and settings, shared by all images."""
    spec, s = generator.spec, settings
    check(s)
    rows = 1 if s.space == 'w' else spec.num_ws
    noise_shapes = dict(spec.noise_shapes)

    def objective(variables, args, step, key):
        w, noise = latents.freeze_class(variables['w'], spec), variables['noise']
        t = schedules.fraction(step, s.num_steps)
        if s.initial_noise_factor:
            scale = args['w_std'] * s.initial_noise_factor
            scale = scale * schedules.latent_noise_ramp(t, s.noise_ramp)
            shape = (rows, spec.moving_dims or spec.w_dim)
            normals = latents.identity_normals(key, args['ids'], step, shape)
            w = w + scale * jnp.pad(normals, ((0, 0), (0, 0), (0, spec.w_dim - shape[1])))
        images, _ = generator.synthesize(args['weights'], w, noise=noise or 'none')
        size = min(s.loss_size, spec.resolution)
        features = lpips.features(args['lpips'], area_resize(images, size))
        distance = lpips.distance(features, args['target_features'])
        regularization = losses.noise_regularization(noise) if noise else jnp.zeros_like(distance)
        loss = distance + s.noise_weight * regularization
        metrics = {'loss': loss, 'lpips_vgg': distance, 'noise_reg': regularization}
        return loss.sum(), metrics  # a sum: the identities share nothing

    def learning_rate(count):
        t = schedules.fraction(count, s.num_steps)
        return s.learning_rate * schedules.learning_rate_ramp(t, s.lr_rampdown, s.lr_rampup)

    def project(variables):
        return {'w': variables['w'], 'noise': losses.normalize_noise(variables['noise'])}

    optimizer = optax.adam(learning_rate, eps_root=0.0)
    update = optimize.gradient_update(objective, optimizer, project)
    loop = optimize.make_loop(update, optimizer, METRICS, rows=ROWS, chunk_steps=s.chunk_steps)

    @jax.jit
    def target_features(lpips_weights, targets):
        size = min(s.loss_size, spec.resolution)
        return lpips.features(lpips_weights, area_resize(targets, size))

    def prepare(weights, lpips_weights, targets, ids, statistics, key, *, noise=None):
        """Start state and arguments for targets [b, h, w, 3]; noise overrides the random start.

        The mean of the statistics, [w_dim] or [b, w_dim], is where w starts.
        """
        mean = jnp.atleast_2d(statistics.mean)[:, None]
        w = jnp.broadcast_to(mean, (len(targets), rows, spec.w_dim))
        if noise is None:
            noise = {
                name: latents.identity_normals(jax.random.fold_in(key, i), ids, START, shape)
                for i, (name, shape) in enumerate(noise_shapes.items())
            }
        args = {
            'weights': weights,
            'lpips': lpips_weights,
            'target_features': target_features(lpips_weights, targets),
            'ids': jnp.asarray(ids),
            'w_std': statistics.std,
        }
        return loop.init({'w': w, 'noise': noise}, len(targets)), args

    return Projector(s, loop, prepare)
