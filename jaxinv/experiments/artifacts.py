"""What tuning leaves behind: pivots.npz, generator/, or generators/NAME/ with manifest.jsonl.

What a SAM run leaves behind: codes.npz, regions.npz, prior.npz. Plain arrays, no pickles.
"""

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxinv import metrics, pixels, rendering
from jaxinv import settings as settings_lib
from jaxinv.errors import JaxinvError
from jaxinv.generators import OPTIONS
from jaxinv.inversion import sam, sam_prior
from jaxinv.io import atomic_path
from jaxinv.report import schema
from jaxinv.report import tables as tables_lib
from jaxinv.runtime import manifest
from jaxinv.weights import deltas, store
from jaxinv.weights.load import save_generator


def save_pivots(job, pivots) -> None:
    with atomic_path(job.path / 'pivots.npz') as scratch:
        np.savez(scratch, names=np.array(list(job.targets.names)), w=np.asarray(pivots))


class Writer:
    """Writes the generators of a job's identities as config.tune.save says."""

    def __init__(self, job, pivots):
        self._job, self._pivots = job, pivots
        self.settings = settings_lib.of(job.config, settings_lib.Tuning)
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
                save_generator(folder, self._job.generator, weights)
            else:
                store.write(folder / store.GENERATOR_FILE, self._job.generator, weights)
            return {}
        nets, pivot = self._job.nets, self._pivots[i : i + 1]
        found, restored = deltas.write(folder, self._base, weights, self.settings)
        full, again = (rendering.render(self._job.generator, w, pivot) for w in (weights, restored))
        target = pixels.to_float(self._job.targets.images_uint8[i : i + 1])
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

    def tables(self) -> list[schema.Table]:
        """For the report: of deltas, what they cost."""
        if self._writer.settings.save == 'full':
            return []
        records = self._manifest.records
        facts = {name: records[name]['delta'] for name in self._job.targets.names}
        return [tables_lib.delta_table(self._writer.settings, facts)]


def load_tuned(folder, weights):
    """Weights of what `Writer.write` left in a folder.

    weights: of the generator they were tuned from.
    """
    if (folder / deltas.DELTA_FILE).is_file():
        return deltas.restore(deltas.read(folder / deltas.DELTA_FILE), weights)
    return store.read(folder / store.GENERATOR_FILE)[1]


class Saved(Sequence):
    """Weights of every identity, read from generators/NAME/ when they are asked for."""

    def __init__(self, job):
        self._job = job

    def __len__(self):
        return len(self._job.targets.names)

    def __getitem__(self, i):
        name = self._job.targets.names[i]
        return load_tuned(self._job.path / 'generators' / name, self._job.weights)


CODES, REGIONS, PRIOR = 'codes.npz', 'regions.npz', 'prior.npz'


def save_codes(folder: pathlib.Path, names, codes: sam.Codes, masks) -> None:
    """names, w_plus [n, num_ws, w_dim], offsets/F4 [n, h, w, c] ..., masks/F4 [n, h, w, 1] ..."""
    arrays = {'names': np.array(list(names)), 'w_plus': np.asarray(codes.w_plus)}
    for space, offset in codes.offsets.items():
        arrays[f'offsets/{space}'] = np.asarray(offset)
        arrays[f'masks/{space}'] = np.asarray(masks[space])
    with atomic_path(folder / CODES) as scratch:
        np.savez(scratch, **arrays)


def load_codes(source) -> tuple[sam.Codes, dict]:
    """Codes and masks of a work folder or its codes.npz, as sam.synthesize takes them."""
    path = pathlib.Path(source)
    path = path / CODES if path.is_dir() else path
    if not path.is_file():
        raise JaxinvError(f'there is no {path}; give the work folder of a finished SAM run.')
    with np.load(path, allow_pickle=False) as arrays:
        groups = {'offsets': {}, 'masks': {}}
        for name in arrays.files:
            group, _, space = name.partition('/')
            if group in groups:
                groups[group][space] = jnp.asarray(arrays[name])
        return sam.Codes(jnp.asarray(arrays['w_plus']), groups['offsets']), groups['masks']


def prior_of(generator, weights, settings: settings_lib.Prior, source='') -> sam_prior.Prior:
    """The generator's prior: as kept with it in the folder `source`, or else computed."""
    kept = pathlib.Path(str(source)) / PRIOR
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as arrays:
            if str(arrays['settings']) == str(settings):
                return sam_prior.Prior(*(jnp.asarray(arrays[f]) for f in sam_prior.Prior._fields))
    return sam_prior.statistics(generator, weights, settings)


def save_prior(folder: pathlib.Path, prior: sam_prior.Prior, settings: settings_lib.Prior) -> None:
    arrays = {name: np.asarray(value) for name, value in prior._asdict().items()}
    with atomic_path(folder / PRIOR) as scratch:
        np.savez(scratch, settings=np.array(str(settings)), **arrays)
