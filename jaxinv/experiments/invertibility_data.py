"""The task `invertibility_data`: pictures with measured maps to train on; see its config.

Each picture, generated with distortions or real, is inverted into each latent space separately
(invertibility.measure, SAM equation 1). Each has its own file: an interrupted run resumes, and
several machines can divide the pictures:

  items/NAME.npz   image_uint8 [256, 256, 3], maps [spaces, 256, 256] (float16)
  manifest.json    spaces, items (name, kind, mean of each map), settings
  samples.png      some pictures with their maps
  metrics.json     last: marks the run as finished
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxinv import data, latents, pixels, rendering, settings
from jaxinv.converters import array_files, file_view
from jaxinv.data import occluders
from jaxinv.data.images import save
from jaxinv.errors import JaxinvError
from jaxinv.inversion import invertibility, sam, sam_prior
from jaxinv.io import atomic_path, read_json, safe_name, write_atomically
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.weights.load import load_generator
from jaxinv.weights.networks import load_lpips

ITEMS, MANIFEST = 'items', 'manifest.json'


class Plan(NamedTuple):
    """The pictures of this run's share, in order."""

    names: list[str]
    kinds: list[str]  # 'generated' or 'real'
    images: Any  # function (start, stop) -> uint8 [b, h, w, 3]


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs or resumes the task in the folder `path`. Raises JaxinvError."""
    path = pathlib.Path(path)
    settings.check(config)
    generator, weights = load_generator(
        config.generator, config.resolution, which=config.generator_key
    )
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
    figures = ', '.join(f'{space} {mean:.3f}' for space, mean in means.items())
    log(f'{len(plan.names)} pictures, mean LPIPS {figures}. Train with --config.data={path}')


def make_plan(config, generator, weights) -> tuple[Plan, list[str]]:
    """The pictures of config.share, and the SHA-256 of the files of real ones."""
    names, kinds, real, sources = [], [], np.zeros((0,)), []
    if config.images:
        targets = data.load_images(config.images, generator, aligned=config.aligned)
        real, sources = targets.images_uint8, [s['sha256'] for s in targets.sources]
        names += targets.names
        kinds += ['real'] * len(real)
    names += [f'generated_{i:05}' for i in range(config.samples.num)]
    kinds += ['generated'] * config.samples.num
    own = range(config.share, len(names), config.shares)
    spec = generator.spec
    z = latents.sample_z(config.seed, config.samples.num, spec.z_dim, spec.z_truncation)

    def picture(i: int) -> np.ndarray:
        if i < len(real):
            return real[i]
        index = i - len(real)
        w = generator.map(weights, z[index : index + 1])
        w = latents.truncate(w, weights['buffers']['w_avg'], config.samples.truncation_psi)
        image = pixels.to_uint8(rendering.render(generator, weights, w[:, None]))[0]
        # Seeded by the index among all pictures, so that shares do not change the result.
        return occluders.distort(image, np.random.default_rng([config.seed, index]))

    def images(start: int, stop: int) -> np.ndarray:
        return np.stack([picture(i) for i in own[start:stop]])

    return Plan([names[i] for i in own], [kinds[i] for i in own], images), sources


def measure_all(config, generator, weights, spaces, plan: Plan, path, log) -> None:
    """Measures and writes the missing items, `batch_per_device` pictures at a time."""
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
        # The last batch is padded, so that one program serves all.
        padding = np.repeat(pictures[-1:], config.batch_per_device - len(names), 0)
        padded = np.concatenate([pictures, padding])
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
            key=latents.stream(config.seed, 'invertibility_data'),
        )
        maps = np.stack([np.asarray(measured.maps[space]) for space in spaces], 1)
        small = pixels.to_uint8(pixels.area_resize(pixels.to_float(pictures), maps.shape[-1]))
        for name, picture, picture_maps in zip(names, small, maps, strict=False):
            write_item(folder / f'{name}.npz', picture, picture_maps)
        progress(start + len(names), {})


def write_item(file: pathlib.Path, image_uint8, maps) -> None:
    """Writes uint8 [h, w, 3] and maps [spaces, h, w] to one file, atomically."""
    with atomic_path(file) as scratch:
        np.savez_compressed(scratch, image_uint8=image_uint8, maps=maps.astype(np.float16))


def read_item(folder: pathlib.Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [h, w, 3], maps [spaces, h, w]) of a file by `write_item`. Raises JaxinvError."""
    if not isinstance(name, str) or safe_name(name) != name:
        raise JaxinvError(f'{folder / MANIFEST} names an item that no file can have.')
    file = folder / ITEMS / f'{name}.npz'
    with file_view.reading(file, 'an item of --config=invertibility_data'):
        arrays, _ = array_files.read(file)
        picture, maps = arrays['image_uint8'], arrays['maps']
        if picture.ndim != 3 or picture.dtype != np.uint8 or maps.ndim != 3:
            raise ValueError(f'shapes {picture.shape} and {maps.shape}')
    return picture, maps


def write_manifest(config, generator, spaces, plan: Plan, path) -> dict:
    items = []
    for name, kind in zip(plan.names, plan.kinds, strict=True):
        maps = read_item(path, name)[1]
        means = maps.astype(np.float32).mean((1, 2))
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
    """The items of one or more finished folders, whose paths are separated by commas.

    Raises JaxinvError for a folder that is not finished or whose spaces differ from the first's.
    """
    names, kinds, pictures, maps, spaces = [], [], [], [], None
    for folder in str(folders).split(','):
        folder = pathlib.Path(folder.strip())
        manifest = read_json(folder / MANIFEST)
        if not _is_manifest(manifest):
            raise JaxinvError(
                f'{folder} has no {MANIFEST} that can be read; give the work folder of a finished '
                '--config=invertibility_data.'
            )
        spaces = spaces or tuple(manifest['spaces'])
        if tuple(manifest['spaces']) != spaces:
            raise JaxinvError(
                f'{folder} has maps of {", ".join(manifest["spaces"])}, another folder of '
                f'{", ".join(spaces)}; all must have the same spaces.'
            )
        for item in manifest['items']:
            picture, own = read_item(folder, item['name'])
            pictures.append(picture)
            maps.append(own.astype(np.float32))
            names.append(item['name'])
            kinds.append(item['kind'])
    return Dataset(spaces, names, kinds, np.stack(pictures), np.stack(maps))


def _is_manifest(content) -> bool:
    """True for the content of a finished folder's manifest."""
    if not isinstance(content, dict):
        return False
    spaces, items = content.get('spaces'), content.get('items')
    if not isinstance(spaces, list) or not all(isinstance(space, str) for space in spaces):
        return False
    return isinstance(items, list) and all(
        isinstance(item, dict) and isinstance(item.get('kind'), str) and 'name' in item
        for item in items
    )


def map_picture(values, highest: float) -> np.ndarray:
    """A map [h, w] in the colours of 'magma', uint8 [h, w, 3]: dark 0, bright `highest` or more."""
    import matplotlib

    colors = matplotlib.colormaps['magma'](np.clip(np.asarray(values) / highest, 0, 1))
    return np.rint(255 * colors[..., :3]).astype(np.uint8)


def show(path: pathlib.Path, manifest: dict, count: int = 8) -> None:
    """Writes samples.png: in each row a picture and its maps on a common scale."""
    rows, names = [], []
    for item in manifest['items'][:count]:
        picture, maps = read_item(path, item['name'])
        highest = max(float(np.quantile(maps.astype(np.float32), 0.99)), 1e-6)
        rows.append([picture, *(map_picture(m.astype(np.float32), highest) for m in maps)])
        names.append(item['name'])
    sheet = grid.grid(rows, names, ['picture', *manifest['spaces']], cell=192)
    save(path / 'samples.png', sheet)
