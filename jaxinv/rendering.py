"""Images of codes outside the optimisation, in bounded batches, and the policy of precision.

Policy of precision. What is optimised (projection, tuning, SAM's search) runs at the backend's
default matmul precision: float32 on CPUs, TF32 on recent NVIDIA GPUs, bfloat16 passes on TPUs. What
is measured, thresholded or written as a result (metrics, invertibility maps, rendered images) runs
at 'highest', full float32, by `full_precision`: its numbers are comparable between machines.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 4  # images a forward pass; bounds the memory of the device

full_precision = functools.partial(jax.default_matmul_precision, 'highest')  # context manager


@functools.cache
def _renderer(generator):
    return jax.jit(lambda weights, w: generator.synthesize(weights, w)[0])


def render(generator, weights, w) -> np.ndarray:
    """Images [n, h, w, 3] of codes w [n, 1 or num_ws, w_dim], at full precision.

    Returns float32 of about [-1, 1] on the host, 12 bytes a pixel: a caller with many codes gives a
    few at a time. The device holds BATCH images; a smaller last batch is padded, which needs no
    second compilation.
    """
    spec = generator.spec
    w = np.asarray(jnp.broadcast_to(jnp.asarray(w), (len(w), spec.num_ws, spec.w_dim)))
    images = np.empty((len(w), spec.resolution, spec.resolution, 3), np.float32)
    for start in range(0, len(w), BATCH):
        batch = w[start : start + BATCH]
        padded = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
        with full_precision():
            rendered = np.asarray(_renderer(generator)(weights, padded))
        images[start : start + BATCH] = rendered[: len(batch)]
    return images
