"""Global directions (StyleCLIP, section 6): style channels that change a picture as a text says.

For each channel of StyleSpace the table (--config=text_directions) has the mean and deviation of
its style, and the unit vector by which CLIP's feature of a picture changes as the channel goes from
`deviations` below its mean to as many above. For a text t and a neutral text,

    dt = unit(T(t) - T(neutral))           in CLIP's space
    R_c = <matrix_c, dt>                   relevance of channel c
    ds_c = deviation_c R_c / max |R|       if |R_c| >= beta, else 0

and an edit adds alpha ds to the styles, in every picture alike.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents
from jaxinv.errors import JaxinvError
from jaxinv.generators import style_space
from jaxinv.networks import clip as clip_network
from jaxinv.prompts import features
from jaxinv.types import Generator, GeneratorSpec
from jaxinv.weights.text_edits import Channels, Directions

PROBE = 'a face'  # its first features tell one CLIP from another
_NO_COLOUR = ('torgb', 'to_img')  # ends of the layers that make the image; section 6 leaves them


class TextDirection(NamedTuple):
    """The direction of a text in StyleSpace."""

    styles: dict[str, np.ndarray]  # {layer: [1, channels]}; layers that no channel moves are absent
    channels: int  # that move
    strongest: float  # max |R|


def of_text(
    found: Directions,
    network: clip_network.Clip,
    prompt: str,
    *,
    neutral: str = 'a face',
    threshold: float = 0.15,
    templates: bool = True,
) -> TextDirection:
    """The direction that `prompt` has as against `neutral`.

    threshold: beta. Raises JaxinvError for a table of another CLIP, equal texts, and a threshold
    that no channel reaches.
    """
    _check_clip(found, network)
    target, start = features.text_features(network, [prompt, neutral], templates)
    length = np.linalg.norm(target - start)
    if length < 1e-6:
        raise JaxinvError(f'{prompt!r} and the neutral text {neutral!r} are the same to CLIP.')
    direction = (target - start) / length
    relevance = {layer: own.matrix @ direction for layer, own in found.layers.items()}
    strongest = max(float(np.abs(r).max(initial=0)) for r in relevance.values())
    if strongest < threshold or strongest == 0:
        raise JaxinvError(
            f'No channel has a similarity of {threshold:g} to {prompt!r}; the strongest has '
            f'{strongest:.3f}, so set text.threshold below that.'
        )
    styles, count = {}, 0
    for layer, own in relevance.items():
        kept = np.abs(own) >= max(threshold, np.finfo(np.float32).tiny)
        if kept.any():
            offset = np.where(kept, own / strongest, 0) * found.layers[layer].deviation
            styles[layer] = offset.astype(np.float32)[None]
            count += int(kept.sum())
    return TextDirection(styles, count, strongest)


def check_generator(found: Directions, generator: Generator, weights) -> None:
    """Raises JaxinvError if the table was made for another generator.

    Tuned generators have the W, and nearly the styles, of the one they came from.
    """
    channels = {layer: count for layer, _, count in generator.spec.style_layers}
    for layer, own in found.layers.items():
        if channels.get(layer) != own.mean.size:
            raise JaxinvError(
                f'the global directions are of {found.about.get("generator", "another one")}: '
                f'{generator.spec.name} has no layer {layer} of {own.mean.size} channels; make its '
                'own by --config=text_directions.'
            )
    known = np.asarray(found.about.get('w_probe') or np.zeros(0), np.float32)
    own = latents.mapping_fingerprint(generator, weights)
    if known.shape != own.shape or np.linalg.norm(own - known) > 0.1 * np.linalg.norm(known):
        raise JaxinvError(
            f'the global directions are of another W than that of {generator.spec.name}; make its '
            'own by --config=text_directions.'
        )


def probe_of(network: clip_network.Clip) -> list[float]:
    """A few numbers that tell a CLIP from others."""
    return [round(float(x), 5) for x in features.text_features(network, [PROBE])[0, :8]]


def _check_clip(found: Directions, network: clip_network.Clip) -> None:
    known, own = np.asarray(found.about.get('clip_probe') or np.zeros(0)), probe_of(network)
    size = clip_network.sizes_of(network.weights).features
    width = next(iter(found.layers.values())).matrix.shape[1]
    if size != width or known.shape != (len(own),) or np.abs(known - own).max() > 0.01:
        raise JaxinvError(
            f'the global directions were measured with another CLIP '
            f'({found.about.get("clip", "not recorded")}) than {network.origin}; give the same.'
        )


# --- Measuring ------------------------------------------------------------------------------------


def layers_of(spec: GeneratorSpec, max_size: int = 0) -> list[tuple[str, int]]:
    """(layer, channels) of the layers that are measured: not those of colour, up to max_size."""
    return [
        (layer, count)
        for layer, _, count in spec.style_layers
        if not layer.endswith(_NO_COLOUR)
        and (not max_size or int(layer[1:].partition('_')[0]) <= max_size)
    ]


@functools.lru_cache(maxsize=4)
def _style_sums(generator: Generator):
    def sums(weights, w, shift):
        """Sums of the styles, of codes w [b, w_dim], and of their squares, less `shift`."""
        styles = style_space.styles(generator, weights, w[:, None])
        moved = {layer: own - shift[layer][None] for layer, own in styles.items()}
        return jax.tree.map(lambda x: (x.sum(0), (x**2).sum(0)), moved)

    return jax.jit(sums)


def statistics(generator: Generator, weights: Any, w: np.ndarray, batch: int = 10_000):
    """{layer: (mean [channels], deviation [channels])} of the styles of codes w [n, w_dim]."""
    shift = style_space.styles(generator, weights, jnp.asarray(w[:1])[:, None])
    shift = {layer: own[0] for layer, own in shift.items()}  # near the mean: no cancellation
    total = None
    for start in range(0, len(w), batch):
        own = _style_sums(generator)(weights, w[start : start + batch], shift)
        own = jax.tree.map(lambda x: np.asarray(x, np.float64), own)
        total = own if total is None else jax.tree.map(np.add, total, own)
    found = {}
    for layer, (first, second) in total.items():
        mean = first / len(w)
        variance = np.maximum(second / len(w) - mean**2, 0)
        found[layer] = (mean + np.asarray(shift[layer]), np.sqrt(variance))
    return found


@functools.lru_cache(maxsize=4)
def effect_program(generator: Generator, clip_spec: clip_network.Spec, layers: tuple):
    """A compiled function (weights, clip, w [b, 1, w_dim], low, high, channel) -> [b, features].

    Unit changes of CLIP's feature as a channel goes from low to high, in each image. channel: its
    number in all `layers` [(layer, channels), ...] one after the other, so that one program serves
    all channels.
    """

    def effect(weights, clip_weights, w, low, high, channel):
        styles = style_space.styles(generator, weights, w)

        def offsets(value):
            found, first = {}, 0
            for layer, count in layers:
                chosen = (jnp.arange(count) == channel - first).astype(w.dtype)
                found[layer] = chosen[None] * (value - styles[layer])
                first += count
            return found

        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), offsets(low), offsets(high))
        codes = jnp.concatenate([w, w])
        images = generator.synthesize(weights, codes, style_offsets=both)[0]
        seen = features.image_features(clip_spec, clip_weights, images)
        change = seen[len(w) :] - seen[: len(w)]
        length = jnp.linalg.norm(change, axis=-1, keepdims=True)
        # A channel that does nothing in a picture does not count there.
        return jnp.where(length > 1e-6, change / jnp.maximum(length, 1e-6), 0)

    return jax.jit(effect)


def effects(
    generator: Generator,
    weights: Any,
    network: clip_network.Clip,
    codes: np.ndarray,
    table: dict,
    layers: tuple,
    channels: np.ndarray,
    deviations: float,
    batch: int,
) -> np.ndarray:
    """The matrix's rows [len(channels), features] of channels, numbered as in `effect_program`.

    codes [n, w_dim]: of the pictures; table: of `statistics`.
    """
    program = effect_program(generator, network.spec, layers)
    places = [(layer, i) for layer, count in layers for i in range(count)]
    batch = min(batch, len(codes))
    rows = []
    for channel in channels:
        layer, i = places[channel]
        mean, deviation = (float(x[i]) for x in table[layer])
        total = 0
        for start in range(0, len(codes), batch):
            own = codes[start : start + batch]
            padded = np.concatenate([own, np.repeat(own[-1:], batch - len(own), 0)])[:, None]
            found = program(
                weights,
                network.weights,
                padded,
                np.float32(mean - deviations * deviation),
                np.float32(mean + deviations * deviation),
                np.int32(channel),
            )
            total = total + np.asarray(found, np.float64)[: len(own)].sum(0)
        length = np.linalg.norm(total)
        rows.append(total / length if length > 1e-6 else np.zeros_like(total))
    return np.stack(rows).astype(np.float32)


def table_of(statistics_: dict, layers, measured: dict[str, np.ndarray], about) -> Directions:
    """The table from the statistics and {layer: rows of its first channels [m, features]}."""
    found = {}
    for layer, count in layers:
        rows = measured[layer]
        matrix = np.zeros((count, rows.shape[1]), np.float32)
        matrix[: len(rows)] = rows
        mean, deviation = (np.asarray(x, np.float32) for x in statistics_[layer])
        found[layer] = Channels(mean, deviation, matrix)
    return Directions(found, about)
