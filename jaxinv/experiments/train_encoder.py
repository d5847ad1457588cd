"""The task `train_encoder`: an encoder to W for a generator, trained on its own pictures.

Pairs (picture, w) come from the generator (experiments/encoder_samples.py), each picture changed
anew in every step (data/augment.py). A linear layer is fitted to frozen ImageNet features by ridge
regression; then the whole network is trained, first on w, then, if image.num_steps is set, on the
image of the predicted w, or with image.deltas of a w for each row (e4e).

The loss on w is |dw|^2 / E|w - mean|^2, and visible_weight times the same of A dw, where A is the
linear map from w to pixels of 16 x 16 that fits the samples best: an error of w counts by what it
changes in the picture, without a pass of the generator.

  encoder.safetensors   float16 (weights.encoders.load_encoder)
  predictions.png       photographs and held-out pictures beside the images of their codes
  metrics.json          written last: the run is finished
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp

from jaxinv import data, latents, pixels, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import encoder_samples, encoder_start, session
from jaxinv.experiments.encoder_batches import Batches
from jaxinv.experiments.encoder_judge import describe, judge
from jaxinv.experiments.encoder_start import start, visible_map
from jaxinv.experiments.encoder_training import Stage, train_stage
from jaxinv.faces import identity_loss
from jaxinv.inversion import losses
from jaxinv.io import write_atomically
from jaxinv.networks import compact_encoder, encoders, lpips
from jaxinv.runtime import workdir
from jaxinv.settings.encoders import Augmentation, ImageLoss, Samples
from jaxinv.weights.encoders import load_encoder, save_encoder
from jaxinv.weights.load import open_generator
from jaxinv.weights.networks import load_lpips


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
    if config.image.identity_weight and spec.domain not in data.ALIGNED_DOMAINS:
        raise JaxinvError(
            f'image.identity_weight is {config.image.identity_weight} and {config.generator!r} '
            'makes no aligned faces; set it to 0.'
        )
    real = None
    if config.images:
        real = data.load_images(config.images, generator, aligned=config.aligned, log=log)
    sources = [s['sha256'] for s in real.sources] if real else []
    record = {'config': settings.record_of(config), 'sources': sources}
    record |= session.files_of(config, about)
    place = encoder_samples.place_of(config, path)
    with workdir.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / "encoder.safetensors"} (--overwrite runs it again).')
            return
        own = settings.of(config, Samples)
        nets = {net: load_lpips(net, config.lpips) for net in ('alex', 'vgg')}
        dataset = encoder_samples.make(generator, weights, own, config.seed, place, log)
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
    """params: of an encoder to W, or to W+."""
    average = jnp.broadcast_to(statistics.mean, (spec.num_ws, spec.w_dim))
    return encoders.Encoder(encoder_spec(spec, compact_encoder.ROWS[0] in params), params, average)


def encoder_spec(spec, to_w_plus: bool) -> encoders.Spec:
    """The encoder's, for a generator of this spec."""
    kind = encoders.COMPACT_W_PLUS if to_w_plus else encoders.COMPACT
    return encoders.Spec(kind, spec.num_ws, True, spec.w_dim)


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
    s, spec = settings.of(config, ImageLoss), generator.spec
    if s.num_steps:
        loss = functools.partial(on_image, generator, s)
        stages.append(Stage('image', s.num_steps, s.batch_size, s.learning_rate, s.metrics, loss))
        args |= {'generator': weights, 'lpips': nets['alex']}
        if s.identity_weight:
            args['identity'] = identity_loss.load('sface', spec).weights
    changes = settings.of(config, Augmentation)
    begin = functools.partial(start, config, dataset, statistics)
    for stage in stages:

        def batches(step, stage=stage):
            return Batches(
                dataset,
                changes,
                stage.batch_size,
                seed=config.seed,
                name=stage.name,
                step=step,
                clean=stage.name == 'image',
            )

        to_w_plus = stage.name == 'image' and s.deltas
        if to_w_plus:
            begin = functools.partial(with_rows, begin, spec.num_ws, dataset, config.seed)
        shapes = encoders.shapes(encoder_spec(spec, to_w_plus))
        params = train_stage(config, stage, shapes, begin, args, batches, path, log)
        begin = functools.partial(dict, params)
    return params


def with_rows(begin, num_ws, dataset, seed) -> dict[str, jax.Array]:
    """Weights of an encoder to W+ whose rows are those of the encoder to W that begin() makes."""
    own = begin()
    return own | encoder_start.rows(own, num_ws, compact_encoder.RANK, dataset, seed)


def on_w(params, args, batch) -> dict[str, jax.Array]:
    """The loss on w of each picture; its parts are in this module's docstring."""
    found = compact_encoder.differences(params, batch['images'])
    wrong = found - (batch['w'] - args['mean'][None])
    own = jnp.sum(wrong**2, 1) / args['variance']
    seen = jnp.sum((wrong @ args['visible']) ** 2, 1)
    return {'loss': own + args['visible_weight'] * seen, 'w': own}


def on_image(generator, s: ImageLoss, params, args, batch) -> dict[str, jax.Array]:
    """The loss on w, and that of the image of the codes against the unchanged picture."""
    found, images = on_w(params, args, batch), batch['images']
    rows = encoders.differences(encoder_spec(generator.spec, s.deltas), params, images)
    made = generator.synthesize(args['generator'], rows + args['mean'][None, None])[0]
    size = min(s.size, made.shape[1], batch['clean'].shape[1])
    made, clean = (pixels.area_resize(x, size) for x in (made, batch['clean']))
    features = [lpips.features(args['lpips'], x) for x in (made, clean)]
    found |= {'l2': losses.l2(made, clean), 'lpips_alex': lpips.distance(*features)}
    loss = s.w_weight * found['loss'] + s.l2_weight * found['l2']
    loss += s.lpips_weight * found['lpips_alex']
    if s.identity_weight:
        # The faces of both are taken from where the unchanged picture has its landmarks.
        target = identity_loss.before('sface', args['identity'], clean)
        found['identity'] = identity_loss.distance('sface', args['identity'], made, target)
        loss += s.identity_weight * found['identity']
    if s.deltas:
        found['deltas'] = jnp.sum((rows[:, 1:] - rows[:, :1]) ** 2, (1, 2))
        loss += s.delta_weight * found['deltas']
    return {name: (found | {'loss': loss})[name] for name in s.metrics}
