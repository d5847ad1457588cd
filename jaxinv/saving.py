"""What tuning leaves behind: pivots.npz, generator/, or generators/NAME/ with manifest.jsonl."""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxinv import checkpoints, delta_table, deltas, images, manifest, metrics, rendering, results
from jaxinv.generators import OPTIONS, stored


def save_pivots(job, pivots) -> None:
    np.savez(job.path / 'pivots.npz', names=np.array(job.targets.names), w=np.asarray(pivots))


def saving_of(config) -> deltas.Settings:
    return deltas.Settings(config.tune.save, config.tune.rank)


class Writer:
    """Writes the generators of a job's identities as config.tune.save says."""

    def __init__(self, job, pivots):
        self._job, self._pivots = job, pivots
        self.settings = saving_of(job.config)
        self._base = None  # of deltas
        if self.settings.save != 'full':
            config, arguments = job.config, dict(job.generator.spec.arguments)
            options = {name: arguments[name] for name in OPTIONS if name in arguments}
            self._base = deltas.Base.of(config.generator, config.resolution, job.weights, options)

    def write(self, folder: pathlib.Path, i: int, weights, orbax: bool = True) -> dict:
        """Writes that of identity number i; returns {'delta': what that saved, and what it lost
        of the pivot's picture}, {} of one that is whole. orbax: whole ones as Orbax, too."""
        if self._base is None:
            if orbax:
                checkpoints.save_generator(folder, self._job.generator, weights)
            else:
                stored.write(folder / stored.GENERATOR_FILE, self._job.generator, weights)
            return {}
        nets, pivot = self._job.nets, self._pivots[i : i + 1]
        found, restored = deltas.write(folder, self._base, weights, self.settings)
        full, again = (rendering.render(self._job.generator, w, pivot) for w in (weights, restored))
        target = images.to_float(self._job.targets.images_uint8[i : i + 1])
        compared = metrics.evaluate(full, again, nets)
        to_target = {
            label: float(metrics.evaluate(target, picture, nets)['lpips_alex'][0])
            for label, picture in (('full', full), ('restored', again))
        }
        loss = {name: float(compared[name][0]) for name in ('psnr', 'lpips_alex')}
        return {'delta': {**found, **loss, 'to_target': to_target}}


class EachGenerator:
    """Keeps each identity as it is finished: generators/NAME/, and its line in manifest.jsonl."""

    def __init__(self, job, pivots):
        self._job, self._writer = job, Writer(job, pivots)
        self._manifest = manifest.Manifest(job.path / manifest.FILE)

    def __call__(self, i: int, weights, facts: dict | None = None, error=None) -> None:
        """Identity number i has these weights; facts: more for its line, of JSON's types."""
        if error is not None:
            raise error
        job, name, source = self._job, self._job.targets.names[i], self._job.targets.sources[i]
        record = {'name': name, 'file': source['file'], 'sha256': source['sha256']}
        record |= {'folder': f'generators/{name}'} | (facts or {})
        self._manifest.add(record | self._writer.write(job.path / record['folder'], i, weights))

    def tables(self) -> list[results.Table]:
        """For the report: of deltas, what they cost."""
        if self._writer.settings.save == 'full':
            return []
        records = self._manifest.records
        facts = {name: records[name]['delta'] for name in self._job.targets.names}
        return [delta_table.table(self._writer.settings, facts)]


def load_tuned(folder, weights):
    """Weights of what `Writer.write` left in a folder.

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
