"""Reads weights from pickles and torch files without executing them.

A pickle is a program that may call any function of any module. This reader interprets it
(pickle_machine.py) and builds plain data only: numbers, strings, lists, dicts, numpy arrays and
torch tensors (as numpy arrays). Names in the file are looked up in a fixed table (pickle_names.py)
and never imported; other names are refused. Formats: plain pickles of protocols 0 to 5, torch's zip
format and its older one (torch_files.py).
"""

import warnings

from jaxinv.converters import file_view, torch_files
from jaxinv.converters.budget import Budget
from jaxinv.converters.file_view import MAX_BYTES, Refused, UnreadableFile
from jaxinv.converters.pickle_names import Name
from jaxinv.converters.pickle_values import Dtype, Opaque, Record, Storage

MAX_DEPTH = 64  # of nested containers
MAX_ITEMS = 10**6  # where a shared container counts once for each use
_REMEDY = (
    '; nothing in it was executed. Convert it to .npz or .safetensors on a machine where it is '
    'trusted'
)


class UnsafePickle(UnreadableFile):
    """The file is not plain data, or damaged; the message names the file and the reason."""


def load(path_or_file, max_bytes: int = MAX_BYTES):
    """The object in a pickle or torch file, from a path or an open binary file.

    Returns None, bool, int, float, complex, str, bytes (large ones as memoryview), list, tuple,
    dict, OrderedDict, set and numpy arrays and scalars. Torch tensors and parameters become numpy
    arrays in C order (bfloat16 as float32), saved modules pickle_values.Record. Objects of other
    classes, and what unknown functions would return, are pickle_values.Opaque: nothing is imported
    or called for them, and they hold nothing. Arrays are read-only views of the file where
    possible; the file must not change while they are used.
    Raises UnsafePickle with one sentence for everything else: an object that is Opaque itself,
    object arrays, cycles, duplicate keys, damaged or truncated files, files or arrays above
    `max_bytes`, files that would take much memory or time (budget.py).
    """
    if hasattr(path_or_file, 'read'):
        name = str(getattr(path_or_file, 'name', 'the file'))
        data = memoryview(path_or_file.read(max_bytes + 1))
    else:
        name = str(path_or_file)
        with file_view.reading(name, 'a pickle or torch file', error=UnsafePickle):
            data = file_view.view(path_or_file)
    return load_view(data, name, max_bytes)


def load_view(data: memoryview, name: str, max_bytes: int = MAX_BYTES, in_place: bool = False):
    """`load` for a file in memory; `name` is for messages.

    in_place: arrays are views of the file in its strides and types (bfloat16 as a field of two
    bytes) wherever their bytes are in it.
    """
    if len(data) > max_bytes:
        raise UnsafePickle(f'{name} has more than the {max_bytes} bytes allowed.')
    budget = Budget(len(data), max_bytes)
    # Pickles of protocol 0 are text, too; a text that is none of them is named as such.
    start = bytes(data[:40])
    is_text = bool(start) and all(32 <= byte < 127 or byte in b'\t\r\n' for byte in start)
    what = 'a pickle or torch file'
    if is_text:
        what += f' (it begins with the text {start.decode()!r}; was the download complete?)'
    with file_view.reading(name, what, _REMEDY, UnsafePickle):
        read = torch_files.from_zip if data[:4] == b'PK\x03\x04' else torch_files.from_stream
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # pickletools, about odd escapes in damaged names
            result = read(data, budget, in_place)
        _check_containers(result, budget)
        if isinstance(result, Opaque):
            raise Refused(f'is an object of {result.name}, which no weight file needs')
    return result


def _check_containers(root, budget):
    """Raises Refused for cycles, for depth, and for small files that expand to huge trees."""
    depth, items, path = {}, {}, set()
    stack = [(root, False)]
    while stack:
        node, children_done = stack.pop()
        if isinstance(node, Name | Dtype | Storage):
            raise Refused('holds a function, a class or a bare storage as a value')
        if not isinstance(node, list | tuple | dict | Record):
            continue
        if not children_done and id(node) in depth:
            continue
        if isinstance(node, Record):
            children = [node.state]
        else:
            children = list(node.values()) if isinstance(node, dict) else node
        budget.step(1 + len(children))
        if not children_done:
            if id(node) in path:
                raise Refused('holds a container inside itself')
            path.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in children)
            continue
        path.discard(id(node))
        depth[id(node)] = 1 + max((depth.get(id(c), 0) for c in children), default=0)
        items[id(node)] = 1 + sum(items.get(id(c), 1) for c in children)
        if depth[id(node)] > MAX_DEPTH or items[id(node)] > MAX_ITEMS:
            raise Refused('holds containers that are nested too deeply or repeated too often')
