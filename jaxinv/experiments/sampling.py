"""Latent codes to measured faces, in batches and in saved chunks."""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxinv import pixels, rendering
from jaxinv.converters import array_files
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.io import atomic_path
from jaxinv.weights.load import load_generator

BATCH = 8  # faces rendered at a time


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A generator and the functions that measure its pictures."""

    generator: Any
    weights: Any
    measure: Callable[[np.ndarray], dict[str, np.ndarray]]  # uint8 images -> {name: [b]}
    embed: Callable[[np.ndarray], np.ndarray]  # uint8 images -> identity [b, e], for fits
    # Another identity network, for the validation; None = the same.
    judge: Callable[[np.ndarray], np.ndarray] | None = None
    # Of `embed` and `judge`: distances below which two faces count as one person.
    same_person: tuple[float, float] = (0.6, 0.6)
    # {attribute: measures.Attribute}; None = each attribute is a measure, which also judges.
    attributes: Any = None


def open_pipeline(config) -> Pipeline:
    """config.generator with jaxinv's measures; SFace's identity for fits, dlib's as the judge."""
    from jaxinv import faces
    from jaxinv.faces import identity, measures

    generator, weights = load_generator(
        config.generator, config.resolution, which=config.generator_key
    )
    return Pipeline(
        generator,
        weights,
        measures.measure,
        faces.sface,
        faces.embed,
        (identity.SAME_PERSON, faces.SAME_PERSON),
        measures.ATTRIBUTES,
    )


def map_z(pipeline: Pipeline, z: np.ndarray) -> np.ndarray:
    """w [n, w_dim] of z [n, z_dim], without truncation."""
    mapping = jax.jit(pipeline.generator.map)
    batches = (z[start : start + 10_000] for start in range(0, len(z), 10_000))
    return np.concatenate([np.asarray(mapping(pipeline.weights, batch)) for batch in batches])


def render(pipeline: Pipeline, w: np.ndarray) -> np.ndarray:
    """uint8 images [n, h, w, 3] of latents [n, w_dim]."""
    images = rendering.render(pipeline.generator, pipeline.weights, np.asarray(w)[:, None])
    return pixels.to_uint8(images)


def render_batches(pipeline: Pipeline, w: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of uint8 images; a thread renders the next one while the caller uses this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        batches = [w[start : start + BATCH] for start in range(0, len(w), BATCH)]
        future = pool.submit(render, pipeline, batches[0])
        for following in [*batches[1:], None]:
            images = future.result()
            if following is not None:
                future = pool.submit(render, pipeline, following)
            yield images


def measure(pipeline: Pipeline, w: np.ndarray, judged: bool = False) -> dict[str, np.ndarray]:
    """Renders w [n, w_dim] and measures: {measure: [n], 'embedding': [n, e]}.

    judged: the embedding is that of pipeline.judge.
    """
    embed = pipeline.judge if judged and pipeline.judge else pipeline.embed
    results = [
        {**pipeline.measure(images), 'embedding': embed(images)}
        for images in render_batches(pipeline, w)
    ]
    return {key: np.concatenate([result[key] for result in results]) for key in results[0]}


def in_chunks(
    num: int, chunk: int, folder: pathlib.Path, compute, progress
) -> dict[str, np.ndarray]:
    """compute(start, stop) -> {name: [stop - start, ...]}, concatenated over 0 ... num.

    Each chunk is saved in `folder`; a rerun reads the saved ones.
    """
    results = []
    for start in range(0, num, chunk):
        stop = min(start + chunk, num)
        file = folder / f'{start:06}_{stop:06}.npz'
        try:
            saved, _ = array_files.read(file)
        except UnreadableFile:  # missing, or damaged
            arrays = compute(start, stop)
            with atomic_path(file) as scratch:
                np.savez(scratch, **arrays)
            progress(stop, {})
            saved, _ = array_files.read(file)
        results.append(saved)
    return {key: np.concatenate([result[key] for result in results]) for key in results[0]}
