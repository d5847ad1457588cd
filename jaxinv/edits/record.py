"""An edit as a small JSON file that reproduces it: a sequence with its arrays.

    edits.save('older.json', edit, generator, weights)     # then --config.edits="('older.json',)"
    edit = edits.load('older.json', generator, weights)

    {"jaxinv_edit": 1, "name": "yaw=2,smile=1",
     "generator": {"name": ..., "w_dim": 512, "num_ws": 23, "w_probe": [[...], ...] or null},
     "steps": [{"kind": "direction", "name": "yaw", "rows": [0, 8] or null, "strength": 2.0,
                "array": {"shape": [1, 512], "float32": BASE64}}, ...]}

kind  direction  adds strength * array to w; a drag's result is one of strength 1
      set        sets the coordinate along array, measured from "mean"
      towards    moves w towards a code or the embedding of a class
      styles     adds strength * {"styles": {LAYER: array}} to the styles; a text's direction

A strength is a number, or {"change": 10, "unit": "deg", "attribute": "yaw"}, which is solved for
each identity. "limits" is the calibrated range, if there is one. "region", beside the steps, is
where the edit acts; without it everywhere. Arrays are in the file, in little-endian order, so that
the file does not depend on others, and "w_probe" is the fingerprint of W by which another
generator's edit is recognised.
"""

import base64
import math
from typing import Any

import numpy as np

from jaxinv import latents
from jaxinv.edits import directions
from jaxinv.edits.directions import EditError
from jaxinv.edits.edit import Direction, Edit, Wanted, styles_direction
from jaxinv.io import expanded, json_text, read_json, write_atomically
from jaxinv.text import printable

VERSION = 1
KEY = 'jaxinv_edit'
KINDS = ('direction', 'set', 'towards', 'styles')
MAX_STEPS, MAX_VALUES = 1000, 2**22


def to_json(edit: Edit, generator: Any = None, weights: Any = None) -> dict[str, Any]:
    """The edit in JSON's types; with a generator also what tells it from others."""
    content: dict[str, Any] = {KEY: VERSION, 'name': edit.name, 'generator': None}
    if generator is not None:
        spec, probe = generator.spec, None
        if weights is not None and not spec.label_dim:
            probe = latents.mapping_fingerprint(generator, weights).astype(float).round(5).tolist()
        content['generator'] = {
            'name': spec.name,
            'w_dim': spec.w_dim,
            'num_ws': spec.num_ws,
            directions.PROBE: probe,
        }
    if edit.region:
        content['region'] = edit.region
    content['steps'] = [_step_to_json(*step) for step in edit.steps]
    return content


def from_json(content: Any, generator: Any = None, weights: Any = None, source='edit') -> Edit:
    """The edit of `to_json`. source: for messages.

    Raises EditError for another version, a field that is missing, unknown or misshapen, or, with a
    generator, an edit of another one's W.
    """
    if not isinstance(content, dict) or KEY not in content:
        raise EditError(f'{source} is not an edit of jaxinv: a JSON object with {KEY!r}')
    if content[KEY] != VERSION:
        raise EditError(
            f'{source} has version {printable(content[KEY], 40)} of edits; this jaxinv reads '
            f'version {VERSION}'
        )
    _only(content, (KEY, 'name', 'generator', 'region', 'steps'), source)
    region = content.get('region', '')
    if not isinstance(region, str):
        raise EditError(f'{source}: region is {printable(region, 40)}, not a name or file')
    steps, name = content.get('steps'), content.get('name')
    if not isinstance(steps, list) or not 0 < len(steps) <= MAX_STEPS or not isinstance(name, str):
        raise EditError(f'{source} needs a name and 1 to {MAX_STEPS} steps')
    if generator is not None:
        _check_generator(content.get('generator'), generator, weights, source)
    steps = tuple(_step_of(step, f'step {i} of {source}') for i, step in enumerate(steps, 1))
    return Edit(printable(name, 200), steps, region=printable(region, 200))


def save(path, edit: Edit, generator: Any = None, weights: Any = None) -> None:
    """Writes `to_json` to a file, for `load`, `parse`, jaxinv.render and --config.edits."""
    write_atomically(expanded(path), json_text(to_json(edit, generator, weights), indent=1))


def load(path, generator: Any = None, weights: Any = None) -> Edit:
    """The edit in a file of `save`. Raises EditError."""
    path = expanded(path)
    if not path.is_file():
        raise EditError(f'there is no file {str(path)!r} to read an edit from')
    return from_json(read_json(path), generator, weights, str(path))


def _step_to_json(direction: Direction, strength: float | Wanted) -> dict[str, Any]:
    if direction.change is not None:
        raise EditError(
            f'{direction.name} depends on the code, so no arrays reproduce it; keep its file and '
            'its spelling'
        )
    step: dict[str, Any] = {
        'kind': _kind(direction),
        'name': direction.name,
        'rows': None if direction.rows is None else list(direction.rows),
        'strength': strength._asdict() if isinstance(strength, Wanted) else float(strength),
    }
    if direction.limits is not None:
        step['limits'] = list(direction.limits)
    if direction.styles is not None:
        step['styles'] = {layer: _encoded(offset) for layer, offset in direction.styles.items()}
        return step
    step['array'] = _encoded(direction.array)
    if direction.mean is not None:
        step['mean'] = _encoded(direction.mean)
    return step


def _kind(direction: Direction) -> str:
    if direction.styles is not None:
        return 'styles'
    if direction.towards:
        return 'towards'
    return 'direction' if direction.mean is None else 'set'


def _step_of(step: Any, source: str) -> tuple[Direction, float | Wanted]:
    if not isinstance(step, dict) or step.get('kind') not in KINDS:
        raise EditError(f'{source} has none of the kinds {", ".join(KINDS)}')
    kind = step['kind']
    arrays = {'styles': ('styles',), 'set': ('array', 'mean')}.get(kind, ('array',))
    _only(step, ('kind', 'name', 'rows', 'strength', 'limits', *arrays), source)
    if not isinstance(step.get('name'), str):
        raise EditError(f'{source} needs a name')
    name, strength = printable(step['name'], 200), _strength_of(step.get('strength'), source)
    limits = _pair(step.get('limits'), source, 'limits', (int, float))
    rows = _pair(step.get('rows'), source, 'rows', (int, type(None)))
    if rows is not None and any(bound is not None and bound < 0 for bound in rows):
        raise EditError(f'{source}: rows are {list(rows)}, which must not be negative')
    if kind == 'styles':
        styles = step.get('styles')
        if not isinstance(styles, dict) or not styles:
            raise EditError(f'{source} needs styles {{LAYER: array}}')
        styles = {printable(k, 100): _decoded(v, f'{k} of {source}') for k, v in styles.items()}
        try:
            return styles_direction(name, styles)._replace(limits=limits), strength
        except EditError as error:
            raise EditError(f'{source}: {error}') from error
    array = _decoded(step.get('array'), f'array of {source}')
    if array.ndim != 2:
        raise EditError(f'array of {source} has shape {list(array.shape)}, not [rows, w_dim]')
    mean = _decoded(step.get('mean'), f'mean of {source}') if kind == 'set' else None
    fits = mean is None or (mean.ndim == 1 and array.shape[1] % mean.size == 0 and array[0].any())
    if not fits:
        raise EditError(f'{source}: mean {list(mean.shape)} does not fit array {list(array.shape)}')
    return Direction(name, array, rows, kind == 'towards', mean, None, limits), strength


def _strength_of(strength: Any, source: str) -> float | Wanted:
    if isinstance(strength, dict):
        _only(strength, Wanted._fields, f'strength of {source}')
        texts = [strength.get(field) for field in ('unit', 'attribute')]
        if not all(isinstance(text, str) for text in texts):
            raise EditError(f'strength of {source} needs {", ".join(Wanted._fields)}')
        unit, attribute = (printable(text, 40) for text in texts)
        return Wanted(_strength_of(strength.get('change'), source), unit, attribute)
    if not _is_number(strength):
        raise EditError(f'strength of {source} is {printable(strength, 40)}, not a finite number')
    return float(strength)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _pair(value: Any, source: str, name: str, kinds) -> tuple | None:
    if value is None:
        return None
    fits = isinstance(value, list) and len(value) == 2
    if not fits or not all(x is None or _is_number(x) for x in value):
        fits = False
    if not fits or not all(isinstance(x, kinds) for x in value):
        raise EditError(f'{source}: {name} are {printable(value, 80)}, not two numbers')
    return tuple(value)


def _encoded(array) -> dict[str, Any]:
    array = np.ascontiguousarray(array, '<f4')
    return {'shape': list(array.shape), 'float32': base64.b64encode(array.tobytes()).decode()}


def _decoded(value: Any, source: str) -> np.ndarray:
    shape = value.get('shape') if isinstance(value, dict) else None
    sizes_fit = isinstance(shape, list) and 0 < len(shape) <= 2
    if not sizes_fit or not all(type(n) is int and 0 < n <= MAX_VALUES for n in shape):
        raise EditError(f'{source} is not {{"shape": [...], "float32": "..."}}')
    try:
        data = base64.b64decode(value.get('float32'), validate=True)
    except (TypeError, ValueError):
        data = b''
    if len(data) != 4 * math.prod(shape):
        raise EditError(f'{source} has not the values of its shape {shape}')
    array = np.frombuffer(data, '<f4').reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise EditError(f'{source} has values that are not finite')
    return array


def _check_generator(about: Any, generator: Any, weights: Any, source: str) -> None:
    """Raises EditError if an edit was made with another generator's W."""
    if not isinstance(about, dict):
        return
    spec = generator.spec
    for field in ('w_dim', 'num_ws'):
        if about.get(field) not in (None, getattr(spec, field)):
            raise EditError(
                f'{source} was made for {printable(about.get("name"), 60)}, whose {field} is '
                f'{printable(about[field], 20)}; that of {spec.name} is {getattr(spec, field)}'
            )
    if about.get(directions.PROBE) is not None:
        directions.check_probe(about[directions.PROBE], source, generator, weights)


def _only(content: dict, known, source: str) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise EditError(f'{source} has the unknown field {printable(unknown[0], 40)!r}')
