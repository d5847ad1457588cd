"""Hostile files, for tests/test_hostile_files.py.

Most are a whole official checkpoint with one thing in it that does not belong there. Commands would
touch the file `ran` in the working folder.
"""

import collections
import functools
import io
import pickle
import struct
import zipfile

import numpy as np
import official_files as files
import official_weights
import pickle_writer
from pickle_writer import Call, New, Storage, plain_pickle, torch_legacy, torch_zip

TOUCH = 'touch ran'
SYSTEM = Call(('os', 'system'), TOUCH)


class Reduces:
    """What Python itself pickles as os.system('touch ran')."""

    def __reduce__(self):
        import os

        return os.system, (TOUCH,)


@functools.cache
def weights():
    return official_weights.weights()


@functools.cache
def rosinality():
    return official_weights.rosinality_names(weights())[0]


def beside(value, protocol=4):
    """A snapshot of stylegan2-ada-pytorch with one more entry."""
    return plain_pickle({'G_ema': files.nvidia_generator(weights()), 'extra': value}, protocol)


def within(value):
    """A checkpoint of rosinality's code, by torch.save, with one more array."""
    return torch_zip({'g_ema': pickle_writer.tensors(rosinality()) | {'extra': value}})


def raw(pickled, members=(), compression=zipfile.ZIP_STORED):
    """A torch file with this pickle and these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', pickled)
        for name, content in dict(members).items():
            archive.writestr(name, content)
    return file.getvalue()


def archive():
    """A sound torch file of one array, for damage to its zip structure."""
    return torch_zip({'g_ema': pickle_writer.tensors({'w': np.arange(64, dtype=np.float32)})})


def directory(data, change):
    """Changes the first entry of the zip's directory: change(offset in a bytearray of the file)."""
    data = bytearray(data)
    change(data, data.index(b'PK\x01\x02'))
    return bytes(data)


# --- Calls: no name leads out of the table ---

CALLS = {
    'os.system': (TOUCH,),
    'posix.system': (TOUCH,),
    'nt.system': (TOUCH,),
    'subprocess.Popen': (TOUCH,),
    'builtins.eval': ("open('ran', 'w')",),
    'builtins.exec': ("open('ran', 'w')",),
    'builtins.open': ('ran', 'w'),
    'builtins.getattr': ('abc', 'upper'),
    'builtins.__import__': ('antigravity',),
    '__builtin__.eval': ("open('ran', 'w')",),
    '__builtin__.apply': ('abc', ()),
    'io.open': ('ran', 'w'),
    '_io.FileIO': ('ran', 'w'),
    'pathlib.Path.touch': ('ran',),
    'operator.attrgetter': ('system',),
    'operator.methodcaller': ('system', TOUCH),
    'functools.partial': ('system', TOUCH),
    'functools.reduce': ('system', TOUCH),
    'copyreg._reconstructor': (pickle_writer.Name('os', 'system'), None, None),
    'copyreg.__newobj__': (pickle_writer.Name('builtins', 'object'),),
    'importlib.import_module': ('antigravity',),
    'runpy.run_path': ('file',),
    'pickle.loads': (pickle.dumps(Reduces(), 2),),
    '_pickle.loads': (pickle.dumps(Reduces(), 2),),
    'types.FunctionType': ('code', {}),
    'ctypes.CDLL': ('libc.so.6',),
    'webbrowser.open': ('http://localhost',),
    'numpy.load': ('file',),
    'numpy.core.multiarray.fromfile': ('file',),
    'numpy.core._internal._reconstruct': ('x',),
    'numpy.testing._private.utils.runstring': ("open('ran', 'w')", {}),
    'torch.load': ('file',),
    'torch.hub.load': ('owner/repository', 'model'),
    'torch.jit.load': ('file',),
    'torch.serialization.load': ('file',),
    'torch.utils.cpp_extension.load': ('name', 'file'),
    'torch.storage._load_from_file': ('file',),
    'torch._utils._rebuild_parameter_with_state': (None, True, None, {}),
    'torch_utils.persistence._src_to_module': (files.SOURCE,),
    'dnnlib.util.call_func_by_name': ('os.system', TOUCH),
    'dnnlib.util.get_obj_by_name': ('os.system',),
    'dnnlib.tflib.network.Network': (),
    'argparse.Namespace': (),
    'collections.OrderedDict': ([('a', pickle_writer.Name('os', 'system'))],),
}


def call(name):
    module, _, function = name.rpartition('.')
    if name == 'pathlib.Path.touch':
        module, function = 'pathlib', 'Path.touch'
    return Call((module, function), *CALLS[name])


# --- Everything else ---


def nested_blobs(depth):
    """Torch files whose storage is a torch file, whose storage is a torch file ..."""
    value = Storage(np.zeros(3, np.float32))
    for _ in range(depth):
        parts = (pickle_writer.MAGIC, 1001, {}, value, [])
        blob = b''.join(plain_pickle(part, 3) for part in parts)
        value = Call(('torch.storage', '_load_from_bytes'), blob)
    return value


def own_component():
    network = New(('dnnlib.tflib.network', 'Network'))
    network.state = dict(version=4, static_kwargs={}, variables=[], components={'self': network})
    return network


def view(sizes, strides, offset=0, count=24):
    """A tensor of these sizes over a storage of 24 numbers."""
    storage = Storage(np.zeros(24, np.float32))
    rest = (False, collections.OrderedDict())
    call = Call(('torch._utils', '_rebuild_tensor_v2'), storage, offset, sizes, strides, *rest)
    if count != 24:
        storage.array = np.zeros(count, np.float32)
    return call


def reduced_array(shape=(2,), dtype=('f4', '<', None, None, None), data=bytes(8)):
    core = 'numpy.core.multiarray'
    code, *state = dtype
    head = Call((core, '_reconstruct'), pickle_writer.Name('numpy', 'ndarray'), (0,), b'b')
    kind = Built(Call(('numpy', 'dtype'), code, False, True), (3, *state, -1, -1, 0))
    return Built(head, (1, shape, kind, False, data))


class Built:
    """A call's result with a state set by BUILD."""

    def __init__(self, made, state):
        self.made, self.state = made, state


def save_built(pickler, obj):
    pickler.save(obj.made)
    pickler.save(obj.state)
    pickler.write(pickle.BUILD)


pickle_writer.Pickler.dispatch[Built] = save_built

LAUGHS = b']q\x000' + b''.join([b'](' + b'h\x00' * 10 + b'eq\x000'] * 20)
STORAGE = b"(S'storage'\nctorch\nFloatStorage\nS'%s'\nS'cpu'\nI24\ntQ"
SAFETENSORS = b'{"w":{"dtype":"F32","shape":[%s],"data_offsets":[%s]}}'
NPY = "{'descr': %s, 'fortran_order': False, 'shape': %s}"


def sf(header, data=bytes(8), length=None):
    return struct.pack('<Q', len(header) if length is None else length) + header + data


def npy(descr="'<f4'", shape='(2,)', data=bytes(8), **options):
    header = (NPY % (descr, shape)).encode() + b'\n'
    content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data
    return zipped({'w.npy': content}, **options)


# --- Small files that would take much memory or time ---

LONG = b'X' + struct.pack('<I', 10**5) + b'a' * 10**5 + b'q\x00'  # a string, kept in the memo


def repeated(count, once, head=b'', start=b'\x80\x02'):
    """A pickle of a list of `count` results of the instructions `once`."""
    return start + head + b'0](' + once * count + b'e.'


def memo_list(count):
    """A list of the numbers below `count`, kept in the memo as 0."""
    return b']q\x00(' + b''.join(b'J' + struct.pack('<i', i) for i in range(count)) + b'e'


def keys(values, protocol=2):
    """A dict with these keys, which Python itself need not be able to hash quickly."""
    return b'\x80\x02}(' + b''.join(pickle.dumps(v, protocol)[2:-1] + b'N' for v in values) + b'u.'


def equal_tuples(count):
    """Pairs of whole numbers below 2^61 with one hash, by the algebra of CPython's tuple hash."""
    first, second, rotation = 11400714785074694791, 14029467366897019727, 31
    mask, inverse = 2**64 - 1, pow(14029467366897019727, -1, 2**64)

    def turned(x):
        return ((x << rotation) | (x >> (64 - rotation))) & mask

    found, target = [], 0x0123456789ABCDEF
    number = 0
    while len(found) < count:
        number += 1
        lane = (turned((2870177450012600261 + number * second) & mask) * first) & mask
        other = ((target - lane) * inverse) & mask
        if 0 < other < 2**61 - 1:
            found.append((number, other))
    return found


def path_laughs():
    part = b'cpathlib\nPosixPath\n(' + b'h\x00' * 100 + b'tRq\x00'
    return b'\x80\x02' + LONG + b'0' + part * 5 + b'.'


def legacy(keys_pickle):
    head = b''.join(plain_pickle(x, 2) for x in (pickle_writer.MAGIC, 1001, {}))
    return head + b'\x80\x02N.' + keys_pickle


def many_members():
    """A zip file with a directory of 300 000 entries."""
    name = b'a.npy'
    entry = struct.pack(
        '<4s6H3L5H2L', b'PK\x01\x02', 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0
    )
    directory_ = (entry + name) * 300_000
    end = struct.pack('<4s4H2LH', b'PK\x05\x06', 0, 0, 65535, 65535, len(directory_), 0, 0)
    return directory_ + end


def own(record, **more):
    """A .safetensors file with a header of jaxinv."""
    import json

    header = json.dumps({'__metadata__': {'jaxinv': json.dumps(record), **more}}).encode()
    return struct.pack('<Q', len(header)) + header


ARGUMENTS = dict(
    resolution=8, z_dim=4, w_dim=4, c_dim=0, mapping_layers=2, channels=[4, 4],
    architecture='skip', conv_clamp=None, scaled_epsilon=False,
)  # fmt: skip


def renamed(old, new):
    """Rosinality's generator with one array under another name."""
    arrays = {name.replace(old, new): array for name, array in rosinality().items()}
    return torch_zip({'g_ema': pickle_writer.tensors(arrays)})


COSTLY = {
    'path_laughs': path_laughs,
    'bytearray_copies': lambda: repeated(
        20_000,
        b'c__builtin__\nbytearray\nh\x00\x85R',
        b'B' + struct.pack('<I', 10**5) + b'a' * 10**5 + b'q\x00',
        b'\x80\x03',
    ),
    'encode_copies': lambda: repeated(
        20_000, b'c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R', LONG
    ),
    'set_copies': lambda: repeated(20_000, b'c__builtin__\nset\nh\x00\x85R', memo_list(50_000)),
    'ordered_dict_copies': lambda: repeated(
        20_000,
        b'ccollections\nOrderedDict\nh\x00\x85R',
        b']q\x00(' + b''.join(b'J' + struct.pack('<i', i) + b'N\x86' for i in range(30_000)) + b'e',
    ),
    'namespace_copies': lambda: repeated(
        20_000,
        b'cargparse\nNamespace\n)\x81h\x00b',
        b'}q\x00(' + b''.join(b'J' + struct.pack('<i', i) + b'N' for i in range(30_000)) + b'u',
    ),
    'size_of_a_list': lambda: repeated(20_000, b'ctorch\nSize\nh\x00\x85R', memo_list(30_000)),
    'keys_of_one_hash': lambda: keys([i * (2**61 - 1) for i in range(1, 10_000)]),
    'keys_of_one_hash_negative': lambda: keys([-i * (2**61 - 1) for i in range(1, 10_000)]),
    'keys_are_floats': lambda: keys([float(i) for i in range(10)]),
    'keys_are_complex': lambda: b'\x80\x02}c__builtin__\ncomplex\n(G' + bytes(16) + b'tRNs.',
    'keys_are_equal_tuples': lambda: keys(equal_tuples(40_000)) + bytes(10),
    'keys_are_long_tuples': lambda: keys([tuple(range(i, i + 20)) for i in range(10)]),
    'legacy_keys_are_lists': lambda: legacy(b'\x80\x02](' + (LAUGHS + b'h\x00') * 1 + b'e.'),
    'legacy_version_is_a_list': lambda: plain_pickle(pickle_writer.MAGIC, 2) + LAUGHS + b'h\x00.',
    'line_without_end': lambda: b'V' + b'a' * 2**22,
    'digits_of_a_number': lambda: b'L' + b'9' * 10**6 + b'L\n.',
    'long_number': lambda: repeated(
        20_000, b'}h\x00Ns', b'\x8b' + struct.pack('<i', 10**5) + b'\x7f' * 10**5 + b'q\x00'
    ),
    'many_empty_sets': lambda: b'\x80\x04](' + b'\x8f' * 3_000_000 + b'e.',
    'many_members': many_members,
    'sf_many_objects': lambda: sf(b'{"a":[' + b'{},' * 3_000_000 + b'{}]}'),
    'sf_digits': lambda: sf(
        b'{"w":{"dtype":"F32","shape":[' + b'9' * 5000 + b'],"data_offsets":[0,8]}}'
    ),
    'sf_long_shape': lambda: sf(
        b'{"w":{"dtype":"F32","shape":[' + b'9999999999,' * 10**5 + b'1],"data_offsets":[0,8]}}'
    ),
    'own_layers': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS | {'mapping_layers': 10**7}}
    ),
    'own_channels': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS | {'channels': [10**12, 4]}}
    ),
    'own_resolution': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS | {'resolution': 2**40}}
    ),
    'own_family_is_a_list': lambda: own({'family': ['stylegan2']}),
    'own_arguments_are_a_list': lambda: own({'family': 'stylegan2', 'arguments': [1]}),
    'own_size_is_true': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS | {'z_dim': True}}
    ),
    'own_unknown_argument': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS | {'compute_dtype': 'x'}}
    ),
    'own_clamp_is_nan': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS | {'conv_clamp': float('nan')}}
    ),
    'own_biggan_layers': lambda: own(
        {'family': 'biggan_deep', 'name': 'a', 'arguments': {'layers': [[1, 10**9, 4]]}}
    ),
    'own_origin_is_a_list': lambda: own(
        {'family': 'stylegan2', 'name': 'a', 'arguments': ARGUMENTS}, about='[1]'
    ),
    'own_name_is_long': lambda: own(
        {'family': 'stylegan2', 'name': 'a' * 10**6, 'arguments': ARGUMENTS}
    ),
    'digits_in_a_name': lambda: renamed('convs.0.', 'convs.' + '9' * 5000 + '.'),
    'number_in_a_name': lambda: renamed('convs.0.', 'convs.99999999.'),
    'no_channels': lambda: torch_zip(
        {
            'g': pickle_writer.tensors(
                {
                    'input.input': np.zeros([1, 0, 4, 4], np.float32),
                    'conv1.activate.bias': np.zeros(0, np.float32),
                    'convs.0.activate.bias': np.zeros(0, np.float32),
                    'style.1.weight': np.zeros([0, 0], np.float32),
                }
            )
        }
    ),
    'many_layers': lambda: torch_zip(
        {
            'g': pickle_writer.tensors(
                {f'mapping.fc{i}.weight': np.zeros([1, 1], np.float32) for i in range(3000)}
                | {f'synthesis.b{n}.conv1.bias': np.zeros(1, np.float32) for n in (4, 8)}
                | {'synthesis.b4.const': np.zeros([1, 4, 4], np.float32)}
            )
        }
    ),
}


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def doubled_member():
    data = zipped({'archive/data.pkl': b'N.', 'archive/data.pkm': b'N.'})
    return data.replace(b'data.pkm', b'data.pkl')


def overlapping_members():
    """Two entries of the directory for one local header, as in the best known zip bombs."""
    data = zipped({'a.npy': bytes(99), 'b.npy': bytes(99)})
    second = data.index(b'PK\x03\x04', 4)
    return data.replace(struct.pack('<I', second) + b'b.npy', struct.pack('<I', 0) + b'b.npy')


def members_share_bytes():
    """The first member reaches into the second."""
    data = zipped({'a.npy': bytes(99), 'b.npy': bytes(99)})
    return directory(data, patch(20, struct.pack('<2I', 150, 150)))


def two_names():
    data = zipped({'archive/data.pkl': b'N.'})
    return data.replace(b'archive/data.pkl', b'archive/data.pkm', 1)


def object_array():
    return np.array([Reduces()], dtype=object)


def patch(offset, value):
    def change(data, start):
        data[start + offset : start + offset + len(value)] = value

    return change


# Of CALLS: those that the reader knows, and of these the ones with invalid arguments.
KNOWN = (
    'torch._utils._rebuild_parameter_with_state',
    'dnnlib.tflib.network.Network',
    'argparse.Namespace',
)
INVALID = ('dnnlib.tflib.network.Network', 'argparse.Namespace')

# Objects of unknown classes where the generator does not need them.
LEFT_OUT = {
    'newobj': lambda: beside(New(('os', 'system'), state=TOUCH)),
    'in_tuned_generator': lambda: files.tuned_generator(
        weights(), options={'synthesis': {'hook': SYSTEM}}
    ),
    'persistent_state_calls': lambda: beside(files.module('Generator', hook=SYSTEM)),
    'beside_a_state_dict': lambda: torch_zip(
        {'g_ema': pickle_writer.tensors(rosinality()), 'opts': {'callback': SYSTEM}}
    ),
    'as_a_key': lambda: torch_zip(
        {'g_ema': pickle_writer.tensors(rosinality()), 'opts': [SYSTEM, {'a': SYSTEM}]}
    ),
}

HOSTILE = {
    # Calls in other clothes
    **{f'reduce_{p}': lambda p=p: pickle.dumps({'G_ema': Reduces()}, p) for p in range(6)},
    'dotted_name': lambda: b'\x80\x04\x8c\x05numpy\x8c\x0dos.system.__c\x93.',
    'names_from_lists': lambda: LAUGHS + b'h\x00h\x00\x93.',
    'inst': lambda: b"(S'touch ran'\nios\nsystem\n.",
    'obj': lambda: b"(cos\nsystem\nS'touch ran'\no.",
    'newobj_ex': lambda: b'\x80\x04cargparse\nNamespace\n)}\x92.',
    'newobj_arguments': lambda: b"\x80\x02cargparse\nNamespace\n(S'touch ran'\nt\x81.",
    'extension_1': lambda: b'\x80\x02\x82\x01.',
    'extension_4': lambda: b'\x80\x02\x84\x01\x00\x00\x00.',
    'out_of_band_buffer': lambda: b'\x80\x05\x97.',
    'in_torch_zip': lambda: within(SYSTEM),
    'in_torch_legacy': lambda: torch_legacy({'g_ema': SYSTEM}),
    'in_options': lambda: torch_zip({'state_dict': {}, 'opts': {'callback': SYSTEM}}),
    'as_state': lambda: beside(New(('argparse', 'Namespace'), state=SYSTEM)),
    'attributes_of_a_list': lambda: b"]}S'append'\nNsb.",
    'class_as_value': lambda: beside(pickle_writer.Name('collections', 'OrderedDict')),
    # Files within files
    'blob_calls': lambda: beside(
        Call(('torch.storage', '_load_from_bytes'), pickle.dumps(Reduces(), 2))
    ),
    'blob_calls_after_magic': lambda: beside(
        Call(('torch.storage', '_load_from_bytes'), torch_legacy(SYSTEM))
    ),
    'blobs_100_deep': lambda: beside(nested_blobs(100)),
    'blob_of_a_dict': lambda: beside(
        Call(('torch.storage', '_load_from_bytes'), torch_legacy({'a': 1}))
    ),
    'blob_of_text': lambda: beside(Call(('torch.storage', '_load_from_bytes'), 'file')),
    'bare_storage': lambda: beside(Storage(np.zeros(3, np.float32))),
    # NVIDIA's objects
    'network_state_calls': lambda: plain_pickle(
        New(('dnnlib.tflib.network', 'Network'), state=SYSTEM)
    ),
    'network_in_itself': lambda: plain_pickle(own_component()),
    'network_twice': lambda: b'\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81}b}b.',
    'network_without_state': lambda: plain_pickle(New(('dnnlib.tflib.network', 'Network'))),
    'persistent_function': lambda: beside(
        Call(
            ('torch_utils.persistence', '_reconstruct_persistent_obj'),
            dict(type='function', module_src=files.SOURCE, class_name='f', state={}),
        )
    ),
    'persistent_without_modules': lambda: plain_pickle(
        {
            'G_ema': Call(
                ('torch_utils.persistence', '_reconstruct_persistent_obj'),
                dict(type='class', module_src=files.SOURCE, class_name='G', state={}),
            )
        }
    ),
    # References to other files
    'persistent_id_path': lambda: b'P../../etc/passwd\n.',
    'persistent_id_absolute': lambda: b"S'/etc/passwd'\nQ.",
    'storage_path': lambda: raw(STORAGE % b'../../../etc/passwd' + b'.'),
    'storage_absolute': lambda: raw(STORAGE % b'/etc/passwd' + b'.'),
    'storage_is_a_function': lambda: raw(b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI1\ntQ."),
    # Zip files
    'member_above': lambda: raw(b'N.', {'archive/../../ran': b'x'}),
    'member_absolute': lambda: raw(b'N.', {'/ran': b'x'}),
    'member_backslash': lambda: raw(b'N.', {'archive\\..\\ran': b'x'}),
    'member_twice': doubled_member,
    'members_overlap': overlapping_members,
    'members_share_bytes': members_share_bytes,
    'member_of_two_names': two_names,
    'two_pickles': lambda: raw(b'N.', {'other/data.pkl': b'N.'}),
    'bomb': lambda: raw(b'N.', {'archive/data/0': bytes(10**7)}, zipfile.ZIP_DEFLATED),
    'bomb_npz': lambda: npy(
        shape='(2500000,)', data=bytes(10**7), compression=zipfile.ZIP_DEFLATED
    ),
    'other_packing': lambda: raw(b'N.', {'archive/data/0': b'0'}, zipfile.ZIP_BZIP2),
    'encrypted': lambda: directory(archive(), patch(8, b'\x01')),
    'wrong_sum': lambda: directory(archive(), patch(16, b'\x00\x00\x00\x00')),
    'directory_lies_about_size': lambda: directory(archive(), patch(24, b'\xff\xff\xff\x00')),
    'directory_lies_about_place': lambda: directory(archive(), patch(42, b'\x05\x00\x00\x00')),
    'empty_zip': lambda: zipped({}),
    'torchscript': lambda: raw(b'c__torch__\nModel\n)\x81.', {'archive/constants.pkl': b').'}),
    # Tensors and arrays
    'stride_negative': lambda: within(view((4,), (-1,), 10)),
    'offset_negative': lambda: within(view((4,), (1,), -4)),
    'beyond_storage': lambda: within(view((5, 5), (5, 1))),
    'sizes_wrap_around': lambda: within(view((2**62, 4), (0, 0))),
    'sizes_huge': lambda: within(view((2**20, 2**20), (0, 0))),
    'sizes_expand': lambda: within(view((2**20, 4), (0, 1))),
    'sizes_and_strides': lambda: within(view((2, 2), (1,))),
    'sizes_are_floats': lambda: within(view((2.0,), (1,))),
    'storage_is_short': lambda: raw(STORAGE % b'0' + b'.', {'archive/data/0': bytes(8)}),
    'storage_count_negative': lambda: raw((STORAGE % b'0').replace(b'I24', b'I-1') + b'.'),
    'storage_of_two_types': lambda: (
        torch_legacy(0)[:-10]
        + b'('
        + STORAGE.replace(b'tQ', b'NtQ') % b'0'
        + STORAGE.replace(b'tQ', b'NtQ').replace(b'Float', b'Double') % b'0'
        + b't.'
    ),
    'storage_is_a_view': lambda: raw((STORAGE % b'0').replace(b'tQ', b'(I0\nI4\nttQ') + b'.'),
    'object_array': lambda: pickle.dumps({'G_ema': object_array()}, 2),
    'array_of_records': lambda: pickle.dumps({'w': np.zeros(2, [('a', 'f4')])}),
    'array_size': lambda: plain_pickle({'w': reduced_array(shape=(3,))}),
    'array_shape_negative': lambda: plain_pickle({'w': reduced_array(shape=(-2,))}),
    'array_with_fields': lambda: plain_pickle(
        {'w': reduced_array(dtype=('f4', '<', None, ('a',), {'a': ('f4', 0)}))}
    ),
    'array_of_language': lambda: plain_pickle(
        {'w': reduced_array(dtype=('f4,O', '<', None, None, None))}
    ),
    'byte_order_is_a_list': lambda: plain_pickle(
        {'w': reduced_array(dtype=('f4', [[]], None, None, None))}
    ),
    'array_data_calls': lambda: plain_pickle({'w': reduced_array(data=SYSTEM)}),
    # Endless data
    'laughs': lambda: LAUGHS + b'h\x00.',
    'laughs_as_dtype': lambda: LAUGHS + b'cnumpy\ndtype\n(h\x00tR.',
    'laughs_as_byte_order': lambda: LAUGHS + b"cnumpy\ndtype\n(S'f4'\ntR(I3\nh\x00NNNtb.",
    'list_in_itself': lambda: b']q\x00h\x00a.',
    'dict_in_itself': lambda: b"}q\x00S'state_dict'\nh\x00s.",
    'deep_lists': lambda: b']' * 10**5 + b'a' * (10**5 - 1) + b'.',
    'deep_key': lambda: b'})' + b'\x85' * 10**5 + b'Ns.',
    'long_string': lambda: b'\x8d' + struct.pack('<Q', 2**62) + b'abc.',
    'long_bytes': lambda: b'\x8e' + struct.pack('<Q', 2**62) + b'abc.',
    'memo_far_away': lambda: b'Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.',
    'no_end': lambda: b'N' * 1000,
    # .npz
    'npz_objects': lambda: pickle_writer.npz({'w': object_array()}),
    'npz_records': lambda: pickle_writer.npz({'w': np.zeros(2, [('a', 'f4')])}),
    'npz_shape_lies': lambda: npy(shape='(1000000000000,)'),
    'npz_shape_negative': lambda: npy(shape='(-2,)'),
    'npz_header_calls': lambda: npy(descr="__import__('os').system('touch ran')"),
    'npz_header_objects': lambda: npy(descr="'|O'"),
    'npz_above': lambda: zipped({'../w.npy': b''}),
    # .safetensors
    'sf_header_too_long': lambda: sf(SAFETENSORS % (b'2', b'0,8'), length=10**9),
    'sf_header_beyond_count': lambda: sf(SAFETENSORS % (b'2', b'0,8'), length=2**64 - 1),
    'sf_beyond_file': lambda: sf(SAFETENSORS % (b'2000', b'0,8000')),
    'sf_size_lies': lambda: sf(SAFETENSORS % (b'200', b'0,8')),
    'sf_negative': lambda: sf(SAFETENSORS % (b'-2', b'8,0')),
    'sf_float': lambda: sf(SAFETENSORS % (b'2.0', b'0,8')),
    'sf_hole': lambda: sf(SAFETENSORS % (b'1', b'4,8')),
    'sf_unknown_type': lambda: sf((SAFETENSORS % (b'2', b'0,8')).replace(b'F32', b'O')),
    'sf_no_entry': lambda: sf(b'{"w":[1]}'),
    'sf_deep': lambda: sf(b'{"w":' + b'[' * 10**5 + b']' * 10**5 + b'}'),
    'sf_shared': lambda: sf(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    ),
    # No checkpoints at all
    'empty': lambda: b'',
    'text': lambda: b'this is not a checkpoint\n' * 20,
    'page': lambda: b'<!DOCTYPE html><html><title>Quota exceeded</title></html>',
    'lfs_pointer': lambda: b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n',
    'hdf5': lambda: b'\x89HDF\r\n\x1a\n' + bytes(64),
    'gzip': lambda: b'\x1f\x8b\x08\x00' + bytes(64),
    'zip_head_only': lambda: b'PK\x03\x04' + bytes(100),
}
