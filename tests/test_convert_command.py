"""python -m converters: what it prints, writes, refuses; from files in the official layouts."""

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import official_files
import pytest
import recipe

import jaxinv
from jaxinv import convert as command
from jaxinv.converters import checkpoint
from jaxinv.weights import import_checkpoint

ROOT = pathlib.Path(__file__).parent.parent
FIGURES = ROOT / 'tests' / 'data' / 'stylegan2.npz'


@functools.cache
def official(name):
    with np.load(FIGURES) as file:
        return recipe.state_dict(json.loads(str(file[f'{name}/entries'])))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(import_checkpoint, 'W_AVG_SAMPLES', 20_000)  # for the tests' time


@pytest.fixture
def pkl(tmp_path):
    path = tmp_path / 'net.pkl'
    path.write_bytes(official_files.nvidia_pickle(official('ada32c'), conv_clamp=256))
    return path


def run(capsys, *arguments):
    """(standard output, standard error, status) of the command."""
    command.FLAGS.unparse_flags()
    for flag in ('to', 'base', 'which', 'overwrite'):
        command.FLAGS[flag].unparse()
    status = 0
    try:
        command.main(['converters', *map(str, arguments)])
    except SystemExit as exit:
        status = exit.code
    return *capsys.readouterr(), status


def refusal(capsys, *arguments):
    out, error, status = run(capsys, *arguments)
    assert status == 1 and error.startswith('converters: ') and error.count('\n') == 1, error
    return error


def test_the_summary_says_what_is_in_the_file(pkl, capsys):
    out, error, status = run(capsys, pkl)
    assert status == 0 and not error
    for words in (
        'stylegan2-ada-pytorch pickle',
        hashlib.sha256(pkl.read_bytes()).hexdigest(),
        '32 pixels, 8 rows of W+',
        '64 at 4, 64 at 8, 64 at 16, 32 at 32',
        '2 layers',
        '64, 128 numbers',
        'conv_clamp     256',
        'classes        10',
        'G_ema was taken, not G, D',
        'M in synthesis',
    ):
        assert words in out, words


@pytest.mark.parametrize(
    'name,to',
    [
        ('net', None),
        pytest.param('net.safetensors', None, marks=pytest.mark.long),
        pytest.param('net.npz', 'ada', marks=pytest.mark.long),
        ('ada.safetensors', 'ada'),
    ],
)
def test_every_output_loads_back_to_the_same_weights(pkl, name, to, tmp_path, capsys):
    dst = tmp_path / name
    out, _, status = run(capsys, pkl, dst, *([f'--to={to}'] if to else []))
    assert status == 0 and f'Written: {dst}' in out
    _, expected = jaxinv.load_generator(pkl)
    generator, weights = jaxinv.load_generator(dst)
    assert generator.spec.label_dim == 10
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), weights, expected))
    if to is None:
        assert dict(generator.spec.arguments)['conv_clamp'] == 256
    else:
        assert 'Make the model with Generator(' in out


def test_an_average_is_computed_once_and_said(tmp_path, capsys):
    path = tmp_path / 'g.pt'
    path.write_bytes(official_files.rosinality_checkpoint(official('ros16')))
    out, _, _ = run(capsys, path, tmp_path / 'a.safetensors', '--to=rosinality')
    assert '20000 seeded samples' in out and 'channel_multiplier' in out
    first = checkpoint.read(tmp_path / 'a.safetensors').flat['buffers/w_avg']
    run(capsys, path, tmp_path / 'b.npz', '--to=rosinality')
    second = checkpoint.read(tmp_path / 'b.npz').flat['buffers/w_avg']
    np.testing.assert_array_equal(first, second)
    assert 0 < np.abs(first).max() < 10


@pytest.mark.long
def test_G_is_taken_if_asked_for(tmp_path, capsys):
    path = tmp_path / 'g.pt'
    path.write_bytes(official_files.rosinality_checkpoint(official('ros16'), training=True))
    for which in ('G', 'G_ema'):
        run(capsys, path, tmp_path / f'{which}.npz', '--to=rosinality', f'--which={which}')
    now, ema = (checkpoint.read(tmp_path / f'{w}.npz').flat for w in ('G', 'G_ema'))
    name = 'params/synthesis/b4/conv1/bias'
    np.testing.assert_array_equal(now[name], ema[name] + 1)
    assert 'It has no D, only g_ema, g' in refusal(capsys, path, '--which=D')


def test_mistakes_get_one_sentence_and_status_1(pkl, tmp_path, capsys):
    assert 'give SRC' in refusal(capsys)
    assert 'give SRC' in refusal(capsys, pkl, 'a', 'b')
    assert 'neither a generator' in refusal(capsys, tmp_path / 'nothing.pkl')
    assert 'may hold either naming' in refusal(capsys, pkl, tmp_path / 'a.npz')
    assert '--base=FILE' in refusal(capsys, pkl, tmp_path / 'a.pt')
    assert '--to=pkl writes' in refusal(capsys, pkl, tmp_path / 'a.pkl', '--to=ada')
    assert '--to=tf' in refusal(capsys, pkl, tmp_path / 'a.npz', '--to=tf')
    assert 'has no classes' in refusal(capsys, pkl, tmp_path / 'a.npz', '--to=rosinality')
    assert 'not a StyleGAN2' in refusal(capsys, 'tiny', tmp_path / 'a.npz', '--to=ada')
    assert 'tp' in refusal(capsys, pkl, tmp_path / 'a.npz', '--tp=ada')
    assert 'refused' in refusal(capsys, 'ftp://a.com/net.pkl')
    bad = tmp_path / 'bad.pkl'
    bad.write_bytes(pkl.read_bytes()[:5000])
    assert 'bad.pkl' in refusal(capsys, bad)
    assert not (tmp_path / 'a.npz').exists()


def test_what_exists_is_replaced_only_with_overwrite(pkl, tmp_path, capsys):
    for name in ('a.safetensors', 'folder'):
        assert run(capsys, pkl, tmp_path / name)[2] == 0
        assert '--overwrite' in refusal(capsys, pkl, tmp_path / name)
        assert run(capsys, pkl, tmp_path / name, '--overwrite')[2] == 0
    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'letter.txt').write_text('Dear Grace,')
    assert 'not empty' in refusal(capsys, pkl, mine, '--overwrite')
    assert (mine / 'letter.txt').exists()


def test_as_a_command_it_helps_and_fails_without_a_traceback(tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, '-m', 'converters', *arguments],
            cwd=ROOT,
            env=os.environ | {'JAXINV_CACHE': str(tmp_path)},
            capture_output=True,
            text=True,
        )

    done = call('--help')
    assert done.returncode == 0
    for words in ('SRC', 'DST', '--to', '--which', 'overwrite', 'hf://', 'afhqcat'):
        assert words in done.stdout, words
    hostile = tmp_path / 'hostile.pkl'
    hostile.write_bytes(b'cos\nsystem\n(S"touch ran"\ntR.')
    done = call(str(hostile))
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.count('\n') == 1 and 'os.system' in done.stderr
    assert not (ROOT / 'ran').exists()
