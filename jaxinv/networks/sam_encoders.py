"""SAM's encoders: a picture and masks -> w_plus and feature offsets, as pure functions.

One network for each latent space (SAM, appendix 6.2). Its input has four channels of SIZE pixels:
the picture, and the mask of the regions that are inverted in its space.

  w_plus     the compact encoder (compact_encoder.py), with a difference from the first row for each
             other row, of rank RANK
  F4, F6 ... EfficientNet-Lite0 up to the maps of the feature's size, and a convolution from these
             to its channels

The paper takes e4e, and ResNet-18 cut off in the same way. There an offset depends on the picture
and the mask alone; here, with Spec.sees_feature, also on the feature f that w_plus gives:

  offset = convolution - replaced * f     `replaced` [c], learned: 0 as in the paper, 1 = a new
                                          feature in place of f

so that what w_plus has drawn can be taken back. Weights are named SPACE/LAYER.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.networks import compact_encoder, efficientnet
from jaxinv.nn import ops
from jaxinv.pixels import area_resize
from jaxinv.types import GeneratorSpec

SIZE = 256  # pixels that pictures and masks are brought to
RANK = 96  # of the differences between rows of w_plus
WINDOW = 3  # of the convolution to a feature's channels
W_PLUS = 'w_plus'  # begins the names of that encoder's weights


class Spec(NamedTuple):
    """Encoders without their weights."""

    num_ws: int  # rows of W+
    w_dim: int
    features: tuple[tuple[str, int, int], ...]  # (space, pixels a side, channels), early ones first
    sees_feature: bool = True

    @property
    def spaces(self) -> tuple[str, ...]:
        """The latent spaces, the most editable first."""
        return ('W+', *(space for space, _, _ in self.features))


class Encoders(NamedTuple):
    """Encoders with their weights."""

    spec: Spec
    weights: dict[str, jax.Array]  # named and shaped as `shapes(spec)`
    average: jax.Array  # [w_dim]: the mean of W that codes are differences from


class Level(NamedTuple):
    """A map of the trunk that is read: the stem's, or the last of a stage."""

    index: int  # in efficientnet.trunk
    size: int  # pixels a side
    channels: int


def levels() -> list[Level]:
    """All maps that can be read, for inputs of SIZE pixels."""
    size = SIZE // 2
    found = [Level(0, size, efficientnet.shapes()['stem/kernel'][-1])]
    for i, block in enumerate(efficientnet.blocks()):
        size //= block.stride
        if i + 1 in compact_encoder.STAGES:
            found.append(Level(i + 1, size, block.outputs))
    return found


def levels_of(space: str, size: int) -> list[Level]:
    """The maps that the encoder of a feature of `size` pixels reads.

    Raises JaxinvError if the trunk has none of this size.
    """
    found = [level for level in levels() if level.size == size]
    if not found:
        known = ', '.join(str(n) for n in sorted({level.size for level in levels()}))
        raise JaxinvError(
            f'the feature {space} has {size} pixels; an encoder can be made for one of {known}.'
        )
    return found


def spec_of(generator: GeneratorSpec, features=(), sees_feature: bool = True) -> Spec:
    """The Spec for a generator. features: names of some; () = all that it has.

    Raises JaxinvError for a feature that it does not have, or of a size that the trunk does not.
    """
    known = dict(generator.feature_shapes)
    wrong = [name for name in features if name not in known]
    if wrong or not known:
        raise JaxinvError(
            f'the features {wrong or "of SAM"} are not of {generator.name}; it has '
            f'{", ".join(known) or "none"}.'
        )
    chosen = [(n, shape[0], shape[2]) for n, shape in known.items() if n in (features or known)]
    for name, size, _ in chosen:
        levels_of(name, size)
    return Spec(generator.num_ws, generator.w_dim, tuple(chosen), sees_feature)


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; kernels are HWIO, of linear layers [in, out]."""
    own = compact_encoder.shapes(spec.w_dim, channels=4)
    own |= compact_encoder.row_shapes(spec.num_ws, spec.w_dim, RANK)
    found = {f'{W_PLUS}/{name}': shape for name, shape in own.items()}
    for space, size, channels in spec.features:
        read = levels_of(space, size)
        own = efficientnet.shapes(trunk_only=True, channels=4, depth=read[-1].index)
        inputs = sum(level.channels for level in read)
        own |= {
            'offset/kernel': (WINDOW, WINDOW, inputs, channels),
            'offset/bias': (channels,),
            'maps/centre': (inputs,),
            'maps/scale': (inputs,),
        }
        if spec.sees_feature:
            own['replaced'] = (channels,)
        found |= {f'{space}/{name}': shape for name, shape in own.items()}
    return found


def part(weights: dict, name: str) -> dict:
    """The weights of one encoder, W_PLUS or a feature, without its name."""
    begin = f'{name}/'
    return {k.removeprefix(begin): x for k, x in weights.items() if k.startswith(begin)}


def w_plus(spec: Spec, weights: dict, average, images, mask) -> jax.Array:
    """[b, num_ws, w_dim] of images [b, h, h, 3] in [-1, 1] and the mask [b, h', h', 1] of W+."""
    own = part(weights, W_PLUS)
    found = compact_encoder.summary(own, joined(images, mask))
    rows = compact_encoder.rows_of_summary(own, found, spec.num_ws)
    return rows + average.astype(found.dtype)[None, None]


def read_maps(spec: Spec, weights: dict, space: str, images, mask) -> jax.Array:
    """What the convolution to a feature's channels reads, [b, h, w, c]; arguments as of `content`.

    Channels of the trunk, centred and scaled to like size: a step of the training moves all weights
    of the convolution by as much.
    """
    (size,) = (size for name, size, _ in spec.features if name == space)
    read = levels_of(space, size)
    own = part(weights, space)
    maps = efficientnet.trunk(own, joined(images, mask), depth=read[-1].index)
    x = jnp.concatenate([maps[level.index] for level in read], -1)
    centre, scale = (own[f'maps/{k}'].astype(x.dtype) for k in ('centre', 'scale'))
    return (x - centre[None, None, None]) * scale[None, None, None]


def content(spec: Spec, weights: dict, space: str, images, mask) -> jax.Array:
    """What an encoder sees in the picture for its feature, [b, h, w, c].

    images [b, h, h, 3] in [-1, 1]; mask [b, h', h', 1]: 1 where the picture is inverted in `space`.
    """
    x = read_maps(spec, weights, space, images, mask)
    kernel, bias = (weights[f'{space}/offset/{k}'].astype(x.dtype) for k in ('kernel', 'bias'))
    return ops.conv(x, kernel) + bias[None, None, None]


def offset(spec: Spec, weights: dict, space: str, seen, feature) -> jax.Array:
    """What is added to the feature [b, h, w, c] before masking. seen: the `content` there."""
    if not spec.sees_feature:
        return seen
    return seen - weights[f'{space}/replaced'].astype(seen.dtype)[None, None, None] * feature


def joined(images, mask) -> jax.Array:
    """The four input channels [b, SIZE, SIZE, 4]."""
    return jnp.concatenate([area_resize(images, SIZE), area_resize(mask, SIZE)], -1)
