"""What tuning leaves behind: pivots.npz, generator/, or generators/NAME/ with manifest.jsonl."""

from collections.abc import Sequence

import numpy as np

from jaxinv import checkpoints, delta_table, deltas, images, manifest, metrics, rendering, results
from jaxinv.generators import OPTIONS, stored


def save_pivots(job, pivots) -> None:
    np.savez(job.path / 'pivots.npz', names=np.array(job.targets.names), w=np.asarray(pivots))


def saving_of(config) -> deltas.Settings:
    return deltas.Settings(config.tune.save, config.tune.rank)


class EachGenerator:
    """Writes the generator of one identity after the other, and its line in manifest.jsonl."""

    def __init__(self, job, pivots):
        self._job, self._pivots = job, pivots
        self._settings = saving_of(job.config)
        self._base = None  # of deltas
        if self._settings.save != 'full':
            config, arguments = job.config, dict(job.generator.spec.arguments)
            options = {name: arguments[name] for name in OPTIONS if name in arguments}
            self._base = deltas.Base.of(config.generator, config.resolution, job.weights, options)
        self._manifest = manifest.Manifest(job.path / manifest.FILE)

    def __call__(self, i: int, weights, facts: dict | None = None) -> None:
        """Identity number i has these weights; facts: more for its line, of JSON's types."""
        job, name = self._job, self._job.targets.names[i]
        source = job.targets.sources[i]
        record = {'name': name, 'file': source['file'], 'sha256': source['sha256']}
        record |= {'folder': f'generators/{name}'} | (facts or {})
        folder = job.path / 'generators' / name
        if self._base is None:
            checkpoints.save_generator(folder, job.generator, weights)
        else:
            record['delta'] = save_delta(
                job, folder, self._base, self._settings, i, self._pivots[i : i + 1], weights
            )
        self._manifest.add(record)

    def tables(self) -> list[results.Table]:
        """For the report: of deltas, what they cost."""
        if self._base is None:
            return []
        records = self._manifest.records
        facts = {name: records[name]['delta'] for name in self._job.targets.names}
        return [delta_table.table(self._settings, facts)]


def save_delta(job, folder, base: deltas.Base, settings, i: int, pivot, weights) -> dict:
    """folder/delta.safetensors; returns what that saved, and what it lost of the picture."""
    found, restored = deltas.write(folder, base, weights, settings)
    full, again = (rendering.render(job.generator, w, pivot) for w in (weights, restored))
    target = images.to_float(job.targets.images_uint8[i : i + 1])
    compared = metrics.evaluate(full, again, job.nets)
    to_target = {
        label: float(metrics.evaluate(target, picture, job.nets)['lpips_alex'][0])
        for label, picture in (('full', full), ('restored', again))
    }
    loss = {name: float(compared[name][0]) for name in ('psnr', 'lpips_alex')}
    return {**found, **loss, 'to_target': to_target}


def load_tuned(folder, weights):
    """Weights of what `checkpoints.save_generator` or `save_delta` left in a folder.

    weights: of the generator they were tuned from.
    """
    if (folder / deltas.DELTA_FILE).is_file():
        return deltas.restore(deltas.read(folder / deltas.DELTA_FILE), weights)
    return stored.read(folder / stored.GENERATOR_FILE)[1]


class Saved(Sequence):
    """Weights of every identity, read from generators/NAME/ when they are asked for."""

    def __init__(self, job):
        self._job = job

    def __len__(self):
        return len(self._job.targets.names)

    def __getitem__(self, i):
        name = self._job.targets.names[i]
        return load_tuned(self._job.path / 'generators' / name, self._job.weights)
