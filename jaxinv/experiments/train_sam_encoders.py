"""The task `train_sam_encoders`: SAM's encoders for a generator, trained on its own pictures.

One encoder for each latent space (appendix 6.2, networks/sam_encoders.py), all trained together:
pictures come from the generator (experiments/encoder_samples.py), with occluders, in regions of
several spaces (experiments/sam_encoder_batches.py), and the image of the codes, masked as in
equations 3 and 4, is compared with the picture. The loss is equation 8,

  L2 + lambda_LPIPS LPIPS + lambda_W L_W + lambda_F L_F    (equations 5 to 7, inversion/sam.py)

and w_weight times |w_plus_n - w|^2 / E|w - mean|^2, the mean over rows n: w of a sample is known.

  sam_encoders.safetensors   float16 (weights.sam_encoders.load_sam_encoders)
  start.safetensors          the same before the first step (sam_encoder_start.py)
  predictions.png            photographs and held-out pictures in each space, and in regions
  metrics.json               written last: the run is finished
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp

from jaxinv import data, latents, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import encoder_samples, sam_encoder_start, session
from jaxinv.experiments.encoder_training import Stage, relative_adam, train_stage
from jaxinv.experiments.sam_encoder_batches import RegionBatches, num_regions
from jaxinv.experiments.sam_encoder_judge import describe, judge
from jaxinv.inversion import invertibility, sam, sam_encode, sam_prior
from jaxinv.inversion.masks import soft_masks
from jaxinv.io import write_atomically
from jaxinv.networks import invertibility as map_network
from jaxinv.networks import lpips, sam_encoders
from jaxinv.networks.sam_encoders import Encoders
from jaxinv.pixels import area_resize
from jaxinv.runtime import workdir
from jaxinv.settings import Prior, Search
from jaxinv.settings.encoders import Augmentation, Samples
from jaxinv.settings.sam_encoders import Regions
from jaxinv.weights.load import open_generator
from jaxinv.weights.networks import load_invertibility, load_lpips
from jaxinv.weights.sam_encoders import load_sam_encoders, save_sam_encoders

FILE, START = 'sam_encoders.safetensors', 'start.safetensors'


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task in the folder `path`, or resumes it there. Raises JaxinvError."""
    path = pathlib.Path(path)
    settings.check(config)
    generator, weights, about = open_generator(
        config.generator, config.resolution, which=config.generator_key, log=log
    )
    if generator.spec.label_dim or generator.spec.moving_dims:
        raise JaxinvError(
            f"generator is {config.generator!r}, which has classes; SAM's encoders can be trained "
            'for a StyleGAN2 or MobileStyleGAN without classes.'
        )
    spec = sam_encoders.spec_of(generator.spec, config.spaces, config.sees_feature)
    sam_encoder_start.check(config, spec)
    maps = load_maps(config, spec)
    real = None
    if config.images:
        real = data.load_images(config.images, generator, aligned=config.aligned, log=log)
    sources = [s['sha256'] for s in real.sources] if real else []
    record = {'config': settings.record_of(config), 'sources': sources}
    record |= session.files_of(config, about)
    place = encoder_samples.place_of(config, path)
    with workdir.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / FILE} (--overwrite runs it again).')
            return
        own = settings.of(config, Samples)
        vgg = load_lpips('vgg', config.lpips)
        nets = {'vgg': vgg, config.sam.lpips_net: load_lpips(config.sam.lpips_net, config.lpips)}
        dataset = encoder_samples.make(generator, weights, own, config.seed, place, log)
        train_on = encoder_samples.Dataset(*(x[: own.num] for x in dataset))
        statistics = latents.w_statistics(generator, weights)
        trained = train(
            config, spec, generator, weights, train_on, statistics, nets, maps, path, log
        )
        encoders = Encoders(spec, trained, statistics.mean)
        save_sam_encoders(path / FILE, encoders, 'float16')
        # As rounded as their users get them.
        before, encoders = (load_sam_encoders(path / name) for name in (START, FILE))
        held_out = encoder_samples.Dataset(*(x[own.num :] for x in dataset))
        regions = chooser(config, spec, maps)
        choose = jax.jit(functools.partial(regions, map_arguments(maps, vgg)))
        result = judge(
            generator, weights, encoders, before, nets, held_out, real, choose, config, path
        )
        write_atomically(path / 'metrics.json', (json.dumps(result, indent=1) + '\n').encode())
    log(describe(result, path))


def train(
    config, spec, generator, weights, dataset, statistics, nets, maps, path, log
) -> dict[str, jax.Array]:
    """Weights of the trained encoders; resumes from the last checkpoint below `path`."""
    search = settings.of(config, Search)
    args = {
        'generator': weights,
        'average': statistics.mean,
        'variance': statistics.std**2,
        'lpips': nets[search.lpips_net],
        'prior': sam_prior.statistics(generator, weights, settings.of(config, Prior)),
        'w_weight': jnp.float32(config.w_weight),
        'maps': map_arguments(maps, nets['vgg']),
    }
    choose = chooser(config, spec, maps)
    loss = functools.partial(objective, spec, generator, search, choose)
    names = ('loss', 'w', 'l2', f'lpips_{search.lpips_net}', 'offsets')
    stage = Stage(
        'encoders',
        config.num_steps,
        config.batch_size,
        config.learning_rate,
        names,
        loss,
        functools.partial(rate_of, config.w_rate),
        relative_adam,  # kernels of linear fits are a thousand times smaller than others
    )

    def batches(step):
        return RegionBatches(
            dataset,
            settings.of(config, Augmentation),
            stage.batch_size,
            regions=settings.of(config, Regions),
            num_spaces=len(spec.spaces),
            seed=config.seed,
            name=stage.name,
            step=step,
        )

    def start():
        found = sam_encoder_start.start(config, spec, generator, weights, dataset, statistics, log)
        save_sam_encoders(path / START, Encoders(spec, found, statistics.mean), 'float16')
        return found

    return train_stage(config, stage, sam_encoders.shapes(spec), start, args, batches, path, log)


def rate_of(w_rate: float, name: str) -> float:
    """Of a weight, in units of the learning rate. The scales of what is read stay."""
    if name.startswith(f'{sam_encoders.W_PLUS}/'):
        return w_rate
    return 0.0 if '/maps/' in name else 1.0


def objective(spec, generator, s: Search, choose, params, args, batch) -> dict[str, jax.Array]:
    """The loss of each picture, and its terms.

    batch: of RegionBatches; choose: of `chooser`; args: see `train`.
    """
    pictures, spaces = batch['images'], spec.spaces
    chosen = jax.lax.stop_gradient(choose(args['maps'], pictures, batch))
    masks = soft_masks(chosen, generator.spec, spaces)
    regions = sam_encode.space_masks(chosen, spaces)
    encoders = Encoders(spec, params, args['average'])
    made, codes = sam_encode.invert(
        encoders, generator, args['generator'], pictures, regions, masks
    )
    size = min(s.loss_size, made.shape[1], pictures.shape[1])
    made, targets = (area_resize(x, size) for x in (made, pictures))
    dtype = generator.spec.compute_dtype
    given = {
        'targets': targets,
        'target_features': lpips.features(args['lpips'], targets, dtype),
        'lpips': args['lpips'],
        'prior': args['prior'],
    }
    found = sam.terms(codes, made, given, s, generator.spec)
    loss = sum(getattr(s, name) * x for name, x in zip(sam.WEIGHTS, found.values(), strict=True))
    wrong = jnp.sum((codes.w_plus - batch['w'][:, None]) ** 2, 2).mean(1) / args['variance']
    return {'loss': loss + args['w_weight'] * wrong, 'w': wrong, **found}


# --- The spaces of regions ------------------------------------------------------------------------


def load_maps(config, spec):
    """(network, variables) of config.regions.network; None = there is none."""
    if not config.regions.network:
        return None
    network, variables = load_invertibility(config.regions.network)
    missing = [space for space in spec.spaces if space not in network.spaces]
    if missing:
        raise JaxinvError(
            f'regions.network is {config.regions.network!r}, which has no maps of '
            f'{", ".join(missing)}; train one that has, or give spaces.'
        )
    return network, variables


def map_arguments(maps, vgg):
    """What `chooser`'s function takes first: arrays of the network, and of its trunk."""
    return None if maps is None else (maps[1], vgg)


def chooser(config, spec, maps):
    """A function (map arguments, pictures [b, h, h, 3], batch) -> chosen [b, h, h].

    Random spaces, as they are in the batch; with a network of maps, the most editable space that
    each region passes (section 3.2), but for pictures in one space.
    """
    if maps is None:
        return lambda arguments, pictures, batch: jnp.asarray(batch['chosen'])
    network, count = maps[0], num_regions(settings.of(config, Regions))

    def choose(arguments, pictures, batch):
        variables, vgg = arguments
        size = pictures.shape[1]
        whole = area_resize(pictures, map_network.SIZE)
        found = network.apply(variables, whole, map_network.trunk_taps(network, vgg, whole))
        found = {s: area_resize(found[s][..., None], size)[..., 0] for s in spec.spaces}
        labels = jnp.asarray(batch['labels'])
        chosen = invertibility.select(found, labels, config.regions.tau, num_segments=count).chosen
        return jnp.where(jnp.asarray(batch['whole'])[:, None, None], batch['chosen'], chosen)

    return choose
