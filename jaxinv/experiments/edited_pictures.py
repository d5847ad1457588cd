"""Codes and generators of finished runs, to render any edit of any picture again."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv.errors import JaxinvError
from jaxinv.experiments import artifacts
from jaxinv.inversion import code_files, sam, sam_render
from jaxinv.pixels import to_uint8
from jaxinv.report import slugs
from jaxinv.runtime import manifest
from jaxinv.types import Generator, Weights
from jaxinv.weights import deltas, store


class Inverted(NamedTuple):
    """One picture as a method left it."""

    generator: Generator
    weights: Weights
    codes: sam.Codes  # of one picture
    masks: dict[str, np.ndarray]
    mixing: str  # of SAM's edits

    @property
    def w_plus(self) -> np.ndarray:
        """[1, num_ws, w_dim]"""
        return np.asarray(self.codes.w_plus)

    def render(self, edits: Sequence[edits_lib.Edit]) -> np.ndarray:
        """uint8 [1 + e, h, w, 3]: the reconstruction and its edits."""
        return self.render_moved(
            sam_render.edit_deltas(edits, self.w_plus, self.generator.spec)[:, 0]
        )

    def render_moved(self, moves: np.ndarray) -> np.ndarray:
        """The same of differences of w_plus [e, num_ws, w_dim]."""
        (images,) = sam_render.render_each(
            self.generator, self.weights, self.codes, self.masks, moves[:, None], self.mixing
        )
        return to_uint8(images)


def opener(row, folder: pathlib.Path, opened: tuple) -> Callable[[str], Inverted]:
    """A function of a picture's name that reads what the run in a folder made of it.

    row: its method_runs.Row; opened: (generator, weights) before any tuning. The function raises
    JaxinvError for a picture that the run does not have.
    """
    generator, weights = opened
    mixing = row.config.get('edit_mixing', 'with_offsets')
    manifest_file = folder / manifest.FILE
    records = manifest.Manifest(manifest_file).records if manifest_file.is_file() else {}
    is_bulk = any('metrics' in record for record in records.values())
    shared: dict[str, Any] = {}

    def read(name: str) -> Inverted:
        own = folder
        if is_bulk and 'folder' in records.get(name, {}):
            own = folder / records[name]['folder']
        place = own if (own / code_files.PIVOTS).is_file() else folder
        codes, masks = _codes(place, name, generator.spec)
        return Inverted(
            generator, _weights(folder, own, name, weights, shared), codes, masks, mixing
        )

    return read


def _codes(folder: pathlib.Path, name: str, spec) -> tuple[sam.Codes, dict[str, np.ndarray]]:
    names, w = code_files.load_pivots(folder)
    if name not in names:
        raise JaxinvError(f'{folder} has no code for {name}.')
    i = names.index(name)
    if (folder / code_files.CODES).is_file():
        codes, masks = code_files.load_codes(folder)
        return jax.tree.map(lambda x: np.asarray(x[i : i + 1]), (codes, masks))
    own = np.broadcast_to(w[i : i + 1], (1, spec.num_ws, spec.w_dim))
    return sam.Codes(np.array(own), {}), {}


def _weights(folder, own, name: str, base: Weights, shared: dict) -> Weights:
    """The generator that was tuned for the picture or for all; else the one before."""
    for place in (own, folder / artifacts.GENERATORS / name, folder / 'generator'):
        if place == folder or not place.is_dir():
            continue
        if (place / deltas.DELTA_FILE).is_file() or (place / store.GENERATOR_FILE).is_file():
            key = str(place)
            if key not in shared:
                shared.clear()  # at most one is held
                shared[key] = artifacts.load_tuned(place, base)
            return shared[key]
    return base


def negated(edit: edits_lib.Edit) -> edits_lib.Edit:
    """The edit that takes an edit back: its steps with opposite strengths, the last one first.

    Raises JaxinvError for steps that set a coordinate or move towards a code, which no strength
    takes back.
    """
    if any(d.mean is not None or d.towards for d, _ in edit.steps):
        raise JaxinvError(
            f'{edit.name} cannot be taken back: it sets a coordinate or moves towards a code.'
        )
    steps = tuple((direction, -strength) for direction, strength in reversed(edit.steps))
    return edits_lib.Edit(f'not {edit.name}', steps)


def file_name(edit: edits_lib.Edit) -> str:
    return slugs([edit.name])[0]
