"""What is left of `=` in the spelling of an edit, as a direction; see jaxinv/edits/__init__.py."""

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxinv.converters import array_files
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.edits import ganspace, sefa
from jaxinv.edits.directions import (
    SUFFIXES,
    EditError,
    EditWarning,
    calibrated_range,
    load_direction,
    split_key,
)
from jaxinv.edits.edit import Direction, styles_direction
from jaxinv.errors import JaxinvError
from jaxinv.generators import style_space
from jaxinv.io import expanded
from jaxinv.text import printable

Rows = tuple[int | None, int | None]
Source = Callable[[str], Direction]  # of what follows 'PREFIX:'


class Sources:
    """Directions by their spelling; each is read once, and has a name of its own.

    space: whose packaged directions the names are. asked: all spellings of a call; a file is not
    named like a packaged direction among them. classes [n, e]: the embeddings of a
    class-conditional generator. generator, weights: for directions of its own layers, and for the
    fingerprint of W. others: {PREFIX: function} of spellings PREFIX:TEXT.
    """

    def __init__(
        self,
        space: str,
        asked: Iterable[str],
        classes: Any = None,
        generator: Any = None,
        weights: Any = None,
        others: Mapping[str, Source] | None = None,
    ):
        self.space, self._asked, self._classes = space, set(asked), classes
        self._generator, self._weights = generator, weights
        self._others = dict(others or {})
        self._found: dict[Any, Direction] = {}
        self._named: dict[Any, str] = {}  # file and key -> name

    def find(self, source: str, rows: Rows | None) -> Direction:
        """The direction of a spelling, moved in `rows`; its `mean` is a file's own mean of W.

        Raises EditError.
        """
        identity = source, rows
        if identity not in self._found:
            self._found[identity] = self._find(source, rows)
        return self._found[identity]

    def _find(self, source: str, rows: Rows | None) -> Direction:
        base, bar, held = source.partition('|')
        if bar and not expanded(source).exists():
            return self._conditional(source, base, held, rows)
        prefix, colon, text = source.partition(':')
        if colon and prefix in self._others:
            return self._others[prefix](text.strip())._replace(rows=rows)
        own = {'class': _class, 'mix': _mix, 'style': _style, 'ganspace': _ganspace}
        if colon and prefix in own:
            return own[prefix](self, source, text.strip(), rows)
        if source.startswith('sefa') and source.removeprefix('sefa').split(':')[0].isdecimal():
            return _sefa(self, source, rows)
        if source.lower().endswith('.json'):
            raise EditError(f'{source} is a whole edit; write it without a strength')
        path, key = split_key(source)
        prefixes = [*own, *self._others]
        close = difflib.get_close_matches(prefix, prefixes, n=1) if colon else []
        if close and not path.exists():
            raise EditError(
                f'{source} begins with {prefix}:, which is no kind of edit. Did you mean '
                f'{close[0]}:? There are {", ".join(f"{name}:" for name in prefixes)}.'
            )
        is_file = path.suffix.lower() in SUFFIXES
        array = load_direction(source, self.space, self._generator, self._weights)
        limits = None if is_file else calibrated_range(source, self.space)
        name = self.name_of_file(path, key) if is_file else printable(source)
        return Direction(name, array, rows, limits=limits)

    def generator(self, source: str):
        """(generator, weights) for a source that needs them."""
        if self._generator is None or self._weights is None:
            raise EditError(
                f'{source} needs the generator and its weights, which parse was not given'
            )
        return self._generator, self._weights

    def _conditional(self, source, base, held, rows) -> Direction:
        first = self.find(base.strip(), rows)
        names = [name.strip() for name in held.split(',')]
        if not all(names):
            raise EditError(f'{source!r}: write what is held fixed as NAME|OTHER,OTHER')
        others = [self.find(name, rows) for name in names]
        for one in (first, *others):
            if one.styles is not None or one.towards or one.change is not None:
                raise EditError(
                    f'{source}: only directions of W can be held fixed; {one.name} is none'
                )
        array = held_fixed(first.array, [other.array for other in others], source)
        name = f'{first.name}|{",".join(other.name for other in others)}'
        return first._replace(name=name, array=array)

    def name_of_file(self, path, key) -> str:
        """The stem of a file; with its folder or suffix where another direction has that name."""
        identity = path.resolve(), key
        if identity in self._named:
            return self._named[identity]
        taken = set(self._named.values()) | self._asked
        end = f':{key}' if key else ''
        folder = path.absolute().parent.name
        for stem in (path.stem, f'{folder}/{path.stem}', path.name, str(path)):
            name = printable(stem + end)
            if name not in taken:
                break
        else:
            name = next(n for i in range(2, len(taken) + 3) if (n := f'{name}_{i}') not in taken)
        self._named[identity] = name
        return name


def held_fixed(array, others: Iterable[Any], source: str = 'the direction') -> np.ndarray:
    """`array` [k, w_dim] without its part in the span of the others, row by row, at its length.

    Conditional manipulation (Shen et al. 2020, InterFaceGAN, section 3.2) for any number of
    directions [1 or k, w_dim], by Gram-Schmidt. A row of which less than a thousandth would be left
    is an EditError.
    """
    others = [np.asarray(other, np.float64) for other in others]
    rows = max(len(a) for a in (array, *others))
    first = np.broadcast_to(np.asarray(array, np.float64), (rows, array.shape[1]))
    result = np.zeros(first.shape)
    for i, own in enumerate(first):
        fixed = []
        for other in others:
            if other.shape[1] != len(own):
                raise EditError(f'{source}: rows of {other.shape[1]} and {len(own)} values differ')
            row = other[i if len(other) > 1 else 0].copy()
            length = np.linalg.norm(row)
            for basis in fixed:
                row -= (row @ basis) * basis
            if np.linalg.norm(row) > 1e-6 * length:  # else it is among those before
                fixed.append(row / np.linalg.norm(row))
        left = own.copy()
        for basis in fixed:
            left -= (left @ basis) * basis
        length, remains = np.linalg.norm(own), np.linalg.norm(left)
        if length and remains < 1e-3 * length:
            raise EditError(f'{source}: nothing is left of it once the others are held fixed')
        result[i] = left * (length / remains) if length else 0
    return result.astype(np.float32)


def _class(sources: Sources, source: str, number: str, rows) -> Direction:
    """Towards the embedding [1, e] of 'class:NUMBER'."""
    classes = sources._classes
    if classes is None:
        raise EditError(f'{source} is a class, and the generator has no embeddings of classes')
    if not number.isdecimal() or int(number) >= len(classes):
        raise EditError(
            f'{source} is none of the classes of this generator, class:0 ... class:'
            f'{len(classes) - 1}'
        )
    array = np.asarray(classes[int(number)], np.float32)[None]
    return Direction(printable(source), array, rows, towards=True)


def _mix(sources: Sources, source: str, text: str, rows) -> Direction:
    """Towards a code: 'mix:FILE:NAME' of names and codes, or 'mix:FILE' of one code.

    FILE may be the work folder of a run, whose pivots.npz it is then.
    """
    path, key = split_key(text)
    folder, _, name = text.rpartition(':')
    for own, whose in ((path, key), (expanded(folder), name)):
        if own.is_dir() and own != expanded(''):  # the work folder of a run
            path, key = own / 'pivots.npz', whose
    if not path.is_file():
        raise EditError(f'{source}: there is no file {str(path)!r} of codes')
    if path.suffix.lower() != '.npz':
        array = load_direction(text)
    else:
        try:
            arrays = array_files.read(path)[0]
        except UnreadableFile as error:
            raise EditError(f'{path} could not be read as codes: {error}') from error
        codes = arrays.get('w', arrays.get('w_plus'))  # pivots.npz, or codes.npz of SAM
        if 'names' in arrays and codes is not None:
            array = _code_of(arrays['names'], codes, key, path)
        else:
            array = load_direction(text)
    name = sources.name_of_file(path, key)
    return Direction(f'mix:{name}', array, rows, towards=True)


def _code_of(names, w, key: str | None, path) -> np.ndarray:
    if w.ndim != 3 or names.shape != w.shape[:1] or names.dtype.kind != 'U' or 0 in w.shape:
        raise EditError(
            f'{path} has names {list(names.shape)} and w {list(w.shape)}; codes are names [n] and '
            'w [n, 1 or num_ws, w_dim]'
        )
    names = names.tolist()
    if key is None and len(names) == 1:
        key = names[0]
    if key not in names:
        shown = ', '.join(printable(name, 40) for name in names[:20])
        raise EditError(f'{path} has the codes of {shown}; say whose, as mix:{path.name}:NAME')
    array = np.asarray(w[names.index(key)], np.float32)
    if not np.isfinite(array).all():
        raise EditError(f'{path}: the code of {printable(key, 40)} has values that are not finite')
    return array


def _style(sources: Sources, source: str, text: str, rows) -> Direction:
    """One channel: 'style:LAYER/CHANNEL', or with the paper's numbers 'style:9_409'."""
    generator, _ = sources.generator(source)
    separator = '/' if '/' in text else '_'
    layer, slash, channel = text.rpartition(separator)
    if not slash or not channel.isdecimal() or len(channel) > 9:
        raise EditError(
            f'{source}: a channel of a style is style:LAYER/CHANNEL, such as style:b16_conv1/45'
        )
    if rows is not None:
        raise EditError(f'{source}[...]: a style belongs to one layer, so leave the rows out')
    try:
        layer = style_space.layer_name(generator.spec, layer.strip())
        styles = style_space.offsets(generator.spec, {layer: {int(channel): 1.0}})
    except JaxinvError as error:
        raise EditError(f'{source}: {error}') from error
    return styles_direction(f'style:{layer}/{int(channel)}', styles)


def _sefa(sources: Sources, source: str, rows) -> Direction:
    """'sefaN' of the layers that read the rows; 'sefaN:normalised' as in the official code."""
    generator, weights = sources.generator(source)
    number, colon, how = source.removeprefix('sefa').partition(':')
    if colon and how != 'normalised':
        raise EditError(f'{source}: SeFa has the variant sefa{number}:normalised, not {how!r}')
    w_dim = generator.spec.w_dim
    if len(number) > 9 or int(number) >= w_dim:
        raise EditError(f'{source}: {generator.spec.name} has sefa0 ... sefa{w_dim - 1}')
    key = 'sefa', rows, how
    if key not in sources._found:
        sources._found[key] = sefa.factorise(generator, weights, rows, bool(colon)).directions
    return Direction(printable(source), sources._found[key][int(number)][None], rows)


def _ganspace(sources: Sources, source: str, text: str, rows) -> Direction:
    """'ganspace:FILE/3', 'ganspace:TABLE:NAME' or 'ganspace:FILE:TABLE:NAME'."""
    file, table, name = _files_of(source, text)
    if table is None:
        found = ganspace.components(file)
        array = ganspace.component(found, name, source)
        _compare_means(sources, found, file)
        label = f'{sources.name_of_file(file, None)}/{int(name)}'
        return Direction(f'ganspace:{label}', array, rows, mean=found.mean)
    edits, named = ganspace.table(table)
    row = ganspace.pick(edits, name, str(table))
    if file is None:
        file = _components_beside(table, named)
    found = ganspace.components(file)
    array = row.strength * ganspace.component(found, row.component, f'{table}: {row.name}')
    _compare_means(sources, found, file)
    label = sources.name_of_file(table, row.name)
    return Direction(f'ganspace:{label}', array, rows or row.rows, mean=found.mean)


def _compare_means(sources: Sources, found: ganspace.Components, file) -> None:
    """Warns if the mean of W in a file is far from the generator's.

    The components of one generator differ from w_avg by the error of sampling.
    """
    if found.mean is None or sources._weights is None:
        return
    own = np.asarray(sources._weights['buffers']['w_avg'])
    if own.shape == found.mean.shape:
        distance = np.linalg.norm(own - found.mean) / np.linalg.norm(found.deviations)
        if distance > 0.5:
            warnings.warn(
                f'{printable(file.name)} seems to belong to another generator: its mean of W is '
                f'{distance:.2g} deviations of W from that of {sources._generator.spec.name}.',
                EditWarning,
                stacklevel=2,
            )


def _files_of(source: str, text: str):
    """(file of components or None, table or None, name of the edit or number of the component)."""
    file, rest = _leading(text, ganspace.ARRAYS)
    if file is not None and rest.startswith('/'):
        return file, None, rest[1:].strip()
    table, name = _leading(rest.removeprefix(':') if file is not None else text, ganspace.TABLES)
    if table is None or not name.startswith(':') or not name[1:].strip():
        raise EditError(
            f'{source}: write ganspace:FILE/COMPONENT with a file of components '
            f'({", ".join(ganspace.ARRAYS)}), or ganspace:TABLE:NAME with a table '
            f'({", ".join(ganspace.TABLES)}), or ganspace:FILE:TABLE:NAME'
        )
    return file, table, name[1:].strip()


def _leading(text: str, suffixes):
    """(path, what follows it) where the text starts with a file of one of the suffixes."""
    ends = [
        at + len(suffix)
        for suffix in suffixes
        for at in range(len(text))
        if text.startswith(suffix, at) and text[at + len(suffix) : at + len(suffix) + 1] in '/:'
    ]
    return (None, text) if not ends else (expanded(text[: min(ends)]), text[min(ends) :])


def _components_beside(table, named: str | None):
    """The file of components that a table names, or the only one in its folder."""
    if named is not None:
        return table.parent / expanded(named)
    beside = sorted(p for p in table.parent.iterdir() if p.suffix.lower() in ganspace.ARRAYS)
    if len(beside) != 1:
        raise EditError(
            f'{table} does not name its file of components; write ganspace:FILE:{table.name}:NAME'
        )
    return beside[0]
