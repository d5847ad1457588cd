"""SAM's image formation, edits, prior and search against recorded runs of the official code.

The generator is a StyleGAN2 of 256 pixels whose weights are rebuilt from their names (recipe.py).
Limits of the relative L2 distance are those of the figures' notes. In float32 the feature codes of
a run depend on rounding; the long tests repeat the runs in float64, where all of it agrees.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv import optimize
from jaxinv.converters import stylegan2 as converter
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import sam, sam_prior
from jaxinv.settings import Prior, Search
from jaxinv.weights.networks import load_lpips

FIGURES = pathlib.Path(__file__).parent / 'data' / 'sam.npz'
KEY = jax.random.key(0)
FEATURES = ('F4', 'F6', 'F8', 'F10')
OFFICIAL = Search(
    num_steps=8,
    learning_rate=0.05,
    prior_weight=1e-8,
    spread='norm',
    spread_weight=1e-3,
    offsets='mean',
    offsets_weight=5.0,
    clamp=True,
    chunk_steps=1,
)
RUNS = {
    'opt': OFFICIAL,
    'opt_smalllr': OFFICIAL.replace(learning_rate=0.002),
    'opt_boost': OFFICIAL.replace(learning_rate=0.005, prior_weight=1e-6, spread_weight=1e-2),
}


@functools.cache
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


@functools.cache
def load(dtype=jnp.float32):
    source = recipe.state_dict(json.loads(str(figures()['entries'])))
    generator = stylegan2(name='sam256', **converter.nvidia_arguments(source))
    like = flatten_dict(jax.eval_shape(generator.init, KEY), sep='/')
    flat = converter.convert_nvidia(source, like)
    return generator, jax.tree.map(lambda x: jnp.asarray(x, dtype), unflatten_dict(flat, sep='/'))


def masks(dtype=jnp.float32):
    return {f: jnp.asarray(figures()[f'mask/soft/{f}'], dtype)[None, ..., None] for f in FEATURES}


def given_codes(generator):
    shapes = dict(generator.spec.feature_shapes)
    offsets = {}
    for feature in FEATURES:
        h, w, c = shapes[feature]
        offset = recipe.normal(f'input/sam/d{feature}', (1, c, h, w)) * np.float32(0.3)
        offsets[feature] = jnp.asarray(offset.transpose(0, 2, 3, 1))
    return sam.Codes(jnp.asarray(figures()['in/w_plus_init']), offsets)


def assert_close(array, name, limit):
    array, figure = np.asarray(array, np.float64), np.asarray(figures()[name], np.float64)
    if name.endswith('/sample'):
        array = recipe.sampled(array.transpose(0, 3, 1, 2))[: figure.size]
    distance = np.linalg.norm(array.reshape(figure.shape) - figure) / np.linalg.norm(figure)
    assert distance < limit, (name, distance)


def test_image_and_its_edits_equal_the_official_ones():
    generator, weights = load()
    codes, soft = given_codes(generator), masks()

    @jax.jit
    def edited(weights, codes, masks, deltas):
        return sam.synthesize_edits(generator, weights, codes, masks, deltas, mixing='official')

    direction = jnp.asarray(figures()['in/edit_dir'])
    images = edited(weights, codes, soft, jnp.arange(4.0)[:, None, None, None] * direction)
    assert_close(images[0], 'given/forward/sample', 2e-5)
    for strength in (0, 1, 3):
        assert_close(images[1 + strength], f'given/edit_mul{strength}/sample', 2e-5)


@pytest.mark.long
def test_images_of_one_space_alone_equal_the_official_ones():
    generator, weights = load()
    codes = given_codes(generator)
    synthesize = jax.jit(functools.partial(sam.synthesize, generator))
    for feature in ('wplus_only', *FEATURES):
        whole = {f: jnp.full_like(mask, float(f == feature)) for f, mask in masks().items()}
        name = feature if feature == 'wplus_only' else f'single_{feature}'
        assert_close(synthesize(weights, codes, whole), f'given/{name}/sample', 2e-5)


def official_prior(dtype=jnp.float32):
    """From the recorded inverse, which rounding left a little asymmetric."""
    inverse = figures()['mvg/inv_cov_v']
    values, vectors = np.linalg.eigh((inverse + inverse.T) / 2)
    prior = sam_prior.Prior(figures()['mvg/mean_v'], vectors * np.sqrt(values))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), prior)


def test_prior_statistics_equal_the_official_ones():
    generator, weights = load()
    z = recipe.normal('input/sam/mvg_z', (5000, 64))
    prior = sam_prior.from_samples(
        generator.map(weights, jnp.asarray(z)),
        Prior(order='map_of_mean', epsilon=1e-8),
    )
    assert_close(prior.mean, 'mvg/mean_v', 1e-4)
    inverse = np.asarray(prior.factor, np.float64) @ np.asarray(prior.factor, np.float64).T
    assert_close(inverse, 'mvg/inv_cov_v', 2e-3)


def test_terms_on_w_plus_equal_the_official_ones():
    w_plus = jnp.asarray(figures()['in/w_plus_init'])
    assert_close(sam_prior.distance(w_plus, official_prior()), 'given/mvg', 1e-4)
    assert_close(sam_prior.spread(w_plus, 'norm'), 'given/delta', 1e-6)


def search(settings, dtype=jnp.float32):
    """Codes and traces of a run of the official settings, and the codes before its last step."""
    generator, weights = load(dtype)
    inverter = sam.make_inverter(generator, settings)
    target = jnp.asarray(figures()['in/target'][None].astype(np.float32) / 127.5 - 1, dtype)
    net = jax.tree.map(lambda x: jnp.asarray(x, dtype), load_lpips('vgg'))
    start = jnp.asarray(figures()['in/w_plus_init'], dtype)
    ids = np.zeros(1, np.uint32)
    prior = official_prior(dtype)
    state, args = inverter.prepare(weights, net, target, masks(dtype), start, ids, prior)
    codes = []

    def keep(state, traces):
        codes.append(jax.device_get(inverter.codes(state.variables)))

    state, traces = optimize.run(inverter.loop, state, args, KEY, settings.num_steps, on_chunk=keep)
    return codes, traces


def assert_terms_equal(traces, run, settings, limit, steps=8, prefix=''):
    weighted = {
        'mse': traces['l2'],
        'lpips': traces['lpips_vgg'],
        'mvg': settings.prior_weight * traces['prior'],
        'delta': settings.spread_weight * traces['spread'],
        'frec': 5 * traces['offsets'],
        'total': traces['loss'],
    }
    for name, values in weighted.items():
        figure = figures()[f'{prefix}{run}/{name}'][:steps]
        values = np.asarray(values, np.float64)[:steps, 0]
        # Offsets whose gradient is mere rounding move too, each by a full step of Adam.
        bound = 5e-3 if name == 'frec' and not prefix else limit
        assert np.linalg.norm(values - figure) <= bound * np.linalg.norm(figure) + 1e-12, name


def assert_codes_equal(codes, run, limits, prefix=''):
    """Final codes, the image of the codes before the last update, edits of the final ones."""
    generator, weights = load(codes[-1].w_plus.dtype.type)
    soft = masks(codes[-1].w_plus.dtype)
    w_limit, offsets_limit, images_limit = limits
    assert_close(codes[-1].w_plus, f'{prefix}{run}/final/W+', w_limit)
    for feature, offset in codes[-1].offsets.items():
        assert_close(offset, f'{prefix}{run}/final/{feature}/sample', offsets_limit)
    last = sam.synthesize(generator, weights, codes[-2], soft)
    assert_close(last, f'{prefix}{run}/last_forward/sample', images_limit)
    direction = jnp.asarray(figures()['in/edit_dir'], soft['F4'].dtype)
    for strength in (0, 1, 2, 3):
        name = f'{prefix}{run}/edit_mul{strength}/sample'
        if name in figures():
            edited = sam.synthesize(
                generator, weights, codes[-1], soft, delta=strength * direction, mixing='official'
            )
            assert_close(edited, name, images_limit)


@pytest.mark.exhaustive
@pytest.mark.parametrize('run', RUNS)
def test_search_in_float64_equals_the_official_run(run):
    with jax.enable_x64(True):
        codes, traces = search(RUNS[run], jnp.float64)
        assert_terms_equal(traces, run, RUNS[run], 1e-4, prefix='f64/')
        assert_codes_equal(codes, run, (1e-4, 1e-4, 1e-4), prefix='f64/')


@pytest.mark.exhaustive
@pytest.mark.parametrize('run', RUNS)
def test_search_in_float32_equals_the_official_run(run):
    codes, traces = search(RUNS[run])
    if run == 'opt':  # a rate at which rounding decides where single values go: the first steps
        assert_terms_equal(traces, run, RUNS[run], 5e-3, steps=3)
    else:
        assert_terms_equal(traces, run, RUNS[run], 2e-4)
        assert_codes_equal(codes, run, (1e-3, 1e-1, 1e-3))
