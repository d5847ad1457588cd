"""A finished run, opened: its identities, and the pictures of their edits.

A picture costs one synthesis. Unedited pictures and the last few edited ones are kept, so undo,
redo and the comparison with the unedited picture cost none.
"""

import collections
import copy
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image

from jaxinv import api, faces, report
from jaxinv import edits as edits_lib
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.inversion.project import Pivots
from jaxinv.io import read_json, safe_name, sha256
from jaxinv.pixels import to_uint8
from jaxinv.segmentation import regions as named_regions
from jaxinv.studio import controls as controls_lib
from jaxinv.studio import regions
from jaxinv.studio.controls import Control
from jaxinv.text import printable, shortest

KEPT = 24  # pictures
MAX_STEPS = 32  # of an edit
MAX_FOUND = 64  # sliders of searches kept of a run


class EditState(NamedTuple):
    """The edit of one identity: steps one after the other, confined to a region."""

    steps: tuple[tuple[str, float], ...] = ()  # (name of a control, strength)
    part: str = ''  # of regions.PARTS; '' = everywhere, or the mask
    mask: str = ''  # id of a painted mask

    @property
    def is_empty(self) -> bool:
        return not any(strength for _, strength in self.steps)


UNEDITED = EditState()


class Kept(NamedTuple):
    """What a session made for the edits of a run; it outlives the run in memory."""

    masks: dict[str, np.ndarray]  # {id: bool [regions.GRID, regions.GRID]}
    found: dict[str, Control]  # sliders of what was dragged or asked for by text


class Opened:
    """A run's generator, codes and photographs. Used by one thread."""

    def __init__(self, folder: pathlib.Path, directions: list[str]):
        """directions: the user's files, see controls.py. Raises JaxinvError."""
        saved = api.load(folder)
        if not isinstance(saved.codes, Pivots):
            raise JaxinvError(
                'This folder holds no run of pivotal tuning, which the studio edits; its report '
                'shows what there is.'
            )
        self.folder, self.generator = folder, saved.generator
        self.names = list(saved.codes.names)
        self._codes = np.asarray(saved.codes.w, np.float32)
        several = isinstance(saved.weights, list)
        self._weights = saved.weights if several else [jax.device_put(saved.weights)]
        self.controls = controls_lib.controls_of(self.generator.spec, directions)
        self.sources = self._read_sources()
        self._pictures: collections.OrderedDict[Any, np.ndarray] = collections.OrderedDict()
        self._unedited: dict[int, regions.Unedited] = {}
        self._parts: dict[tuple[int, str], np.ndarray] = {}
        self.masks, self.found = Kept({}, {})

    def seen_by(self, kept: Kept) -> 'Opened':
        """The same run with the masks and sliders of one session; pictures are shared."""
        view = copy.copy(self)
        view.masks, view.found = kept
        return view

    def describe(self) -> dict[str, Any]:
        """What the page needs to show the run."""
        spec = self.generator.spec
        return {
            'identities': [
                {'name': printable(name, 80), 'pastes': source is not None}
                for name, source in zip(self.names, self.sources, strict=True)
            ],
            'resolution': spec.resolution,
            'generator': printable(spec.name, 80),
            'controls': [
                control.public() for own in (self.controls, self.found) for control in own.values()
            ],
            'parts': list(regions.PARTS) if spec.domain in ('ffhq', 'faces') else [],
            'grid': regions.GRID,
            'drag': self.can_drag,
        }

    @property
    def can_drag(self) -> bool:
        return bool(self.generator.spec.feature_shapes)

    def identity(self, value: Any) -> int:
        """An index that a page sent. Raises JaxinvError."""
        if type(value) is not int or not 0 <= value < len(self.names):
            raise JaxinvError(f'There is no face {value!r}; there are {len(self.names)}.')
        return value

    def edit(self, value: Any) -> EditState:
        """An edit that a page sent, checked. Raises JaxinvError."""
        if not isinstance(value, dict) or not isinstance(value.get('steps', []), list):
            raise JaxinvError('An edit is {"steps": [[name, strength], ...]}.')
        steps = []
        for step in value.get('steps', [])[: MAX_STEPS + 1]:
            if not isinstance(step, list) or len(step) != 2 or not isinstance(step[0], str):
                raise JaxinvError('A step of an edit is [name, strength].')
            steps.append((step[0], self._strength(*step)))
        if len(steps) > MAX_STEPS:
            raise JaxinvError(f'An edit has at most {MAX_STEPS} steps.')
        part, mask = value.get('part') or '', value.get('mask') or ''
        if part and part not in regions.PARTS:
            raise JaxinvError(f'A region can be {", ".join(regions.PARTS)}.')
        if mask and (not isinstance(mask, str) or mask not in self.masks):
            raise JaxinvError('The painted region is not there any more; paint it again.')
        return EditState(tuple(steps), part, '' if part else mask)

    def _strength(self, name, value) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
            raise JaxinvError('A strength is a number.')
        control = self.controls.get(name) or self.found.get(name)
        if control is None:
            raise JaxinvError(f'There is no edit {printable(name, 60)!r} for this generator.')
        low, high = control.low, control.high
        if not low - 1e-6 <= value <= high + 1e-6:
            raise JaxinvError(f'{printable(name, 60)} is {value:g}; it can be {low:g} to {high:g}.')
        return float(value)

    def picture(self, i: int, edit: EditState = UNEDITED) -> np.ndarray:
        """uint8 [h, w, 3] of identity i."""
        if edit.is_empty:
            edit = UNEDITED
        key = (i, edit)
        if key in self._pictures:
            self._pictures.move_to_end(key)
            return self._pictures[key]
        if edit.is_empty:
            found = to_uint8(self._before(i).image)[0]
        elif edit.part or edit.mask:
            mask, moved = self._region(i, edit), self.code(i, edit)
            found = regions.render(self.generator, self.weights(i), *moved, self._before(i), mask)
        else:
            found = self.render(i, *self.code(i, edit))
        self._pictures[key] = found
        # Unedited pictures stay, one for each identity.
        edited = [k for k in self._pictures if not k[1].is_empty]
        for old in edited[:-KEPT]:
            del self._pictures[old]
        return found

    def code(self, i: int, edit: EditState) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(w [1, num_ws, w_dim], offsets of styles {layer: [1, channels]}) of an edited one."""
        moved = [] if edit.is_empty else [self.as_edit(i, edit)]
        codes, offsets = edits_lib.moved(self._codes[i : i + 1], moved, self.generator.spec)
        return codes[-1:], {layer: own[-1:] for layer, own in offsets.items()}

    def as_edit(self, i: int, edit: EditState) -> edits_lib.Edit:
        """The edit as jaxinv.render and --config.edits take it.

        A painted region has the name of the file that `mask_name` says.
        """
        steps = []
        for name, strength in edit.steps:
            control = self.controls.get(name) or self.found[name]
            steps.append((control.direction, strength))
        name = ','.join(f'{own.name}={shortest(strength)}' for own, strength in steps)
        region = self.mask_name(i) if edit.mask else edit.part
        return edits_lib.Edit(name, tuple(steps), region=region)

    def mask_name(self, i: int) -> str:
        return f'{safe_name(self.names[i])}_region.png'

    def keep(self, search: str, direction: edits_lib.Direction) -> Control:
        """The slider of what a search found."""
        while len(self.found) >= MAX_FOUND:
            del self.found[next(iter(self.found))]
        name = f'found:{search}'
        self.found[name] = controls_lib.of_search(name, direction)
        return self.found[name]

    def weights(self, i: int):
        return self._weights[i if len(self._weights) > 1 else 0]

    def render(self, i: int, w, offsets=None) -> np.ndarray:
        """uint8 [h, w, 3] of a code w [1, num_ws, w_dim]; offsets: of styles."""
        return to_uint8(regions.plain(self.generator, self.weights(i), w, offsets).image)[0]

    def _before(self, i) -> regions.Unedited:
        if i not in self._unedited:
            code = self.code(i, UNEDITED)
            self._unedited[i] = regions.plain(self.generator, self.weights(i), *code)
        return self._unedited[i]

    def _region(self, i, edit) -> np.ndarray:
        """bool [h, w]. Raises JaxinvError where the region is not found."""
        if edit.mask:
            return regions.resize(self.masks[edit.mask], self.generator.spec.resolution)
        if (i, edit.part) not in self._parts:
            found = named_regions.mask_of(edit.part, self.picture(i), self.names[i])
            self._parts[i, edit.part] = found
        return self._parts[i, edit.part]

    def target(self, i: int) -> pathlib.Path | None:
        """The file of the aligned photograph."""
        folder = report.folders(self.folder / 'images', self.names)[i]
        file = folder / 'target.png'
        return file if file.is_file() else None

    def paste(self, i: int, edits: dict[int, EditState], mask: str) -> PIL.Image.Image:
        """The photograph of identity i, with all of its faces that are edited put back.

        edits: {identity: its edit}; mask: 'face' or 'crop'. Raises JaxinvError.
        """
        source = self.sources[i]
        if source is None:
            raise JaxinvError(
                f'Where {self.names[i]} was in its photograph is not known, or the photograph is '
                'not there any more.'
            )
        picture = images.read(source['file'])
        for j, other in enumerate(self.sources):
            if other is None or other['file'] != source['file']:
                continue
            if j == i or not edits.get(j, UNEDITED).is_empty:
                crop = self.picture(j, edits.get(j, UNEDITED))
                picture = faces.paste(picture, crop, other['quad'], mask=mask)
        return picture

    def source_name(self, i: int) -> str:
        source = self.sources[i]
        return self.names[i] if source is None else pathlib.PurePath(source['file']).stem

    def as_json(self, i: int, edit: EditState) -> dict[str, Any]:
        """The edit of an identity as edits.save writes it, which a run or this page makes again.

        Raises JaxinvError for an edit without a step.
        """
        if edit.is_empty:
            raise JaxinvError('There is no edit yet; move a slider.')
        return edits_lib.to_json(self.as_edit(i, edit), self.generator, self.weights(i))

    def _read_sources(self) -> list[dict | None]:
        """{'file', 'quad'} of each identity; None where it cannot be put back.

        A photograph counts if its bytes are those that the run recorded.
        """
        content = read_json(self.folder / 'metrics.json')
        rows = content.get('sources') if isinstance(content, dict) else None
        if not isinstance(rows, list) or len(rows) != len(self.names):
            return [None] * len(self.names)
        return [_source(row) for row in rows]


def _source(row) -> dict | None:
    try:
        file, quad = pathlib.Path(row['file']), np.asarray(row['face']['quad'], np.float64)
        if quad.shape != (4, 2) or not np.isfinite(quad).all() or not file.is_file():
            return None
        return {'file': str(file), 'quad': quad} if sha256(file) == row['sha256'] else None
    except (TypeError, KeyError, ValueError, OSError):
        return None
