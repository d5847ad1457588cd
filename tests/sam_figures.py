"""Everything that the figures of SAM's official runs hold, computed by jaxinv.

The generator is a StyleGAN2 of 256 pixels whose weights are rebuilt from their names (recipe.py).
Keys are the figures' own names without those of PARTS. Works in float32 and, under jax.enable_x64,
in float64: start values are the same float32 numbers, widened.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import recipe
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv import optimize
from jaxinv.converters import stylegan2 as converter
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import invertibility, sam, sam_prior
from jaxinv.inversion.masks import soft_masks
from jaxinv.optimize import schedules
from jaxinv.settings import Prior, Search
from jaxinv.types import Affine
from jaxinv.weights.networks import load_lpips

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
PARTS = ('mvg', 'mask', 'given', *RUNS)


def compute(part, entries, figures, dtype=jnp.float32):
    """The arrays of one of PARTS; `figures` holds its inputs in/*, mask/* and mvg/*."""
    if part == 'mask':
        return selection(figures)
    model = load(tuple((e[0], tuple(e[1]), *e[2:]) for e in entries), jnp.dtype(dtype))
    if part == 'mvg':
        return statistics(model)
    if part == 'given':
        return terms(figures) | edits(model, figures) | single_spaces(model, figures)
    return search(model, figures, RUNS[part])


@functools.cache
def load(entries, dtype):
    """Generator, weights and LPIPS-vgg in a namespace."""
    source = recipe.state_dict(entries)
    generator = stylegan2(name='sam256', **converter.nvidia_arguments(source))
    like = flatten_dict(jax.eval_shape(generator.init, KEY), sep='/')
    flat = converter.convert_nvidia(source, like)
    widen = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    return types.SimpleNamespace(
        generator=generator,
        weights=widen(unflatten_dict(flat, sep='/')),
        lpips=widen(load_lpips('vgg')),
        dtype=dtype,
    )


def masks(model, figures):
    """The soft masks of the figures, {'F4': [1, h, w, 1], ...}."""
    return {
        f: jnp.asarray(figures[f'mask/soft/{f}'], model.dtype)[None, ..., None] for f in FEATURES
    }


def prior(figures, dtype):
    """From the recorded inverse, which rounding left a little asymmetric."""
    inverse = figures['mvg/inv_cov_v']
    values, vectors = np.linalg.eigh((inverse + inverse.T) / 2)
    found = sam_prior.Prior(figures['mvg/mean_v'], vectors * np.sqrt(values))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), found)


def statistics(model):
    """mvg: statistics of w, and of v = LeakyReLU(w, 5), of 5000 samples."""
    z = recipe.normal('input/sam/mvg_z', (5000, model.generator.spec.z_dim))
    w = model.generator.map(model.weights, jnp.asarray(z, model.dtype))
    own = Prior(order='map_of_mean', epsilon=1e-8)
    of_v = sam_prior.from_samples(w, own)
    of_w = sam_prior.from_samples(w, own, slope=1.0)
    factors = [np.asarray(found.factor, np.float64) for found in (of_v, of_w)]
    inverses = [factor @ factor.T for factor in factors]
    eigenvalues = 1 / (factors[0] ** 2).sum(0)  # the columns are eigenvectors / sqrt(eigenvalue)
    return {
        'mean_v': of_v.mean,
        'mean_w': of_w.mean,
        'inv_cov_v': inverses[0],
        'inv_cov_w': inverses[1],
        'cov_v_eig_min_max': [eigenvalues.min(), eigenvalues.max()],
    }


def selection(figures):
    """mask: chosen spaces, their areas, and the soft masks at tau = 0.225."""
    spaces = ('W+', *FEATURES)
    maps = {space: figures[f'mask/in/inv_{space}'][None] for space in spaces}
    labels, arrays = figures['mask/in/seg'][None].astype(np.int32), {}
    shapes = tuple((f, figures[f'mask/soft/{f}'].shape) for f in FEATURES)
    for tau in (0.15, 0.225, 0.3):
        chosen = invertibility.select(maps, labels, tau).chosen
        arrays[f'tau{tau}/selected'] = chosen[0]
        arrays[f'tau{tau}/area'] = invertibility.areas(chosen, len(spaces))[0]
        if tau == 0.225:
            spec = types.SimpleNamespace(feature_shapes=shapes)
            soft = soft_masks(chosen, spec, spaces, 'lanczos')
            arrays |= {f'soft/{f}': soft[f][0, ..., 0] for f in FEATURES}
    return arrays


# --- Given codes ----------------------------------------------------------------------------------


def given_codes(model, figures):
    shapes, offsets = dict(model.generator.spec.feature_shapes), {}
    for feature in FEATURES:
        h, w, c = shapes[feature]
        offset = recipe.normal(f'input/sam/d{feature}', (1, c, h, w)) * np.float32(0.3)
        offsets[feature] = jnp.asarray(offset.transpose(0, 2, 3, 1), model.dtype)
    return sam.Codes(jnp.asarray(figures['in/w_plus_init'], model.dtype), offsets)


def terms(figures):
    """Both terms of equation 6 of the given w_plus."""
    w_plus = jnp.asarray(figures['in/w_plus_init'])
    return {
        'mvg': sam_prior.distance(w_plus, prior(figures, w_plus.dtype))[0],
        'delta': sam_prior.spread(w_plus, 'norm')[0],
    }


def edits(model, figures):
    """The image of the given codes, and its edits."""
    codes, soft = given_codes(model, figures), masks(model, figures)
    strengths = (0, 1, 3)
    images = edited_images(model, figures, codes, soft, strengths)
    arrays = {f'edit_mul{k}': recipe.nchw(x) for k, x in zip(strengths, images[1:], strict=True)}
    return {'forward': recipe.nchw(images[0]), **arrays}


def edited_images(model, figures, codes, soft, strengths):
    """[1 + strengths, 1, h, w, 3]: the unedited image first, edits as in the official code."""
    deltas = jnp.asarray(strengths, model.dtype)[:, None, None, None]
    deltas = deltas * jnp.asarray(figures['in/edit_dir'], model.dtype)[None]
    edit = functools.partial(sam.synthesize_edits, model.generator, mixing='official')
    return jax.jit(edit)(model.weights, codes, soft, deltas)


def single_spaces(model, figures):
    """Images with the offsets of one space, unmasked, or of none; and the features of all."""
    codes, soft = given_codes(model, figures), masks(model, figures)
    synthesize = jax.jit(functools.partial(sam.synthesize, model.generator))
    arrays = {}
    for feature in (None, *FEATURES):
        whole = {f: jnp.full_like(mask, float(f == feature)) for f, mask in soft.items()}
        image = synthesize(model.weights, codes, whole)
        arrays[f'single_{feature}' if feature else 'wplus_only'] = recipe.nchw(image)
    taps = {f: Affine(jnp.ones_like(soft[f]), soft[f] * codes.offsets[f]) for f in FEATURES}
    _, features = jax.jit(model.generator.synthesize)(model.weights, codes.w_plus, taps=taps)
    return arrays | {f'partial_{f}': recipe.nchw(features[f]) for f in FEATURES}


# --- The search -----------------------------------------------------------------------------------


def search(model, figures, settings):
    """Loss terms of every step, first gradients, final codes, and images of a run."""
    codes, traces, gradients = run_search(model, figures, settings)
    s, start = settings, figures['in/w_plus_init']
    evaluated = [sam.Codes(start, jax.tree.map(jnp.zeros_like, codes[0].offsets)), *codes[:-1]]
    means = {
        f: np.array([np.mean(np.square(own.offsets[f])) for own in evaluated]) for f in FEATURES
    }
    moved = [np.sqrt(np.mean(np.square(own.w_plus - start))) for own in codes]
    t = jnp.arange(s.num_steps, dtype=model.dtype) / s.num_steps
    traces = {name: np.asarray(rows[:, 0], np.float64) for name, rows in traces.items()}
    final, soft = codes[-1], masks(model, figures)
    last = jax.jit(functools.partial(sam.synthesize, model.generator))
    images = edited_images(model, figures, final, soft, (0, 1, 2, 3))
    return {
        'lr': s.learning_rate * schedules.learning_rate_ramp(t, s.lr_rampdown, s.lr_rampup),
        'mse': traces['l2'],
        'lpips': traces['lpips_vgg'],
        'rec': traces['l2'] + traces['lpips_vgg'],
        'mvg': s.prior_weight * traces['prior'],
        'delta': s.spread_weight * traces['spread'],
        'frec': s.offsets_weight * traces['offsets'],
        'total': traces['loss'],
        **{f'frec_{f}': values for f, values in means.items()},
        'w_plus_rms_move_per_step': np.array(moved),
        **{f'grad0/{space}': array for space, array in by_space(gradients).items()},
        **{f'final/{space}': array for space, array in by_space(final).items()},
        # The official code's saved image is one update older than the saved codes.
        'last_forward': recipe.nchw(last(model.weights, codes[-2], soft)),
        **{f'edit_mul{k}': recipe.nchw(image) for k, image in enumerate(images[1:])},
    }


def by_space(codes):
    """{'W+': [1, num_ws, w_dim], 'F4': [1, c, h, w], ...}, as the figures name codes."""
    return {'W+': codes.w_plus} | {f: recipe.nchw(codes.offsets[f]) for f in FEATURES}


def run_search(model, figures, settings):
    """Codes after every step, {metric: [steps, 1]}, and the gradients of the first step."""
    inverter = sam.make_inverter(model.generator, settings)
    target = jnp.asarray(figures['in/target'][None].astype(np.float32) / 127.5 - 1, model.dtype)
    start = jnp.asarray(figures['in/w_plus_init'], model.dtype)
    own = masks(model, figures), start, np.zeros(1, np.uint32), prior(figures, model.dtype)
    state, args = inverter.prepare(model.weights, model.lpips, target, *own)
    loop, codes = inverter.loop, []
    gradient = jax.jit(lambda v, args: loop.update.gradient(v, args, jnp.int32(0), None, KEY)[0])
    gradients = inverter.codes(jax.device_get(gradient(state.variables, args)))

    def keep(state, traces):
        codes.append(jax.device_get(inverter.codes(state.variables)))

    _, traces = optimize.run(loop, state, args, KEY, settings.num_steps, on_chunk=keep)
    return codes, traces, gradients
