"""PTI's tuning and projection, step by step, against recorded runs of the official code.

The generator is a StyleGAN2 of 64 pixels whose weights are rebuilt from their names (recipe.py).
Limits of the relative L2 distance are those of the figures' notes.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe

from converters import stylegan2 as converter
from converters import tables
from jaxinv import latents, optimize
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import project, pti
from jaxinv.networks import lpips

FIGURES = pathlib.Path(__file__).parent / 'data' / 'pti_stylegan2.npz'
KEY = jax.random.key(0)
LOCALITY = pti.Locality(0.1, alpha=30.0, norm='all_layers', truncation_psi=0.5, noise='none')


@functools.cache
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


@functools.cache
def load():
    source = recipe.state_dict(json.loads(str(figures()['entries'])))
    generator = stylegan2(name='pti64', **converter.nvidia_arguments(source))
    like = tables.flatten(jax.eval_shape(generator.init, KEY))
    flat = converter.convert_nvidia(source, like)
    return generator, jax.tree.map(jnp.asarray, tables.unflatten(flat))


def targets(n):
    images = [figures()[f'in/target{i}'] for i in range(n)]
    return jnp.stack(images).astype(jnp.float32) / 127.5 - 1


def assert_close(array, name, limit):
    array, figure = np.asarray(array, np.float64), figures()[name]
    distance = np.linalg.norm(array.reshape(figure.shape) - figure) / np.linalg.norm(figure)
    assert distance < limit, (name, distance)


def assert_tuning_equals(run, n, num_steps, z):
    generator, weights = load()
    settings = pti.Settings(num_steps, batch_size=1, locality=LOCALITY, chunk_steps=num_steps)

    def draw(key, ids, step, shape):
        return z[n * step + ids.astype(jnp.int32)]

    tuner = pti.make_tuner(generator, settings, n, draw)
    state, args = tuner.prepare(
        weights,
        lpips.load('alex'),
        targets(n),
        figures()['in/pivots'][:n, None],
        np.arange(n, dtype=np.uint32),
        weights['buffers']['w_avg'],
    )
    state, traces = optimize.run(tuner.loop, state, args, KEY, num_steps)
    assert_close(traces['loss'], f'{run}/total', 2e-4)
    assert_close(traces['l2'], f'{run}/l2', 2e-4)
    assert_close(traces['lpips_alex'], f'{run}/lpips', 2e-4)
    assert_close(0.1 * traces['locality'], f'{run}/reg', 5e-3)
    after = state.variables['synthesis']['b32']['conv0']['kernel']
    before = weights['params']['synthesis']['b32']['conv0']['kernel']
    for what, kernel, limit in (('param', after, 2e-4), ('delta', after - before, 5e-2)):
        sample = recipe.sampled(np.asarray(kernel).transpose(3, 2, 0, 1), 512)
        assert_close(sample, f'{run}/{what}/synthesis.b32.conv0.weight/sample', limit)


def test_tuning_with_the_regulariser_equals_the_official_run():
    assert_tuning_equals('tune_reg', 1, 8, jnp.asarray(figures()['in/reg_z']))


@pytest.mark.long
def test_tuning_of_two_images_equals_the_official_run():
    assert_tuning_equals('multi_reg', 2, 4, jnp.asarray(figures()['in/multi_reg_z']))


@pytest.mark.long
def test_projection_equals_the_official_run(monkeypatch):
    generator, weights = load()
    statistics = latents.w_statistics(generator, weights, 600)
    assert_close(statistics.mean, 'proj/w_avg', 1e-3)
    assert_close(statistics.std, 'proj/w_std', 1e-3)
    steps = jnp.asarray(figures()['in/w_eps'])
    monkeypatch.setattr(
        latents, 'identity_normals', lambda key, ids, step, shape: steps[step][None, None]
    )
    settings = project.Settings(num_steps=10, learning_rate=0.01, chunk_steps=1)
    projector = project.make_projector(generator, settings)
    noise = {
        name: recipe.normal(f'input/pti/noise0/{name.replace("_", ".")}.noise_const', shape[:2])
        for name, shape in generator.spec.noise_shapes
    }
    noise = {name: jnp.asarray(maps)[None, :, :, None] for name, maps in noise.items()}
    ids = np.zeros(1, np.uint32)
    state, args = projector.prepare(
        weights, lpips.load('vgg'), targets(1), ids, statistics, KEY, noise=noise
    )
    w = []
    _, traces = optimize.run(
        projector.loop, state, args, KEY, 10, on_chunk=lambda s, _: w.append(s.variables['w'][0, 0])
    )
    assert_close(traces['loss'], 'proj_wnoise/loss', 2e-4)
    assert_close(traces['lpips_vgg'], 'proj_wnoise/dist', 2e-4)
    assert_close(traces['noise_reg'], 'proj_wnoise/reg', 2e-4)
    assert_close(jnp.stack(w), 'proj_wnoise/w_per_step', 1e-3)
