"""BigGAN-deep's forward pass and a step of SAM's search against the PyTorch code, in one run.

    python benchmarks/biggan.py [--resolution=256] [--batches=1,4] [--steps=5]

The step is the gradient of the mean squared error with respect to Z+ and an offset of F4. Every
cell runs each side in a process of its own, alternately, `--rounds` times: same seeded random
weights, codes and targets, whose losses are compared. A time is the best of a round, a ratio the
median over rounds, memory the process's peak. The PyTorch code runs as it is, spectral norms taken
at every pass, and with `--folded` after torch.nn.utils.remove_spectral_norm.

Needs `pip install torch pytorch-pretrained-biggan`; where that package's dependencies boto3 and
requests, which it imports to download, are missing, empty modules take their places.
"""

import json
import os
import subprocess
import sys
import time
import types

import numpy as np
from absl import app, flags

TASKS = ('forward', 'step')
_RESOLUTION = flags.DEFINE_integer('resolution', 256, 'Pixels: 128, 256 or 512.')
_BATCHES = flags.DEFINE_list('batches', ['1', '4'], 'Images a pass.')
_ONLY = flags.DEFINE_multi_enum('task', list(TASKS), TASKS, 'Tasks; give it several times.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Passes timed, after compilation and a first one.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Processes of each side.')
_FOLDED = flags.DEFINE_bool('folded', False, 'Fold the spectral norms of the PyTorch side too.')
_PYTHON = flags.DEFINE_string('torch_python', sys.executable, 'Interpreter of the PyTorch side.')
_SIDE = flags.DEFINE_enum('side', None, ('jax', 'torch'), 'For the child processes.')
_SEED = 0


def official_state(arguments):
    """A state dict with random numbers that keep features and images at about unit size."""
    from converters import biggan

    rng, state = np.random.RandomState(_SEED), {}
    for name, shape in biggan.shapes(biggan.entries(arguments)).items():
        layer, _, last = name.rpartition('.')
        if last == 'weight_v':
            matrix = state[f'{layer}.weight_orig'].reshape(-1, *shape)
            array = state[f'{layer}.weight_u'] @ matrix
        elif last == 'running_vars' or name.endswith(('gamma', '.bn.weight')):
            array = np.ones(shape)
        else:
            array = rng.standard_normal(shape).astype(np.float32)
            array *= 0.1 if last in ('bias', 'running_means') else 1.0
        if last in ('weight_u', 'weight_v'):
            array = array / np.linalg.norm(array)
        state[name] = np.float32(array)
    # u^T M v of this recipe is the length of M^T u, about sqrt(inputs): a fitting gain.
    return state


def inputs(arguments, batch):
    """(z+ [b, num_ws, z_dim], class [b, classes], target [b, h, w, 3])."""
    rng = np.random.RandomState(_SEED + 1)
    rows, size = 1 + len(arguments['layers']), arguments['resolution']
    z = rng.standard_normal((batch, rows, arguments['z_dim'])).astype(np.float32)
    labels = np.eye(arguments['num_classes'], dtype=np.float32)[rng.randint(1000, size=batch)]
    coarse = rng.standard_normal((batch, 8, 8, 3)).astype(np.float32) / 2
    return z, labels, coarse.repeat(size // 8, 1).repeat(size // 8, 2)


def arguments_of(resolution):
    from jaxinv.generators.biggan_deep import LAYERS

    return {
        'resolution': resolution,
        'layers': LAYERS[resolution],
        'channel_width': 128,
        'num_classes': 1000,
        'z_dim': 128,
        'class_embed_dim': 128,
        'attention_position': 8,
        'num_statistics': 51,
        'epsilon': 1e-4,
    }


def jax_side(task, arguments, batch):
    import jax
    import jax.numpy as jnp

    from converters import biggan, tables
    from jaxinv.generators.biggan_deep import biggan_deep
    from jaxinv.types import Affine

    generator = biggan_deep(**arguments)
    flat = biggan.convert(official_state(arguments), arguments)
    weights = jax.tree.map(jnp.asarray, tables.unflatten(flat))
    z, labels, target = inputs(arguments, batch)
    embedded = generator.map(weights, z[:, 0], labels)[:, None, arguments['z_dim'] :]
    w = jnp.concatenate([z, jnp.broadcast_to(embedded, z.shape)], -1)
    offset = jnp.zeros([batch, *dict(generator.spec.feature_shapes)['F4']])

    def loss(variables, weights, target):
        w, offset = variables
        taps = {'F4': Affine(jnp.ones([]), offset)}
        images, _ = generator.synthesize(weights, w, taps=taps)
        return jnp.mean((images - target) ** 2)

    @jax.jit
    def forward(weights, w, target):
        images, _ = generator.synthesize(weights, w)
        return images, jnp.mean((images - target) ** 2)

    step = jax.jit(jax.value_and_grad(loss))
    yield
    while True:
        if task == 'forward':
            yield float(jax.block_until_ready(forward(weights, w, target))[1])
        else:
            yield float(jax.block_until_ready(step((w, offset), weights, target))[0])


def torch_side(task, arguments, batch):
    for name in ('boto3', 'requests', 'botocore', 'botocore.exceptions'):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].ClientError = Exception
    import torch
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig

    torch.set_num_threads(os.cpu_count())
    config = BigGANConfig(output_dim=arguments['resolution'], layers=arguments['layers'])
    model = BigGAN(config).eval().requires_grad_(False)
    state = {name: torch.from_numpy(a) for name, a in official_state(arguments).items()}
    model.load_state_dict(state, strict=True)
    if _FOLDED.value:
        for module in model.modules():
            if hasattr(module, 'weight_orig'):
                torch.nn.utils.remove_spectral_norm(module)
    z, labels, target = (torch.from_numpy(a) for a in inputs(arguments, batch))
    target = target.permute(0, 3, 1, 2).contiguous()
    embedded = model.embeddings(labels)
    z = z.requires_grad_(task == 'step')
    offset = torch.zeros(batch, 1024, 16, 16, requires_grad=task == 'step')
    network = model.generator

    def images():
        """The network's own forward pass, with a code for each layer and the offset of F4."""
        codes = [torch.cat([z[:, i], embedded], 1) for i in range(z.shape[1])]
        x = network.gen_z(codes[0]).view(-1, 4, 4, 2048).permute(0, 3, 1, 2).contiguous()
        block = 0
        for layer in network.layers:
            if hasattr(layer, 'gamma'):
                x = layer(x)
                continue
            block += 1
            x = layer(x, codes[block], 1.0)
            if block == 4 and task == 'step':
                x = x + offset
        x = network.relu(network.bn(x, 1.0))
        return network.tanh(network.conv_to_rgb(x)[:, :3])

    yield
    while True:
        if task == 'forward':
            with torch.no_grad():
                yield float(((images() - target) ** 2).mean())
        else:
            loss = ((images() - target) ** 2).mean()
            torch.autograd.grad(loss, [z, offset])
            yield float(loss)


def child(task, batch):
    """Runs one side and prints a line of JSON."""
    import resource

    arguments = arguments_of(_RESOLUTION.value)
    losses = (jax_side if _SIDE.value == 'jax' else torch_side)(task, arguments, batch)
    next(losses)
    times, values = [], []
    for _ in range(_STEPS.value + 2):
        start = time.perf_counter()
        values.append(next(losses))
        times.append(time.perf_counter() - start)
    unit = 1 if sys.platform == 'darwin' else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    best = min(times[2:])
    print(json.dumps({'first': times[0], 'step': best, 'gigabytes': peak, 'loss': values[0]}))


def run_child(side, task, batch):
    python = _PYTHON.value if side == 'torch' else sys.executable
    command = [python, __file__, f'--side={side}', f'--task={task}', f'--batches={batch}']
    command += [f'--resolution={_RESOLUTION.value}', f'--steps={_STEPS.value}']
    command += ['--folded'] if _FOLDED.value else []
    environment = os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main(argv):
    del argv
    if _SIDE.value:
        child(_ONLY.value[0], int(_BATCHES.value[0]))
        return
    print(
        f'{"":<9}{"batch":>5}{"jax s":>8}{"torch s":>9}{"ratio":>7}{"jax GB":>8}{"torch GB":>9}'
        f'{"compile s":>10}{"losses differ":>14}'
    )
    for batch in map(int, _BATCHES.value):
        for task in _ONLY.value:
            rounds = [
                [run_child(side, task, batch) for side in ('jax', 'torch')]
                for _ in range(_ROUNDS.value)
            ]
            ours, theirs = zip(*rounds, strict=True)

            def median(side, key):
                return float(np.median([run[key] for run in side]))

            ratio = np.median([a['step'] / b['step'] for a, b in rounds])
            differ = abs(ours[0]['loss'] / theirs[0]['loss'] - 1)
            print(
                f'{task:<9}{batch:>5}{median(ours, "step"):>8.3f}{median(theirs, "step"):>9.3f}'
                f'{ratio:>7.2f}{median(ours, "gigabytes"):>8.2f}{median(theirs, "gigabytes"):>9.2f}'
                f'{median(ours, "first"):>10.1f}{differ:>14.1e}',
                flush=True,
            )


if __name__ == '__main__':
    app.run(main)
