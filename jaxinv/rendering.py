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
    def images_of(weights, w, style_offsets):
        # Without offsets the argument is left out: a generator need not have styles.
        moved = {'style_offsets': style_offsets} if style_offsets else {}
        return generator.synthesize(weights, w, **moved)[0]

    return jax.jit(images_of)


def render(generator, weights, w, style_offsets=None) -> np.ndarray:
    """Images [n, h, w, 3] of codes w [n, 1 or num_ws, w_dim], at full precision.

    style_offsets: {layer: [n or 1, channels]} of `Generator.synthesize`; None = none.

    Returns float32 of about [-1, 1] on the host, 12 bytes a pixel: a caller with many codes gives a
    few at a time. The device holds BATCH images; a smaller last batch is padded, which needs no
    second compilation.
    """
    spec = generator.spec
    w = np.asarray(jnp.broadcast_to(jnp.asarray(w), (len(w), spec.num_ws, spec.w_dim)))
    offsets = {
        layer: np.broadcast_to(np.asarray(offset), (len(w), np.shape(offset)[-1]))
        for layer, offset in (style_offsets or {}).items()
    }
    images = np.empty((len(w), spec.resolution, spec.resolution, 3), np.float32)
    for start in range(0, len(w), BATCH):
        count = min(BATCH, len(w) - start)
        batch = jax.tree.map(lambda x, start=start: _padded(x[start : start + BATCH]), (w, offsets))
        with full_precision():
            rendered = np.asarray(_renderer(generator)(weights, *batch))
        images[start : start + BATCH] = rendered[:count]
    return images


def _padded(batch):
    """[BATCH, ...]: the last row repeated."""
    return np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
