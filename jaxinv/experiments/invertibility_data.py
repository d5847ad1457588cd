"""The task `invertibility_data`: pictures with measured maps to train on; see its config.

Every picture is inverted into every latent space alone (invertibility.measure, SAM equation 1):
pictures of the generator with distortions, and real ones if there are any. One file a picture, so
that an interrupted run goes on, and so that several machines can each take a share:

  items/NAME.npz   image_uint8 [256, 256, 3], maps [spaces, 256, 256] (float16)
  manifest.json    spaces, items (name, kind, mean of each map), settings
  samples.png      some pictures with their maps
  metrics.json     last: the run is finished
"""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import data, latents, pixels, settings
from jaxinv.data import images, occluders
from jaxinv.errors import JaxinvError
from jaxinv.inversion import invertibility, sam, sam_prior
from jaxinv.io import atomic_path, write_atomically
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.weights.load import load_generator
from jaxinv.weights.networks import load_lpips

ITEMS, MANIFEST = 'items', 'manifest.json'


class Plan(NamedTuple):
    """The pictures of one share, in order."""

    names: list[str]
    kinds: list[str]  # 'generated' or 'real'
    images: Any  # (start, stop) -> uint8 [b, h, w, 3]


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task into the folder `path`, or goes on with it."""
    path = pathlib.Path(path)
    settings.check(config)
    generator, weights = load_generator(config.generator, config.resolution)
    spaces = invertibility.check_spaces(config.spaces or sam.spaces(generator.spec), generator.spec)
    plan, sources = make_plan(config, generator, weights)
    record = {'config': settings.record_of(config), 'sources': sources}
    with workdir.claim(path, record, overwrite) as done:
        if done:
            log(f'Finished already: {path} (--overwrite runs it again).')
            return
        measure_all(config, generator, weights, spaces, plan, path, log)
        manifest = write_manifest(config, generator, spaces, plan, path)
        show(path, manifest)
        means = {s: float(np.mean([i['means'][s] for i in manifest['items']])) for s in spaces}
        text = json.dumps({'pictures': len(plan.names), 'mean_lpips': means}, indent=1) + '\n'
        write_atomically(path / 'metrics.json', text.encode())
    shown = ', '.join(f'{space} {mean:.3f}' for space, mean in means.items())
    log(f'{len(plan.names)} pictures, mean LPIPS {shown}. Train with --config.data={path}')


def make_plan(config, generator, weights) -> tuple[Plan, list[str]]:
    """This share's pictures, and the hashes of the files that real ones come from."""
    names, kinds, real, sources = [], [], np.zeros((0,)), []
    if config.images:
        targets = data.load_images(config.images, generator, aligned=config.aligned)
        real, sources = targets.images_uint8, [s['sha256'] for s in targets.sources]
        names += targets.names
        kinds += ['real'] * len(real)
    names += [f'generated_{i:05}' for i in range(config.samples.num)]
    kinds += ['generated'] * config.samples.num
    places = range(config.share, len(names), config.shares)
    spec = generator.spec
    z = latents.sample_z(config.seed, config.samples.num, spec.z_dim, spec.z_truncation)
    synthesize = jax.jit(lambda weights, w: generator.synthesize(weights, w[:, None])[0])

    def one(place: int) -> np.ndarray:
        if place < len(real):
            return real[place]
        index = place - len(real)
        w = generator.map(weights, z[index : index + 1])
        w = latents.truncate(w, weights['buffers']['w_avg'], config.samples.truncation_psi)
        picture = pixels.to_uint8(synthesize(weights, w))[0]
        # Every picture has numbers of its own, whatever share it is in.
        return occluders.distort(picture, np.random.default_rng([config.seed, index]))

    def pictures(start: int, stop: int) -> np.ndarray:
        return np.stack([one(place) for place in places[start:stop]])

    return Plan([names[p] for p in places], [kinds[p] for p in places], pictures), sources


def measure_all(config, generator, weights, spaces, plan: Plan, path, log) -> None:
    """Writes the items that are not there yet, `batch_per_device` pictures in a program."""
    folder = path / ITEMS
    folder.mkdir(exist_ok=True)
    search = settings.of(config, settings.Search)
    nets = {net: load_lpips(net, config.lpips) for net in {'vgg', search.lpips_net}}
    prior = sam_prior.statistics(generator, weights, settings.of(config, settings.Prior))
    progress = Progress('measure', len(plan.names), log)
    for start in range(0, len(plan.names), config.batch_per_device):
        names = plan.names[start : start + config.batch_per_device]
        if all((folder / f'{name}.npz').exists() for name in names):
            continue
        pictures = plan.images(start, start + len(names))
        # Always the same shape, hence one program.
        padded = np.concatenate(
            [pictures, np.repeat(pictures[-1:], config.batch_per_device - len(names), 0)]
        )
        measured = invertibility.measure(
            generator,
            weights,
            nets,
            pixels.to_float(padded),
            weights['buffers']['w_avg'][None, None],
            latents.identity_ids(padded),
            prior,
            search,
            spaces=spaces,
            key=jax.random.key(config.seed),
        )
        maps = np.stack([np.asarray(measured.maps[space]) for space in spaces], 1)
        small = pixels.to_uint8(pixels.area_resize(pixels.to_float(pictures), maps.shape[-1]))
        for name, picture, own in zip(names, small, maps, strict=False):
            write_item(folder / f'{name}.npz', picture, own)
        progress(start + len(names), {})


def write_item(file: pathlib.Path, image_uint8, maps) -> None:
    """One picture and its maps; whole or not at all."""
    with atomic_path(file) as scratch:
        np.savez_compressed(scratch, image_uint8=image_uint8, maps=maps.astype(np.float16))


def write_manifest(config, generator, spaces, plan: Plan, path) -> dict:
    items = []
    for name, kind in zip(plan.names, plan.kinds, strict=True):
        with np.load(path / ITEMS / f'{name}.npz', allow_pickle=False) as item:
            means = item['maps'].astype(np.float32).mean((1, 2))
        means = dict(zip(spaces, map(float, means.round(4)), strict=True))
        items.append({'name': name, 'kind': kind, 'means': means})
    manifest = {
        'spaces': list(spaces),
        'generator': generator.spec.name,
        'resolution': generator.spec.resolution,
        'config': config.to_dict(),
        'items': items,
    }
    text = json.dumps(manifest, indent=1) + '\n'
    write_atomically(path / MANIFEST, text.encode())
    return manifest


class Dataset(NamedTuple):
    spaces: tuple[str, ...]
    names: list[str]
    kinds: list[str]
    images_uint8: np.ndarray  # [n, h, w, 3]
    maps: np.ndarray  # float32 [n, spaces, h, w]


def load(folders) -> Dataset:
    """All items of one or more finished folders, `folders` a path or several with commas between.

    Raises JaxinvError for a folder that is not finished, or has other spaces than the first.
    """
    names, kinds, pictures, maps, spaces = [], [], [], [], None
    for folder in str(folders).split(','):
        folder = pathlib.Path(folder.strip())
        if not (folder / MANIFEST).is_file():
            raise JaxinvError(
                f'{folder} has no {MANIFEST}; give the work folder of a finished '
                '--config=invertibility_data.'
            )
        manifest = json.loads((folder / MANIFEST).read_text())
        spaces = spaces or tuple(manifest['spaces'])
        if tuple(manifest['spaces']) != spaces:
            raise JaxinvError(
                f'{folder} has maps of {", ".join(manifest["spaces"])}, another one of '
                f'{", ".join(spaces)}; they cannot be joined.'
            )
        for item in manifest['items']:
            with np.load(folder / ITEMS / f'{item["name"]}.npz', allow_pickle=False) as arrays:
                pictures.append(arrays['image_uint8'])
                maps.append(arrays['maps'].astype(np.float32))
            names.append(item['name'])
            kinds.append(item['kind'])
    return Dataset(spaces, names, kinds, np.stack(pictures), np.stack(maps))


def map_picture(values, highest: float) -> np.ndarray:
    """A map [h, w] in colours, uint8 [h, w, 3]: dark 0, bright `highest` and more."""
    import matplotlib

    colors = matplotlib.colormaps['magma'](np.clip(np.asarray(values) / highest, 0, 1))
    return np.rint(255 * colors[..., :3]).astype(np.uint8)


def show(path: pathlib.Path, manifest: dict, count: int = 8) -> None:
    """samples.png: a row a picture, its maps beside it on one scale."""
    rows, names = [], []
    for item in manifest['items'][:count]:
        with np.load(path / ITEMS / f'{item["name"]}.npz', allow_pickle=False) as arrays:
            maps = arrays['maps'].astype(np.float32)
            highest = max(float(np.quantile(maps, 0.99)), 1e-6)
            rows.append([arrays['image_uint8'], *(map_picture(m, highest) for m in maps)])
        names.append(item['name'])
    sheet = grid.grid(rows, names, ['picture', *manifest['spaces']], cell=192)
    images.save(path / 'samples.png', sheet)
