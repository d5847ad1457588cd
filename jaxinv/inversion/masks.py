"""Soft masks: where a latent space was chosen, at the size of its feature map (SAM equation 3)."""

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam
from jaxinv.types import GeneratorSpec

RESAMPLERS = {'bilinear': 'bilinear', 'lanczos': 'lanczos3'}  # names in jax.image.resize


def soft_masks(chosen, spec: GeneratorSpec, spaces=None, resample: str = 'bilinear') -> dict:
    """{feature space: [b, h, w, 1]}: the chosen region at the size of the feature, 0 to 1.

    chosen [b, h, w]: index into `spaces` (None = sam.spaces(spec)). resample: 'bilinear' as the
    paper says (section 3.3), or 'lanczos' as in the released code, clipped to 0 ... 1. W+ and Z+
    have no mask. Raises JaxinvError for another resample.
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
    """Masks [b, h, w] -> [b, *size]. Downsampling widens the filter, as in Pillow's resize.

    Equal to Pillow's figures on float images up to float32 rounding, 3e-6.
    """
    if resample not in RESAMPLERS:
        raise JaxinvError(f'resample is {resample!r}; it can be one of {", ".join(RESAMPLERS)}.')
    shape = (len(masks), *size)
    return jax.image.resize(masks, shape, RESAMPLERS[resample], antialias=True)
