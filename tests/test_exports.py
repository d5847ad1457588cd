"""Runs in other programs' files: ONNX, the original checkpoint, PTI's folders, arrays, a card."""

import io
import json
import pickle
import re
import zipfile

import jax
import numpy as np
import official_files
import official_weights
import pytest
import recipe
from flax.traverse_util import flatten_dict, unflatten_dict
from test_convert_command import refusal, run

import jaxinv
from jaxinv import api
from jaxinv.converters import checkpoint, safe_pickle, torch_write
from jaxinv.generators.stylegan2 import stylegan2 as make
from jaxinv.inversion.project import Pivots
from jaxinv.weights import card, onnx_export
from jaxinv.weights.zoo import load_named


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """A work folder whose run.json names an official file; (folder, generator, weights, file)."""
    path = tmp_path_factory.mktemp('work')
    base = path / 'base.pkl'
    base.write_bytes(official_files.nvidia_pickle(official_weights.weights(), conv_clamp=256))
    found = checkpoint.read(base)
    generator = make(**found.arguments, name='base')
    flat = {
        name: array + np.float32(0.01) * recipe.normal(name, array.shape)
        if name.startswith('params/')
        else array
        for name, array in found.flat.items()
    }
    weights = unflatten_dict(flat, sep='/')
    pivots = Pivots(('Grace', '../Åse'), recipe.normal('w', [2, 1, 6]), {})
    folder = api.save(path / 'run', generator, weights, pivots)
    config = {'generator': str(base), 'task': 'pti', 'generator_key': ''}
    (folder / 'run.json').write_text(json.dumps({'config': config, 'sources': ['a', 'b']}))
    numbers = {'pivot': {'lpips_alex': 0.3, 'psnr': 20.5}, 'tuned': {'lpips_alex': 0.05}}
    metrics = {'mean': numbers, 'identities': {'Grace': {}, '../Åse': {}}}
    (folder / 'metrics.json').write_text(json.dumps(metrics))
    return folder, generator, weights, base


def assert_same(found, weights):
    expected = flatten_dict(weights, sep='/')
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_run_goes_into_its_own_checkpoint_file(work, tmp_path, capsys):
    folder, _, weights, base = work
    out, _, status = run(capsys, folder, tmp_path / 'tuned.pkl', '--to=pkl')
    assert status == 0 and 'Written:' in out and 'all other bytes kept' in out
    assert_same(checkpoint.read(tmp_path / 'tuned.pkl').flat, weights)
    assert (tmp_path / 'tuned.pkl').stat().st_size == base.stat().st_size
    # The generator in the folder knows its run, too; the ending alone chooses the format.
    assert run(capsys, folder / 'generator', tmp_path / 'again.pkl')[2] == 0
    assert (tmp_path / 'again.pkl').read_bytes() == (tmp_path / 'tuned.pkl').read_bytes()


def test_the_checkpoint_can_be_named_and_must_fit(work, tmp_path, capsys):
    folder, generator, weights, base = work
    alone = api.save(tmp_path / 'alone', generator, weights)
    assert '--base=FILE' in refusal(capsys, alone, tmp_path / 'a.pkl', '--to=pkl')
    assert run(capsys, alone, tmp_path / 'a.pkl', f'--base={base}')[2] == 0
    assert 'end in .pkl' in refusal(capsys, folder, tmp_path / 'a.pt', '--to=pkl')
    assert '--overwrite' in refusal(capsys, folder, tmp_path / 'a.pkl')
    assert 'name another' in refusal(capsys, folder, base, '--overwrite')
    assert 'is no file' in refusal(capsys, folder, tmp_path / 'b.pkl', '--base=gone.pkl')
    assert 'has no file' in refusal(capsys, folder, tmp_path / 'b.pkl', '--base=tiny')
    record = json.loads((folder / 'run.json').read_text()) | {'generator': '0' * 64}
    (alone / 'run.json').write_text(json.dumps(record))
    assert 'SHA-256' in refusal(capsys, alone, tmp_path / 'b.pkl')
    assert not (tmp_path / 'b.pkl').exists()


class Loader(pickle.Unpickler):
    """Python's own unpickler, with torch's functions as torch documents them."""

    def __init__(self, archive):
        super().__init__(io.BytesIO(archive.read('archive/data.pkl')))
        self.archive = archive

    def find_class(self, module, name):
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return lambda data, offset, size, stride, grad, hooks: np.lib.stride_tricks.as_strided(
                data[offset:], size, [4 * n for n in stride]
            )
        assert (module, name) in (('torch', 'FloatStorage'), ('collections', 'OrderedDict'))
        return super().find_class(module, name) if module == 'collections' else name

    def persistent_load(self, pid):
        kind, name, key, place, count = pid
        assert (kind, name, place) == ('storage', 'FloatStorage', 'cpu')
        data = np.frombuffer(self.archive.read(f'archive/data/{key}'), '<f4')
        assert len(data) == count
        return data


def test_tensors_are_written_as_torch_writes_them(tmp_path):
    arrays = {'a.b': recipe.normal('a', [2, 3, 1]), 'å': np.float32(2), 'c': np.zeros([0, 2])}
    torch_write.write(tmp_path / 'a.pt', arrays)
    with zipfile.ZipFile(tmp_path / 'a.pt') as archive:
        assert archive.testzip() is None and archive.read('archive/version') == b'3\n'
        loaded = Loader(archive).load()
    ours = safe_pickle.load(tmp_path / 'a.pt')
    for found in (loaded, ours):
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == np.float32 and found[name].shape == np.shape(array)
    torch_write.write(tmp_path / 'b.pt', arrays['a.b'])
    np.testing.assert_array_equal(safe_pickle.load(tmp_path / 'b.pt'), arrays['a.b'])


def test_ptis_folders_hold_codes_and_the_generator(work, tmp_path, capsys):
    folder, _, weights, _ = work
    out, _, status = run(capsys, folder, tmp_path / 'pti', '--to=pti')
    assert status == 0 and '2 codes' in out and 'Make the model with Generator(' in out
    found = sorted(p.relative_to(tmp_path / 'pti').as_posix() for p in tmp_path.rglob('*.pt'))
    assert found == [
        'checkpoints/model_JAXINV_multi_id.pt',
        'embeddings/jaxinv/PTI/Grace/0.pt',
        'embeddings/jaxinv/PTI/Åse/0.pt',
        'latents.pt',
    ]
    w = np.repeat(recipe.normal('w', [2, 1, 6]), 4, 1)
    np.testing.assert_array_equal(safe_pickle.load(tmp_path / 'pti' / found[1]), w[:1])
    np.testing.assert_array_equal(safe_pickle.load(tmp_path / 'pti' / found[3]), w)
    assert_same(checkpoint.read(tmp_path / 'pti' / found[0]).flat, weights)
    assert 'not empty' in refusal(capsys, folder, tmp_path / 'pti', '--to=pti')
    (tmp_path / 'pti' / found[1]).with_name('1.pt').touch()
    assert run(capsys, folder, tmp_path / 'pti', '--to=pti', '--overwrite')[2] == 0
    again = sorted(p.relative_to(tmp_path / 'pti').as_posix() for p in tmp_path.rglob('*.pt'))
    assert again == found


def test_codes_go_to_arrays(work, tmp_path, capsys, tiny):
    assert run(capsys, work[0], tmp_path / 'npy', '--to=npy')[2] == 0
    every = np.load(tmp_path / 'npy' / 'latents.npy')
    np.testing.assert_array_equal(every, np.repeat(recipe.normal('w', [2, 1, 6]), 4, 1))
    np.testing.assert_array_equal(np.load(tmp_path / 'npy' / 'Åse.npy'), every[1:])
    assert json.loads((tmp_path / 'npy' / 'names.json').read_text()) == ['Grace', '../Åse']
    without = api.save(tmp_path / 'without', *tiny)
    assert 'no codes' in refusal(capsys, without, tmp_path / 'x', '--to=npy')


def test_a_folder_gets_a_model_card_without_names_and_paths(work, tmp_path, capsys):
    assert run(capsys, work[0], tmp_path / 'card', '--to=safetensors')[2] == 0
    again, _ = jaxinv.load_generator(tmp_path / 'card')
    assert again.spec.arguments == work[1].spec.arguments
    text = (tmp_path / 'card' / card.FILE).read_text()
    assert text.startswith('---\nlicense: other\nlibrary_name: jaxinv\n')
    for words in ('base.pkl', '2 pictures', '| tuned | 0.05 |  |', '| pivot | 0.3 | 20.5 |'):
        assert words in text, words
    assert 'Grace' not in text and str(work[0].parent) not in text


def test_cards_name_the_base_and_its_licence():
    spec = make(32, channels=(4, 4, 4, 4), z_dim=4, w_dim=4, name='a').spec
    text = card.text(spec, {'config': {'generator': 'ffhq', 'task': 'pti'}}, {}, 'cc-by-nc-4.0')
    assert "NVIDIA's source code licence" in text and 'license: cc-by-nc-4.0' in text
    record = {'config': {'generator': 'hf://o/n/a.pkl', 'task': 'x|y\n# z'}, 'sources': ['a']}
    text = card.text(spec, record, {'mean': {'a|b': {'psnr': 1}}})
    assert 'base_model: o/n' in text and '\n# z' not in text and 'a\\|b' in text


def test_onnx_renders_a_stylegan2(work, tmp_path, capsys, monkeypatch):
    onnx = pytest.importorskip('onnx')
    import onnxruntime

    _, generator, weights, _ = work
    out, _, status = run(capsys, work[0], tmp_path / 'a.onnx')
    assert status == 0
    found = re.search(r"onnxruntime's pictures of 2 codes differ by at most (\S+)\.\n", out)
    assert float(found[1]) < 1e-5
    model = onnx.load(tmp_path / 'a.onnx')
    onnx.checker.check_model(model, full_check=True)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(stored['jaxinv'])['arguments']['resolution'] == 8
    assert str(work[0].parent) not in stored['about']
    session = onnxruntime.InferenceSession(str(tmp_path / 'a.onnx'))
    w = recipe.normal('w', [3, 4, 6])
    every, one = (session.run(None, {'w': part})[0] for part in (w, w[1:2]))
    assert every.shape == (3, 3, 8, 8)
    np.testing.assert_allclose(every[1:2], one, atol=1e-6)
    # A graph that renders something else is not written.
    monkeypatch.setattr(onnx_export, 'difference', lambda *args: float('nan'))
    assert 'differ' in refusal(capsys, work[0], tmp_path / 'b.onnx')
    assert not (tmp_path / 'b.onnx').exists()


ARCHITECTURES = ('tiny', 'tiny_biggan', 'resnet', 'orig', 'classes')


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=pytest.mark.exhaustive if n in ARCHITECTURES[3:] else pytest.mark.long)
     for n in ARCHITECTURES],
)  # fmt: skip
def test_onnx_renders_every_architecture(name, tmp_path):
    pytest.importorskip('onnx')
    if name.startswith('tiny'):
        generator, weights = load_named(name)
    else:
        options = {'c_dim': 3} if name == 'classes' else {'architecture': name}
        generator = make(16, channels=(4, 6, 4), z_dim=8, w_dim=8, mapping_layers=2, **options)
        weights = jax.jit(generator.init)(jax.random.key(0, impl='unsafe_rbg'))
    onnx_export.write(tmp_path / 'a.onnx', generator, weights)
    w = onnx_export.sample_codes(generator, weights, 3)
    assert onnx_export.difference(tmp_path / 'a.onnx', generator, weights, w) < 3e-5
