"""GANSpace's files (Härkönen et al. 2020, arXiv:2004.02546): components and tables of edits.

A file of components is .npz, .pt or .pth with arrays named as GANSpace saves them, or as the
projects that edit with it do:

    lat_comp or comp              [n, 1, w_dim] or [n, w_dim]   unit directions
    lat_stdev, lat_std or std     [n]                           deviation of W along each
    lat_mean or mean              [1, 1, w_dim], ... [w_dim]    mean of W; optional

Only lat_* and these short names are read: act_comp are components of a layer's features.

A table has a row for each edit: its name, component, layers and strength, which counts deviations.
CSV, also with tabs or semicolons, has a line of titles, or the columns name, component, start, end,
strength, as StyleRes's ganspace_configs.csv. JSON is a list of objects, or {name: object}, or
{"components": FILE, "edits": list}. Titles: name; component (also index, pc); layers ('4:8', '4-7',
'all' or [4, 8]) or start and end, where the end is the first row that is not moved; strength (also
sigma).
"""

import csv
import difflib
import functools
import io
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxinv.converters import array_files, safe_pickle
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.edits.directions import EditError
from jaxinv.io import read_json
from jaxinv.text import printable

ARRAYS = ('.npz', '.pt', '.pth', '.safetensors')
TABLES = ('.csv', '.tsv', '.json')
MAX_TABLE = 2**20  # bytes
_NAMES = (('lat_comp', 'comp'), ('lat_stdev', 'lat_std', 'std'), ('lat_mean', 'mean'))
_TITLES = {
    'name': ('name', 'edit', 'attribute', 'direction'),
    'component': ('component', 'index', 'pc', 'comp', 'component_index'),
    'layers': ('layers', 'layer_range', 'rows'),
    'start': ('start', 'start_layer', 'layer_start', 'from'),
    'end': ('end', 'end_layer', 'layer_end', 'stop', 'to'),
    'strength': ('strength', 'sigma', 'value'),
}


class Components(NamedTuple):
    vectors: np.ndarray  # [n, w_dim], length 1
    deviations: np.ndarray  # [n], of W along them
    mean: np.ndarray | None  # [w_dim]


class Row(NamedTuple):
    """An edit of a table: `strength` deviations along `component` in the rows [start, stop)."""

    name: str
    component: int
    rows: tuple[int | None, int | None] | None  # None = all
    strength: float


def components(path: pathlib.Path) -> Components:
    """The components in a file. Raises EditError that names what is missing or misshapen."""
    if not path.is_file():
        raise EditError(f'there is no file {str(path)!r} to read components from')
    try:
        torch = path.suffix.lower() in ('.pt', '.pth')
        arrays = safe_pickle.load(path) if torch else array_files.read(path)[0]
    except UnreadableFile as error:
        raise EditError(f'{path} could not be read as components: {error}') from error
    if not isinstance(arrays, Mapping):
        raise EditError(f'{path} holds no named arrays; components are lat_comp and lat_stdev')
    found = {}
    for names in _NAMES:
        name = next((name for name in names if arrays.get(name) is not None), names[0])
        array = arrays.get(name)
        if array is None and names != _NAMES[-1]:
            held = ', '.join(printable(key, 40) for key in list(arrays)[:20]) or 'nothing'
            raise EditError(f'{path} has no {" or ".join(names)}; it holds {held}')
        try:
            found[name] = None if array is None else np.asarray(array, np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise EditError(f'{name} of {path} is not an array of numbers') from error
        if found[name] is not None and not np.isfinite(found[name]).all():
            raise EditError(f'{name} of {path} has values that are not finite')
    vectors, deviations, mean = found.values()
    if vectors.ndim == 3 and vectors.shape[1] == 1:
        vectors = vectors[:, 0]
    deviations = deviations.reshape(-1)
    mean = None if mean is None else mean.reshape(-1)
    shapes_fit = vectors.ndim == 2 and 0 not in vectors.shape and len(deviations) == len(vectors)
    if not shapes_fit or (mean is not None and len(mean) != vectors.shape[1]):
        shapes = ', '.join(f'{k} {list(v.shape)}' for k, v in found.items() if v is not None)
        raise EditError(
            f'{path} has {shapes}; components are [n, 1, w_dim], deviations [n], the mean [w_dim]'
        )
    if not vectors.any(axis=1).all():
        raise EditError(f'{path} has a component of zeros')
    return Components(vectors, deviations, mean)


def table(path: pathlib.Path) -> tuple[dict[str, Row], str | None]:
    """({name: row}, the file of components that a JSON table names) of a .csv or .json table."""
    if not path.is_file():
        raise EditError(f'there is no table {str(path)!r}')
    if path.stat().st_size > MAX_TABLE:
        raise EditError(f'{path} has more than the {MAX_TABLE} bytes that a table may have')
    file = None
    if path.suffix.lower() == '.json':
        content = read_json(path)
        if isinstance(content, dict) and 'edits' in content:
            file, content = content.get('components'), content['edits']
            if file is not None and not isinstance(file, str):
                raise EditError(f'{path}: "components" is the name of a file, not {file!r}')
        if isinstance(content, dict):
            content = [{'name': k, **v} if isinstance(v, dict) else v for k, v in content.items()]
        if not isinstance(content, list):
            raise EditError(f'{path} is not a table: a JSON list of edits, or {{name: edit}}')
        records = content
    else:
        text = path.read_bytes().decode('utf-8-sig', 'replace')
        first = text.partition('\n')[0]
        reader = functools.partial(csv.reader, skipinitialspace=True)
        try:
            delimiter = next((mark for mark in '\t;' if mark in first), ',')
            lines = [line for line in reader(io.StringIO(text), delimiter=delimiter) if line]
        except csv.Error as error:
            raise EditError(f'{path} could not be read as CSV: {error}') from error
        titles = ('name', 'component', 'start', 'end', 'strength')
        if lines and not (len(lines[0]) == len(titles) and lines[0][1].strip().isdecimal()):
            titles, *lines = lines
        records = [dict(zip(titles, line, strict=False)) for line in lines]
    rows = {}
    for i, record in enumerate(records, 1):
        row = _row(record, f'edit {i} of {path}')
        if row.name in rows:
            raise EditError(f'{path} has the edit {row.name!r} twice')
        rows[row.name] = row
    if not rows:
        raise EditError(f'{path} has no edits')
    return rows, file


def pick(rows: Mapping[str, Row], name: str, source: str) -> Row:
    """The row of a name. Raises EditError that suggests a close one."""
    if name in rows:
        return rows[name]
    close = difflib.get_close_matches(name, list(rows), n=1, cutoff=0.5)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise EditError(f'{source} has no edit {name!r}.{hint} It has {", ".join(rows)}.')


def component(found: Components, index: Any, source: str) -> np.ndarray:
    """Component `index` times its deviation, [1, w_dim]: strength 1 is one deviation."""
    text = str(index)
    if not text.isdecimal() or len(text) > 9 or int(text) >= len(found.vectors):
        raise EditError(f'{source} has the components 0 ... {len(found.vectors) - 1}, not {index}')
    return found.vectors[int(text)][None] * found.deviations[int(text)]


def _row(record: Any, source: str) -> Row:
    if not isinstance(record, Mapping):
        raise EditError(f'{source} is {record!r}, not an object with name, component, strength')
    known = {str(key).strip().lower().replace(' ', '_'): value for key, value in record.items()}
    value = {}
    for field, titles in _TITLES.items():
        value[field] = next((known[t] for t in titles if known.get(t) not in (None, '')), None)
    missing = [field for field in ('name', 'component', 'strength') if value[field] is None]
    if missing:
        titles = ', '.join(printable(key, 40) for key in known)
        raise EditError(f'{source} has no {missing[0]}; its titles are {titles}')
    number = functools.partial(_number, source=source)
    rows = _range(value['layers'], source)
    if rows is None and (value['start'], value['end']) != (None, None):
        bounds = value['start'], value['end']
        rows = tuple(None if b is None else int(number(b, whole=True)) for b in bounds)
    strength = number(value['strength'])
    index = int(number(value['component'], whole=True))
    return Row(printable(str(value['name']).strip(), 100), index, rows, strength)


def _range(layers: Any, source: str) -> tuple[int | None, int | None] | None:
    """'4:8', '4-7' (both ends move), '4', [4, 8] or 'all' as (start, stop)."""
    if layers is None or str(layers).strip().lower() == 'all':
        return None
    if isinstance(layers, list) and len(layers) == 2:
        layers = f'{layers[0]}:{layers[1]}'
    match = re.fullmatch(r'\s*(\d{0,3})\s*(?:([-:])\s*(\d{0,3}))?\s*', str(layers))
    if match is None or not (match[1] or match[2]):
        raise EditError(f"{source}: layers are '4:8', '4-7' or 'all', not {layers!r}")
    start = int(match[1] or 0)
    if match[2] is None:
        return start, start + 1
    stop = int(match[3]) + (match[2] == '-') if match[3] else None
    return start, stop


def _number(value: Any, source: str, whole: bool = False) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not np.isfinite(number) or (whole and (number < 0 or number != int(number))):
        kind = 'a whole number of at least 0' if whole else 'a number'
        raise EditError(f'{source}: {value!r} is not {kind}')
    return number
