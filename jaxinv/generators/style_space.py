"""StyleSpace (Wu et al. 2021, arXiv:2011.12799): the styles s = affine(w) of every layer.

    own = style_space.styles(generator, weights, w)            # {layer: [b, channels]}
    offsets = style_space.offsets(generator.spec, {'b16_conv1': {45: 10.0}})
    images, _ = generator.synthesize(weights, w, style_offsets=offsets)

Layers are those of GeneratorSpec.style_layers, in the order of the network, which is the paper's:
of StyleGAN2 b4_conv1, b4_torgb, b8_conv0, b8_conv1, b8_torgb, ... have the paper's numbers 0, 1,
2, ... A style is what multiplies the channels of the layer's input, before the factors of
1/sqrt(fan_in), as NVIDIA's code and the paper count it.
"""

import difflib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.generators import checks
from jaxinv.types import Generator, GeneratorSpec, Weights


def affine(spec: GeneratorSpec, weights: Weights, layer: str):
    """(kernel [w_dim, channels], bias [channels]) of a layer: its style is w @ kernel + bias."""
    block, _, name = layer.partition('_')
    dense = weights['params']['synthesis'][block][name]['modulation']
    return dense['kernel'] * spec.style_gain, dense['bias']


def styles(generator: Generator, weights: Weights, w) -> dict:
    """{layer: [b, channels]} of codes w [b, 1 or num_ws, w_dim]; {} if it has no styles."""
    spec = generator.spec
    checks.check_w(w, spec)
    found = {}
    for layer, row, _ in spec.style_layers:
        kernel, bias = affine(spec, weights, layer)
        found[layer] = w[:, row if w.shape[1] > 1 else 0] @ kernel + bias[None]
    return found


def layer_name(spec: GeneratorSpec, layer: str) -> str:
    """The name of a layer that is given by its name or by its number. Raises JaxinvError."""
    names = [name for name, _, _ in spec.style_layers]
    if not names:
        raise JaxinvError(f'{spec.name} has no layers with styles.')
    if layer in names:
        return layer
    if layer.isdecimal() and len(layer) < 5 and int(layer) < len(names):
        return names[int(layer)]
    close = difflib.get_close_matches(layer, names, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise JaxinvError(
        f'No style of a layer {layer!r}.{hint} {spec.name} has {", ".join(names)}, or their '
        f'numbers 0 ... {len(names) - 1}.'
    )


def offsets(spec: GeneratorSpec, changes: Mapping[str, Mapping[int, float]]) -> dict:
    """style_offsets {layer: [1, channels]} of changes {layer: {channel: change}}.

    Raises JaxinvError for a layer or a channel that the generator does not have.
    """
    counts = {name: count for name, _, count in spec.style_layers}
    found = {}
    for layer, values in changes.items():
        name = layer_name(spec, str(layer))
        offset = np.zeros((1, counts[name]), np.float32)
        for channel, change in values.items():
            if not 0 <= channel < counts[name]:
                raise JaxinvError(
                    f'{name} has the channels 0 ... {counts[name] - 1}, not {channel}.'
                )
            offset[0, channel] = change
        found[name] = jnp.asarray(offset)
    return found
