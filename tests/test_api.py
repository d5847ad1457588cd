"""The Python API: arrays in, arrays out, on the tiny random generator; the launcher's numbers."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from test_experiment import load_config

import jaxinv
from jaxinv import latents, optimize
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti

QUICK = {'num_steps': 4, 'chunk_steps': 2}
SAM = {
    'num_steps': 4,
    'pivot': QUICK,
    'invertibility': {'num_steps': 4},
    'prior': {'num_samples': 200},
    'segments': {'how': 'slic', 'parts': 4},
}


@pytest.fixture(scope='module')
def tiny_targets():
    """A generator, its weights and two of its own images."""
    generator, weights = jaxinv.load_generator('tiny')
    z = np.random.RandomState(0).randn(2, generator.spec.z_dim).astype(np.float32)
    images, _ = jax.jit(generator.synthesize)(weights, generator.map(weights, z)[:, None])
    return generator, weights, np.clip(np.asarray(images), -1, 1)


@pytest.fixture(scope='module')
def pivots(tiny_targets):
    return jaxinv.project(*tiny_targets, **QUICK, verbose=False)


@pytest.fixture(scope='module')
def each(tiny_targets, pivots):
    """A generator for each identity, without the regulariser."""
    off = {'weight': 0.0}
    return jaxinv.tune(*tiny_targets, pivots, **QUICK, shared=False, locality=off, verbose=False)


def test_importing_jaxinv_imports_no_jax_and_lists_the_functions():
    code = (
        'import sys, jaxinv; assert "jax" not in sys.modules; names = dir(jaxinv);'
        'assert {"project", "tune", "invert_sam", "render", "load_images"} <= set(names);'
        'print(jaxinv.project.__name__)'
    )
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert found.stdout == 'project\n', found.stderr


def test_a_projection_is_codes_names_and_a_history(tiny_targets, pivots, capsys):
    assert pivots.w.shape == (2, 1, 16) and pivots.names == ('image_0', 'image_1')
    assert {name: x.shape for name, x in pivots.history.items()} == dict.fromkeys(
        ('loss', 'lpips_vgg', 'noise_reg'), (4, 2)
    )
    assert not capsys.readouterr().out  # verbose=False
    other = jaxinv.project(*tiny_targets, **QUICK, seed=1)
    assert not np.allclose(other.w, pivots.w)
    assert 'project    2/4' in capsys.readouterr().out


def test_callbacks_see_every_chunk_and_may_end_the_run(tiny_targets):
    calls = []

    def callback(stage, step, num_steps, metrics):
        calls.append((stage, step, num_steps, metrics['lpips_vgg'].shape))
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jaxinv.project(*tiny_targets, **QUICK, verbose=False, callback=callback)
    assert calls == [('project', 2, 4, (2,)), ('project', 4, 4, (2,))]


@pytest.mark.long
def test_tuned_generators_reproduce_better_than_their_pivots(tiny_targets, pivots, each):
    generator, weights, images = tiny_targets
    assert len(each.weights) == 2 and each.history['l2'].shape == (4, 2)
    before = jaxinv.evaluate(images, jaxinv.render(generator, weights, pivots))
    after = jaxinv.evaluate(images, jaxinv.render(generator, each.weights, pivots))
    assert {'lpips_alex', 'lpips_vgg', 'mse', 'psnr', 'ms_ssim'} <= set(after)
    assert (after['mse'] < before['mse']).all()
    # The buffers are those of the generator that was tuned.
    np.testing.assert_array_equal(each.weights[0]['buffers']['w_avg'], weights['buffers']['w_avg'])


def test_one_generator_for_all_and_zero_steps(tiny_targets, pivots):
    tuned = jaxinv.tune(*tiny_targets, pivots.w, num_steps=0, verbose=False)
    assert tuned.weights is tiny_targets[1] and tuned.history == {}


def test_edits_move_codes_along_a_direction_of_the_user(tiny_targets, pivots, tmp_path):
    generator, weights, _ = tiny_targets
    direction = np.random.RandomState(1).randn(16).astype(np.float32)
    np.save(tmp_path / 'mine.npy', direction)
    edited = jaxinv.render(generator, weights, pivots, edit=f'{tmp_path}/mine.npy=1.5')
    moved = jaxinv.render(generator, weights, pivots.w + np.float32(1.5) * direction)
    np.testing.assert_allclose(edited, moved, atol=1e-5)
    with pytest.raises(JaxinvError, match='which is 2 edits'):
        jaxinv.render(generator, weights, pivots, edit=f'{tmp_path}/mine.npy=1/2')


@pytest.mark.parametrize('kind', ['shared', 'each'])
def test_what_is_saved_renders_the_same_when_loaded(tiny_targets, pivots, each, kind, tmp_path):
    generator, weights, _ = tiny_targets
    weights = weights if kind == 'shared' else each.weights
    jaxinv.save(tmp_path / 'folder', generator, weights, pivots)
    saved = jaxinv.load(tmp_path / 'folder')
    assert saved.codes.names == pivots.names
    np.testing.assert_array_equal(
        jaxinv.render(saved.generator, saved.weights, saved.codes),
        jaxinv.render(generator, weights, pivots),
    )


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda g, w, x: jaxinv.project(g, w, x, num_step=3), 'did you mean num_steps'),
        (lambda g, w, x: jaxinv.project(g, w, x, num_steps=0), 'pivot.num_steps is 0'),
        (lambda g, w, x: jaxinv.project(g, w, x[:, :16, :16]), '16 x 16 pixels and tiny makes 32'),
        (lambda g, w, x: jaxinv.project(g, w, x[0]), r'\[n, h, w, 3\]'),
        (lambda g, w, x: jaxinv.tune(g, w, x, np.zeros([2, 3, 16])), r'pivots are \[2, 3, 16\]'),
        (lambda g, w, x: jaxinv.tune(g, w, x, np.zeros([2, 1, 16]), rate=1), 'no setting rate'),
        (lambda g, w, x: jaxinv.invert_sam(g, w, x, method='f5'), "method is 'f5'"),
        (lambda g, w, x: jaxinv.invert_sam(g, w, x, method='f10'), 'tiny has no F10'),
        (lambda g, w, x: jaxinv.render(g, w, np.zeros([2, 16])), r'codes are \[2, 16\]'),
        (lambda g, w, x: jaxinv.render(g, [w], np.zeros([2, 1, 16])), '1 generators and 2 codes'),
        (lambda g, w, x: jaxinv.evaluate(x, x[:1]), 'must have the same shape'),
        (lambda g, w, x: jaxinv.settings_for('pti'), "no config 'pti'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_computed(tiny_targets, call, words):
    with pytest.raises(JaxinvError, match=words):
        call(*tiny_targets)


@pytest.mark.long
def test_numbers_that_become_infinite_are_raised_with_the_name(tiny_targets, pivots):
    generator, weights, images = tiny_targets
    w = pivots.w.copy()
    w[1] = np.nan
    with pytest.raises(optimize.NotFinite, match='image_1'):
        jaxinv.tune(generator, weights, images, w, **QUICK, shared=False, verbose=False)


@pytest.mark.long
def test_sam_returns_codes_masks_regions_and_renders_edits(tiny_targets, tmp_path):
    generator, weights, images = tiny_targets
    inverted = jaxinv.invert_sam(generator, weights, images, **SAM, verbose=False)
    assert inverted.codes.w_plus.shape == (2, 11, 16)
    assert set(inverted.masks) == set(inverted.codes.offsets)
    assert list(inverted.regions.maps) == ['W+', 'F4', 'F6']
    assert [stage for stage, _ in inverted.history][0] == 'project'
    jaxinv.save(tmp_path, generator, weights, inverted)
    saved = jaxinv.load(tmp_path)
    np.testing.assert_allclose(
        jaxinv.render(generator, saved.weights, saved.codes),
        jaxinv.render(generator, weights, inverted),
        atol=1e-5,
    )
    np.save(tmp_path / 'mine.npy', np.ones(16, np.float32))
    edited = jaxinv.render(generator, weights, inverted, edit=f'{tmp_path}/mine.npy=2')
    assert edited.shape == (2, 32, 32, 3)


@pytest.mark.long
def test_the_launcher_and_the_api_give_the_same_numbers(tmp_path):
    config = load_config('pti_multi_id')
    config.data.images = 'demo'
    pti.run(config, tmp_path / 'run', log=lambda *_, **__: None)
    run = jaxinv.load(tmp_path / 'run')
    generator, weights = jaxinv.load_generator('tiny')
    targets = jaxinv.load_images('demo', generator, align='face')
    own = jaxinv.settings_for('pti_multi_id:test')
    samples = own.w_statistics.num_samples, own.w_statistics.seed
    statistics = latents.w_statistics(generator, weights, *samples)
    arguments = {'verbose': False, 'seed': own.seed, 'statistics': statistics}
    pivots = jaxinv.project(generator, weights, targets, settings=own.pivot, **arguments)
    np.testing.assert_allclose(pivots.w, run.codes.w, atol=1e-5)
    tuned = jaxinv.tune(generator, weights, targets, pivots, settings=own.tune, **arguments)
    np.testing.assert_allclose(
        jaxinv.render(generator, tuned.weights, pivots),
        jaxinv.render(run.generator, run.weights, run.codes),
        atol=1e-3,
    )
