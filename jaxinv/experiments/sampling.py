"""From latents to measured faces, in batches and in saved chunks, for tasks that need thousands."""

import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxinv import pixels
from jaxinv.weights.load import load_generator

RENDER_BATCH = 8  # faces a forward pass


@dataclasses.dataclass(frozen=True)
class Lab:
    """What turns latents into measurements."""

    generator: Any
    weights: Any
    measure: Callable[[np.ndarray], dict[str, np.ndarray]]  # uint8 images -> {name: [b]}
    embed: Callable[[np.ndarray], np.ndarray]  # uint8 images -> [b, e]


def real_lab(config) -> Lab:
    """config.generator with the attributes, controls and identity embedding of this package."""
    from jaxinv import faces
    from jaxinv.faces import attributes, controls

    def measure(images_uint8: np.ndarray) -> dict[str, np.ndarray]:
        return {**attributes.measure(images_uint8), **controls.measure(images_uint8)}

    generator, weights = load_generator(config.generator, config.resolution)
    return Lab(generator, weights, measure, faces.embed)


def map_z(lab: Lab, z: np.ndarray) -> np.ndarray:
    """w [n, w_dim] of z [n, z_dim], without truncation."""
    mapping = jax.jit(lab.generator.map)
    return np.concatenate([np.asarray(mapping(lab.weights, part)) for part in parts_of(z, 10_000)])


def parts_of(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Slices of at most `size` rows, in order."""
    return (array[i : i + size] for i in range(0, len(array), size))


@functools.cache
def _renderer(generator):
    return jax.jit(lambda weights, w: generator.synthesize(weights, w[:, None])[0])


def render(lab: Lab, w: np.ndarray) -> np.ndarray:
    """uint8 images of at most RENDER_BATCH latents [b, w_dim], always as one program."""
    padded = np.concatenate([w, np.repeat(w[-1:], RENDER_BATCH - len(w), axis=0)])
    return pixels.to_uint8(_renderer(lab.generator)(lab.weights, padded))[: len(w)]


def rendered(lab: Lab, w: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of images; the next one is rendered while the caller measures this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        batches = list(parts_of(w, RENDER_BATCH))
        waiting = pool.submit(render, lab, batches[0])
        for following in [*batches[1:], None]:
            ready = waiting.result()
            if following is not None:
                waiting = pool.submit(render, lab, following)
            yield ready


def measure(lab: Lab, w: np.ndarray) -> dict[str, np.ndarray]:
    """Renders w [n, w_dim] and measures: {attribute or control: [n], 'embedding': [n, e]}."""
    parts = [
        {**lab.measure(pictures), 'embedding': lab.embed(pictures)} for pictures in rendered(lab, w)
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def in_chunks(num: int, chunk: int, folder: pathlib.Path, work, progress) -> dict[str, np.ndarray]:
    """Concatenates work(start, stop) over 0 ... num; a rerun finds each saved result again."""
    parts = []
    for start in range(0, num, chunk):
        stop = min(start + chunk, num)
        file = folder / f'{start:06}_{stop:06}.npz'
        if not file.exists():
            arrays = work(start, stop)
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix('.part')
            with open(scratch, 'wb') as out:
                np.savez(out, **arrays)
            scratch.replace(file)
            progress(stop, {})
        with np.load(file, allow_pickle=False) as saved:
            parts.append({key: saved[key] for key in saved.files})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
