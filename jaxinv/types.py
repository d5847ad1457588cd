"""The types that all rooms share, and the meaning of their axes.

Symbols:
  b         batch: images, identities or samples
  h, w, c   height, width, channels of images and features (NHWC everywhere)
  k         rows of a latent: 1 (the space W) or num_ws (the space W+)
Images are float32 RGB, about [-1, 1] and not clamped; names of others end in `_uint8`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

Shape = tuple[int, ...]
Weights = dict[str, Any]  # {'params': tuned by PTI, 'buffers': w_avg, mapping network, noise ...}


@dataclasses.dataclass(frozen=True)
class GeneratorSpec:
    """The properties of a generator that do not depend on its weights."""

    name: str
    resolution: int  # pixels; images are square
    z_dim: int
    w_dim: int
    num_ws: int  # rows of a W+ latent
    label_dim: int = 0  # 0 = unconditional
    noise_shapes: tuple[tuple[str, Shape], ...] = ()  # (name, (h, w, 1)); () = takes no noise
    feature_shapes: tuple[tuple[str, Shape], ...] = ()  # SAM's names: ('F4', (16, 16, c)), ...
    # StyleSpace: (layer, row of w that it reads, channels) of each affine layer, in the order of
    # the network; () = none. Layer 'b8_conv0' has its weights in params/synthesis/b8/conv0.
    style_layers: tuple[tuple[str, int, int], ...] = ()
    style_gain: float = 1.0  # style = style_gain * w @ kernel + bias of these layers
    # z is drawn from normals truncated at 2 and scaled by this (BigGAN); None = plain normals.
    z_truncation: float | None = None
    # Leading dimensions of w that are optimised; None = all. The others are constant: the class
    # where w = [z, embedding of the class].
    moving_dims: int | None = None
    # Key in generators.FAMILIES, and the arguments of its factory; '' and () = no family.
    family: str = ''
    arguments: tuple[tuple[str, Any], ...] = ()
    # Pictures: 'ffhq' = FFHQ's W and alignment, 'faces' = FFHQ's alignment only, 'cars' = LSUN's,
    # 512 x 384 between black bars; '' = unknown.
    domain: str = ''
    # Of feature maps, and of those of LPIPS in optimised losses; None = the parameters' dtype.
    compute_dtype: str | None = None

    @property
    def latent(self) -> str:
        """The papers' name of the code: 'W', or 'Z' where w contains z (no mapping network)."""
        return 'W' if self.moving_dims is None else 'Z'


Tap = Callable[[Any], Any]  # a feature map [b, h, w, c] -> its replacement, same shape


class Affine(NamedTuple):
    """The tap scale * x + shift. Both broadcast against [b, h, w, c]."""

    scale: Any
    shift: Any

    def __call__(self, x):
        return self.scale * x + self.shift


class Generator(NamedTuple):
    """A generator as a value: its spec and three pure functions.

    init(key) -> weights
        Random weights, for shapes and tests.
    map(weights, z [b, z_dim]) -> w [b, w_dim]
        The mapping network, without truncation. Class-conditional generators take label
        [b, label_dim], one-hot or a mixture, as the third argument.
    synthesize(weights, w [b, k, w_dim], noise='const', taps=None, style_offsets=None)
            -> (images, features)
        images [b, h, w, 3]; features {'F4': [b, 16, 16, c], ...}, after their taps. k: 1 or num_ws.
        noise: 'const' = weights['buffers']['noise']; 'none' = no noise; a key (jax.random.key) =
        random maps for every layer and image, which depend on the batch size, too; a dict
        {name: [b or 1, h, w, 1]} = these maps, unit RMS, before the layer's strength.
        taps: {feature name: Tap}. A tap gets the whole batch, so it may mix examples.
        style_offsets: {layer of spec.style_layers: [b or 1, channels]}, added to the style
        affine(w) of the layer (StyleSpace, Wu et al. 2021); layers left out keep theirs.
    """

    spec: GeneratorSpec
    init: Callable[..., Weights]
    map: Callable[..., Any]
    synthesize: Callable[..., tuple[Any, dict[str, Any]]]
