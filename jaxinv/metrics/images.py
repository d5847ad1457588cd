"""How close images are to their targets: one number per image and metric.

Symbols: x, y are images [b, h, w, 3], float RGB of about [-1, 1]; every metric returns [b].

  lpips_alex      LPIPS with AlexNet at full resolution, as in PTI's tuning. 0 = equal, about 1 =
                  unalike (Zhang et al. 2018).
  lpips_vgg       LPIPS with VGG16 at 256 px by area averaging (smaller images as they are), as in
                  PTI's projection and in SAM.
  lpips_vgg_full  LPIPS with VGG16 at full resolution.
  mse             mean squared difference in [-1, 1], PTI's L2: four times that of [0, 1] images.
  psnr            dB, of images in [0, 1], clipped: -10 log10(MSE). Infinite for equal images.
  psnr_256        the same at 256 px by area averaging.
  ms_ssim         in [0, 1], of images in [0, 1], clipped; 1 = equal.

The same with the protocol in the name, for the evaluation's tables (PROTOCOLS): `_256` is at 256 px
by area averaging, smaller images as they are; `_full` and those without are at full resolution.

  lpips_alex_256  lpips_alex_full  lpips_vgg_256  lpips_vgg_full
  mse_signed      of pixels in [-1, 1]; mse_unit, mse_unit_256 of pixels in [0, 1], clipped
  psnr_unit       dB, peak 1, of pixels in [0, 1]; psnr_unit_256
  ms_ssim_full    ms_ssim_256

LPIPS and MSE take the values as they are; clip first what is to be judged as displayed.

Everything is computed at matmul precision 'highest' (policy: jaxinv/rendering.py).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import pixels, rendering
from jaxinv.errors import JaxinvError
from jaxinv.networks import lpips
from jaxinv.pixels import area_resize

METRICS = ('lpips_alex', 'lpips_vgg', 'mse', 'psnr', 'ms_ssim')  # of every report
SAM_METRICS = (  # of SAM's report, in the order of its table 1
    'psnr', 'psnr_256', 'lpips_vgg', 'lpips_vgg_full', 'lpips_alex', 'mse', 'ms_ssim',
)  # fmt: skip
PROTOCOLS = (  # names that say net or range, and resolution
    'lpips_alex_256', 'lpips_alex_full', 'lpips_vgg_256', 'lpips_vgg_full', 'mse_signed',
    'mse_unit', 'mse_unit_256', 'psnr_unit', 'psnr_unit_256', 'ms_ssim_full', 'ms_ssim_256',
)  # fmt: skip
SMALL = 256  # pixels; larger images are reduced to it for lpips_vgg and psnr_256
MICROBATCH = 4  # images a device holds at a time

# Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity": weights of the scales,
# finest first; window and constants of Wang et al. 2004 for a data range of 1.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2
_NETS = {  # that metrics need
    'lpips_alex': 'alex', 'lpips_vgg': 'vgg', 'lpips_vgg_full': 'vgg',
    'lpips_alex_256': 'alex', 'lpips_alex_full': 'alex', 'lpips_vgg_256': 'vgg',
}  # fmt: skip
_SAME = {  # {name: another name of the same number}
    'lpips_alex_full': 'lpips_alex', 'lpips_vgg_256': 'lpips_vgg', 'mse_signed': 'mse',
    'psnr_unit': 'psnr', 'psnr_unit_256': 'psnr_256', 'ms_ssim_full': 'ms_ssim',
}  # fmt: skip
_ALL = tuple(dict.fromkeys((*METRICS, *SAM_METRICS, *PROTOCOLS)))


def mse(x, y):
    """Mean squared difference, [b]; 0 = equal, 4 = the distance of black from white."""
    return jnp.mean(jnp.square(x - y), axis=(1, 2, 3))


def psnr(x, y):
    """Peak signal-to-noise ratio in dB of the images as [0, 1], [b]; infinite where equal."""
    return -10 * jnp.log10(mse(_unit(x), _unit(y)))


def ms_ssim(x, y):
    """Multi-scale structural similarity of the images as [0, 1], [b]; mean over the channels.

    Five scales, each half the last (2x2 means). Images below 176 px have room for fewer, and the
    remaining weights are scaled to sum to 1. A negative term counts as 0. Raises JaxinvError below
    11 px, the size of the window.
    """
    height, width = x.shape[1:3]
    if min(height, width) < _WINDOW:
        raise JaxinvError(f'ms_ssim needs images of at least {_WINDOW} px, not {height}x{width}.')
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
    return lpips_vgg_full(weights, _at_most(x, SMALL), _at_most(y, SMALL))


def lpips_vgg_full(weights, x, y):
    """LPIPS with VGG16 at the images' own resolution, [b]."""
    return lpips.distance(lpips.features(weights, x), lpips.features(weights, y))


def evaluate(
    targets,
    images,
    nets: Mapping[str, Any],
    valid=None,
    *,
    names: Sequence[str] = METRICS,
    microbatch: int = MICROBATCH,
) -> dict[str, np.ndarray]:
    """Metrics of `images` against `targets`: {name: float32 [b]}, in the order of `names`.

    targets, images: [b, h, w, 3], float of about [-1, 1] or uint8.
    nets: {'alex': LPIPS weights, 'vgg': ...}. Metrics of a net that is left out are not computed,
      nor is ms_ssim of images below 11 px.
    valid: [b, h, w, 1], 1 where a target counts and 0 where it is padding. The target replaces the
      image there, and all metrics but MS-SSIM are means over the rest. None = all pixels count.
    names: of METRICS, SAM_METRICS and PROTOCOLS.
    microbatch: images a device holds at a time (lpips_vgg_full: one). Bounds the memory, on the
      host too, where float copies are made of so many images; results differ by rounding only.

    Raises JaxinvError for other shapes, names, nets, or a microbatch below 1.
    """
    shapes = np.shape(targets), np.shape(images)
    if shapes[0] != shapes[1] or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise JaxinvError(
            f'targets are {list(shapes[0])} and images {list(shapes[1])}; both must be '
            '[b, h, w, 3].'
        )
    if valid is not None and np.shape(valid) != (*shapes[0][:3], 1):
        raise JaxinvError(f'valid is {list(np.shape(valid))}; it must be {[*shapes[0][:3], 1]}.')
    unknown = [*(set(nets) - set(_NETS.values())), *(set(names) - set(_ALL))]
    if unknown or microbatch < 1:
        raise JaxinvError(
            f'nets are {sorted(nets)}, names {list(names)} and microbatch {microbatch}; nets can '
            f"be 'alex' and 'vgg', names {', '.join(_ALL)}, and "
            'microbatch at least 1.'
        )
    small = min(shapes[0][1:3]) < _WINDOW
    names = [
        name for name in names
        if _NETS.get(name) in (None, *nets) and not (small and name.startswith('ms_ssim'))
    ]  # fmt: skip
    count = len(images)
    size = max(1, min(microbatch, count))
    batches = []
    for start in range(0, count, size):
        rows = slice(start, start + size)
        own = None if valid is None else np.asarray(valid[rows], np.float32)
        found = _evaluate_batch(_float(targets[rows]), _float(images[rows]), own, nets, names, size)
        batches.append(found)
    return {
        name: np.concatenate([np.zeros(0, np.float32), *(found[name] for found in batches)])
        for name in names
    }


def _evaluate_batch(targets, images, valid, nets, names, size: int) -> dict[str, np.ndarray]:
    """Metrics of at most `size` images; fewer are padded, which needs no second compilation."""
    count, share = len(images), np.ones(len(images), np.float32)
    if valid is not None:
        share = np.mean(valid, axis=(1, 2, 3))
        images = valid * images + (1 - valid) * targets
    together = tuple(name for name in names if name != 'lpips_vgg_full')
    needed = {_NETS[name] for name in together if name in _NETS}
    with rendering.full_precision():
        padded = _padded(images, size), _padded(targets, size)
        own = {net: nets[net] for net in sorted(needed)}
        values = jax.device_get(_metrics(own, *padded, names=together))
        values = {name: x[:count] for name, x in values.items()}
        if 'lpips_vgg_full' in names:
            pairs = zip(images, targets, strict=True)
            values['lpips_vgg_full'] = np.concatenate(
                [jax.device_get(_vgg_full(nets['vgg'], x[None], y[None])) for x, y in pairs]
            )
    for name, value in values.items():
        if name.startswith('psnr'):
            values[name] = value + 10 * np.log10(share)
        elif not name.startswith('ms_ssim'):
            values[name] = value / share
    return values


@functools.partial(jax.jit, static_argnames='names')
def _metrics(nets, x, y, names: tuple[str, ...]) -> dict[str, Any]:
    small_x, small_y = _at_most(x, SMALL), _at_most(y, SMALL)
    functions = {
        'lpips_alex': lambda: lpips_alex(nets['alex'], x, y),
        'lpips_vgg': lambda: lpips_vgg(nets['vgg'], x, y),
        'mse': lambda: mse(x, y),
        'mse_unit': lambda: mse(_unit(x), _unit(y)),
        'mse_unit_256': lambda: mse(_unit(small_x), _unit(small_y)),
        'psnr': lambda: psnr(x, y),
        'psnr_256': lambda: psnr(small_x, small_y),
        'ms_ssim': lambda: ms_ssim(x, y),
        'ms_ssim_256': lambda: ms_ssim(small_x, small_y),
        'lpips_alex_256': lambda: lpips_alex(nets['alex'], small_x, small_y),
    }
    functions |= {new: functions[old] for new, old in _SAME.items()}
    return {name: functions[name]() for name in names}


_vgg_full = jax.jit(lpips_vgg_full)


def _float(images) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return pixels.to_float(images, np)
    return np.asarray(images, np.float32)


def _padded(images, size):
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])


def _unit(x):
    return jnp.clip((x + 1) / 2, 0, 1)


def _at_most(x, size):
    return area_resize(x, size) if min(x.shape[1:3]) > size else x


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
