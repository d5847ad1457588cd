"""StyleGAN2 against recorded figures of NVIDIA's and rosinality's code.

benchmarks/parity.py compares with all figures there are; the ones here are kept in data/.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe
import stylegan2_figures

FIGURES = pathlib.Path(__file__).parent / 'data' / 'stylegan2.npz'
FORWARD, GRADIENT = 2e-5, 5e-3  # limits of the relative L2 distance, as the figures' notes advise
FLOAT64 = 1e-5
IMAGES = ('map', 'syn', 'full', 'block', 'img')
NVIDIA = [n for n, kind in stylegan2_figures.MODELS.items() if n.startswith('ada')]
ROSINALITY = [n for n in stylegan2_figures.MODELS if n.startswith('ros')]


def models(names, short=(), long=()):
    """Models as parameters: marked exhaustive where they are neither `short` nor `long`."""
    marks = {name: () for name in short} | {name: pytest.mark.long for name in long}
    return [pytest.param(n, marks=marks.get(n, pytest.mark.exhaustive)) for n in names]


@functools.cache
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


def load(name, dtype=jnp.float32, **changes):
    entries = json.loads(str(figures()[f'{name}/entries']))
    return stylegan2_figures.load(name, entries, figures().get(f'{name}/in/c'), dtype, **changes)


def assert_equal(model, arrays, limit, kinds, prefix=''):
    """Every figure of these kinds is there and within the limit."""
    arrays = {f'{model.name}/{key}': array for key, array in arrays.items()}
    found = recipe.distances(arrays, figures(), prefix)
    found = {key: error for key, error in found.items() if key.split('/')[-1] != 'loss'}
    starts = tuple(f'{prefix}{model.name}/{kind}/' for kind in kinds)
    wanted = {key for key in figures() if key.startswith(starts)}
    wanted = {k for k in wanted if not k.endswith(('/all_names', '/loss'))}
    assert set(found) == wanted and found
    assert not {key: error for key, error in found.items() if not error < limit}


def gradients(model):
    arrays, summary = stylegan2_figures.gradients(model)
    names = figures().get(f'{model.name}/grad/all_names')
    if names is not None:
        assert set(names) == set(summary)  # no parameter of ours without a figure
        arrays['grad/all_mean_rms_maxabs'] = np.stack([summary[str(entry)] for entry in names])
    return arrays


@pytest.mark.parametrize('name', models(NVIDIA, short=['ada32c']))
def test_latents_images_and_features_equal_nvidias(name):
    """With truncation, all layers' or the first ones', and classes, one-hot and mixed."""
    model = load(name)
    assert_equal(model, stylegan2_figures.forward(model), FORWARD, IMAGES)


@pytest.mark.parametrize('name', models(NVIDIA + ROSINALITY, long=['ada32', 'ros16']))
def test_gradients_equal_the_official_ones(name):
    model = load(name)
    assert_equal(model, gradients(model), GRADIENT, ['grad'])


@pytest.mark.parametrize('name', models(ROSINALITY, short=['ros16']))
def test_images_equal_rosinalitys(name):
    model = load(name)
    assert_equal(model, stylegan2_figures.rosinality_images(model), FORWARD, ['map', 'img'])


@pytest.mark.parametrize('name', models(ROSINALITY, long=['ros16']))
def test_rosinalitys_weights_make_nvidias_images_in_nvidias_network(name):
    model = load(name, scaled_epsilon=False)
    assert_equal(model, stylegan2_figures.cross_images(model), FORWARD, ['cross'])


@pytest.mark.exhaustive
@pytest.mark.parametrize('name', stylegan2_figures.MODELS)
def test_everything_equals_the_official_float64_runs(name):
    with jax.enable_x64(True):
        model = load(name, jnp.float64)
        arrays = gradients(model)
        if name in NVIDIA:
            arrays |= stylegan2_figures.forward(model)
        assert_equal(model, arrays, FLOAT64, [*IMAGES, 'grad'], 'f64/')
