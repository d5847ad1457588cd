"""Tuned weights in the file that the generator came from: what changes there, and nothing else."""

import functools
import io
import pickle
import tempfile
import zipfile

import hostile
import jax
import jax.numpy as jnp
import numpy as np
import official_files
import official_weights
import pickle_writer
import pytest
import recipe
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv.converters import checkpoint, export, file_view, patch, safe_pickle
from jaxinv.converters.pickle_values import Record
from jaxinv.generators.stylegan2 import stylegan2 as make


@functools.cache
def arrays():
    return official_weights.weights()


@functools.cache
def rosinality():
    return official_weights.rosinality_names(arrays())


def streamed(data):
    """The zip file as written to a pipe, and by torch: checksums follow the members' contents."""

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(pipe, 'w') as new:
        for name in old.namelist():
            with new.open(name, 'w') as member:
                member.write(old.read(name))
        assert all(info.flag_bits & 8 for info in new.infolist())
    return pipe.getvalue()


def tensorflow():
    """(G, D, Gs), where G has other weights than Gs."""
    own = official_weights.tensorflow_variables(arrays())
    other = {name: np.asarray(array + np.float32(1)) for name, array in own.items()}
    networks = (official_files.tensorflow_generator(names) for names in (other, own))
    empty = official_files.network('D', {'4x4/Dense0/bias': np.zeros(4, np.float32)})
    last, average = networks
    return pickle_writer.plain_pickle((last, empty, average), 3)


LAYOUTS = {
    'ada.pkl': lambda: official_files.nvidia_pickle(arrays(), conv_clamp=256, fp16=(8,)),
    'sg3.pkl': lambda: official_files.nvidia_pickle(arrays(), protocol=5, layout='sg3'),
    'other.pkl': lambda: official_files.nvidia_pickle(
        arrays(), {n: a + (not n.endswith('filter')) for n, a in arrays().items()}, protocol=3
    ),
    'pti.pt': lambda: official_files.tuned_generator(arrays()),
    'streamed.pt': lambda: streamed(official_files.tuned_generator(arrays())),
    'old_pti.pt': lambda: official_files.tuned_generator(arrays(), pickle_writer.torch_legacy),
    'tf.pkl': tensorflow,
    'ros.pt': lambda: official_files.rosinality_checkpoint(*rosinality(), training=True),
    'e4e.pt': lambda: official_files.encoder_checkpoint(
        rosinality()[0], np.tile(rosinality()[1], (4, 1))
    ),
    'ada.safetensors': lambda: pickle_writer.safetensors(arrays()),
    'ada.npz': lambda: pickle_writer.npz(arrays()),
}
FEW = ('ada.pkl', 'pti.pt')


@pytest.fixture
def base(tmp_path):
    """(path, generator, weights) of a file in a layout."""

    def write(name):
        path = tmp_path / name
        data, generator, weights = layout(name)
        path.write_bytes(data)
        return path, generator, weights

    return write


@functools.cache
def layout(name):
    """(bytes, generator, weights)"""
    data = LAYOUTS[name]()
    with tempfile.NamedTemporaryFile(suffix=name) as file:
        file.write(data)
        file.flush()
        found = checkpoint.read(file.name)
        weights = unflatten_dict({k: np.array(a) for k, a in found.flat.items()}, sep='/')
    return data, make(**found.arguments, name='base'), weights


def tuned(weights):
    """Weights after a tuning: parameters moved, buffers kept."""
    moved = {
        name: array + np.float32(0.01) * recipe.normal(name, array.shape)
        for name, array in flatten_dict(weights['params'], sep='/').items()
    }
    return weights | {'params': unflatten_dict(moved, sep='/')}


def leaves(value, path=''):
    """{path: array or plain value} of all that a file holds, by the reader for conversions."""
    if isinstance(value, Record):
        return leaves(value.state, f'{path}({value.kind} {value.class_name})')
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in pairs for k, v in leaves(item, f'{path}/{key}').items()}
    return {path: value}


def everything(path):
    data = file_view.view(path)
    if path.suffix in ('.pkl', '.pt'):
        return leaves(safe_pickle.load(path))
    return checkpoint._content(path, len(data))


@pytest.mark.parametrize(
    'name', [n if n in FEW else pytest.param(n, marks=pytest.mark.long) for n in LAYOUTS]
)
def test_the_file_reads_back_to_the_tuned_weights_and_keeps_all_else(name, base, tmp_path):
    source, generator, weights = base(name)
    before = source.read_bytes()
    written, new = tmp_path / f'new_{name}', tuned(weights)
    note, *rounded = patch.write(source, written, generator.spec, new)
    assert len(rounded) == (name == 'tf.pkl')
    found = checkpoint.read(written)
    assert found.arguments.items() <= dict(generator.spec.arguments).items()
    expected = flatten_dict(new, sep='/')
    assert sorted(found.flat) == sorted(expected)
    for path, array in expected.items():
        if rounded and path.endswith('modulation/bias'):  # stored minus 1
            np.testing.assert_allclose(found.flat[path], array, atol=5e-7)
        else:
            np.testing.assert_array_equal(found.flat[path], array, err_msg=path, strict=True)

    old, now = everything(source), everything(written)
    assert list(old) == list(now)
    differ = [k for k in old if not np.array_equal(old[k], now[k])]
    assert len(differ) == len(flatten_dict(weights['params']))
    start = {'.pkl': '/G_ema', '.pt': '', '.npz': '', '.safetensors': ''}[source.suffix]
    start = {'tf.pkl': '/2(', 'ros.pt': '/g_ema'}.get(name, start)
    assert all(key.startswith(start) for key in differ)
    assert note.startswith(f'{len(differ)} of ')

    after = written.read_bytes()
    assert len(before) == len(after) and source.read_bytes() == before
    if name.endswith(('.pt', '.npz')) and 'old' not in name:
        with zipfile.ZipFile(source) as a, zipfile.ZipFile(written) as b:
            assert b.testzip() is None  # all checksums are right
            members = [m for m in a.namelist() if a.read(m) != b.read(m)]
            for info in b.infolist() if name == 'streamed.pt' else ():
                end = info.header_offset + 30 + len(info.filename) + info.compress_size
                assert after[end : end + 4] == b'PK\x07\x08'
                assert after[end + 4 : end + 8] == info.CRC.to_bytes(4, 'little')
            assert len(members) == len(differ) and not any('data.pkl' in m for m in members)


def test_bytes_outside_the_arrays_are_equal(base, tmp_path):
    source, generator, weights = base('ada.pkl')
    patch.write(source, tmp_path / 'new.pkl', generator.spec, tuned(weights))
    before, after = (np.fromfile(p, np.uint8) for p in (source, tmp_path / 'new.pkl'))
    located = checkpoint.locate(source)
    inside = np.zeros(len(before), bool)
    start = np.frombuffer(located.data, np.uint8).ctypes.data
    for name, array in located.found.source.items():
        if not name.startswith('mapping') and not name.endswith(('filter', 'noise_const')):
            offset = array.ctypes.data - start
            assert before[offset : offset + array.nbytes].tobytes() == array.tobytes()
            inside[offset : offset + array.nbytes] = True
    assert (before != after)[inside].mean() > 0.3
    np.testing.assert_array_equal(before[~inside], after[~inside])
    assert official_files.SOURCE.encode() in after.tobytes()  # kept, and not executed


class Unpickler(pickle.Unpickler):
    """Python's own unpickler, with stand-ins for torch's functions and NVIDIA's classes."""

    def find_class(self, module, name):
        return {
            '_reconstruct_persistent_obj': lambda meta: meta['state'],
            '_rebuild_parameter': lambda data, grad, hooks: data,
            '_rebuild_tensor_v2': lambda data, offset, size, stride, grad, hooks: (
                np.lib.stride_tricks.as_strided(data[offset:], size, [4 * n for n in stride])
            ),
            '_load_from_bytes': self.storage,
            'FloatStorage': 'FloatStorage',
            'EasyDict': dict,
            'OrderedDict': dict,
        }.get(name) or super().find_class(module, name)

    @classmethod
    def storage(cls, data):
        file = io.BytesIO(data)
        for expected in (pickle_writer.MAGIC, 1001, None):
            assert expected in (pickle.load(file), None)
        loader = cls(file)
        loader.persistent_load = lambda pid: pid
        kind, _, key, _, count, _ = loader.load()
        assert kind == 'storage' and pickle.load(file) == [key]
        assert int.from_bytes(file.read(8), 'little') == count
        return np.frombuffer(file.read(), '<f4')


def test_another_reader_finds_the_tuned_arrays_by_their_names(base, tmp_path):
    source, generator, weights = base('ada.pkl')
    new = tuned(weights)
    patch.write(source, tmp_path / 'new.pkl', generator.spec, new)
    with open(tmp_path / 'new.pkl', 'rb') as file:
        content = Unpickler(file).load()
    assert list(content) == ['G', 'D', 'G_ema', 'augment_pipe', 'training_set_kwargs']
    for owner, expected in (('G_ema', new), ('G', weights)):
        state = export.state_dict(generator.spec, expected, 'ada')
        for name, array in state.items():
            module = content[owner]
            *path, leaf = name.split('.')
            for part in path:
                module = module['_modules'][part]
            found = (module['_parameters'] | module['_buffers'])[leaf]
            np.testing.assert_array_equal(found, array, err_msg=f'{owner}.{name}')


def test_the_patched_file_renders_the_tuned_pictures(base, tmp_path):
    w = jnp.asarray(recipe.normal('w', [2, 4, 6]))
    source, generator, weights = base('ada.pkl')
    render = jax.jit(lambda weights, w: generator.synthesize(weights, w)[0])
    new = tuned(weights)
    patch.write(source, tmp_path / 'new.pkl', generator.spec, new)
    again = unflatten_dict(checkpoint.read(tmp_path / 'new.pkl').flat, sep='/')
    np.testing.assert_array_equal(render(again, w), render(new, w))
    assert np.abs(render(again, w) - render(weights, w)).max() > 1e-3


@pytest.mark.long
def test_which_generator_is_replaced_can_be_chosen(base, tmp_path):
    source, generator, _ = base('other.pkl')
    weights = unflatten_dict(checkpoint.read(source, which='G').flat, sep='/')
    patch.write(source, tmp_path / 'new.pkl', generator.spec, tuned(weights), 'G')
    before, after = everything(source), everything(tmp_path / 'new.pkl')
    differ = [k for k in before if not np.array_equal(before[k], after[k])]
    assert differ and all(key.startswith('/G(') for key in differ)


@pytest.mark.long
def test_a_network_that_shares_its_arrays_is_named(base, tmp_path):
    shared = official_files.nvidia_generator(arrays())
    source = tmp_path / 'shared.pkl'
    source.write_bytes(pickle_writer.plain_pickle({'G': shared, 'G_ema': shared}))
    _, generator, weights = base('sg3.pkl')
    notes = patch.write(source, tmp_path / 'new.pkl', generator.spec, tuned(weights))
    assert 'Another network' in notes[-1]


def deflated(data):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    return file.getvalue()


def half(arrays):
    return {name: array.astype(np.float16) for name, array in arrays.items()}


@pytest.mark.parametrize(
    'make_file,words',
    [
        (lambda: official_files.nvidia_pickle(arrays(), protocol=2), 'protocol 2'),
        (lambda: deflated(official_files.tuned_generator(arrays())), 'compressed'),
        (lambda: official_files.tuned_generator(half(arrays())), 'float16'),
        (lambda: LAYOUTS['ros.pt'](), 'scaled_epsilon'),
        (lambda: official_files.nvidia_pickle(official_weights.weights(16)), 'resolution = 16'),
        (
            lambda: official_files.nvidia_pickle(
                arrays() | {'mapping.fc0.bias': recipe.normal('other', [6])}
            ),
            'was not tuned from .*mapping.fc0.bias differs',
        ),
        (lambda: b'cos\nsystem\n(S"touch ran"\ntR.', 'os.system'),
    ],
)
def test_what_does_not_fit_is_refused_by_one_sentence(make_file, words, base, tmp_path):
    _, generator, weights = base('sg3.pkl')
    source = tmp_path / 'source'
    source.write_bytes(make_file())
    flat = flatten_dict(weights, sep='/')
    if 'float16' in words:  # so that only the type is at fault
        flat = {k: a.astype(np.float16).astype(np.float32) for k, a in flat.items()}
    with pytest.raises(export.JaxinvError, match=words) as error:
        patch.write(source, tmp_path / 'new', generator.spec, tuned(unflatten_dict(flat, sep='/')))
    assert '\n' not in str(error.value) and str(source) in str(error.value)
    assert not (tmp_path / 'new').exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['sg3.pkl', 'source']


@pytest.mark.long
def test_hostile_files_are_refused_where_arrays_stay_in_place(tmp_path):
    """The reader that keeps views is bounded as the other one is."""
    for name, data in hostile.HOSTILE.items():
        path = tmp_path / f'{name}.pkl'
        path.write_bytes(data())
        with pytest.raises(export.JaxinvError):
            checkpoint.locate(path)
