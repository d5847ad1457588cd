"""The task `train_invertibility`: fits SAM's invertibility network to measured maps (equation 2).

Trains on a part of the pictures of `invertibility_data`. Held out are a share of the generated
pictures and, unless train_on_real is set, all real photographs; both are reported separately. For
each latent space the report has the mean squared error, which is minimised, and the correlation of
predicted with measured maps over all pixels, beside those of the mean training map. The mean map
does not depend on the picture: a network that is no better has learned nothing from pictures.

  network.safetensors   the network (weights.networks.load_invertibility)
  predictions.png       held-out pictures, measured and predicted maps
  metrics.json          written last: the run is finished
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from jaxinv import latents, pixels, settings
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import invertibility_data
from jaxinv.io import write_atomically
from jaxinv.networks import invertibility
from jaxinv.optimize import LoopState, checkpoints
from jaxinv.optimize.loop import append_traces
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.weights.networks import load_lpips, save_invertibility

METRICS = ('loss',)
BATCH = 8  # pictures of a forward pass in validation


class TrainState(train_state.TrainState):
    """Flax's TrainState with the running statistics of batch norm."""

    batch_stats: Any


class Split(NamedTuple):
    """Indices into the dataset."""

    train: np.ndarray
    held_out: np.ndarray  # generated pictures
    real: np.ndarray


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task in the folder `path`, or resumes it there."""
    path = pathlib.Path(path)
    settings.check(config)
    dataset = invertibility_data.load(config.data)
    network = invertibility.make(dataset.spaces, config.size)
    split = split_of(dataset, config.held_out, config.train_on_real, config.seed)
    log(
        f'{len(split.train)} pictures to train on, {len(split.held_out)} generated and '
        f'{len(split.real)} real ones held out.'
    )
    record = {'config': settings.record_of(config), 'names': dataset.names}
    with workdir.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / "network.safetensors"} (--overwrite runs it again).')
            return
        vgg = load_lpips('vgg', config.lpips) if network.sizes.trunk == 'vgg16' else None
        variables = train(config, network, vgg, dataset, split, path, log)
        save_invertibility(path / 'network.safetensors', network, variables)
        result = {'pictures': {k: len(v) for k, v in split._asdict().items()}}
        predicted = predict_all(network, variables, vgg, dataset.images_uint8)
        mean_map = dataset.maps[split.train].mean(0)
        for part in ('held_out', 'real'):
            indices = getattr(split, part)
            if len(indices):
                result[part] = validate(dataset, predicted, mean_map, indices)
        show(path, dataset, predicted, split)
        text = json.dumps(result, indent=1) + '\n'
        write_atomically(path / 'metrics.json', text.encode())
    log(summary(result, dataset.spaces, path))


def split_of(dataset, held_out: float, train_on_real: bool, seed: int) -> Split:
    """Holds out a seeded share of the pictures, and all real ones unless `train_on_real`."""
    real = np.array([kind == 'real' for kind in dataset.kinds])
    free = np.flatnonzero(~real | train_on_real)
    order = np.random.default_rng(seed).permutation(free)
    count = max(1, round(held_out * len(free)))
    if len(free) - count < 1:
        raise JaxinvError(
            f'{len(free)} pictures cannot be split into some to train on and some to hold out; '
            'measure more of them.'
        )
    held, train = np.sort(order[:count]), np.sort(order[count:])
    rest = np.flatnonzero(real & ~np.isin(np.arange(len(real)), train))
    return Split(train, held[~real[held]], rest)


# --- Training -------------------------------------------------------------------------------------


def train(config, network, vgg, dataset, split: Split, path, log) -> dict[str, Any]:
    """Variables {'params', 'batch_stats'} of the trained network.

    Resumes from the last checkpoint below `path`. Raises NotFinite if the loss is not finite.
    """
    batch = min(config.batch_size, len(split.train))
    args = arguments(network, vgg, dataset, split.train)
    key = latents.stream(config.seed, 'train_invertibility')
    state = create_state(config, network)
    train_step = make_step(network.spaces, batch)
    saved = checkpoints.LoopCheckpoints(path / 'state' / 'train', config.num_steps)
    progress = Progress('train', config.num_steps, log)
    traces = {}
    restored = saved.restore(_to_loop_state(state, batch), METRICS, log)
    if restored is not None:
        kept, traces = restored.state, restored.traces
        state = state.replace(step=kept.step, opt_state=kept.opt_state, **kept.variables)
        log(f'train: resumed after step {int(state.step)}.')
    while (start := int(state.step)) < config.num_steps:
        losses = []
        for _ in range(min(config.chunk_steps, config.num_steps - start)):
            state, loss = train_step(state, args, key)
            losses.append(loss)
        losses = np.asarray(jnp.stack(losses))
        active = np.ones(losses.shape, bool)
        traces = append_traces(traces, {'loss': losses}, active, start, int(state.step))
        progress(int(state.step), traces)
        saved.save(_to_loop_state(state, batch), traces)
    saved.close()
    return {'params': state.params, 'batch_stats': state.batch_stats}


def create_state(config, network) -> TrainState:
    """The state before the first step."""
    variables = invertibility.init(network, config.seed)
    state = TrainState.create(
        apply_fn=network.apply,
        params=variables['params'],
        batch_stats=variables['batch_stats'],
        tx=make_optimizer(config),
    )
    return state.replace(step=jnp.int32(0))  # TrainState's int would compile the step twice


def _to_loop_state(state, batch):
    """The state in the form of the other methods' checkpoints."""
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    return LoopState(state.step, jnp.zeros(batch, bool), variables, state.opt_state)


def arguments(network, vgg, dataset, indices) -> dict[str, Any]:
    """Pictures [2, n, h, w, 3] and maps [2, n, h, w, spaces], as they are and mirrored.

    vgg: weights of a frozen trunk, or None. Its features, 'taps', are computed once, here.
    """
    pictures = pixels.to_float(dataset.images_uint8[indices])
    maps = jnp.moveaxis(jnp.asarray(dataset.maps[indices]), 1, -1)  # [n, h, w, spaces]
    args = {
        name: jnp.stack([x, x[:, :, ::-1]]) for name, x in (('images', pictures), ('maps', maps))
    }
    if vgg is not None:
        taps = jax.jit(lambda vgg, x: invertibility.trunk_taps(network, vgg, x))
        parts = [taps(vgg, x[None]) for x in args['images'].reshape(-1, *pictures.shape[1:])]
        joined = [jnp.concatenate(tap) for tap in zip(*parts, strict=True)]
        args['taps'] = [tap.reshape(2, len(indices), *tap.shape[1:]) for tap in joined]
    return args


def make_optimizer(config) -> optax.GradientTransformation:
    """Adam or SGD with a polynomial schedule; a ResNet trunk has a learning rate of its own."""

    def optimizer_at(rate):
        schedule = optax.polynomial_schedule(rate, 0.0, 0.9, config.num_steps)
        if config.optimizer == 'adam':
            return optax.adamw(schedule, weight_decay=config.weight_decay)
        decay = optax.add_decayed_weights(config.weight_decay)
        return optax.chain(decay, optax.sgd(schedule, momentum=0.9))

    def label(path, _):
        return 'trunk' if 'backbone' in [part.key for part in path] else 'rest'

    return optax.multi_transform(
        {
            'trunk': optimizer_at(config.learning_rate * config.trunk_rate),
            'rest': optimizer_at(config.learning_rate),
        },
        lambda params: jax.tree_util.tree_map_with_path(label, params),
    )


def make_step(spaces: tuple[str, ...], batch: int) -> Callable:
    """Compiled (state, args, key) -> (state, loss [batch]).

    A step draws `batch` pictures without replacement, each mirrored with probability 1/2, and
    minimises equation 2, the mean squared error over pixels and spaces.
    """

    # A step a program: inside XLA:CPU's loops convolutions use one core (optimize/loop.py).
    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, args, key):
        keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
        count = args['images'].shape[1]
        chosen = jax.random.choice(keys[0], count, (batch,), replace=False)
        mirrored = jax.random.bernoulli(keys[1], 0.5, (batch,)).astype(int)
        pictures, maps = args['images'][mirrored, chosen], args['maps'][mirrored, chosen]
        taps = [tap[mirrored, chosen] for tap in args['taps']] if 'taps' in args else None

        def objective(params):
            predicted, new = state.apply_fn(
                {'params': params, 'batch_stats': state.batch_stats},
                pictures,
                taps,
                train=True,
                rngs={'dropout': keys[2]},
                mutable=['batch_stats'],
            )
            predicted = jnp.stack([predicted[space] for space in spaces], -1)
            loss = jnp.mean((predicted - maps) ** 2, axis=(1, 2, 3))
            return loss.mean(), (loss, new['batch_stats'])

        gradients, (loss, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients, batch_stats=batch_stats), loss

    return train_step


# --- Validation -----------------------------------------------------------------------------------


def predict_all(network, variables, vgg, images_uint8) -> np.ndarray:
    """Maps [n, spaces, h, w] of pictures [n, h, w, 3], in evaluation mode."""

    @jax.jit
    def predict(variables, vgg, x):
        maps = network.apply(variables, x, invertibility.trunk_taps(network, vgg, x))
        return jnp.stack([maps[space] for space in network.spaces], 1)

    count = len(images_uint8)
    padded = np.concatenate([images_uint8, np.repeat(images_uint8[-1:], -count % BATCH, 0)])
    parts = [
        np.asarray(predict(variables, vgg, pixels.to_float(padded[i : i + BATCH])))
        for i in range(0, count, BATCH)
    ]
    return np.concatenate(parts)[:count]


def validate(dataset, predicted, mean_map, indices) -> dict[str, dict[str, float]]:
    """{space: figures} of the pictures `indices`, beside those of the mean training map.

    predicted [all pictures, spaces, h, w], mean_map [spaces, h, w].
    """
    result = {}
    for i, space in enumerate(dataset.spaces):
        measured, guess = dataset.maps[indices, i], predicted[indices, i]
        constant = np.broadcast_to(mean_map[i], measured.shape)
        result[space] = {
            'correlation': correlation(guess, measured),
            'correlation_of_mean_map': correlation(constant, measured),
            'mse': float(np.mean((guess - measured) ** 2)),
            'mse_of_mean_map': float(np.mean((constant - measured) ** 2)),
        }
    return result


def correlation(a, b) -> float:
    """Pearson's correlation over all pixels of all pictures; 0 if one of the two is constant."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else 0.0


def show(path, dataset, predicted, split: Split, count: int = 6) -> None:
    """Writes predictions.png: measured maps above predicted ones, on one scale; real ones first."""
    rows, labels = [], []
    for index in [*split.real, *split.held_out][:count]:
        highest = max(float(np.quantile(dataset.maps[index], 0.99)), 1e-6)
        for what, maps in (('measured', dataset.maps), ('predicted', predicted)):
            shown = [invertibility_data.map_picture(m, highest) for m in maps[index]]
            rows.append([dataset.images_uint8[index] if what == 'measured' else None, *shown])
            labels.append(f'{dataset.names[index]} {what}')
    sheet = grid.grid(rows, labels, ['picture', *dataset.spaces], cell=160)
    images.save(path / 'predictions.png', sheet)


def summary(result, spaces, path) -> str:
    """The lines printed at the end of a run."""
    lines = ['correlation with measured maps (in brackets, of the mean training map)']
    for part in ('held_out', 'real'):
        if part in result:
            shown = [
                f'{s} {result[part][s]["correlation"]:.2f} '
                f'({result[part][s]["correlation_of_mean_map"]:.2f})'
                for s in spaces
            ]
            lines.append(f'{part:<8} {"  ".join(shown)}')
    return '\n'.join([*lines, f'Open {path / "predictions.png"}'])
