"""Checks of the arguments of every generator's functions; all raise JaxinvError."""

import difflib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.types import GeneratorSpec


def check_z(z, spec: GeneratorSpec) -> None:
    """z must be [b, z_dim]."""
    if z.ndim != 2 or z.shape[1] != spec.z_dim:
        raise JaxinvError(f'z has shape {list(z.shape)}; {spec.name} takes [b, {spec.z_dim}].')


def check_label(label, batch: int, spec: GeneratorSpec) -> None:
    """label must be [b, label_dim], or None for a generator without classes."""
    if label is None and not spec.label_dim:
        return
    wanted = f'[{batch}, {spec.label_dim}]' if spec.label_dim else 'None'
    if label is None or label.shape != (batch, spec.label_dim) or not spec.label_dim:
        given = 'None' if label is None else f'of shape {list(label.shape)}'
        raise JaxinvError(f'label is {given}; {spec.name} takes {wanted}.')


def check_w(w, spec: GeneratorSpec) -> None:
    """w must be [b, 1, w_dim] or [b, num_ws, w_dim]."""
    if w.ndim != 3 or w.shape[1] not in (1, spec.num_ws) or w.shape[2] != spec.w_dim:
        raise JaxinvError(
            f'w has shape {list(w.shape)}; {spec.name} takes [b, 1, {spec.w_dim}] (W) or '
            f'[b, {spec.num_ws}, {spec.w_dim}] (W+).'
        )


def check_taps(taps, spec: GeneratorSpec) -> None:
    """taps must name features of the generator."""
    unknown = set(taps) - {feature for feature, _ in spec.feature_shapes}
    if unknown:
        raise JaxinvError(
            f'No feature {sorted(unknown)[0]!r} to tap; {spec.name} has '
            f'{", ".join(feature for feature, _ in spec.feature_shapes)}.'
        )


def check_style_offsets(offsets, batch: int, spec: GeneratorSpec) -> None:
    """offsets must be {layer: [batch or 1, channels]} of layers of the generator."""
    channels = {layer: count for layer, _, count in spec.style_layers}
    for layer, offset in offsets.items():
        if layer not in channels:
            close = difflib.get_close_matches(str(layer), list(channels), n=1)
            hint = f' Did you mean {close[0]!r}?' if close else ''
            raise JaxinvError(
                f'No style of a layer {layer!r}.{hint} {spec.name} has '
                f'{", ".join(channels) or "no layers with styles"}.'
            )
        if offset.shape not in ((1, channels[layer]), (batch, channels[layer])):
            raise JaxinvError(
                f'style_offsets of {layer!r} have shape {list(offset.shape)}; allowed: '
                f'{[1, channels[layer]]} or {[batch, channels[layer]]}.'
            )


def styles_by_block(offsets, batch: int, spec: GeneratorSpec) -> dict:
    """synthesize's style_offsets, checked: {'b8': {'conv0': [batch or 1, channels], ...}, ...}."""
    offsets = offsets or {}
    check_style_offsets(offsets, batch, spec)
    blocks: dict = {}
    for layer, offset in offsets.items():
        block, _, name = layer.partition('_')
        blocks.setdefault(block, {})[name] = offset
    return blocks


def synthesis_arguments(weights, w, noise, taps, spec: GeneratorSpec) -> tuple:
    """synthesize's arguments, checked: (w [b, num_ws, w_dim], {layer: map or None}, taps)."""
    taps = taps or {}
    check_w(w, spec)
    check_taps(taps, spec)
    maps = noise_maps(noise, weights, spec, len(w))
    return jnp.broadcast_to(w, (len(w), spec.num_ws, spec.w_dim)), maps, taps


def normal_maps(key, shapes) -> dict:
    """Unit normals {layer: array} of `shapes` {layer: shape}, a key for each layer."""
    return {
        layer: jax.random.normal(jax.random.fold_in(key, i), shape)
        for i, (layer, shape) in enumerate(shapes.items())
    }


def batched(noise: dict) -> dict:
    """Noise maps {layer: [h, w, 1]} as synthesis takes them: [1, h, w, 1]."""
    return {layer: x[None] for layer, x in noise.items()}


def noise_maps(noise, weights, spec: GeneratorSpec, batch: int) -> dict:
    """{layer: [b or 1, h, w, 1] or None} for every layer, from synthesize's argument `noise`."""
    shapes = dict(spec.noise_shapes)
    if hasattr(noise, 'dtype') and jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
        if noise.shape:
            raise JaxinvError(f'noise is an array of keys {list(noise.shape)}; one key is allowed.')
        return normal_maps(noise, {layer: (batch, *shape) for layer, shape in shapes.items()})
    if isinstance(noise, str) and noise == 'none':
        return dict.fromkeys(shapes)
    if isinstance(noise, str) and noise == 'const':
        noise = {layer: weights['buffers']['noise'][layer][None] for layer in shapes}
    if not isinstance(noise, Mapping):
        given = repr(noise) if isinstance(noise, str) else f'of type {type(noise).__name__}'
        raise JaxinvError(
            f"noise is {given}; allowed: 'const', 'none', a key (jax.random.key(0)) or a dict of "
            f'maps.'
        )
    if set(noise) != set(shapes):
        odd = sorted(set(noise) ^ set(shapes))[0]
        raise JaxinvError(
            f'Noise maps must be given for exactly {", ".join(shapes)}; {odd!r} is '
            f'{"unknown" if odd in noise else "missing"}.'
        )
    for layer, shape in shapes.items():
        if noise[layer].shape not in ((1, *shape), (batch, *shape)):
            raise JaxinvError(
                f'Noise map {layer!r} has shape {list(noise[layer].shape)}; allowed: '
                f'{[1, *shape]} or {[batch, *shape]}.'
            )
    return noise
