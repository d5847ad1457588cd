"""Encoders of photographs to W+, as pure functions: the field's on IR-SE50, and a compact one.

psp                    Richardson et al. 2021, arXiv:2008.00951, section 3: every row of W+ from one
                       of three levels of a feature pyramid
e4e                    Tov et al. 2021, arXiv:2102.02766, section 4: one w for all rows, and for
                       each later row a difference
w                      one w for all rows, from the mean of the last features
restyle_psp, _e4e      Alaluf et al. 2021, arXiv:2104.02699, section 3: as psp and e4e, all rows
                       from the last features; refined from the image of the codes before
compact                one w for all rows, from EfficientNet-Lite0 (compact_encoder.py)
compact_w_plus         the same with a difference for each later row
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.networks import compact_encoder, ir_se50
from jaxinv.pixels import area_resize

KINDS = ('psp', 'e4e', 'w', 'restyle_psp', 'restyle_e4e')  # of the field
COMPACT, COMPACT_W_PLUS = OURS = ('compact', 'compact_w_plus')  # jaxinv's own
SIZE = 256  # pixels of the encoders' training pictures
COARSE, MIDDLE = 3, 7  # the first rows of the second and third level
_TAPS = (6, 20, 23)  # units whose features are the levels, finest first
_SLOPE = 0.01  # of the leaky ReLUs of the heads
WIDTH = ir_se50.FEATURES  # numbers of w, on IR-SE50


class Spec(NamedTuple):
    """An encoder without its weights."""

    kind: str  # of KINDS or OURS
    num_ws: int  # rows of W+
    from_average: bool = True  # codes are differences from the average w
    w_dim: int = WIDTH  # numbers of w; another only of a compact encoder

    @property
    def channels(self) -> int:
        """Of the input: pictures, and for ReStyle those of the codes before."""
        return 6 if self.is_restyle else 3

    @property
    def is_restyle(self) -> bool:
        return self.kind.startswith('restyle')


class Encoder(NamedTuple):
    """An encoder with its weights."""

    spec: Spec
    weights: dict[str, jax.Array]  # named and shaped as `shapes(spec)`
    average: jax.Array  # [num_ws, w_dim]: the average w that codes are differences from


def spatial_sizes(spec: Spec) -> list[int]:
    """Pixels a side, for 256 x 256 pictures, of the features that each row's head reads."""
    if spec.is_restyle:
        return [16] * spec.num_ws
    return [16 if i < COARSE else 32 if i < MIDDLE else 64 for i in range(spec.num_ws)]


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; kernels are HWIO, of linear layers [in, out]."""
    if spec.kind in OURS:
        rows = compact_encoder.row_shapes(spec.num_ws, spec.w_dim)
        return compact_encoder.shapes(spec.w_dim) | (rows if spec.kind == COMPACT_W_PLUS else {})
    found = ir_se50.shapes(spec.channels)
    if spec.kind == 'w':
        return found | {'linear.weight': (WIDTH, WIDTH), 'linear.bias': (WIDTH,)}
    for row, size in enumerate(spatial_sizes(spec)):
        for i in range(int(math.log2(size))):
            name = f'styles.{row}.convs.{2 * i}'
            found |= {f'{name}.weight': (3, 3, WIDTH, WIDTH), f'{name}.bias': (WIDTH,)}
        name = f'styles.{row}.linear'
        found |= {f'{name}.weight': (WIDTH, WIDTH), f'{name}.bias': (WIDTH,)}
    if not spec.is_restyle:
        for i, inputs in ((1, 256), (2, 128)):
            name = f'latlayer{i}'
            found |= {f'{name}.weight': (1, 1, inputs, WIDTH), f'{name}.bias': (WIDTH,)}
    return found


def differences(
    spec: Spec, weights: dict, images: jax.Array, stage: int | None = None
) -> jax.Array:
    """Codes [b, num_ws, w_dim] before the average is added, of images [b, h, w, channels].

    Images are in [-1, 1]. stage: of e4e's training, the rows that have a difference of their own;
    None = all.
    """
    if spec.kind == COMPACT_W_PLUS:
        found = compact_encoder.summary(weights, images)
        return compact_encoder.rows_of_summary(weights, found, spec.num_ws)
    if spec.kind == COMPACT:
        w = compact_encoder.differences(weights, images)
        return jnp.broadcast_to(w[:, None], (len(w), spec.num_ws, spec.w_dim))
    found = ir_se50.body(weights, images)
    fine, middle, coarse = (found[i] for i in _TAPS)
    if spec.kind == 'w':
        w = _linear(weights, 'linear', jnp.mean(coarse, (1, 2)))
        return jnp.broadcast_to(w[:, None], (len(w), spec.num_ws, WIDTH))
    if spec.is_restyle:
        levels = [coarse] * spec.num_ws
    else:
        middle = _add_upsampled(coarse, ir_se50.convolve(weights, 'latlayer1', middle, 1, 0))
        fine = _add_upsampled(middle, ir_se50.convolve(weights, 'latlayer2', fine, 1, 0))
        levels = [
            coarse if i < COARSE else middle if i < MIDDLE else fine for i in range(spec.num_ws)
        ]
    rows = [_head(weights, f'styles.{i}', level) for i, level in enumerate(levels)]
    codes = jnp.stack(rows, 1)
    if not spec.kind.endswith('e4e'):
        return codes
    stage = spec.num_ws if stage is None else stage
    own = ((jnp.arange(spec.num_ws) > 0) & (jnp.arange(spec.num_ws) <= stage))[None, :, None]
    return codes[:, :1] + jnp.where(own, codes, 0)


def encode(encoder: Encoder, images: jax.Array) -> jax.Array:
    """w_plus [b, num_ws, w_dim] of images [b, h, w, 3] in [-1, 1], resized to 256 pixels by areas.

    Of a ReStyle encoder use `refine`. Raises JaxinvError for another shape.
    """
    spec = encoder.spec
    if spec.is_restyle:
        raise JaxinvError(f'a {spec.kind} encoder refines codes with a generator; use refine.')
    codes = differences(spec, encoder.weights, _resized(images))
    return codes + encoder.average[None] if spec.from_average else codes


def refine(
    encoder: Encoder, images: jax.Array, synthesize: Callable[[Any], jax.Array], steps: int
) -> list[jax.Array]:
    """Codes [b, num_ws, 512] after each of `steps` refinements by a ReStyle encoder.

    images [b, h, w, 3] in [-1, 1]. synthesize: w_plus [b, num_ws, 512] -> images of any size. The
    first step sees the image of the average w beside the photograph, each later one that of the
    codes so far.
    """
    spec = encoder.spec
    if not spec.is_restyle:
        raise JaxinvError(f'a {spec.kind} encoder makes codes in one pass; use encode.')
    images, found = _resized(images), []
    codes = jnp.broadcast_to(encoder.average[None], (len(images), spec.num_ws, WIDTH))
    for _ in range(steps):
        before = _resized(synthesize(codes))
        codes = codes + differences(spec, encoder.weights, jnp.concatenate([images, before], -1))
        found.append(codes)
    return found


def _resized(images):
    if images.ndim != 4 or images.shape[-1] != 3:
        raise JaxinvError(f'images {images.shape} are not [b, h, w, 3].')
    return images if images.shape[1] == SIZE else area_resize(images, SIZE)


def _head(weights, name, x):
    """One row of w from features [b, h, w, c]: strided convolutions down to one pixel."""
    i = 0
    while f'{name}.convs.{i}.weight' in weights:
        x = ir_se50.convolve(weights, f'{name}.convs.{i}', x, 2, 1)
        x = jax.nn.leaky_relu(x, _SLOPE)
        i += 2
    if x.shape[1:3] != (1, 1):
        raise JaxinvError(f'the features of the pictures end at {x.shape[1:3]} pixels, not one.')
    return _linear(weights, f'{name}.linear', x[:, 0, 0])


def _linear(weights, name, x):
    """A linear layer with an equalised learning rate."""
    kernel, bias = (weights[f'{name}.{part}'].astype(x.dtype) for part in ('weight', 'bias'))
    return x @ (kernel / math.sqrt(kernel.shape[0])) + bias[None]


def _add_upsampled(x, y):
    """x at the size of y, bilinear with corners aligned, plus y."""
    for axis in (1, 2):
        x = _upsample(x, axis, y.shape[axis])
    return x + y


def _upsample(x, axis, size):
    places = jnp.linspace(0, x.shape[axis] - 1, size, dtype=x.dtype)
    low = jnp.clip(jnp.floor(places).astype(int), 0, max(x.shape[axis] - 2, 0))
    high = jnp.minimum(low + 1, x.shape[axis] - 1)
    part = (places - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return jnp.take(x, low, axis) * (1 - part) + jnp.take(x, high, axis) * part
