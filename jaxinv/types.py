"""The values every part of jaxinv passes around, and the meaning of their axes.

Symbols, fixed here once:
  b         batch: images, identities or samples
  h, w, c   image or feature height, width, channels (NHWC everywhere)
  k         rows of a latent: 1 (the space W) or num_ws (the space W+)
Images are float32 RGB, about [-1, 1] and not clamped, unless a name ends in `_uint8`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

Shape = tuple[int, ...]
Weights = dict[str, Any]  # {'params': what tuning may move, 'buffers': w_avg and noise constants}


@dataclasses.dataclass(frozen=True)
class GeneratorSpec:
    """What there is to know about a generator without its weights."""

    name: str
    resolution: int  # pixels; images are square
    z_dim: int
    w_dim: int
    num_ws: int  # rows of a W+ latent
    label_dim: int = 0  # 0 = unconditional
    noise_shapes: tuple[tuple[str, Shape], ...] = ()  # (name, (h, w, 1)); () = takes no noise
    feature_shapes: tuple[tuple[str, Shape], ...] = ()  # SAM's names: ('F4', (16, 16, c)), ...
    # Codes are normals cut at 2 and scaled by this (BigGAN); None = plain normals.
    z_truncation: float | None = None
    # An inversion moves the first so many numbers of every row of w; the rest, which is the class
    # where w = [z, embedding of the class], stays. None = all of them.
    moving_dims: int | None = None
    # For generators that come in any size: what makes them again (see generators.FAMILIES).
    family: str = ''
    arguments: tuple[tuple[str, Any], ...] = ()
    # What is known of its pictures: 'ffhq' = FFHQ's W and alignment, 'faces' = only aligned like
    # FFHQ, 'cars' = like LSUN's, 512 x 384 between black bars; '' = nothing.
    domain: str = ''

    @property
    def latent(self) -> str:
        """What papers call the code: 'W', or 'Z' where z is in w without a mapping network."""
        return 'W' if self.moving_dims is None else 'Z'


Tap = Callable[[Any], Any]  # a feature map [b, h, w, c] -> what takes its place, same shape


class Affine(NamedTuple):
    """The tap scale * x + shift. Both broadcast against [b, h, w, c]."""

    scale: Any
    shift: Any

    def __call__(self, x):
        return self.scale * x + self.shift


class Generator(NamedTuple):
    """A generator as a value: its spec and three pure functions.

    init(key) -> weights
        Random weights in the right shapes, for tests.
    map(weights, z [b, z_dim]) -> w [b, w_dim]
        The mapping network, without truncation. Class-conditional ones take label [b, label_dim],
        one-hot or a mixture, as the third argument.
    synthesize(weights, w [b, k, w_dim], noise='const', taps=None) -> (images, features)
        images [b, h, w, 3]; features {'F4': [b, 16, 16, c], ...}, as the next layer sees them
        (after their tap). noise: 'const' uses weights['buffers']['noise'], 'none' uses none, a key
        (jax.random.key) draws maps, other ones for every layer and image: the same for the same key
        and batch size, others if a batch is split. A dict {name: [b or 1, h, w, 1]} (unit RMS,
        before the layer's strength) uses those maps, which may be optimised.
        taps: {feature name: Tap}; a tap sees the whole batch, so it may mix its examples.
    """

    spec: GeneratorSpec
    init: Callable[..., Weights]
    map: Callable[..., Any]
    synthesize: Callable[..., tuple[Any, dict[str, Any]]]
