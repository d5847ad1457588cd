"""Generated pictures with their codes, to train an encoder on; each file of them is written once.

  samples/00000.npz   images_uint8 [FILE, h, h, 3], w [FILE, w_dim]; h: 256, or the generator's
                      resolution if that is less

Each sample has numbers of its own: its z by its index, its truncation, and for one group of
pictures in four a generator with noise on its weights.
"""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents, pixels, rendering
from jaxinv.converters import array_files, file_view
from jaxinv.io import atomic_path
from jaxinv.networks.encoders import SIZE
from jaxinv.runtime.progress import Progress
from jaxinv.settings.encoders import Samples

FOLDER = 'samples'
GROUP = 8  # pictures rendered together, by one generator
FILE = 64  # samples in a file
PERTURBED = 4  # of so many groups one has noise on the weights


class Dataset(NamedTuple):
    images_uint8: np.ndarray  # [n, h, h, 3]
    w: np.ndarray  # [n, w_dim]


def make(generator, weights, s: Samples, seed: int, folder: pathlib.Path, log) -> Dataset:
    """Renders the samples that are missing in the folder, and reads all: s.num, then s.held_out.

    Raises JaxinvError naming a file of samples that is damaged.
    """
    total = s.num + s.held_out
    folder = folder / FOLDER
    folder.mkdir(exist_ok=True)
    spec, files = generator.spec, -(-total // FILE)
    z = latents.sample_z(seed, files * FILE, spec.z_dim, spec.z_truncation)
    size = min(SIZE, spec.resolution)

    @jax.jit
    def codes(weights, z, psi):
        w = generator.map(weights, z)
        return latents.truncate(w, weights['buffers']['w_avg'], psi[:, None])

    @jax.jit
    def picture(weights, w, key, scale):
        leaves, structure = jax.tree.flatten(weights['params'])
        keys = jax.random.split(key, len(leaves))
        leaves = [
            x + scale * jnp.sqrt(jnp.mean(x**2)) * jax.random.normal(k, x.shape)
            for x, k in zip(leaves, keys, strict=True)
        ]
        weights = weights | {'params': structure.unflatten(leaves)}
        return pixels.area_resize(generator.synthesize(weights, w[:, None])[0], size)

    progress = Progress('samples', files * FILE, log)
    for i in range(files):
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
            scale = np.float32(s.perturbation if perturbed else 0)
            with rendering.full_precision():
                made = picture(weights, w[start : start + GROUP], key, scale)
            images.append(np.asarray(made))
        with atomic_path(path) as scratch:
            np.savez(scratch, images_uint8=pixels.to_uint8(np.concatenate(images)), w=w)
        progress((i + 1) * FILE, {})
    parts = [_read(folder / f'{i:05}.npz', size, spec.w_dim) for i in range(files)]
    images, w = (np.concatenate(x)[:total] for x in zip(*parts, strict=True))
    return Dataset(images, w)


def _read(path, size, w_dim):
    with file_view.reading(path, 'samples of --config=train_encoder'):
        arrays, _ = array_files.read(path)
        images, w = arrays['images_uint8'], arrays['w']
        if images.shape != (FILE, size, size, 3) or images.dtype != np.uint8:
            raise ValueError(f'images of the shape {images.shape}')
        if w.shape != (FILE, w_dim) or not np.isfinite(w).all():
            raise ValueError(f'codes of the shape {w.shape}')
    return images, w
