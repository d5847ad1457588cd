"""Soft masks: where a latent space was chosen, at the size of its feature map (SAM equation 3)."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import pixels
from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam
from jaxinv.types import GeneratorSpec

RESAMPLERS = ('bilinear', 'lanczos')


def soft_masks(chosen, spec: GeneratorSpec, spaces=None, resample: str = 'bilinear') -> dict:
    """{feature space: [b, h, w, 1]}: the chosen region at the size of the feature, 0 to 1.

    chosen [b, h, w]: place in `spaces` (None = sam.spaces(spec)). resample: 'bilinear' as the paper
    says, or 'lanczos' as the released code does, clipped to 0 ... 1; both widen their window when
    they shrink, as Pillow does. W+ and Z+ need no mask.
    """
    spaces = sam.spaces(spec) if spaces is None else tuple(spaces)
    shapes, masks = dict(spec.feature_shapes), {}
    for i, space in enumerate(spaces):
        if space in shapes:
            binary = (jnp.asarray(chosen) == i).astype(jnp.float32)
            soft = resize_mask(binary, shapes[space][:2], resample)
            masks[space] = jnp.clip(soft, 0.0, binary.max((1, 2), keepdims=True))[..., None]
    return masks


def resize_mask(masks, size: tuple[int, int], resample: str):
    """Masks [b, h, w] -> [b, *size], as Pillow's resize of a float picture."""
    rows, columns = (
        jnp.asarray(resampling_matrix(n, s, resample), jnp.float32)
        for n, s in zip(masks.shape[1:], size, strict=True)
    )
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum('sh,bhw,tw->bst', rows, masks, columns, precision=highest)


def resampling_matrix(length: int, size: int, resample: str) -> np.ndarray:
    """Weights [size, length] of a resampling with Pillow's filters and windows."""
    if resample not in RESAMPLERS:
        raise JaxinvError(f'resample is {resample!r}; it can be one of {", ".join(RESAMPLERS)}.')
    reach = {'bilinear': 1.0, 'lanczos': 3.0}[resample]
    scale = length / size
    stretch = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    start = np.maximum((centers - reach * stretch + 0.5).astype(int), 0)
    stop = np.minimum((centers + reach * stretch + 0.5).astype(int), length)
    place = np.arange(length)
    t = (place + 0.5 - centers[:, None]) / stretch
    if resample == 'bilinear':
        weights = np.maximum(1.0 - np.abs(t), 0.0)
    else:
        weights = np.where(np.abs(t) < 3.0, np.sinc(t) * np.sinc(t / 3.0), 0.0)
    weights = np.where((place >= start[:, None]) & (place < stop[:, None]), weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def valid_of(job, size: tuple[int, int]):
    """The targets' mask [n, h, w, 1] at the size of maps, or None."""
    valid = job.targets.valid
    if valid is None:
        return None
    return np.concatenate([pixels.area_resize(jnp.asarray(v[None]), size) for v in valid])
