"""How close images are to their targets: one number per image and metric.

Symbols: x, y are images [b, h, w, 3], float RGB of about [-1, 1]; every metric returns [b].

  lpips_alex  LPIPS with AlexNet at full resolution, as in PTI's tuning. 0 is equal, 1 unalike.
  lpips_vgg   LPIPS with VGG16 on the image reduced to 256 px by area averaging (as in PTI's
              projection and in SAM; smaller images as they are). 0 is equal, 1 unalike.
  mse         mean squared difference in [-1, 1], PTI's L2: four times that of [0, 1] images.
  psnr        dB, of images in [0, 1], clipped: -10 log10(MSE). Infinite for equal images.
  ms_ssim     in [0, 1], of images in [0, 1], clipped; 1 is equal.

The first three take the values as they are, so clip first what should be judged as seen.

The metrics of SAM's report: those of metrics.py, LPIPS-vgg and PSNR at two sizes, valid pixels.

psnr, lpips_vgg_full   at the picture's own size
psnr_256, lpips_vgg    at 256 pixels (area averages)

"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import pixels
from jaxinv.networks import lpips
from jaxinv.pixels import area_resize

VGG_SIZE = 256  # pixels; larger images are reduced to it for lpips_vgg

# Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity": weights of the scales,
# finest first; window and constants of Wang et al. 2004 for a data range of 1.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2


def mse(x, y):
    """Mean squared difference, [b]; 0 is equal, 4 the distance of black from white."""
    return jnp.mean(jnp.square(x - y), axis=(1, 2, 3))


def psnr(x, y):
    """Peak signal-to-noise ratio in dB of the images as [0, 1], [b]; infinite where equal."""
    return -10 * jnp.log10(mse(_unit(x), _unit(y)))


def ms_ssim(x, y):
    """Multi-scale structural similarity of the images as [0, 1], [b]; per channel, then the mean.

    Five scales, each half the last (2x2 means). Images below 176 px have room for fewer, and the
    remaining weights are then scaled to sum to 1. A negative term counts as 0. Raises ValueError
    below 11 px, the size of the window.
    """
    height, width = x.shape[1:3]
    if min(height, width) < _WINDOW:
        raise ValueError(f'ms_ssim needs images of at least {_WINDOW} px, not {height}x{width}.')
    scales = 1
    while scales < len(_SCALE_WEIGHTS) and min(height, width) >> scales >= _WINDOW:
        scales += 1
    weights = np.float32(_SCALE_WEIGHTS[:scales])
    weights /= weights.sum()
    x, y, product = _unit(x), _unit(y), 1.0
    for scale, weight in enumerate(weights):
        full, contrast = ssim_terms(x, y)
        term = full if scale == scales - 1 else contrast
        product = product * jnp.maximum(term, 0) ** weight
        if scale < scales - 1:
            x, y = _halve(x), _halve(y)
    return jnp.mean(product, axis=-1)


def ssim_terms(x, y):
    """Mean SSIM and mean of its contrast-structure factor, each [b, c], of images in [0, 1].

    Wang et al. 2004, equations 6 and 13, with an 11 px Gaussian window of sigma 1.5 that stays
    inside the image.
    """
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return jnp.mean(luminance * contrast, axis=(1, 2)), jnp.mean(contrast, axis=(1, 2))


def lpips_alex(weights, x, y):
    """LPIPS with AlexNet at the images' own resolution, [b]."""
    return lpips.distance(lpips.features(weights, x), lpips.features(weights, y))


def lpips_vgg(weights, x, y):
    """LPIPS with VGG16 at 256 px or below, [b]."""
    x, y = (_at_most(images, VGG_SIZE) for images in (x, y))
    return lpips.distance(lpips.features(weights, x), lpips.features(weights, y))


def evaluate(
    targets,
    images,
    lpips_weights: Mapping[str, Any],
    microbatch: int = 4,  # images at a time; bounds the memory, not the result
) -> dict[str, np.ndarray]:
    """Every metric of `images` against `targets`, both [b, h, w, 3], as numpy arrays [b].

    lpips_weights: {'alex': lpips.load('alex'), 'vgg': lpips.load('vgg')}; one that is left out is
    not computed, nor is ms_ssim of images below 11 px. Raises ValueError if the shapes differ.
    """
    targets, images = np.asarray(targets, np.float32), np.asarray(images, np.float32)
    if targets.shape != images.shape or targets.ndim != 4 or targets.shape[-1] != 3:
        raise ValueError(f'targets {targets.shape} and images {images.shape} are not [b, h, w, 3].')
    unknown = set(lpips_weights) - {'alex', 'vgg'}
    if unknown or microbatch < 1:
        raise ValueError(
            f'lpips_weights {sorted(lpips_weights)} must be of alex and vgg, and microbatch '
            f'{microbatch} at least 1.'
        )
    lpips_weights = dict(lpips_weights)
    size = max(1, min(microbatch, len(images)))
    parts = []
    for start in range(0, len(images), size):
        x, y = (_padded(a[start : start + size], size) for a in (images, targets))
        with jax.default_matmul_precision('highest'):  # else TF32 on GPUs, bfloat16 on TPUs
            parts.append(jax.device_get(_all(lpips_weights, x, y)))
    if not parts:
        return {name: np.zeros(0, np.float32) for name in _names(lpips_weights)}
    names = [name for name in _names(lpips_weights) if name in parts[0]]
    return {n: np.concatenate([p[n] for p in parts])[: len(images)] for n in names}


@jax.jit
def _all(weights, x, y):
    result = {'mse': mse(x, y), 'psnr': psnr(x, y)}
    if min(x.shape[1:3]) >= _WINDOW:
        result['ms_ssim'] = ms_ssim(x, y)
    if 'alex' in weights:
        result['lpips_alex'] = lpips_alex(weights['alex'], x, y)
    if 'vgg' in weights:
        result['lpips_vgg'] = lpips_vgg(weights['vgg'], x, y)
    return result


def _names(weights):
    return [f'lpips_{net}' for net in ('alex', 'vgg') if net in weights] + [
        'mse',
        'psnr',
        'ms_ssim',
    ]


def _padded(images, size):
    """Repeats the last image, so that the rest of a batch runs in the program already compiled."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])


def _unit(x):
    return jnp.clip((x + 1) / 2, 0, 1)


def _at_most(x, size):
    return pixels.area_resize(x, size) if min(x.shape[1:3]) > size else x


def _halve(x):
    b, h, w, c = x.shape  # an odd last row or column is left out
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _blur(x):
    """Gaussian window, positions inside the image only, as two products with banded matrices."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    window /= window.sum()
    rows, columns = (_band(n, window).astype(x.dtype) for n in x.shape[1:3])
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum('ph,bhwc->bpwc', rows, x, precision=highest)
    return jnp.einsum('qw,bpwc->bpqc', columns, x, precision=highest)


def _band(length, window):
    matrix = np.zeros((length - len(window) + 1, length))
    for i, row in enumerate(matrix):
        row[i : i + len(window)] = window
    return matrix


def evaluate_valid(targets, images, nets, valid=None) -> dict[str, np.ndarray]:
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
    values = dict(evaluate(targets, images, nets))
    size = min(VGG_SIZE, targets.shape[1])
    small = evaluate(_reduced(targets, size), _reduced(images, size), {})
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
