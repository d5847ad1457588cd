"""The task `train_encoder`: an encoder to W for a generator, trained on its own pictures.

Pairs (picture, w) come from the generator (experiments/encoder_samples.py), each picture changed
anew in every step (data/augment.py). A linear layer is fitted to frozen ImageNet features by ridge
regression; then the whole network is trained, first on w, then, if image.num_steps is set, on the
image of the predicted w.

The loss on w is |dw|^2 / E|w - mean|^2, and visible_weight times the same of A dw, where A is the
linear map from w to pixels of 16 x 16 that fits the samples best: an error of w counts by what it
changes in the picture, without a pass of the generator.

  encoder.safetensors   float16 (weights.encoders.load_encoder)
  predictions.png       photographs and held-out pictures beside the images of their codes
  metrics.json          written last: the run is finished
"""

import concurrent.futures
import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxinv import data, latents, metrics, pixels, rendering, settings
from jaxinv.data import augment, images
from jaxinv.experiments import encoder_samples
from jaxinv.inversion import encode, losses
from jaxinv.io import write_atomically
from jaxinv.networks import compact_encoder, efficientnet, encoders, lpips
from jaxinv.optimize import LoopState, checkpoints, sharding
from jaxinv.optimize.loop import append_traces
from jaxinv.optimize.sharded_step import AXES, fetch
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.settings.encoders import Augmentation, ImageLoss, Samples
from jaxinv.weights.encoders import save_encoder
from jaxinv.weights.load import load_generator
from jaxinv.weights.networks import load_efficientnet, load_lpips

BATCH = 32  # pictures of a forward pass without gradient
VISIBLE = 16  # pixels a side of the linear model of the image
SHOWN = 64  # held-out pictures whose images are judged


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task in the folder `path`, or resumes it there. Raises JaxinvError."""
    path = pathlib.Path(path)
    settings.check(config)
    generator, weights = load_generator(
        config.generator, config.resolution, which=config.generator_key
    )
    real = None
    if config.images:
        real = data.load_images(config.images, generator, aligned=config.aligned)
    sources = [s['sha256'] for s in real.sources] if real else []
    record = {'config': settings.record_of(config), 'sources': sources}
    with workdir.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / "encoder.safetensors"} (--overwrite runs it again).')
            return
        own = settings.of(config, Samples)
        nets = {net: load_lpips(net, config.lpips) for net in ('alex', 'vgg')}
        dataset = encoder_samples.make(generator, weights, own, config.seed, path, log)
        train_on = encoder_samples.Dataset(*(x[: own.num] for x in dataset))
        statistics = latents.w_statistics(generator, weights)
        trained = train(config, generator, weights, train_on, statistics, nets, path, log)
        encoder = as_encoder(generator.spec, trained, statistics)
        save_encoder(path / 'encoder.safetensors', encoder, 'float16')
        held_out = encoder_samples.Dataset(*(x[own.num :] for x in dataset))
        result = judge(generator, weights, encoder, statistics, nets, held_out, real, path)
        write_atomically(path / 'metrics.json', (json.dumps(result, indent=1) + '\n').encode())
    log(describe(result, path))


def as_encoder(spec, params, statistics) -> encoders.Encoder:
    average = jnp.broadcast_to(statistics.mean, (spec.num_ws, spec.w_dim))
    made = encoders.Spec(encoders.COMPACT, spec.num_ws, True, spec.w_dim)
    return encoders.Encoder(made, params, average)


# --- The start ------------------------------------------------------------------------------------


def start(config, dataset, statistics) -> dict[str, jax.Array]:
    """Weights with frozen ImageNet features and a linear layer by ridge regression.

    Half of the pictures are changed as in training. The grid's channels are the principal
    components of the last stage.
    """
    shapes = compact_encoder.shapes(dataset.w.shape[1])
    weights = {k: v for k, v in load_efficientnet().items() if k in shapes}
    last = jax.jit(lambda weights, x: efficientnet.trunk(weights, x)[-1])
    some = last(weights, _prepared(dataset.images_uint8[:BATCH])).reshape(-1, 320)
    mean = some.mean(0)
    components = jnp.linalg.svd(some - mean[None], full_matrices=False)[2]
    kernel = components[: compact_encoder.CHANNELS].T
    weights |= {'grid/kernel': kernel[None, None], 'grid/bias': -mean @ kernel}
    summary = jax.jit(compact_encoder.summary)
    s = settings.of(config, Augmentation)
    features = []
    for i in range(0, len(dataset.w), BATCH):
        pictures = list(dataset.images_uint8[i : i + BATCH])
        rng = np.random.default_rng([config.seed, 1, i])
        pictures = [augment.augment(x, rng, s) if rng.random() < 0.5 else x for x in pictures]
        pictures += [pictures[-1]] * (BATCH - len(pictures))
        features.append(np.asarray(summary(weights, _prepared(np.stack(pictures)))))
    x = np.concatenate(features)[: len(dataset.w)].astype(np.float64)
    y = dataset.w - np.asarray(statistics.mean, np.float64)
    centre, spread = x.mean(0), x.std(0) + 1e-6
    x = (x - centre) / spread
    gram = x.T @ x + config.ridge * len(x) * np.eye(x.shape[1])
    solution = np.linalg.solve(gram, x.T @ (y - y.mean(0))) / spread[:, None]
    bias = y.mean(0) - centre @ solution
    linear = {'w/kernel': solution, 'w/bias': bias}
    return weights | {name: jnp.asarray(value, jnp.float32) for name, value in linear.items()}


def visible_map(dataset, statistics) -> np.ndarray:
    """A [w_dim, n]: the linear map from w to small pictures, scaled so that E|A dw|^2 = 1."""
    small = np.concatenate(
        [
            np.asarray(
                pixels.area_resize(pixels.to_float(dataset.images_uint8[i : i + 256]), VISIBLE)
            )
            for i in range(0, len(dataset.w), 256)
        ]
    ).reshape(len(dataset.w), -1)
    x = dataset.w - np.asarray(statistics.mean, np.float64)
    gram = x.T @ x
    gram += 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram))
    found = np.linalg.solve(gram, x.T @ (small - small.mean(0)))
    return (found / np.sqrt(np.mean(np.sum((x @ found) ** 2, 1)))).astype(np.float32)


def _prepared(images_uint8):
    pictures = pixels.to_float(images_uint8)
    return pixels.area_resize(pictures, compact_encoder.SIZE)


# --- Training -------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """Steps with one loss."""

    name: str
    num_steps: int
    batch_size: int
    learning_rate: float
    metrics: tuple[str, ...]
    loss: Any  # (params, args, batch) -> {metric: [b]}, the first of which is minimised


def train(config, generator, weights, dataset, statistics, nets, path, log) -> dict[str, jax.Array]:
    """Weights of the trained network; resumes from the last checkpoint below `path`."""
    args = {
        'mean': statistics.mean,
        'variance': statistics.std**2,
        'visible': jnp.asarray(visible_map(dataset, statistics)),
        'visible_weight': jnp.float32(config.visible_weight),
    }
    stages = [
        Stage('w', config.num_steps, config.batch_size, config.learning_rate, ('loss', 'w'), on_w)
    ]
    s = settings.of(config, ImageLoss)
    if s.num_steps:
        loss = functools.partial(on_image, generator, s)
        names = ('loss', 'w', 'l2', 'lpips_alex')
        stages.append(Stage('image', s.num_steps, s.batch_size, s.learning_rate, names, loss))
        args |= {'generator': weights, 'lpips': nets['alex']}
    params = None
    for number, stage in enumerate(stages):
        params = train_stage(config, stage, number, params, args, dataset, statistics, path, log)
    return params


def on_w(params, args, batch):
    found = compact_encoder.differences(params, batch['images'])
    wrong = found - (batch['w'] - args['mean'][None])
    own = jnp.sum(wrong**2, 1) / args['variance']
    seen = jnp.sum((wrong @ args['visible']) ** 2, 1)
    return {'loss': own + args['visible_weight'] * seen, 'w': own}


def on_image(generator, s: ImageLoss, params, args, batch):
    own = on_w(params, args, batch)
    w = compact_encoder.differences(params, batch['images']) + args['mean'][None]
    made = generator.synthesize(args['generator'], w[:, None])[0]
    size = min(s.size, made.shape[1], batch['clean'].shape[1])
    made, clean = (pixels.area_resize(x, size) for x in (made, batch['clean']))
    features = [lpips.features(args['lpips'], x) for x in (made, clean)]
    distance, l2 = lpips.distance(*features), losses.l2(made, clean)
    loss = s.w_weight * own['loss'] + s.l2_weight * l2 + s.lpips_weight * distance
    return {'loss': loss, 'w': own['w'], 'l2': l2, 'lpips_alex': distance}


def train_stage(config, stage, number, params, args, dataset, statistics, path, log):
    """The running mean of the weights after a stage. params: before it; None = the linear start."""
    schedule = optax.cosine_decay_schedule(stage.learning_rate, stage.num_steps)
    optimizer = optax.adam(schedule)
    mesh = sharding.make(config.mesh).mesh

    def initial(found):
        variables = {'params': found, 'average': jax.tree.map(jnp.copy, found)}
        done = jnp.zeros(stage.batch_size, bool)
        return LoopState(jnp.int32(0), done, variables, optimizer.init(found))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, args, batch):
        def objective(params):
            found = stage.loss(params, args, batch)
            return found['loss'].mean(), found

        now = state.variables['params']
        gradients, found = jax.grad(objective, has_aux=True)(now)
        changes, opt_state = optimizer.update(gradients, state.opt_state, now)
        now = optax.apply_updates(now, changes)
        # A short run's mean would still hold its start.
        decay = jnp.minimum(config.average, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(
            lambda a, x: decay * a + (1 - decay) * x, state.variables['average'], now
        )
        variables = {'params': now, 'average': average}
        return LoopState(state.step + 1, state.done, variables, opt_state), found

    saved = checkpoints.LoopCheckpoints(path / 'state' / stage.name, stage.num_steps)
    progress, traces = Progress(stage.name, stage.num_steps, log), {}
    shapes = compact_encoder.shapes(dataset.w.shape[1])
    like = initial({name: jnp.zeros(shape) for name, shape in shapes.items()})
    restored = saved.restore(like, stage.metrics, log)
    if restored is None:
        state = initial(start(config, dataset, statistics) if params is None else params)
    else:
        state, traces = restored.state, restored.traces
        log(f'{stage.name}: resumed after step {int(state.step)}.')
    place = _placing(mesh, stage.batch_size)
    with _Batches(config, stage, number, dataset, int(state.step)) as batches:
        while (begin := int(state.step)) < stage.num_steps:
            rows = []
            for _ in range(min(config.chunk_steps, stage.num_steps - begin)):
                state, found = step(state, args, place(next(batches)))
                rows.append(found)
            rows = {name: np.stack([fetch(row[name]) for row in rows]) for name in stage.metrics}
            active = np.ones((len(rows['loss']), stage.batch_size), bool)
            traces = append_traces(traces, rows, active, begin, int(state.step))
            saved.save(state, traces)
            progress(int(state.step), traces)
    saved.close()
    return state.variables['average']


def _placing(mesh, batch_size):
    """A batch on the devices: sharded by pictures where the number of devices divides them."""
    if mesh is None or batch_size % mesh.size:
        return lambda batch: jax.tree.map(jnp.asarray, batch)
    own = NamedSharding(mesh, P(AXES))
    return lambda batch: jax.device_put(batch, own)


class _Batches:
    """The batches of a stage from a step on, each made while the step before runs.

    A step's pictures and their changes depend on seed, stage and step only.
    """

    def __init__(self, config, stage, number, dataset, step):
        self._seed = [config.seed, 2 + number]
        self._augment = settings.of(config, Augmentation)
        self._size, self._dataset, self._step = stage.batch_size, dataset, step
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._next = self._pool.submit(self._make, step)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown()

    def __next__(self):
        made, self._step = self._next.result(), self._step + 1
        self._next = self._pool.submit(self._make, self._step)
        return made

    def _make(self, step):
        count = len(self._dataset.w)
        # Every picture once in an epoch.
        places = np.arange(step * self._size, (step + 1) * self._size)
        epochs, places = places // count, places % count
        order = {
            int(e): np.random.default_rng([*self._seed, 0, int(e)]).permutation(count)
            for e in np.unique(epochs)
        }
        chosen = [order[int(e)][p] for e, p in zip(epochs, places, strict=True)]
        rng = np.random.default_rng([*self._seed, 1, step])
        clean = self._dataset.images_uint8[chosen]
        changed = np.stack([augment.augment(x, rng, self._augment) for x in clean])
        as_float = functools.partial(pixels.to_float, numpy=np)
        return {
            'images': np.asarray(pixels.area_resize(as_float(changed), compact_encoder.SIZE)),
            'clean': as_float(clean),
            'w': self._dataset.w[chosen].astype(np.float32),
        }


# --- Judgement ------------------------------------------------------------------------------------


def judge(generator, weights, encoder, statistics, nets, held_out, real, path) -> dict[str, Any]:
    """Figures on held-out pictures and on photographs, beside those of the mean of W."""
    mean = np.asarray(statistics.mean)
    differences = jax.jit(compact_encoder.differences)
    parts = [
        differences(encoder.weights, _padded(held_out.images_uint8, i))
        for i in range(0, len(held_out.w), BATCH)
    ]
    w = mean + np.concatenate(parts)[: len(held_out.w)]
    errors = np.sum((w - held_out.w) ** 2, 1)
    result = {
        'held_out': {
            'pictures': len(w),
            'explained': float(1 - errors.sum() / np.sum((held_out.w - mean) ** 2)),
        }
    }
    shown = held_out.images_uint8[:SHOWN]
    size = shown.shape[1]
    rows = [('held_out', pixels.to_float(shown), w[: len(shown)])]
    if real is not None:
        codes = encode.encode(encoder, generator, weights, real)[:, 0]
        pictures = pixels.area_resize(pixels.to_float(real.images_uint8), size)
        rows.insert(0, ('photographs', pictures, codes))
    average = rendering.render(generator, weights, mean[None, None])
    sheet, labels = [], []
    for name, pictures, codes in rows:
        made = rendering.render(generator, weights, codes[:, None])
        made = pixels.area_resize(made, size)
        face = jnp.broadcast_to(pixels.area_resize(average, size), pictures.shape)
        own = result.setdefault(name, {'pictures': len(codes)})
        for what, candidate in (('encoder', made), ('mean_face', face)):
            table = metrics.evaluate(
                pictures, candidate, nets, names=('lpips_alex', 'lpips_vgg', 'mse')
            )
            own[what] = {k: [round(float(x), 4) for x in v] for k, v in table.items()}
            if name == 'held_out':
                own[what] = {k: round(float(np.mean(v)), 4) for k, v in table.items()}
        names = real.names if name == 'photographs' else [f'held out {i}' for i in range(8)]
        for label, picture, image in zip(names, pictures, made, strict=False):
            sheet.append([pixels.to_uint8(picture), pixels.to_uint8(image)])
            labels.append(label)
    images.save(path / 'predictions.png', grid.grid(sheet, labels, ['picture', 'code'], cell=256))
    return result


def _padded(images_uint8, begin):
    own = images_uint8[begin : begin + BATCH]
    return _prepared(np.concatenate([own, np.repeat(own[-1:], BATCH - len(own), 0)]))


def describe(result, path) -> str:
    """The lines printed at the end of a run."""
    lines = [f'w explained on held-out pictures: {100 * result["held_out"]["explained"]:.0f} %']
    for name in ('photographs', 'held_out'):
        if name in result:
            both = [np.mean(result[name][who]['lpips_vgg']) for who in ('encoder', 'mean_face')]
            lines.append(f'{name:<12} LPIPS vgg {both[0]:.3f}, of the mean face {both[1]:.3f}')
    return '\n'.join([*lines, f'Open {path / "predictions.png"}'])
