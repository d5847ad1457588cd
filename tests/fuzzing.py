"""Random hostile files from a seeded generator, and what reading one must not do.

`make(kind, random)` gives the bytes of a file, `read(kind, file)` opens it as jaxinv does. Every
kind begins from sound files and damages them: bits, cuts, pieces repeated, moved or exchanged,
numbers made large; pickles are also built from opcodes, headers and run folders from JSON.
"""

import functools
import io
import json
import pathlib
import pickletools
import struct

import hostile
import numpy as np
import official_files as files
import pickle_writer
import PIL.Image

from jaxinv import edits
from jaxinv.data import images
from jaxinv.edits import ganspace
from jaxinv.errors import JaxinvError
from jaxinv.inversion import code_files
from jaxinv.runtime import manifest, metrics_log, workdir
from jaxinv.segmentation import label_maps
from jaxinv.weights import load

NUMBERS = (0, 1, 2, 7, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**61 - 1, 2**63, 2**64)
WORDS = tuple(
    name.replace('.', '\n', 1).encode() + b'\n'
    for name in (
        *('os.system', 'builtins.eval', 'builtins.set', 'builtins.bytearray', '_codecs.encode'),
        *('torch.FloatStorage', 'torch.Size', 'torch.device', 'numpy.dtype', 'numpy.ndarray'),
        *('collections.OrderedDict', 'collections.defaultdict', 'argparse.Namespace'),
        *('pathlib.PosixPath', 'my.Class'),
    )
)


# --- Damage ---------------------------------------------------------------------------------------


def damaged(data: bytes, random) -> bytes:
    """The file with one to eight faults."""
    data = bytearray(data)
    for _ in range(random.randint(1, 8)):
        if not data:
            return b''
        at, other = random.randrange(len(data)), random.randrange(len(data))
        size = random.choice((1, 2, 4, 8, 64, 512))
        fault = random.randrange(7)
        if fault == 0:
            data[at] ^= 1 << random.randrange(8)
        elif fault == 1:
            data[at : at + size] = bytes(random.randrange(256) for _ in range(size))
        elif fault == 2:
            number = random.choice(NUMBERS) + random.choice((-1, 0, 1))
            order = random.choice('<>') + random.choice('BHIQ')
            packed = struct.pack('<Q', number % 2**64)[: struct.calcsize(order)]
            data[at : at + len(packed)] = packed if order[0] == '<' else packed[::-1]
        elif fault == 3:
            del data[at : at + size]
        elif fault == 4:
            data[at:at] = data[other : other + size] * random.choice((1, 2, 50))
        elif fault == 5:
            data[at : at + size] = data[other : other + size]
        else:
            del data[at:]
    return bytes(data)


def json_value(random, depth=3):
    """Any value of JSON, often a strange one."""
    kind = random.randrange(9 if depth else 6)
    if kind == 0:
        return random.choice((None, True, False, '', 'a', '\x1b[2J', '\ud800', '../..', 'x' * 3000))
    if kind < 4:
        return random.choice((1, -1)) * random.choice(NUMBERS)
    if kind < 6:
        return random.choice((0.5, -1e300, 1e300, float('nan'), float('inf'), '1e5', '9' * 50))
    if kind == 6:
        return [json_value(random, depth - 1) for _ in range(random.randrange(4))]
    return {str(json_value(random, 0)): json_value(random, depth - 1) for _ in range(3)}


def changed(value, random):
    """A JSON value with one part replaced, removed or added."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(list(value))
        what = random.randrange(4)
        if what == 0:
            return {k: v for k, v in value.items() if k != key}
        if what == 1:
            return value | {str(json_value(random, 0)): json_value(random)}
        return value | {key: changed(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], changed(value[at], random), *value[at + 1 :]]
    return json_value(random)


def dumps(value) -> bytes:
    return json.dumps(value).encode()


# --- Sound files ----------------------------------------------------------------------------------


@functools.cache
def checkpoints():
    return {
        'torch_zip': files.rosinality_checkpoint(hostile.rosinality()),
        'torch_legacy': files.rosinality_checkpoint(
            hostile.rosinality(), write=pickle_writer.torch_legacy
        ),
        'pickle': files.nvidia_pickle(hostile.weights()),
        'tensorflow': files.tensorflow_pickle(hostile.weights()),
        'npz': pickle_writer.npz(hostile.weights()),
        'safetensors': pickle_writer.safetensors(hostile.weights()),
    }


@functools.cache
def pictures():
    array = np.random.RandomState(0).randint(0, 255, [70, 90, 3]).astype(np.uint8)
    found = {}
    for name, options in {
        'png': {}, 'jpeg': {}, 'gif': {}, 'bmp': {}, 'tiff': {}, 'webp': {}, 'ppm': {}, 'ico': {},
        'jpeg2000': {}, 'avif': {}, 'tga': {}, 'pcx': {},
    }.items():  # fmt: skip
        file = io.BytesIO()
        PIL.Image.fromarray(array).save(file, name, **options)
        found[name] = file.getvalue()
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, 'tiff', compression='tiff_adobe_deflate')
    return found | {'deflated_tiff': file.getvalue()}


@functools.cache
def directions():
    array = np.ones([1, 16], np.float32)
    file = io.BytesIO()
    np.save(file, array)
    return {
        '.npy': file.getvalue(),
        '.npz': pickle_writer.npz({'age': array, 'lat_comp': np.ones([4, 1, 16], np.float32)}),
        '.safetensors': pickle_writer.safetensors({'age': array}),
        '.pt': pickle_writer.torch_zip(pickle_writer.tensors({'eigvec': np.ones([16, 16], 'f4')})),
    }


@functools.cache
def edit_files():
    """A saved sequence, a table and GANSpace's components."""
    plain = edits.of_arrays('drag', np.ones([1, 4]))
    styles = edits.of_arrays('text', styles={'b8_conv1': np.ones([1, 4])})
    wanted = edits.Edit('yaw', ((plain.steps[0][0], edits.Wanted(10.0, 'deg', 'yaw')),))
    row = {'name': 'smile', 'component': 1, 'layers': '1:4', 'strength': -5}
    arrays = {'lat_comp': np.ones([2, 1, 4], 'f4'), 'lat_stdev': np.ones(2, 'f4')}
    return {
        '.edit.json': json.dumps(edits.to_json(edits.join([plain, styles, wanted]))).encode(),
        '.table.json': json.dumps({'components': 'file.npz', 'edits': [row]}).encode(),
        '.csv': b'name,component,start,end,strength\nsmile,2,1,4,-5\nage,0,0,3,2\n',
        '.npz': pickle_writer.npz(arrays | {'lat_mean': np.ones([1, 4], 'f4')}),
        '.pt': pickle_writer.torch_zip(pickle_writer.tensors(arrays)),
    }


@functools.cache
def label_files():
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 5
    npy, png = io.BytesIO(), io.BytesIO()
    np.save(npy, labels)
    PIL.Image.fromarray(labels).save(png, 'png')
    return {'.npy': npy.getvalue(), '.png': png.getvalue()}


@functools.cache
def code_arrays():
    return pickle_writer.npz({'names': np.array(['ada', 'bob']), 'w': np.ones([2, 1, 16], 'f4')})


RUN = {
    'run.json': {'config': {'task': 'invert', 'seed': 0}, 'sources': ['0' * 64]},
    'manifest.jsonl': {'name': 'ada', 'file': 'ada.png', 'sha256': '0' * 64, 'folder': 'ada'},
    'metrics.jsonl': {'stage': 'tune', 'step': 3, 'lpips_alex': 0.5},
}


def program(random) -> bytes:
    """A pickle of values within values; one of ten steps is any other instruction."""
    return b'\x80\x04' + _value(random, 6) + b'.'


def _value(random, depth) -> bytes:
    """Instructions that leave one object on the stack, unless there is a fault among them."""
    if random.random() < 0.02:
        return _fault(random)
    kind = random.randrange(12 if depth else 4)
    if kind < 4:
        return random.choice(_ATOMS)(random)
    inner = [_value(random, depth - 1) for _ in range(random.randrange(4))]
    if kind < 6:
        return b'](' + b''.join(inner) + b'e'
    if kind < 8:
        pairs = [random.choice(_ATOMS)(random) + item for item in inner]
        return b'}(' + b''.join(pairs) + b'u'
    if kind == 8:
        return b'(' + b''.join(inner) + random.choice((b't', b'\x91', b'l'))
    if kind == 9:
        return b''.join(inner[:1]) + random.choice((b'', b'q\x01', b'0h\x01', b'2\x86'))
    called = b'c' + random.choice(WORDS) + b'(' + b''.join(inner) + b't'
    return called + random.choice((b'R', b'\x81', b'R' + _value(random, 0) + b'b'))


_ATOMS = (
    lambda random: b'N',
    lambda random: b'J' + struct.pack('<i', random.randrange(-(2**31), 2**31)),
    lambda random: b'I' + str(random.choice(NUMBERS)).encode() + b'\n',
    lambda random: b'L' + str(-random.choice(NUMBERS)).encode() + b'L\n',
    lambda random: b'G' + bytes(random.randrange(256) for _ in range(8)),
    lambda random: b'X' + struct.pack('<I', 3) + bytes(random.choice(b'abc') for _ in range(3)),
    lambda random: b'C' + bytes([4]) + bytes(4),
    lambda random: b'\x88',
    lambda random: b']',
    lambda random: b'}',
    lambda random: b')',
    lambda random: b'q\x00' if random.random() < 0.1 else b'h\x00',
)


def _fault(random) -> bytes:
    op = random.choice(pickletools.opcodes)
    code = op.code.encode('latin-1')
    if op.name in ('GLOBAL', 'INST'):
        return code + random.choice(WORDS)
    return code + (_argument(op.arg, random) if op.arg is not None else b'')


def _argument(arg, random):
    if arg.n == pickletools.UP_TO_NEWLINE:
        return random.choice((b'1', b"'a'", b'1L', b'0x', b'9' * 50, b'1e9', b'\\u1234')) + b'\n'
    if arg.n > 0:
        return bytes(random.randrange(256) for _ in range(arg.n))
    size = random.choice((0, 1, 3, 200))
    head = {pickletools.TAKEN_FROM_ARGUMENT1: 'B', pickletools.TAKEN_FROM_ARGUMENT8U: 'Q'}
    return struct.pack('<' + head.get(arg.n, 'I'), size) + bytes(size)


def own_header(random) -> bytes:
    record = {'family': 'stylegan2', 'name': 'a', 'domain': '', 'arguments': hostile.ARGUMENTS}
    about = {'kind': 'a', 'notes': ['b'], 'sha256': '0' * 64, 'origin': {'kind': 'c'}}
    texts = [record, about]
    texts[random.randrange(2)] = changed(texts[random.randrange(2)], random)
    metadata = dict(zip(('jaxinv', 'about'), map(json.dumps, texts), strict=True))
    if random.random() < 0.3:
        delta = {'save': 'bfloat16', 'base': {'generator': 'tiny', 'resolution': 32, 'sha256': '0'}}
        metadata = {'jaxinv_delta': json.dumps(changed(delta, random)), 'sha256': '0'}
    entries = {'w': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}
    if random.random() < 0.3:
        entries = changed(entries, random)
        entries = entries if isinstance(entries, dict) else {}
    return hostile.sf(dumps(entries | {'__metadata__': metadata}))


def biggan_config(random) -> bytes:
    import biggan_folder

    return dumps(changed(json.loads(dumps(biggan_folder.CONFIG)), random))


# --- Kinds ----------------------------------------------------------------------------------------


def make(kind: str, random) -> tuple[str, bytes]:
    """(file name, content) of a hostile file of this kind."""
    if kind in checkpoints():
        return 'file', damaged(checkpoints()[kind], random)
    if kind == 'opcodes':
        return 'file', program(random)
    if kind == 'own headers':
        return 'file.safetensors', own_header(random)
    if kind == 'BigGAN config':
        return 'config.json', biggan_config(random)
    if kind == 'run folders':
        name = random.choice(list(RUN))
        data = dumps(changed(RUN[name], random)) + b'\n'
        return name, damaged(data, random) if random.random() < 0.5 else data
    if kind == 'codes':
        return 'pivots.npz', damaged(code_arrays(), random)
    sources = {
        'directions': directions,
        'edits': edit_files,
        'label maps': label_files,
        'pictures': pictures,
    }[kind]()
    name = random.choice(list(sources))
    return f'file{name if name[0] == "." else "." + name}', damaged(sources[name], random)


KINDS = (
    *('opcodes', 'torch_zip', 'torch_legacy', 'pickle', 'tensorflow', 'npz', 'safetensors'),
    *('own headers', 'BigGAN config', 'directions', 'edits', 'label maps', 'codes', 'pictures'),
    'run folders',
)


def read(kind: str, path: pathlib.Path) -> str:
    """Opens the file as jaxinv does. Returns 'read', or the sentence of the JaxinvError."""
    try:
        _read(kind, path)
    except JaxinvError as error:
        return str(error)
    return 'read'


def _read(kind, path):
    if kind == 'pictures':
        images.read(path)
    elif kind == 'directions':
        edits.load_direction(f'{path}:eigvec/1' if path.suffix == '.pt' else str(path))
    elif kind == 'edits' and path.name.endswith('.edit.json'):
        edits.load(path)
    elif kind == 'edits' and path.suffix in ('.json', '.csv'):
        ganspace.table(path)
    elif kind == 'edits':
        ganspace.component(ganspace.components(path), 1, str(path))
    elif kind == 'label maps':
        label_maps.read_map(path, (8, 8))
    elif kind == 'codes':
        code_files.load_pivots(path)
    elif kind == 'run folders' and path.name == 'run.json':
        with workdir.claim(path.parent, RUN['run.json']):
            pass
    elif kind == 'run folders' and path.name == 'manifest.jsonl':
        manifest.Manifest(path, log=lambda *a, **k: None)
    elif kind == 'run folders':
        metrics_log.read(path.parent)
    elif kind == 'BigGAN config':
        from jaxinv.converters import biggan_config

        biggan_config.read_config(path.parent / 'pytorch_model.bin')
    elif kind == 'own headers':
        load.load_generator(path, log=lambda *a, **k: None)
    elif kind == 'opcodes':
        from jaxinv.converters import safe_pickle

        safe_pickle.load(path)
    else:
        from jaxinv.converters import checkpoint

        checkpoint.read(path)


def fault_of(kind: str, path: pathlib.Path, outcome: str) -> str | None:
    """What is wrong with an outcome: not one printable sentence that names the file."""
    if outcome == 'read':
        return None
    if '\n' in outcome or not outcome.isprintable() or len(outcome) > 2000:
        return 'not one printable sentence'
    names = (path.name, str(path.parent))
    return None if any(name in outcome for name in names) else 'the file is not named'
