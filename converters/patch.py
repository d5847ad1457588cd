"""Writes other weights into a copy of the checkpoint file that a generator was tuned from.

The arrays of the generator are found by the reader that executes nothing (checkpoint.locate): they
are views of the file, so their addresses are their places in it. New values go there in the same
type, shape and strides. All other bytes stay as they are, also source text and objects that jaxinv
does not read, but for the checksums of zip members.
"""

import mmap
import pathlib
import shutil
import struct
import zipfile
import zlib

import numpy as np
from flax.traverse_util import flatten_dict

from jaxinv.converters import checkpoint, export, file_view, stylegan2, stylegan2_tf
from jaxinv.converters.budget import Budget
from jaxinv.converters.export import ExportError
from jaxinv.converters.pickle_values import Record
from jaxinv.converters.zip_members import Members
from jaxinv.io import atomic_path
from jaxinv.types import GeneratorSpec, Weights

_TABLES = {
    'nvidia': ('ada', stylegan2.nvidia_table),
    'rosinality': ('rosinality', stylegan2.rosinality_table),
}
_ROUNDED = 2.0**-22  # relative error of a bias that was stored minus 1
_COMPUTED = 'buffers/w_avg'  # where a file has none
_DIRECTORY_ENTRY = '<4s12xI8x3H'  # signature ..., CRC-32 ..., lengths of name, extra, comment
_DIRECTORY_SIZE = 46  # bytes of an entry without those three


def write(
    source, path: pathlib.Path, spec: GeneratorSpec, weights: Weights, which: str = 'G_ema'
) -> tuple[str, ...]:
    """Writes `path`, the file `source` with these weights in place of its generator's.

    which: the generator in the file, as checkpoint.read takes it. Returns notes, sentences. Raises
    ExportError if the generator is another one, was tuned from another file, or if its arrays are
    not stored as they are (compressed, as text, in half precision); JaxinvError like `read`.
    """
    source = pathlib.Path(source)
    located = checkpoint.locate(source, which)
    with file_view.reading(source, error=ExportError):
        places, notes = _places(source, located, spec, weights)
        with atomic_path(path) as scratch:
            shutil.copyfile(source, scratch)
            _fill(scratch, places)
            if located.data[:4] == b'PK\x03\x04':
                _renew_checksums(scratch, places)
            _check(scratch, which, weights)
    return notes


class _Place:
    """Where an array is in the file, and what belongs there."""

    def __init__(self, name, array, value, data):
        self.name, self.value = name, value
        self.dtype, self.strides = array.dtype, array.strides
        start = np.frombuffer(data, np.uint8).ctypes.data
        low, high = np.lib.array_utils.byte_bounds(array)
        self.offset = array.ctypes.data - start
        self.low, self.high = low - start, high - start


def _places(source, located, spec, weights):
    """(places of the arrays that differ from the file's, notes)"""
    found, before = located.found, located.checkpoint
    if spec.family != before.family:
        raise ExportError(f'{source} holds a StyleGAN2, which {spec.name} is not.')
    for name, value in dict(spec.arguments).items():
        if before.arguments.get(name) != value:
            raise ExportError(
                f'{source} has {name} = {before.arguments.get(name)} and {spec.name} {value}; name '
                'the file that it was tuned from.'
            )
    flat = {name: np.asarray(x) for name, x in flatten_dict(weights, sep='/').items()}
    if _COMPUTED not in before.flat:
        del flat[_COMPUTED]
    changed = [name for name in flat if not np.array_equal(flat[name], before.flat[name])]
    stored = _stored(found.naming, spec, weights, {name: flat[name] for name in changed})
    for path, (name, _) in stored.items():
        if path.startswith('buffers/'):
            raise ExportError(
                f'{spec.name} was not tuned from {source}: {name} differs, which tuning does not '
                'change.'
            )
    places = []
    for name, value in stored.values():
        array = found.source[name]
        if array.dtype.name not in ('float32', 'float64'):
            raise ExportError(
                f'{source} holds {name} as {array.dtype.name}, which cannot keep tuned weights; '
                'use --to=ada or --to=safetensors.'
            )
        place = _Place(name, array, value.reshape(array.shape), located.data)
        if place.low < 0 or place.high > len(located.data):
            raise ExportError(
                f'{source} does not hold the bytes of {name} as they are (it is compressed, or a '
                'pickle of protocol 2 or earlier); use --to=ada or --to=safetensors.'
            )
        places.append(place)
    places.sort(key=lambda place: place.low)
    for first, second in zip(places, places[1:], strict=False):
        if second.low < first.high:
            raise ExportError(f'{source} holds {first.name} and {second.name} in the same bytes.')
    notes = [f'{len(places)} of {len(found.source)} arrays were replaced, all other bytes kept.']
    if _shared(located, places):
        notes.append('Another network of the file shares these arrays, and changes with them.')
    if found.naming == 'tensorflow':
        notes.append('Biases of modulations are stored minus 1, so their last bits are rounded.')
    return places, tuple(notes)


def _stored(naming, spec, weights, changed):
    """{path: (name in the file, array in the file's layout)} of the arrays {path: array}."""
    if naming == 'tensorflow':
        return {path: stylegan2_tf.variable_of(path, x) for path, x in changed.items()}
    names, table = _TABLES[naming]
    values = export.state_dict(spec, weights, names) if changed else {}
    return {path: (name, values[name]) for path, (name, _) in table(changed).items()}


def _shared(located, places):
    """True if other arrays of the file lie in the bytes of these places."""
    own = {id(array) for array in located.found.source.values()}
    lows, highs = (np.array([getattr(p, side) for p in places]) for side in ('low', 'high'))
    stack = [located.content]
    while stack:  # the reader has bounded depth and repetitions
        node = stack.pop()
        if isinstance(node, Record):
            stack.append(node.state)
        elif isinstance(node, list | tuple | dict):
            stack.extend(node.values() if isinstance(node, dict) else node)
        elif id(node) in own:
            own.remove(id(node))  # once: another network may be the same object
        elif isinstance(node, np.ndarray) and node.size:
            other = _Place('', node, None, located.data)
            if np.any((lows < other.high) & (other.low < highs)):
                return True
    return False


def _fill(path, places):
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as data:
        for p in places:
            view = np.ndarray(p.value.shape, p.dtype, data, p.offset, p.strides)
            view[...] = p.value
            del view  # or the map could not be closed


def _renew_checksums(path, places):
    """The CRC-32 of each zip member with a place, in both headers and after its contents."""
    data = file_view.view(path)
    members = Members(data, Budget(len(data)))
    entries = _directory_entries(data)
    renewed = {}
    for name, start in members.starts.items():
        info = members.infos[name]
        end = start + info.compress_size
        if any(start <= place.low < end for place in places):
            crc = struct.pack('<I', zlib.crc32(data[start:end]))
            old = struct.pack('<I', info.CRC)
            where = [info.header_offset + 14, entries[info.header_offset] + 16]
            if info.flag_bits & 8:  # sizes and checksum follow, with or without a signature
                where += [end + 4 if data[end : end + 4] == b'PK\x07\x08' else end]
            renewed |= {at: crc for at in where if bytes(data[at : at + 4]) == old}
    with open(path, 'r+b') as file:
        for at, crc in renewed.items():
            file.seek(at)
            file.write(crc)


def _directory_entries(data):
    """{offset of a member's header: offset of its entry in the central directory}"""
    with zipfile.ZipFile(file_view.Reader(data)) as archive:
        at, entries = archive.start_dir, {}
        for info in archive.infolist():
            signature, _, *lengths = struct.unpack_from(_DIRECTORY_ENTRY, data, at)
            if signature != b'PK\x01\x02':
                raise ValueError('the central directory is not where it should be')
            entries[info.header_offset] = at
            at += _DIRECTORY_SIZE + sum(lengths)
    return entries


def _check(path, which, weights):
    """Raises ExportError unless the file reads back to these weights, but for what was rounded."""
    read = checkpoint.read(path, which=which).flat
    flat = flatten_dict(weights, sep='/')
    for name, array in read.items():
        same = np.array_equal(array, np.asarray(flat[name]))
        if not same and name.endswith('modulation/bias'):  # stored minus 1 in TensorFlow's files
            same = np.allclose(array, flat[name], rtol=0, atol=_ROUNDED * np.abs(array).max())
        if not same:
            raise ExportError(f'The written file does not read back to the same {name}.')
