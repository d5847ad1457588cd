"""Generators and priors of a run on disk.

generators/NAME/   of each identity: generator.safetensors and orbax/, or a delta;
                   pivots.npz if the tuning moved its pivot
manifest.jsonl     a line for each of them
prior.npz          SAM's statistics of W, with what they were computed from
"""

import contextlib
import pathlib
import shutil
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxinv import latents, metrics, rendering, settings
from jaxinv.converters import array_files
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.experiments.session import Session
from jaxinv.generators import OPTIONS
from jaxinv.inversion import code_files, sam_prior
from jaxinv.io import atomic_path
from jaxinv.report import schema
from jaxinv.report import tables as tables_lib
from jaxinv.runtime import distributed
from jaxinv.runtime.manifest import FILE, Manifest
from jaxinv.types import Generator, Weights
from jaxinv.weights import deltas, store
from jaxinv.weights.load import save_generator

GENERATORS = 'generators'
PRIOR = 'prior.npz'

# --- Tuned generators -----------------------------------------------------------------------------


class GeneratorWriter:
    """Writes the generator of an identity: whole, or as its difference from config.generator."""

    def __init__(self, session: Session):
        self._session = session
        self._base = None  # of deltas
        if session.settings.tune.save != 'full':
            run, arguments = session.settings, dict(session.generator.spec.arguments)
            options = {name: arguments[name] for name in OPTIONS if name in arguments}
            weights = session.weights
            self._base = deltas.Base.of(run.generator, run.resolution, weights, options)

    def write(self, folder: pathlib.Path, i: int, weights, pivot, orbax: bool = True) -> dict:
        """Writes the weights of identity i, whose pivot is [k, w_dim], into a folder.

        Returns {} for a whole one, or {'delta': {'bytes', ..., 'psnr' and 'lpips_alex' of the
        restored generator's image of the pivot against the full one's, 'to_target'}}. orbax: whole
        ones also in Orbax's format.
        """
        session = self._session
        if self._base is None:
            if orbax:
                save_generator(folder, session.generator, weights)
            else:
                store.write(folder / store.GENERATOR_FILE, session.generator, weights)
            return {}
        found, restored = deltas.write(folder, self._base, weights, session.settings.tune)
        full, again = (
            rendering.render(session.generator, own, pivot[None]) for own in (weights, restored)
        )
        target = session.targets.images_uint8[i : i + 1]
        compared = metrics.evaluate(full, again, session.nets, names=('psnr', 'lpips_alex'))
        to_target = {
            label: metrics.evaluate(target, image, session.nets, names=('lpips_alex',))
            for label, image in (('full', full), ('restored', again))
        }
        facts = found | {name: float(value[0]) for name, value in compared.items()}
        facts['to_target'] = {k: float(v['lpips_alex'][0]) for k, v in to_target.items()}
        return {'delta': facts}


class EachGenerator:
    """Writes each identity's generator to generators/NAME/, and its line in the manifest."""

    def __init__(self, session: Session):
        self._session, self._writer = session, GeneratorWriter(session)
        self._manifest = Manifest(session.path / FILE, session.log)
        if self._manifest.damaged:  # its checkpoints would skip identities that have no line now
            if distributed.is_primary():
                shutil.rmtree(session.path / 'state' / 'tune', ignore_errors=True)
            distributed.wait_for_all('state')

    def __call__(self, i: int, weights, pivot, facts: dict) -> None:
        """pivot [k, w_dim]; facts: more for the line of identity i, of JSON's types."""
        session, source = self._session, self._session.targets.sources[i]
        name = session.targets.names[i]
        record = {'name': name, 'file': source['file'], 'sha256': source['sha256']}
        record |= {'folder': f'{GENERATORS}/{name}'} | facts
        folder = session.path / record['folder']
        record |= self._writer.write(folder, i, weights, pivot)
        if session.settings.tune.pivot_learning_rate:
            code_files.save_pivots(folder, [name], pivot[None])
        self._manifest.add(record)


def delta_tables(session: Session) -> list[schema.Table]:
    """For the report: size and loss of each identity's delta; [] if generators are kept whole."""
    if session.settings.tune.save == 'full':
        return []
    records = Manifest(session.path / FILE, session.log).records
    facts = {name: records[name]['delta'] for name in session.targets.names}
    return [tables_lib.delta_table(session.settings.tune, facts)]


def load_tuned(folder: pathlib.Path, weights: Weights) -> Weights:
    """What `GeneratorWriter.write` wrote. weights: of the generator they were tuned from."""
    if (folder / deltas.DELTA_FILE).is_file():
        return deltas.restore(deltas.read(folder / deltas.DELTA_FILE), weights)
    return store.read(folder / store.GENERATOR_FILE)[1]


class SavedGenerators(Sequence):
    """The weights of every identity in generators/NAME/, each read when it is indexed."""

    def __init__(self, session: Session):
        self._session = session

    def __len__(self) -> int:
        return len(self._session.targets.names)

    def __getitem__(self, i: int) -> Weights:
        folder = self._session.path / GENERATORS / self._session.targets.names[i]
        return load_tuned(folder, self._session.weights)

    def pivots(self) -> np.ndarray:
        """The pivots [n, k, w_dim] that the tuning moved."""
        names = self._session.targets.names
        folders = [self._session.path / GENERATORS / name for name in names]
        pairs = zip(folders, names, strict=True)
        return np.concatenate([code_files.pivots_for(folder, [name]) for folder, name in pairs])


# --- SAM ------------------------------------------------------------------------------------------


def prior_of(
    generator: Generator, weights: Weights, options: settings.Prior, source=''
) -> sam_prior.Prior:
    """The generator's prior: read from the folder `source` if it fits, else computed.

    It fits if it was computed with the same settings, the same truncation and the same mapping
    network.
    """
    file = pathlib.Path(str(source)) / PRIOR
    if file.is_file():
        with contextlib.suppress(UnreadableFile):  # a damaged one is computed again
            arrays, _ = array_files.read(file)
            known = _prior_inputs(generator, weights, options)
            wanted = {*known, *sam_prior.Prior._fields}
            if wanted <= set(arrays) and all(map(_fits, map(arrays.get, known), known.values())):
                return sam_prior.Prior(*(jnp.array(arrays[f]) for f in sam_prior.Prior._fields))
    return sam_prior.statistics(generator, weights, options)


def _fits(saved: np.ndarray, value) -> bool:
    """Devices differ in their rounding; other mapping networks differ by about 1."""
    if not isinstance(value, np.ndarray):
        return str(saved) == value
    return saved.shape == value.shape and np.allclose(saved, value, atol=1e-2)


def save_prior(
    folder: pathlib.Path,
    prior: sam_prior.Prior,
    generator: Generator,
    weights: Weights,
    options: settings.Prior,
) -> None:
    """Writes prior.npz, for `prior_of`."""
    arrays = {name: np.asarray(value) for name, value in prior._asdict().items()}
    known = _prior_inputs(generator, weights, options)
    with atomic_path(folder / PRIOR) as path, open(path, 'wb') as file:
        np.savez(file, **known, **arrays)


def _prior_inputs(generator, weights, options) -> dict:
    """What a prior is computed from: {'settings', 'truncation', 'mapping' [4, 8]}."""
    return {
        'settings': str(options),
        'truncation': str(generator.spec.z_truncation),
        'mapping': latents.mapping_fingerprint(generator, weights),
    }
