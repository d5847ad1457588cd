"""Generated pictures with their codes, to train an encoder on; each file of them is written once.

  samples/00000.npz   images_uint8 [FILE, h, h, 3], w [FILE, w_dim]; h: 256, or the generator's
                      resolution if that is less

Each sample has numbers of its own: its z by its index, its truncation, and for one group of
pictures in four a generator with noise on its weights. A training may use the files of another one,
which were made in the same way.
"""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents, pixels, rendering
from jaxinv.converters import array_files, file_view
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded, read_json
from jaxinv.networks.encoders import SIZE
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.settings.encoders import Samples

FOLDER = 'samples'
GROUP = 8  # pictures rendered together, by one generator
FILE = 64  # samples in a file
PERTURBED = 4  # of so many groups one has noise on the weights


class Dataset(NamedTuple):
    images_uint8: np.ndarray  # [n, h, h, 3]
    w: np.ndarray  # [n, w_dim]


class Place(NamedTuple):
    """Where a training's samples are."""

    folder: pathlib.Path  # the work folder
    held_out: int  # index of the first held-out sample


def place_of(config, path: pathlib.Path) -> Place:
    """The place of a training's samples: its own work folder, or config.samples.folder.

    Of another training's samples, none that it was trained on is held out here. Raises JaxinvError
    if they were made in another way.
    """
    own = config.samples
    if not own.folder:
        return Place(path, own.num)
    folder = expanded(own.folder)
    record = read_json(folder / workdir.RECORD)
    try:
        theirs = record['config']
        made = {k: theirs[k] for k in ('seed', 'generator', 'generator_key', 'resolution')}
        made |= {f'samples.{k}': theirs['samples'][k] for k in ('least_psi', 'perturbation')}
        num = int(theirs['samples']['num'])
    except (TypeError, KeyError, ValueError):
        raise JaxinvError(
            f'samples.folder is {own.folder!r}, which is not the work folder of a training of '
            'encoders; leave it out to make samples.'
        ) from None
    for name, value in made.items():
        section, _, key = name.rpartition('.')
        wanted = (config[section] if section else config)[key]
        if value != wanted:
            raise JaxinvError(
                f'samples.folder is {own.folder!r}, whose samples were made with {name}={value!r}; '
                f'this training has {wanted!r}.'
            )
    return Place(folder, max(own.num, num))


def make(generator, weights, s: Samples, seed: int, place: Place, log) -> Dataset:
    """Renders the samples that are missing in the folder, and reads s.num, then s.held_out.

    Raises JaxinvError naming a file of samples that is damaged.
    """
    indices = np.concatenate([np.arange(s.num), place.held_out + np.arange(s.held_out)])
    folder = place.folder / FOLDER
    folder.mkdir(exist_ok=True)
    spec, files = generator.spec, sorted({int(i) for i in indices // FILE})
    z = latents.sample_z(seed, (files[-1] + 1) * FILE, spec.z_dim, spec.z_truncation)
    size = min(SIZE, spec.resolution)

    @jax.jit
    def codes(weights, z, psi):
        w = generator.map(weights, z)
        return latents.truncate(w, weights['buffers']['w_avg'], psi[:, None])

    @jax.jit
    def noisy(weights, key):
        leaves, structure = jax.tree.flatten(weights['params'])
        keys = jax.random.split(key, len(leaves))
        leaves = [
            x + s.perturbation * jnp.sqrt(jnp.mean(x**2)) * jax.random.normal(k, x.shape)
            for x, k in zip(leaves, keys, strict=True)
        ]
        return weights | {'params': structure.unflatten(leaves)}

    @jax.jit
    def picture(weights, w):
        return pixels.area_resize(generator.synthesize(weights, w[:, None])[0], size)

    progress = Progress('samples', len(files) * FILE, log)
    for done, i in enumerate(files):
        path = folder / f'{i:05}.npz'
        if path.exists():
            continue
        rng = np.random.default_rng([seed, i])
        psi = rng.uniform(s.least_psi, 1, FILE).astype(np.float32)
        w = np.asarray(codes(weights, z[i * FILE : (i + 1) * FILE], psi))
        images = []
        for start in range(0, FILE, GROUP):
            perturbed = s.perturbation and rng.random() < 1 / PERTURBED
            key = latents.stream(int(rng.integers(2**31)), 'perturbation')
            # The noise of all weights takes longer than the pictures.
            own = noisy(weights, key) if perturbed else weights
            with rendering.full_precision():
                images.append(np.asarray(picture(own, w[start : start + GROUP])))
        with atomic_path(path) as scratch:
            np.savez(scratch, images_uint8=pixels.to_uint8(np.concatenate(images)), w=w)
        progress((done + 1) * FILE, {})
    parts = []
    for i in files:
        images, w = _read(folder / f'{i:05}.npz', size, spec.w_dim)
        own = indices[indices // FILE == i] % FILE
        parts.append((images[own], w[own]))
    return Dataset(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def _read(path, size, w_dim):
    with file_view.reading(path, 'samples of a training of encoders'):
        arrays, _ = array_files.read(path)
        images, w = arrays['images_uint8'], arrays['w']
        if images.shape != (FILE, size, size, 3) or images.dtype != np.uint8:
            raise ValueError(f'images of the shape {images.shape}')
        if w.shape != (FILE, w_dim) or not np.isfinite(w).all():
            raise ValueError(f'codes of the shape {w.shape}')
    return images, w
