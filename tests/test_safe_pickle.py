"""The pickle reader: plain data exactly, and nothing of a hostile file executed."""

import collections
import io
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest

from jaxinv.converters import budget, pickle_values, safe_pickle
from jaxinv.converters.safe_pickle import UnsafePickle

VALUES = np.arange(24, dtype=np.float32) - 7.5
TORCH = b'ctorch._utils\n_rebuild_tensor_v2\n('
HOOKS = b'\x89ccollections\nOrderedDict\n)RtR'  # requires_grad, backward hooks


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def read(data, **options):
    return safe_pickle.load(io.BytesIO(data), **options)


def storage(kind='Float', key='0', count=24):
    return f"(S'storage'\nctorch\n{kind}Storage\nS'{key}'\nS'cpu'\nI{count}\ntQ".encode()


def tensor(sizes, strides, offset=0, **kind):
    tuples = [''.join(['(', *(f'I{n}\n' for n in ns), 't']) for ns in (sizes, strides)]
    return TORCH + storage(**kind) + f'I{offset}\n{"".join(tuples)}'.encode() + HOOKS


def torch_zip(pickled, members=None, order=None, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', pickled)
        for key, values in (members or {'0': VALUES.tobytes()}).items():
            archive.writestr(f'archive/data/{key}', values)
        if order:
            archive.writestr('archive/byteorder', order)
    return file.getvalue()


def torch_legacy(pickled, members):
    head = [0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True}]
    data = b''.join(pickle.dumps(part, 2) for part in head) + pickled
    data += pickle.dumps(sorted(members), 2)
    for _, values in sorted(members.items()):
        data += struct.pack('<q', values.size) + values.tobytes()
    return data


@pytest.mark.parametrize('protocol', range(6))
def test_plain_data_comes_back_exactly(protocol):
    data = {
        'scalars': [None, True, False, 1, -(2**70), 2.5, 'é', b'\x00\xff', bytearray(b'ab')],
        'containers': ((), (1,), (1, 2), (1, 2, 3, 4), [[]], {'a': {}}, {1, 2}),
        'ordered': collections.OrderedDict(b=1, a=2),
        ('key', 3): VALUES.reshape(2, 3, 4),
    }
    result = read(pickle.dumps(data, protocol))
    np.testing.assert_array_equal(result.pop(('key', 3)), data.pop(('key', 3)))
    assert result == data and list(result['ordered']) == ['b', 'a']
    assert type(result['ordered']) is collections.OrderedDict


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize(
    'dtype', ['<f4', '>f4', '<f8', '<f2', '<i8', '>u2', 'i1', '?', '<c8', 'S3', '<U2']
)
def test_numpy_arrays_of_every_protocol_and_type(protocol, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    for value in (array, np.asfortranarray(array), array[:, ::2], array[:0], array[1, 1, 1]):
        result = read(pickle.dumps(value, protocol))
        assert result.dtype == value.dtype and result.shape == value.shape
        np.testing.assert_array_equal(result, value)


def test_numpy_before_and_after_version_2():
    data = pickle.dumps(VALUES, 3).replace(b'numpy._core', b'numpy.core')
    np.testing.assert_array_equal(read(data), VALUES)
    data = pickle.dumps(VALUES, 3).replace(b'numpy.core', b'numpy._core')
    np.testing.assert_array_equal(read(data), VALUES)


def test_tensor_sizes_strides_and_offset_are_honoured():
    grid = VALUES.reshape(4, 6)
    for sizes, strides, offset, expected in (
        ((1, 24), (24, 1), 0, VALUES[None]),
        ((4, 6), (6, 1), 0, grid),
        ((6, 4), (1, 6), 0, grid.T),
        ((2, 3), (6, 2), 7, grid[1:3, 1::2]),
        ((3, 2), (0, 1), 5, np.tile(VALUES[5:7], (3, 1))),
        ((), (), 9, VALUES[9]),
        ((0, 3), (3, 1), 0, np.zeros((0, 3))),
    ):
        result = read(torch_zip(b'\x80\x02' + tensor(sizes, strides, offset) + b'.'))
        assert result.dtype == np.float32 and result.flags.c_contiguous
        np.testing.assert_array_equal(result, expected)


def test_state_dict_of_parameters_and_its_metadata():
    parameter = b'ctorch._utils\n_rebuild_parameter\n(' + tensor((24,), (1,)) + b'\x88'
    parameter += b'ccollections\nOrderedDict\n)RtR'
    state = b"}S'_metadata'\nccollections\nOrderedDict\n)Rsb."
    data = b'\x80\x02ccollections\nOrderedDict\n)R' + b"S'w'\n" + parameter + b's' + state
    result = read(torch_zip(data))
    assert list(result) == ['w']
    np.testing.assert_array_equal(result['w'], VALUES)


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [('Double', 'f8'), ('Half', 'f2'), ('Long', 'i8'), ('Byte', 'u1'), ('Bool', '?')],
)
def test_storage_types(kind, dtype):
    values = np.arange(24).astype(dtype)
    data = tensor((24,), (1,), kind=kind) + b'.'
    result = read(torch_zip(data, {'0': values.tobytes()}))
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result, values)


def test_bfloat16_becomes_float32():
    bits = (VALUES.view(np.uint32) >> 16).astype('<u2')  # these values are exact in bfloat16
    result = read(torch_zip(tensor((24,), (1,), kind='BFloat16') + b'.', {'0': bits.tobytes()}))
    np.testing.assert_array_equal(result, VALUES)


def test_big_endian_torch_file():
    data = torch_zip(tensor((24,), (1,)) + b'.', {'0': VALUES.astype('>f4').tobytes()}, b'big')
    np.testing.assert_array_equal(read(data), VALUES)


def test_older_torch_format():
    pickled = b'\x80\x02(' + tensor((4, 6), (6, 1)).replace(b'tQ', b'NtQ')
    pickled += tensor((2,), (1,), 1, kind='Double', key='7', count=3).replace(b'tQ', b'NtQ') + b't.'
    first, second = read(torch_legacy(pickled, {'0': VALUES, '7': np.array([1.0, 2.0, 3.0])}))
    np.testing.assert_array_equal(first, VALUES.reshape(4, 6))
    np.testing.assert_array_equal(second, [2.0, 3.0])


def test_path_and_open_file(tmp_path):
    path = tmp_path / 'direction.pt'
    path.write_bytes(torch_zip(tensor((1, 24), (24, 1)) + b'.'))
    np.testing.assert_array_equal(safe_pickle.load(path), VALUES[None])
    with open(path, 'rb') as file:
        np.testing.assert_array_equal(safe_pickle.load(file), VALUES[None])
    with pytest.raises(UnsafePickle, match='direction.pt has more than the 100 bytes'):
        safe_pickle.load(path, max_bytes=100)


def object_array():
    return np.array([Call(os.system, 'touch ran')], dtype=object)


def nested_lists(count, wrap=b']', close=b'a'):
    return wrap * count + close * (count - 1) + b'.'


RECONSTRUCT = b'cnumpy.core.multiarray\n_reconstruct\n'
TOUCH = b"(S'touch ran'\ntR."
HOSTILE = {
    **{f'system_{p}': pickle.dumps(Call(os.system, 'touch ran'), p) for p in range(6)},
    'eval': pickle.dumps(Call(eval, "open('ran', 'w')")),
    'exec': pickle.dumps(Call(exec, "open('ran', 'w')")),
    'getattr': pickle.dumps(Call(getattr, 'abc', 'upper')),
    'open': pickle.dumps(Call(open, 'ran', 'w')),
    'inside_torch_zip': torch_zip(pickle.dumps(Call(os.system, 'touch ran'), 2)),
    'as_storage': torch_zip(
        tensor((1,), (1,)).replace(b'torch\nFloatStorage', b'os\nsystem') + b'.'
    ),
    'as_storage_key': torch_zip(b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI1\ntQ."),
    'torch_load': b'ctorch.storage\n_load_from_bytes\n' + TOUCH,
    'persistence': b'ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}tR.',
    'import_a_module': b'cantigravity\nfly\n.',
    'dotted_name': b'\x80\x04\x8c\x05numpy\x8c\x0fos.system.__c__\x93.',
    'inst': b"(S'touch ran'\nios\nsystem\n.",
    'obj': b"(cos\nsystem\nS'touch ran'\no.",
    'newobj': b"\x80\x02cos\nsystem\n(S'touch ran'\nt\x81.",
    'extension': b'\x80\x02\x82\x01.',
    'build': b"}(S'__class__'\nNtb.",
    'build_list': b"]}S'append'\nNsb.",
    'persistent_id': b'Pabc\n.',
    'object_array': pickle.dumps(object_array(), 2),
    'object_array_4': pickle.dumps(object_array(), 4),
    'record_array': pickle.dumps(np.zeros(2, [('a', 'f4')])),
    'array_class': RECONSTRUCT + b'(cos\nsystem\n(I0\ntc_codecs\nencode\n' + TOUCH,
    'codec': b"c_codecs\nencode\n(Vabc\nS'rot13'\ntR.",
    'call_a_list': b'](tR.',
    'call_a_label': b'cnumpy\nndarray\n(I1\ntR.',
    'function_as_value': b'ccollections\nOrderedDict\n.',
    'dtype_language': b"cnumpy\ndtype\n(S'f4,f4'\ntR.",
    'dtype_object': b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
    'out_of_storage': torch_zip(tensor((5, 6), (6, 1)) + b'.'),
    'before_storage': torch_zip(tensor((4,), (1,), -4) + b'.'),
    'negative_stride': torch_zip(tensor((4,), (-1,)) + b'.'),
    'wraps_around': torch_zip(tensor((2**62, 4), (0, 0)) + b'.'),
    'huge_tensor': torch_zip(tensor((2**20, 2**20), (0, 0)) + b'.'),
    'short_storage': torch_zip(tensor((24,), (1,)) + b'.', {'0': VALUES[:12].tobytes()}),
    'no_storage': torch_zip(tensor((24,), (1,), key='../0') + b'.'),
    'zip_bomb': torch_zip(b'N.', {'0': bytes(10**8)}, compression=zipfile.ZIP_DEFLATED),
    'list_in_itself': b']q\x00h\x00a.',
    'deep_lists': nested_lists(100_000),
    'deep_tuple_as_key': b'})' + b'\x85' * 100_000 + b'Ns.',
    'unfolds': b']q\x000' + b''.join([b'](' + b'h\x00' * 10 + b'eq\x000'] * 20) + b'h\x00.',
    'empty': b'',
    'text': b'this is not a pickle\n' * 20,
    'html': b'<!DOCTYPE html><html><head><title>404</title></head></html>',
    'png': b'\x89PNG\r\n\x1a\n' + bytes(64),
    'other_zip': (lambda f: (zipfile.ZipFile(f, 'w').close(), f.getvalue())[1])(io.BytesIO()),
    'zip_head_only': b'PK\x03\x04' + bytes(100),
    'ends_early': pickle.dumps({'w': VALUES})[:-20],
    'zip_ends_early': torch_zip(tensor((24,), (1,)) + b'.')[:-60],
    'takes_too_much': b'0.',
    'long_string': b'\x8d' + struct.pack('<Q', 2**62) + b'abc.',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_run_nothing_and_get_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    with pytest.raises(UnsafePickle) as error:
        read(HOSTILE[name], max_bytes=2**24)
    assert not list(tmp_path.iterdir())
    assert not {m for m in set(sys.modules) - before if not m.startswith('encodings')}
    message = str(error.value)
    assert message.startswith('the file ') and message.endswith('.') and '\n' not in message
    assert len(message) < 400


def test_what_unknown_functions_would_return_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, (call,) = read(pickle.dumps({'w': [VALUES, (Call(os.system, 'touch ran'),)]}))['w']
    np.testing.assert_array_equal(value, VALUES)
    assert isinstance(call, pickle_values.Opaque) and call.name.endswith('.system')
    assert read(b'}cos\nsystem\n' + TOUCH[:-1] + b'Ns.') == {}  # as a key
    # A list, a dict and a set whose class is not known take items, and hold none.
    for items in (b'(I1\nI2\ne', b'(I1\nI2\nu', b'(I1\nI2\n\x90', b'}b'):
        found = read(b'\x80\x04]cmy\nThings\n)\x81' + items + b'a.')
        assert [type(item) for item in found] == [pickle_values.Opaque]
    assert not list(tmp_path.iterdir())


def test_instructions_are_counted_over_all_pickles_of_a_file(monkeypatch):
    data = torch_legacy(tensor((24,), (1,)).replace(b'tQ', b'NtQ') + b'.', {'0': VALUES})
    read(data)
    monkeypatch.setattr(budget, 'MAX_OPERATIONS', 45)
    read(pickle.dumps(list(range(10))))
    with pytest.raises(UnsafePickle, match='too many instructions'):
        read(data)
    with pytest.raises(UnsafePickle, match='too many instructions'):
        read(pickle.dumps(list(range(400))))


def test_the_hostile_files_are_hostile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE['open']).close()
    assert (tmp_path / 'ran').exists()


def test_every_truncation_and_many_damages_give_one_sentence():
    good = torch_legacy(tensor((24,), (1,)).replace(b'tQ', b'NtQ') + b'.', {'0': VALUES})
    read(good)
    for end in range(0, len(good) - 1, 7):
        with pytest.raises(UnsafePickle):
            read(good[:end])
    random = np.random.RandomState(0)
    for data in (good, torch_zip(tensor((24,), (1,)) + b'.'), pickle.dumps({'w': VALUES})):
        for _ in range(300):
            damaged = bytearray(data)
            damaged[random.randint(len(data))] = random.randint(256)
            try:
                read(bytes(damaged), max_bytes=2**20)
            except UnsafePickle:
                pass
