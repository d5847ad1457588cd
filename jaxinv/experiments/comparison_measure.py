"""Measures the pictures of one method: a JSON file each, features of all in saved chunks.

    measured/METHOD/NAME.json           numbers of one picture, and the SHA-256 of both files
    measured/METHOD/features/KIND-.../  features of all pictures, for distances of sets

A rerun measures what has no file, another picture, or fewer metrics than are asked for. Where no
face was found, the file says in which picture: 'no_face' {judge: 'target', 'picture' or 'both'}.
"""

import functools
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import metrics, pixels, rendering
from jaxinv.data import crop, images
from jaxinv.experiments import sampling
from jaxinv.experiments.comparison_targets import Pictures
from jaxinv.experiments.method_runs import Made
from jaxinv.io import json_text, read_json, sha256, write_atomically
from jaxinv.metrics import identity
from jaxinv.metrics.identity import Judge
from jaxinv.networks import efficientnet, inception
from jaxinv.pixels import area_resize
from jaxinv.runtime.progress import Progress, silent

FOLDER = 'measured'
TARGETS = '.targets'  # folder of the targets' own features
CHUNK = 32  # pictures whose features are saved together


class Measurer(NamedTuple):
    """What is measured, and the networks for it."""

    pictures: Pictures
    images: tuple[str, ...]  # metrics.PROTOCOLS
    nets: Mapping[str, Any]  # LPIPS weights
    judges: Mapping[str, Judge]
    sets: Mapping[str, Any]  # {name of features: weights}
    embeddings: dict[tuple[str, str], np.ndarray]  # of the targets: {(judge, picture): [e]}
    set_files: Mapping[str, str] = {}  # {name of features: SHA-256 of the user's file}

    @property
    def files(self) -> dict[str, str]:
        """{judge: SHA-256 of the user's file}."""
        return {name: judge.file for name, judge in self.judges.items() if judge.file}

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics of a picture, in the order of the tables."""
        return (*self.images, *(f'id_{name}' for name in self.judges))


def measure(
    measurer: Measurer,
    method: str,
    folder: pathlib.Path,
    made: Mapping[str, Made],
    log: Callable,
    share: tuple[int, int] = (0, 1),
) -> dict[str, dict]:
    """{picture: the content of its JSON file}, in the order of the targets.

    Nothing here is a collective. made: of every picture. share: (k, n) = only the batches k, k + n,
    ... of all are read, measured and returned. A picture that is missing or cannot be read has no
    numbers but a reason, which is logged as one line.
    """
    pictures, size = measurer.pictures, min(rendering.BATCH, len(measurer.pictures))
    found, todo = {}, []
    # Always the same pictures together, after an interruption too: numbers of one picture differ by
    # rounding with its place in a batch.
    for start in range(0, len(pictures), size)[share[0] :: share[1]]:
        rows = range(start, min(start + size, len(pictures)))
        known = {pictures.names[i]: _known(measurer, folder, i, made) for i in rows}
        found |= known
        if not all(known.values()):
            todo.append(rows)
    progress = Progress('measure', len(pictures), log)
    for count, rows in enumerate(todo, start=1):
        for record in _batch(measurer, method, rows, made, size):
            name = record['picture']
            if 'reason' in record:
                log(f'{method}: {name} has no result: {record["reason"]}')
            file = folder / f'{name}.json'
            if read_json(file) != record:
                write_atomically(file, json_text(record, indent=1) + b'\n')
            found[name] = record
        if count < len(todo):
            progress(rows.stop, {})
    return {name: found[name] for name in pictures if name in found}


def _known(measurer: Measurer, folder: pathlib.Path, i: int, made) -> dict | None:
    """The record of target i, if it is of the same pictures and has all metrics."""
    name = measurer.pictures.names[i]
    known, digest = read_json(folder / f'{name}.json'), _digest(made[name].file)
    if digest is None or not _fits(known, measurer, measurer.pictures.digests[i], digest):
        return None
    return known | made[name].numbers


def _fits(known: Any, measurer: Measurer, target: str, image: str) -> bool:
    if not isinstance(known, dict) or not isinstance(known.get('metrics'), dict):
        return False
    same = (known.get('target_sha256'), known.get('image_sha256')) == (target, image)
    if not same or not set(measurer.names) <= set(known['metrics']):
        return False
    if not measurer.files.items() <= known.get('files', {}).items():
        return False
    # Files of earlier versions do not say where no face was found.
    lost = [judge for judge in measurer.judges if known['metrics'][f'id_{judge}'] is None]
    return 'reason' in known or set(lost) <= set(known.get('no_face', {}))


def _batch(measurer: Measurer, method: str, rows: Sequence[int], made, size: int) -> list[dict]:
    """Records of the pictures `rows`, at most `size`; fewer are padded for the one program."""
    pictures, records, usable = measurer.pictures, [], []
    for i in rows:
        name = pictures.names[i]
        own = made[name]
        record = {'picture': name, 'method': method, 'target_sha256': pictures.digests[i]}
        record |= {'image_sha256': _digest(own.file)} | own.numbers
        record |= {'files': measurer.files} if measurer.files else {}
        target, valid = pictures.read(i)
        image, resized, reason = read_made(own, pictures.resolution)
        if resized:
            record['resized_from'] = resized
        if reason:
            record |= {'metrics': dict.fromkeys(measurer.names), 'reason': reason}
        else:
            usable.append((record, target, valid, image))
        records.append(record)
    if usable:
        columns = [list(column) for column in zip(*usable, strict=True)]
        targets, valid, found = (
            np.stack(column + [column[-1]] * (size - len(column))) for column in columns[1:]
        )
        values = metrics.evaluate(
            targets,
            found,
            measurer.nets,
            None if valid.all() else valid,
            names=measurer.images,
            microbatch=size,
        )
        own = [record['picture'] for record in columns[0]]
        lost = {}
        for judge, entry in measurer.judges.items():
            pair = (
                _target_embeddings(measurer, judge, own, targets),
                entry.embed(found[: len(own)]),
            )
            values[f'id_{judge}'] = entry.compare(*pair)
            lost[judge] = identity.no_face(*pair)
        for k, record in enumerate(columns[0]):
            record['metrics'] = {name: _number(values, name, k) for name in measurer.names}
            no_face = {
                judge: where[k]
                for judge, where in lost.items()
                if record['metrics'][f'id_{judge}'] is None
            }
            record |= {'no_face': no_face} if no_face else {}
    return records


def faces_not_found(records: Iterable[Mapping[str, Any]], judge: str) -> dict[str, int]:
    """{'target', 'picture', 'both': pictures without a face there}, of records with 'no_face'."""
    found = [record.get('no_face', {}).get(judge) for record in records]
    return {where: found.count(where) for where in identity.WHERE.values()}


def _target_embeddings(measurer: Measurer, judge: str, names, targets_uint8) -> np.ndarray:
    new = [k for k, name in enumerate(names) if (judge, name) not in measurer.embeddings]
    if new:
        vectors = measurer.judges[judge].embed(targets_uint8[new])
        for k, vector in zip(new, vectors, strict=True):
            measurer.embeddings[judge, names[k]] = vector
    return np.stack([measurer.embeddings[judge, name] for name in names])


def _number(values: Mapping[str, np.ndarray], name: str, k: int) -> float | None:
    """None for what could not be measured; PSNR of equal pictures, too."""
    if name not in values:
        return None
    value = float(values[name][k])
    return value if math.isfinite(value) else None


def read_made(made: Made, resolution: int) -> tuple[np.ndarray | None, list[int] | None, str]:
    """(uint8 [r, r, 3], its size [w, h] before if that was another one, why there is none)."""
    if made.file is None:
        return None, None, made.reason
    try:
        picture = images.read(made.file)
    except images.ImageError as error:
        return None, None, str(error)
    if picture.width != picture.height:
        text = f'{made.file.name} is {picture.width} x {picture.height} and not square.'
        return None, None, text
    if picture.width == resolution:
        return np.asarray(picture), None, ''
    return np.asarray(crop.resize(picture, (resolution,) * 2)), list(picture.size), ''


def _digest(file: pathlib.Path | None) -> str | None:
    try:
        return None if file is None else sha256(file)
    except OSError:
        return None


# --- Distances of sets ----------------------------------------------------------------------------


@functools.cache
def _network(kind: str):
    if kind == 'efficientnet_lite0':
        size, apply = efficientnet.SIZE, efficientnet.pooled
    else:
        size, apply = None, inception.pooled  # resizes as FID does

    def features(weights, images):
        return apply(weights, images if size is None else area_resize(images, size))

    return jax.jit(features)


def features(measurer: Measurer, kind: str, path: pathlib.Path, read, rows, digests) -> np.ndarray:
    """Features [n, d] of the pictures at the indices `rows`, in saved chunks under `path`.

    read(i): uint8 [r, r, 3] of index i. digests: SHA-256 of each of the pictures, by which the
    chunks are found again.
    """
    content = [*digests, *filter(None, [measurer.set_files.get(kind)])]
    key = hashlib.sha256('\n'.join(content).encode()).hexdigest()[:12]
    network, weights = _network(kind), measurer.sets[kind]
    size = min(rendering.BATCH, len(measurer.pictures))

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        found = []
        for first in range(start, stop, size):
            batch = np.stack([read(i) for i in rows[first : min(first + size, stop)]])
            padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            with rendering.full_precision():
                own = np.asarray(network(weights, pixels.to_float(padded)))
            found.append(own[: len(batch)])
        return {'features': np.concatenate(found)}

    folder = path / 'features' / f'{kind}-{key}'
    return sampling.in_chunks(len(rows), CHUNK, folder, compute, silent)['features']


def pair_of_features(
    measurer: Measurer, kind: str, path: pathlib.Path, folder: pathlib.Path, records, made
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(features of the targets, of the method's pictures, their indices), of the measured ones.

    Padding of a picture is the target's, as in the other metrics.
    """
    pictures = measurer.pictures
    rows = [i for i, name in enumerate(pictures) if 'reason' not in records[name]]
    if not rows:
        return np.zeros((0, 1)), np.zeros((0, 1)), rows

    def read(i: int) -> np.ndarray:
        target, valid = pictures.read(i)
        image, _, _ = read_made(made[pictures.names[i]], pictures.resolution)
        return np.where(valid > 0, image, target).astype(np.uint8)

    everything = list(range(len(pictures)))
    targets = features(
        measurer, kind, path / FOLDER / TARGETS, lambda i: pictures.read(i)[0], everything,
        pictures.digests,
    )  # fmt: skip
    own = [records[pictures.names[i]]['image_sha256'] for i in rows]
    own = [f'{digest} {pictures.digests[i]}' for i, digest in zip(rows, own, strict=True)]
    return targets[rows], features(measurer, kind, folder, read, rows, own), rows
