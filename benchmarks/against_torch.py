"""Step time and memory of StyleGAN2 (config-f) against a plain PyTorch twin.

    python benchmarks/against_torch.py [--resolutions=256,1024] [--batches=1,4] [--steps=5]

Each side runs in its own process, alternately, `--rounds` times, with the same seeded random
weights, targets and losses (compared at the first step). A step's time is the best of a round, a
ratio the median over rounds, memory the peak of the process; compilation is timed without the
cache. Needs `pip install torch`; takes about an hour on two cores.
"""

import os

import numpy as np
import sides
from absl import flags

from jaxinv.settings import Locality, Projection, Tuning
from jaxinv.weights.networks import find_lpips

_TASKS = ('tuning', 'tuning, regularised', 'projection')
_RESOLUTIONS = flags.DEFINE_list('resolutions', ['256', '1024'], 'Pixels.')
_BATCHES = flags.DEFINE_list('batches', ['1', '4'], 'Images in a step.')
_ONLY = flags.DEFINE_multi_enum('task', list(_TASKS), _TASKS, 'Tasks; the flag may be repeated.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Timed steps, after two others.')
_ROUNDS = flags.DEFINE_integer('rounds', 2, 'Processes of each side.')
_SIDE = flags.DEFINE_enum('side', None, ('jax', 'torch'), 'For the child processes.')
_SEED = 0


def nvidia_state(resolution, channel_base=32768, channel_max=512, w_dim=512, layers=8):
    """A state dict with NVIDIA's names and the random initialisation of config-f."""
    rng = np.random.RandomState(_SEED)
    state = {}

    def normal(name, *shape, scale=1.0):
        state[name] = rng.standard_normal(shape).astype(np.float32) * np.float32(scale)

    def modulation(name, channels):
        normal(f'{name}.affine.weight', channels, w_dim)
        state[f'{name}.affine.bias'] = np.ones(channels, np.float32)

    for i in range(layers):
        normal(f'mapping.fc{i}.weight', w_dim, w_dim, scale=100.0)
        normal(f'mapping.fc{i}.bias', w_dim, scale=0.0)
    normal('mapping.w_avg', w_dim, scale=0.0)
    size, before = 4, None
    while size <= resolution:
        channels = min(channel_base // size, channel_max)
        block = f'synthesis.b{size}'
        if size == 4:
            normal(f'{block}.const', channels, 4, 4)
        for conv, inputs in (('conv0', before), ('conv1', channels)):
            if inputs is not None:
                name = f'{block}.{conv}'
                normal(f'{name}.weight', channels, inputs, 3, 3)
                modulation(name, inputs)
                normal(f'{name}.bias', channels, scale=0.0)
                normal(f'{name}.noise_const', size, size)
                state[f'{name}.noise_strength'] = np.float32(0.1)
        normal(f'{block}.torgb.weight', 3, channels, 1, 1, scale=0.25)
        modulation(f'{block}.torgb', channels)
        normal(f'{block}.torgb.bias', 3, scale=0.0)
        size, before = 2 * size, channels
    return state


def inputs(resolution, batch):
    """(target images [b, h, w, 3] of coarse noise, z of the pivots [b, 512])."""
    rng = np.random.RandomState(_SEED + 1)
    coarse = rng.standard_normal((batch, 8, 8, 3)).astype(np.float32) / 2
    return coarse.repeat(resolution // 8, 1).repeat(resolution // 8, 2), rng.standard_normal(
        (batch, 512)
    ).astype(np.float32)


def jax_side(task, resolution, batch):
    """Yields None after the preparation, then the loss of each step."""
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict, unflatten_dict

    from jaxinv import latents
    from jaxinv.converters import stylegan2 as converter
    from jaxinv.generators.stylegan2 import stylegan2
    from jaxinv.inversion import project, pti

    state = nvidia_state(resolution)
    generator = stylegan2(**converter.nvidia_arguments(state))
    like = flatten_dict(jax.eval_shape(generator.init, jax.random.key(0)), sep='/')
    flat = converter.convert_nvidia(state, like)
    del state
    weights = jax.tree.map(jnp.asarray, unflatten_dict(flat, sep='/'))
    del flat
    targets, z = inputs(resolution, batch)
    ids, key = np.arange(batch, dtype=np.uint32), jax.random.key(0)
    w = jax.jit(generator.map)(weights, z)[:, None]
    if task == 'projection':
        settings = Projection(
            num_steps=100, learning_rate=0.01, initial_noise_factor=0.0, chunk_steps=1
        )
        method = project.make_projector(generator, settings)
        statistics = latents.WStatistics(w[0, 0], jnp.float32(1))
        noise = {
            name: jnp.tile(maps, (batch, 1, 1, 1))
            for name, maps in weights['buffers']['noise'].items()
        }
        state, args = method.prepare(
            weights, {'vgg': find_lpips('vgg')}, targets, ids, statistics, key, noise=noise
        )
        name = 'lpips_vgg'
    else:
        weight = Locality.weight if 'regularised' in task else 0.0
        locality = Locality(weight=weight, truncation_psi=0.5)
        settings = Tuning(num_steps=100, chunk_steps=1, locality=locality)
        method = pti.make_tuner(generator, settings, batch)
        w_avg = weights['buffers']['w_avg']
        state, args = method.prepare(weights, find_lpips('alex'), targets, w, ids, w_avg)
        name = 'loss'
    yield
    while True:
        state, traces, _ = method.loop.chunk(state, args, key, 1)
        yield float(np.mean(traces[name][0]))


def torch_side(task, resolution, batch):
    """The same of the PyTorch twin."""
    import torch
    import torch_twin

    torch.set_num_threads(os.cpu_count())
    state = {k: torch.from_numpy(np.array(v)) for k, v in nvidia_state(resolution).items()}
    generator = torch_twin.Generator(state)
    targets, z = inputs(resolution, batch)
    targets = torch.from_numpy(targets).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        w = generator.map(torch.from_numpy(z))
    rows = 2 * len(generator.sizes)
    if task == 'projection':
        vgg = torch_twin.Lpips(find_lpips('vgg', 'auto'))
        start = w[:1, None].expand(batch, -1, -1).contiguous()
        step = torch_twin.make_projection(generator, vgg, targets, start)
    else:
        alex = torch_twin.Lpips(find_lpips('alex', 'auto'))
        pivots = w[:, None].expand(-1, rows, -1).contiguous()
        w_avg = torch.zeros(w.shape[1])
        regularised = 'regularised' in task
        step = torch_twin.make_tuning(generator, alex, targets, pivots, w_avg, regularised)
    rng = np.random.RandomState(_SEED + 2)
    yield
    while True:
        yield float(step(torch.from_numpy(rng.standard_normal((batch, 512)).astype(np.float32))))


def main(argv):
    del argv
    if _SIDE.value:
        side = jax_side if _SIDE.value == 'jax' else torch_side
        given = _ONLY.value[0], int(_RESOLUTIONS.value[0]), int(_BATCHES.value[0])
        sides.report(side(*given), _STEPS.value)
        return
    print(
        f'{"":<22}{"pixels":>7}{"batch":>6}{"jax s":>8}{"torch s":>9}{"ratio":>7}'
        f'{"jax GB":>8}{"torch GB":>9}{"ratio":>7}{"compile s":>10}{"difference":>14}'
    )
    for resolution in map(int, _RESOLUTIONS.value):
        for batch in map(int, _BATCHES.value):
            for task in _ONLY.value:
                given = dict(resolutions=resolution, batches=batch, task=task, steps=_STEPS.value)
                result = sides.compare(__file__, _ROUNDS.value, **given)
                memory_ratio = result['gigabytes'] / result['torch_gigabytes']
                print(
                    f'{task:<22}{resolution:>7}{batch:>6}'
                    f'{result["step"]:>8.2f}{result["torch_step"]:>9.2f}{result["ratio"]:>7.2f}'
                    f'{result["gigabytes"]:>8.2f}{result["torch_gigabytes"]:>9.2f}{memory_ratio:>7.2f}'
                    f'{result["first"]:>10.1f}{result["difference"]:>14.1e}',
                    flush=True,
                )


if __name__ == '__main__':
    sides.main(main)
