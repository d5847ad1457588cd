"""Edits by text in the spelling of edits (jaxinv/edits), for `edits.parse(..., sources=...)`.

text:a face with a beard=1.5     strength alpha along the global direction of the text
mapper:beard.pt=1                the move of a mapper (StyleCLIP's .pt or --config=train_mapper)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxinv.edits import Direction, EditError, styles_direction
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded
from jaxinv.networks import clip as clip_network
from jaxinv.networks import text_mapper
from jaxinv.prompts import features, global_directions
from jaxinv.settings import TextEdits
from jaxinv.text import printable
from jaxinv.types import Generator
from jaxinv.weights.addresses import is_address
from jaxinv.weights.clip import load_clip
from jaxinv.weights.text_edits import load_directions, load_mapper


def make(
    settings: TextEdits, generator: Generator, weights: Any, log: Callable = print
) -> dict[str, Callable[[str], Direction]]:
    """{'text': function, 'mapper': function}, each of what follows its prefix.

    CLIP and the table of directions are read when the first text is asked for. The functions raise
    EditError.
    """

    @functools.cache
    def read():
        if not settings.clip:
            raise EditError(
                'text.clip is not set; give the file, folder or address of a CLIP '
                '(docs/text_edits.md)'
            )
        if not settings.directions:
            raise EditError(
                'text.directions is not set; make the global directions of your generator by '
                '--config=text_directions, and give their folder (docs/text_edits.md)'
            )
        directions = load_directions(settings.directions)
        global_directions.check_generator(directions, generator, weights)
        network = _clip(settings.clip, settings.activation or None, _changed(settings.clip), log)
        if network.is_random:
            log('text.clip is random: its edits mean nothing, and are named so.', flush=True)
        return directions, network

    def text(prompt: str) -> Direction:
        try:
            directions, network = read()
            found = global_directions.of_text(
                directions,
                network,
                prompt,
                neutral=settings.neutral,
                threshold=settings.threshold,
                templates=settings.templates,
            )
        except EditError:
            raise
        except JaxinvError as error:
            raise EditError(f'text:{printable(prompt, 60)}: {error}') from error
        name = f'text:{printable(prompt, 80)}'
        if network.is_random:
            name += f' ({clip_network.RANDOM})'
        return styles_direction(name, found.styles)

    def mapper(source: str) -> Direction:
        try:
            features.check_latent(generator.spec)
            found = load_mapper(source)
        except JaxinvError as error:
            raise EditError(f'mapper:{printable(source, 60)}: {error}') from error
        return mapper_direction(found, source, generator)

    return {'text': text, 'mapper': mapper}


def mapper_direction(found: text_mapper.Mapper, source: str, generator: Generator) -> Direction:
    """The direction of a mapper: strength 1 is StyleCLIP's w + 0.1 M(w). Raises EditError."""
    width = found.weights[f'{found.spec.groups[0]}/0/bias'].size
    if width != generator.spec.w_dim:
        raise EditError(
            f'mapper:{printable(source, 60)} takes codes of {width} numbers; '
            f'{generator.spec.name} has {generator.spec.w_dim}'
        )
    stem = source if is_address(source) else expanded(source).stem
    name = f'mapper:{printable(stem, 80)}'
    if found.about.get('random_clip') is True:
        name += f' ({clip_network.RANDOM})'

    def change(w):
        return text_mapper.STEP * _program(found.spec)(found.weights, w)

    return Direction(name, np.zeros((1, 0), np.float32), change=change)


@functools.lru_cache(maxsize=1)  # a notebook renders many edits with one CLIP
def _clip(source: str, activation: str | None, changed: float, log: Callable):
    del changed
    return load_clip(source, activation, log=log)


def _changed(source: str) -> float:
    """When a file or folder was changed; 0 for others."""
    path = expanded(source)
    return path.stat().st_mtime if path.exists() else 0.0


@functools.cache
def _program(spec: text_mapper.Spec):
    return jax.jit(functools.partial(text_mapper.apply, spec))
