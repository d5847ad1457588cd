"""The task `train_invertibility`: fits SAM's invertibility network to measured maps (equation 2).

Trains on some pictures of `invertibility_data`, and reports on the others, and apart from those on
real photographs, which are never trained on unless asked for. The figures are the mean squared
error, which is what is minimised, and the correlation of predicted with measured maps over all
pixels, for every latent space; beside the network's stand those of the mean training map, which
knows nothing of the picture: only what is above them was learned from it.

  network.safetensors   the network (networks.invertibility.load)
  predictions.png       held-out pictures, measured and predicted maps
  metrics.json          last: the run is finished
"""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import optimize, pixels, settings
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import invertibility_data
from jaxinv.io import write_atomically
from jaxinv.networks import invertibility
from jaxinv.optimize import checkpoints
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.weights.networks import load_lpips, save_invertibility

METRICS = ('loss',)
BATCH = 8  # pictures a forward pass outside the loop


class Split(NamedTuple):
    train: np.ndarray  # places in the dataset
    held_out: np.ndarray  # generated pictures
    real: np.ndarray


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task into the folder `path`, or goes on with it."""
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
            places = getattr(split, part)
            if len(places):
                result[part] = validate(dataset, predicted, mean_map, places)
        show(path, dataset, predicted, split)
        text = json.dumps(result, indent=1) + '\n'
        write_atomically(path / 'metrics.json', text.encode())
    log(summary(result, dataset.spaces, path))


def split_of(dataset, held_out: float, train_on_real: bool, seed: int) -> Split:
    """A seeded share of the pictures is held out; real ones all, unless they may be trained on."""
    real = np.array([kind == 'real' for kind in dataset.kinds])
    free = np.flatnonzero(~real | train_on_real)
    order = np.random.default_rng(seed).permutation(free)
    count = max(1, round(held_out * len(free)))
    if len(free) - count < 1:
        raise JaxinvError(
            f'{len(free)} pictures cannot be split into some to train on and some to hold out; '
            'measure more of them.'
        )
    apart, train = np.sort(order[:count]), np.sort(order[count:])
    rest = np.flatnonzero(real & ~np.isin(np.arange(len(real)), train))
    return Split(train, apart[~real[apart]], rest)


# --- Training -------------------------------------------------------------------------------------


def train(config, network, vgg, dataset, split: Split, path, log):
    """Variables of the trained network; goes on from the last checkpoint in `path`."""
    batch = min(config.batch_size, len(split.train))
    loop = make_loop(config, network, batch)
    variables = invertibility.init(network, config.seed)
    args = arguments(network, vgg, dataset, split.train)
    key = jax.random.key(config.seed + 1)
    state = loop.init(variables, batch)
    saved = checkpoints.LoopCheckpoints(path / 'state' / 'train', config.num_steps)
    progress = Progress('train', config.num_steps, log)
    traces = None
    restored = saved.restore(state, METRICS, log)
    if restored is not None:
        state, traces = restored
        log(f'train: going on after step {int(state.step)}.')

    def on_chunk(state, traces):
        progress(int(state.step), traces)
        saved.save(state, traces)

    state, _ = optimize.run(
        loop, state, args, key, config.num_steps, traces=traces, on_chunk=on_chunk
    )
    saved.close()
    return state.variables


def arguments(network, vgg, dataset, places) -> dict[str, Any]:
    """Pictures, maps and, of a frozen trunk, the features: with the mirrored ones, [2, n, ...].

    The features never change, so they are computed once and not at every step.
    """
    pictures = pixels.to_float(dataset.images_uint8[places])
    maps = jnp.moveaxis(jnp.asarray(dataset.maps[places]), 1, -1)  # [n, h, w, spaces]
    args = {
        name: jnp.stack([x, x[:, :, ::-1]]) for name, x in (('images', pictures), ('maps', maps))
    }
    if vgg is not None:
        taps = jax.jit(lambda vgg, x: invertibility.trunk_taps(network, vgg, x))
        parts = [taps(vgg, x[None]) for x in args['images'].reshape(-1, *pictures.shape[1:])]
        joined = [jnp.concatenate(tap) for tap in zip(*parts, strict=True)]
        args['taps'] = [tap.reshape(2, len(places), *tap.shape[1:]) for tap in joined]
    return args


def make_loop(config, network, batch: int) -> optimize.Loop:
    """Steps of `batch` pictures drawn by the step's number, each mirrored or not."""

    def optimizer_at(rate):
        schedule = optax.polynomial_schedule(rate, 0.0, 0.9, config.num_steps)
        if config.optimizer == 'adam':
            return optax.adamw(schedule, weight_decay=config.weight_decay)
        decay = optax.add_decayed_weights(config.weight_decay)
        return optax.chain(decay, optax.sgd(schedule, momentum=0.9))

    def group(path, _):
        names = [part.key for part in path]
        if names[0] == 'batch_stats':
            return 'statistics'  # the network keeps them, not the optimiser
        return 'trunk' if 'backbone' in names else 'rest'

    optimizer = optax.multi_transform(
        {
            'trunk': optimizer_at(config.learning_rate * config.trunk_rate),
            'rest': optimizer_at(config.learning_rate),
            'statistics': optax.set_to_zero(),
        },
        lambda variables: jax.tree_util.tree_map_with_path(group, variables),
    )

    def gradient(variables, args, step, part, key):
        """In the place of gradients of the statistics stand their new values."""
        del part  # there is only one
        keys = jax.random.split(jax.random.fold_in(key, step), 3)
        count = args['images'].shape[1]
        chosen = jax.random.choice(keys[0], count, (batch,), replace=False)
        mirrored = jax.random.bernoulli(keys[1], 0.5, (batch,)).astype(int)
        pictures, maps = args['images'][mirrored, chosen], args['maps'][mirrored, chosen]
        taps = [tap[mirrored, chosen] for tap in args['taps']] if 'taps' in args else None

        def objective(params):
            predicted, new = network.apply(
                {'params': params, 'batch_stats': variables['batch_stats']},
                pictures,
                taps,
                train=True,
                rngs={'dropout': keys[2]},
                mutable=['batch_stats'],
            )
            predicted = jnp.stack([predicted[space] for space in network.spaces], -1)
            loss = jnp.mean((predicted - maps) ** 2, axis=(1, 2, 3))
            return loss.mean(), (loss, new['batch_stats'])

        gradients, (loss, statistics) = jax.grad(objective, has_aux=True)(variables['params'])
        return {'params': gradients, 'batch_stats': statistics}, {'loss': loss}, None

    def apply(gradients, variables, opt_state, args, step):
        del args, step
        statistics = gradients['batch_stats']
        gradients = gradients | {'batch_stats': jax.tree.map(jnp.zeros_like, statistics)}
        changes, opt_state = optimizer.update(gradients, opt_state, variables)
        params = optax.apply_updates(variables, changes)['params']
        return {'params': params, 'batch_stats': statistics}, opt_state

    update = optimize.Update(gradient, apply)
    return optimize.make_loop(update, optimizer, METRICS, chunk_steps=config.chunk_steps)


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


def validate(dataset, predicted, mean_map, places) -> dict[str, dict[str, float]]:
    """{space: figures} of the pictures `places`, beside those of the mean training map."""
    result = {}
    for i, space in enumerate(dataset.spaces):
        measured, guess = dataset.maps[places, i], predicted[places, i]
        constant = np.broadcast_to(mean_map[i], measured.shape)
        result[space] = {
            'correlation': correlation(guess, measured),
            'correlation_of_mean_map': correlation(constant, measured),
            'mse': float(np.mean((guess - measured) ** 2)),
            'mse_of_mean_map': float(np.mean((constant - measured) ** 2)),
        }
    return result


def correlation(a, b) -> float:
    """Pearson's correlation over all pixels of all pictures; 0 where one is constant."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else 0.0


def show(path, dataset, predicted, split: Split, count: int = 6) -> None:
    """predictions.png: real pictures first, measured maps above predicted ones, on one scale."""
    rows, labels = [], []
    for place in [*split.real, *split.held_out][:count]:
        highest = max(float(np.quantile(dataset.maps[place], 0.99)), 1e-6)
        for what, maps in (('measured', dataset.maps), ('predicted', predicted)):
            shown = [invertibility_data.map_picture(m, highest) for m in maps[place]]
            rows.append([dataset.images_uint8[place] if what == 'measured' else None, *shown])
            labels.append(f'{dataset.names[place]} {what}')
    sheet = grid.grid(rows, labels, ['picture', *dataset.spaces], cell=160)
    images.save(path / 'predictions.png', sheet)


def summary(result, spaces, path) -> str:
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
