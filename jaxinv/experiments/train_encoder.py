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

import contextlib
import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import data, latents, pixels, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import encoder_samples, session
from jaxinv.experiments.encoder_batches import Batches, placing
from jaxinv.experiments.encoder_judge import describe, judge
from jaxinv.experiments.encoder_start import start, visible_map
from jaxinv.inversion import losses
from jaxinv.io import write_atomically
from jaxinv.networks import compact_encoder, encoders, lpips
from jaxinv.optimize import LoopState, checkpoints, sharding
from jaxinv.optimize.loop import append_traces
from jaxinv.optimize.sharded_step import fetch
from jaxinv.runtime import distributed, workdir
from jaxinv.runtime.progress import Progress
from jaxinv.settings.encoders import Augmentation, ImageLoss, Samples
from jaxinv.weights.encoders import load_encoder, save_encoder
from jaxinv.weights.load import open_generator
from jaxinv.weights.networks import load_lpips

WARMUP = 100  # steps in which the learning rate rises


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task in the folder `path`, or resumes it there. Raises JaxinvError."""
    path = pathlib.Path(path)
    settings.check(config)
    generator, weights, about = open_generator(
        config.generator, config.resolution, which=config.generator_key, log=log
    )
    spec = generator.spec
    if spec.label_dim or spec.moving_dims:
        raise JaxinvError(
            f'generator is {config.generator!r}, which has classes; an encoder to W can be trained '
            'for a StyleGAN2 or MobileStyleGAN without classes.'
        )
    real = None
    if config.images:
        real = data.load_images(config.images, generator, aligned=config.aligned, log=log)
    sources = [s['sha256'] for s in real.sources] if real else []
    record = {'config': settings.record_of(config), 'sources': sources}
    record |= session.files_of(config, about)
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
        save_encoder(path / 'encoder.safetensors', as_encoder(spec, trained, statistics), 'float16')
        encoder = load_encoder(path / 'encoder.safetensors')  # as rounded as its users get it
        held_out = encoder_samples.Dataset(*(x[own.num :] for x in dataset))
        result = judge(generator, weights, encoder, statistics, nets, held_out, real, path)
        write_atomically(path / 'metrics.json', (json.dumps(result, indent=1) + '\n').encode())
    log(describe(result, path))


def as_encoder(spec, params, statistics) -> encoders.Encoder:
    average = jnp.broadcast_to(statistics.mean, (spec.num_ws, spec.w_dim))
    made = encoders.Spec(encoders.COMPACT, spec.num_ws, True, spec.w_dim)
    return encoders.Encoder(made, params, average)


class Stage(NamedTuple):
    """Steps with one loss."""

    name: str
    num_steps: int
    batch_size: int
    learning_rate: float
    metrics: tuple[str, ...]
    loss: Any  # (params, args, batch) -> {metric: [b]}, of which 'loss' is minimised


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
    for stage in stages:
        params = train_stage(config, stage, params, args, dataset, statistics, path, log)
    return params


def on_w(params, args, batch) -> dict[str, jax.Array]:
    """The loss on w of each picture; its parts are in this module's docstring."""
    found = compact_encoder.differences(params, batch['images'])
    wrong = found - (batch['w'] - args['mean'][None])
    own = jnp.sum(wrong**2, 1) / args['variance']
    seen = jnp.sum((wrong @ args['visible']) ** 2, 1)
    return {'loss': own + args['visible_weight'] * seen, 'w': own}


def on_image(generator, s: ImageLoss, params, args, batch) -> dict[str, jax.Array]:
    """The loss on w, and that of the image of the code against the unchanged picture."""
    own = on_w(params, args, batch)
    w = compact_encoder.differences(params, batch['images']) + args['mean'][None]
    made = generator.synthesize(args['generator'], w[:, None])[0]
    size = min(s.size, made.shape[1], batch['clean'].shape[1])
    made, clean = (pixels.area_resize(x, size) for x in (made, batch['clean']))
    features = [lpips.features(args['lpips'], x) for x in (made, clean)]
    distance, l2 = lpips.distance(*features), losses.l2(made, clean)
    loss = s.w_weight * own['loss'] + s.l2_weight * l2 + s.lpips_weight * distance
    return {'loss': loss, 'w': own['w'], 'l2': l2, 'lpips_alex': distance}


def train_stage(config, stage, params, args, dataset, statistics, path, log):
    """The running mean of the weights after a stage. params: before it; None = the linear start."""
    # Adam's first steps move every weight by the full rate, whatever the gradient.
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, stage.learning_rate, min(WARMUP, stage.num_steps // 4), stage.num_steps
    )
    optimizer = optax.adam(schedule)
    devices = sharding.make(config.mesh)

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

    progress, traces = Progress(stage.name, stage.num_steps, log), {}
    shapes = compact_encoder.shapes(dataset.w.shape[1])
    like = initial({name: jnp.zeros(shape) for name, shape in shapes.items()})
    saved = checkpoints.LoopCheckpoints(path / 'state' / stage.name, stage.num_steps)
    with contextlib.closing(saved), distributed.defer_sigterm():
        restored = saved.restore(like, stage.metrics, log)
        if restored is None:
            state = initial(start(config, dataset, statistics) if params is None else params)
        else:
            state, traces = restored.state, restored.traces
            log(f'{stage.name}: going on after step {int(state.step)}.')
        state, args = jax.tree.map(devices.replicate, (state, args))
        place = placing(devices, stage.batch_size, log)
        changes = settings.of(config, Augmentation)
        with Batches(
            dataset,
            changes,
            stage.batch_size,
            seed=config.seed,
            name=stage.name,
            step=int(state.step),
            clean=stage.name == 'image',
        ) as batches:
            while (begin := int(state.step)) < stage.num_steps:
                rows = []
                for _ in range(min(config.chunk_steps, stage.num_steps - begin)):
                    state, found = step(state, args, place(next(batches)))
                    rows.append(found)
                rows = {name: np.stack([fetch(r[name]) for r in rows]) for name in stage.metrics}
                active = np.ones((len(rows['loss']), stage.batch_size), bool)
                traces = append_traces(traces, rows, active, begin, int(state.step))
                saved.save(state, traces)
                progress(int(state.step), traces)
                distributed.raise_if_preempted()
    return jax.tree.map(fetch, state.variables['average'])
