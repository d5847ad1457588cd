"""Everything that the figures of PTI's official runs hold, computed by jaxinv.

The generator is a StyleGAN2 of 64 pixels whose weights are rebuilt from their names (recipe.py).
Keys are the figures' own names without their run's. Works in float32 and, under jax.enable_x64, in
float64: start values are the same float32 numbers, widened.
"""

import functools
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import recipe
from flax.traverse_util import flatten_dict, unflatten_dict
from stylegan2_figures import mean_rms_maxabs, rows

from jaxinv import latents, optimize
from jaxinv.converters import stylegan2 as converter
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import losses, project, pti
from jaxinv.optimize import schedules
from jaxinv.settings import Locality, Projection, Tuning
from jaxinv.weights.networks import load_lpips

KEY = jax.random.key(0)
OFF = Locality(weight=0.0)
LOCALITY = Locality(truncation_psi=0.5, noise='none')
RUNS = ('tune', 'tune_reg', 'early_stop', 'multi', 'multi_reg', 'reg', 'proj', 'proj_wnoise')
# Two identities with a generator each in one vmapped program, as in pti_single_id; the first is
# compared with the figures of the run of one identity.
VMAPPED = {'tune_vmapped': 'tune', 'tune_reg_vmapped': 'tune_reg'}


def compute(run, entries, figures, dtype=jnp.float32):
    """The arrays of one of RUNS or VMAPPED, by the names of the figures without the run's.

    `figures` holds the inputs in/* and what `run` must stop at.
    """
    model = load(tuple((e[0], tuple(e[1]), *e[2:]) for e in entries), jnp.dtype(dtype))
    arrays = _run(run, model, figures)
    run = VMAPPED.get(run, run)
    if f'{run}/delta_names' in figures:
        changes = [f'delta/{entry}' for entry in figures[f'{run}/delta_names']]
        assert {key for key in arrays if key.startswith('delta/')} <= set(changes)
        # The mapping network stays as it was.
        summary = [mean_rms_maxabs(arrays.get(key, np.zeros(1))) for key in changes]
        arrays['delta_mean_rms_maxabs'] = summary
    return arrays


def _run(run, model, given):
    if run == 'tune':
        return tune(model, given, 1, 8)
    if run == 'tune_reg':
        return tune(model, given, 1, 8, LOCALITY, given['in/reg_z'])
    if run == 'tune_vmapped':
        return tune_vmapped(model, given, 8)
    if run == 'tune_reg_vmapped':
        return tune_vmapped(model, given, 8, LOCALITY, given['in/reg_z'])
    if run == 'early_stop':
        return tune(model, given, 1, 8, stop=float(given['early_stop/threshold']))
    if run == 'multi':
        return tune(model, given, 2, 4)
    if run == 'multi_reg':
        return tune(model, given, 2, 4, LOCALITY, given['in/multi_reg_z'])
    if run == 'reg':
        return locality_code(model, given)
    prefix = 'f64/' if model.dtype == jnp.float64 else ''
    mean, std = (jnp.asarray(given[f'{prefix}proj/{n}'], model.dtype) for n in ('w_avg', 'w_std'))
    statistics = latents.WStatistics(mean, std)
    return projection(model, given, statistics, 0.05 if run == 'proj_wnoise' else 0.0)


@functools.cache
def load(entries, dtype):
    """Generator, weights and both LPIPS networks in a namespace."""
    source = recipe.state_dict(entries)
    generator = stylegan2(name='pti64', **converter.nvidia_arguments(source))
    like = flatten_dict(jax.eval_shape(generator.init, KEY), sep='/')
    flat = converter.convert_nvidia(source, like)
    widen = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, dtype))
    return types.SimpleNamespace(
        generator=generator,
        weights=widen(unflatten_dict(flat, sep='/')),
        entry_of={path: entry for path, (entry, _) in converter.nvidia_table(flat).items()},
        lpips={net: widen(load_lpips(net)) for net in ('alex', 'vgg')},
        dtype=dtype,
    )


def targets(model, given, n):
    images = np.stack([given[f'in/target{i}'] for i in range(n)])
    return jnp.asarray(images.astype(np.float32) / 127.5 - 1, model.dtype)


def pivots(model, given):
    return jnp.asarray(given['in/pivots'], model.dtype)[:, None]


def tune(model, given, n, num_steps, locality=OFF, z=None, stop=None):
    """Tuning on n images; one Adam step an image, `stop` at that LPIPS. z [updates, 1, z_dim]."""
    z = None if z is None else jnp.asarray(z, model.dtype)

    def draw(key, ids, step, shape):
        return z[n * step + ids.astype(jnp.int32)]

    settings = Tuning(
        num_steps=num_steps,
        shared=stop is None,
        batch_size=1,
        stop_lpips=stop,
        locality=locality,
        chunk_steps=num_steps,
    )
    state, traces = run_tuning(model, given, n, settings, draw)
    params = state.variables
    if stop is not None:
        params = jax.tree.map(lambda p: p[0], params)
        evaluated = traces['lpips_alex'][:, 0]
        evaluated = evaluated[np.isfinite(evaluated)]
        return {
            'threshold': np.float64(stop),
            'lpips_evaluated': evaluated,
            'num_updates': len(evaluated) - 1,  # the last step only found that it was to stop
            **parameters(model, params),
        }
    traces = {name: rows.reshape(-1) for name, rows in traces.items()}
    return {'num_updates': n * int(state.step), **tuned_figures(model, given, traces, params)}


def tune_vmapped(model, given, num_steps, locality=OFF, z=None):
    """The first of two identities with a generator each. z [updates, 1, z_dim], of both."""
    z = None if z is None else jnp.asarray(z, model.dtype)

    def draw(key, ids, step, shape):
        return z[step][None]  # ids and step of one identity

    settings = Tuning(num_steps=num_steps, shared=False, locality=locality, chunk_steps=num_steps)
    state, traces = run_tuning(model, given, 2, settings, draw)
    params = jax.tree.map(lambda p: p[0], state.variables)
    traces = {name: rows[:, 0] for name, rows in traces.items()}
    return {'num_updates': int(state.step), **tuned_figures(model, given, traces, params)}


def run_tuning(model, given, n, settings, draw):
    """(LoopState, {metric: [steps, n]}) of the tuning on the first n images."""
    weights = model.weights
    tuner = pti.make_tuner(model.generator, settings, n, draw)
    state, args = tuner.prepare(
        weights,
        model.lpips['alex'],
        targets(model, given, n),
        pivots(model, given)[:n],
        np.arange(n, dtype=np.uint32),
        weights['buffers']['w_avg'],
    )
    return optimize.run(tuner.loop, state, args, KEY, settings.num_steps)


def tuned_figures(model, given, traces, params):
    """What the figures hold of a tuning: traces {metric: [updates]}, parameters, images."""
    tuned = {'params': params, 'buffers': model.weights['buffers']}
    images = jax.jit(model.generator.synthesize)(tuned, pivots(model, given))[0]
    return {
        'total': traces['loss'],
        'l2': traces['l2'],
        'lpips': traces['lpips_alex'],
        'reg': 0.1 * traces['locality'],
        'final_img0': recipe.nchw(images[:1]),
        'final_img1': recipe.nchw(images[1:]),
        **parameters(model, params),
    }


def parameters(model, params):
    """Parameters after the tuning and their changes, by NVIDIA's names."""
    after, before = (
        flatten_dict({'params': p}, sep='/') for p in (params, model.weights['params'])
    )
    arrays = {}
    for path, parameter in after.items():
        entry, change = model.entry_of[path], parameter - before[path]
        arrays[f'param/{entry}'] = recipe.to_torch(parameter, path)
        arrays[f'delta/{entry}'] = recipe.to_torch(change, path)
    return arrays


def locality_code(model, given):
    """A code of the regulariser around the first pivot."""
    generator, weights = model.generator, model.weights
    z = jnp.asarray(given['in/multi_reg_z'][0], model.dtype)
    w = latents.truncate(generator.map(weights, z), weights['buffers']['w_avg'], 0.5)
    pivot = jnp.asarray(given['in/pivots'], model.dtype)[:1, None]
    num_ws = generator.spec.num_ws
    code = losses.locality_codes(pivot, w[None], LOCALITY.alpha, LOCALITY.norm, num_ws)
    code = rows(code[:, 0], generator.spec)
    return {'w_sample': w, 'morphed_w': code, 'step_norm': jnp.linalg.norm(code - pivot)}


def projection(model, given, statistics, initial_noise_factor):
    """The W projector's ten steps from the statistics given, with the given normals on w."""
    generator = model.generator
    eps = jnp.asarray(given['in/w_eps'], model.dtype)
    settings = Projection(
        num_steps=10,
        learning_rate=0.01,
        initial_noise_factor=initial_noise_factor,
        chunk_steps=1,
    )
    noise = {
        name: recipe.normal(f'input/pti/noise0/{buffer(name)}', shape[:2])
        for name, shape in generator.spec.noise_shapes
    }
    noise = {name: jnp.asarray(a, model.dtype)[None, :, :, None] for name, a in noise.items()}
    w = []
    normals = mock.patch.object(
        latents, 'identity_normals', lambda key, ids, step, shape: eps[step][None, None]
    )
    with normals:
        projector = project.make_projector(generator, settings)
        state, args = projector.prepare(
            model.weights,
            {'vgg': model.lpips['vgg']},
            targets(model, given, 1),
            np.zeros(1, np.uint32),
            statistics,
            KEY,
            noise=noise,
        )
        state, traces = optimize.run(
            projector.loop,
            state,
            args,
            KEY,
            settings.num_steps,
            on_chunk=lambda s, _: w.append(np.asarray(s.variables['w'][0, 0])),
        )
    t = jnp.arange(settings.num_steps) / settings.num_steps
    ramp = schedules.learning_rate_ramp(t, settings.lr_rampdown, settings.lr_rampup)
    w_noise = schedules.latent_noise_ramp(t, settings.noise_ramp) * initial_noise_factor
    measured = latents.w_statistics(generator, model.weights, 600)
    return {
        'lr': settings.learning_rate * ramp,
        'dist': traces['lpips_vgg'][:, 0],
        'reg': traces['noise_reg'][:, 0],
        'loss': traces['loss'][:, 0],
        'w_noise_scale': statistics.std * w_noise,
        'w_per_step': np.stack(w),
        'w_final': w[-1],
        'w_avg': measured.mean,
        'w_std': measured.std,
    } | {f'noise_final/{buffer(n)}': a for n, a in state.variables['noise'].items()}


def buffer(layer):
    """NVIDIA's name of a layer's noise map."""
    return f'{layer.replace("_", ".")}.noise_const'
