"""The metrics of SAM's report: those of metrics.py, LPIPS-vgg and PSNR at two sizes, valid pixels.

psnr, lpips_vgg_full   at the picture's own size
psnr_256, lpips_vgg    at 256 pixels (area averages)
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import metrics
from jaxinv.images import area_resize
from jaxinv.networks import lpips


def evaluate(targets, images, nets, valid=None) -> dict[str, np.ndarray]:
    """Every metric of images against targets, both [b, h, w, 3], as arrays [b].

    valid [b, h, w, 1]: where it is 0 the target stands in for the image, and means are over the
    rest. MS-SSIM, which is no mean over pixels, then counts the padding as reproduced.
    """
    targets, images = (np.asarray(x, np.float32) for x in (targets, images))
    share = np.ones(len(targets), np.float32)
    if valid is not None:
        valid = np.asarray(valid)
        share = np.mean(valid, axis=(1, 2, 3))
        images = valid * images + (1 - valid) * targets
    values = dict(metrics.evaluate(targets, images, nets))
    size = min(metrics.VGG_SIZE, targets.shape[1])
    small = metrics.evaluate(_reduced(targets, size), _reduced(images, size), {})
    values['psnr_256'] = small['psnr']
    with jax.default_matmul_precision('highest'):
        full = [_vgg(nets['vgg'], i[None], t[None]) for i, t in zip(images, targets, strict=True)]
    values['lpips_vgg_full'] = np.concatenate(jax.device_get(full))
    for name, value in values.items():
        if name.startswith('psnr'):
            values[name] = value + 10 * np.log10(share)
        elif name != 'ms_ssim':
            values[name] = value / share
    order = (
        'psnr', 'psnr_256', 'lpips_vgg', 'lpips_vgg_full', 'lpips_alex', 'mse', 'ms_ssim'
    )  # fmt: skip
    return {name: values[name] for name in order}


def _reduced(images, size: int) -> np.ndarray:
    """One by one, so that a device holds only that."""
    return np.concatenate([area_resize(jnp.asarray(image[None]), size) for image in images])


@jax.jit
def _vgg(weights, images, targets):
    return lpips.distance(lpips.features(weights, images), lpips.features(weights, targets))
