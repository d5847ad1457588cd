"""BigGAN-deep's forward pass and a step of SAM's search against the PyTorch code.

    python benchmarks/biggan.py [--resolution=256] [--batches=1,4] [--steps=5]

The step is the gradient of the mean squared error with respect to Z+ and an offset of F4. Each side
runs in its own process, alternately, `--rounds` times, with the same seeded random weights, codes
and targets; losses are compared. A time is the best of a round, a ratio the median over rounds,
memory the peak of the process. The PyTorch code is unchanged and computes spectral norms at every
pass; `--folded` applies torch.nn.utils.remove_spectral_norm first.

Needs `pip install torch pytorch-pretrained-biggan`. That package imports boto3 and requests for
downloads; if they are missing they are replaced by empty modules.
"""

import os
import sys
import types

import numpy as np
import sides
from absl import flags

TASKS = ('forward', 'step')
_RESOLUTION = flags.DEFINE_integer('resolution', 256, 'Pixels: 128, 256 or 512.')
_BATCHES = flags.DEFINE_list('batches', ['1', '4'], 'Images in a pass.')
_ONLY = flags.DEFINE_multi_enum('task', list(TASKS), TASKS, 'Tasks; the flag may be repeated.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Timed passes, after two others.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Processes of each side.')
_FOLDED = flags.DEFINE_bool('folded', False, 'Fold the spectral norms of the PyTorch side.')
_PYTHON = flags.DEFINE_string('torch_python', sys.executable, 'Interpreter of the PyTorch side.')
_SIDE = flags.DEFINE_enum('side', None, ('jax', 'torch'), 'For the child processes.')
_SEED = 0


def official_state(arguments):
    """A random state dict; features and images have about unit variance."""
    from jaxinv.converters import biggan

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
    # The spectral norm u^T M v is then |M^T u|, about sqrt(inputs), which normalises the variance.
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
    """Yields None after the preparation, then the loss of each pass."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax.traverse_util import unflatten_dict

    from jaxinv import optimize
    from jaxinv.converters import biggan
    from jaxinv.generators.biggan_deep import biggan_deep
    from jaxinv.types import Affine

    generator = biggan_deep(**arguments)
    flat = biggan.convert(official_state(arguments), arguments)
    weights = jax.tree.map(jnp.asarray, unflatten_dict(flat, sep='/'))
    z, labels, target = inputs(arguments, batch)
    embedded = generator.map(weights, z[:, 0], labels)[:, None, arguments['z_dim'] :]
    w = jnp.concatenate([z, jnp.broadcast_to(embedded, z.shape)], -1)
    offset = jnp.zeros([batch, *dict(generator.spec.feature_shapes)['F4']])

    def objective(variables, args, step, key):
        w, offset = variables
        taps = {'F4': Affine(jnp.ones([]), offset)}
        images, _ = generator.synthesize(args['weights'], w, taps=taps)
        loss = jnp.mean((images - args['target']) ** 2, axis=(1, 2, 3))
        return loss.mean(), {'loss': loss}

    @jax.jit
    def forward(weights, w, target):
        images, _ = generator.synthesize(weights, w)
        return images, jnp.mean((images - target) ** 2)

    # The loop of the inversions, with a learning rate of 0.
    optimizer = optax.sgd(0.0)
    update = optimize.gradient_update(objective, optimizer)
    loop = optimize.make_loop(update, optimizer, ('loss',), chunk_steps=1)
    state, key = loop.init((w, offset), batch), jax.random.key(0)
    args = {'weights': weights, 'target': target}
    yield
    while True:
        if task == 'forward':
            yield float(jax.block_until_ready(forward(weights, w, target))[1])
        else:
            state, traces, _ = loop.chunk(state, args, key, 1)
            yield float(np.mean(traces['loss'][0]))


def torch_side(task, arguments, batch):
    """The same of the PyTorch code."""
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
        """The forward pass of the network with a code for each layer and an offset of F4."""
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


def main(argv):
    del argv
    if _SIDE.value:
        side = jax_side if _SIDE.value == 'jax' else torch_side
        given = _ONLY.value[0], arguments_of(_RESOLUTION.value), int(_BATCHES.value[0])
        sides.report(side(*given), _STEPS.value)
        return
    print(
        f'{"":<9}{"batch":>5}{"jax s":>8}{"torch s":>9}{"ratio":>7}{"jax GB":>8}{"torch GB":>9}'
        f'{"compile s":>10}{"difference":>14}'
    )
    for batch in map(int, _BATCHES.value):
        for task in _ONLY.value:
            given = dict(
                task=task,
                batches=batch,
                resolution=_RESOLUTION.value,
                steps=_STEPS.value,
                folded=_FOLDED.value,
            )
            result = sides.compare(__file__, _ROUNDS.value, {'torch': _PYTHON.value}, **given)
            print(
                f'{task:<9}{batch:>5}'
                f'{result["step"]:>8.3f}{result["torch_step"]:>9.3f}{result["ratio"]:>7.2f}'
                f'{result["gigabytes"]:>8.2f}{result["torch_gigabytes"]:>9.2f}'
                f'{result["first"]:>10.1f}{result["difference"]:>14.1e}',
                flush=True,
            )


if __name__ == '__main__':
    sides.main(main)
