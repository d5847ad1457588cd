"""Bulk mode of SAM's methods that tune one generator for all pictures (pti, pti_sam).

    tuning/                   the reading, projection and tuning of all pictures (bulk_shared.py)
    generator/, pivots.npz    what it found; then the groups follow, as in bulk.py

Every picture moves the generator, so the set of pictures is part of the run. An interrupted run
resumes in the tuning, or in its group. In several processes the tuning runs on all devices; the
groups are then divided among the processes.
"""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxinv.experiments import bulk_group, bulk_shared, pti
from jaxinv.inversion import code_files
from jaxinv.io import json_text, read_json, write_atomically
from jaxinv.runtime import distributed
from jaxinv.runtime.manifest import FILE, Manifest
from jaxinv.weights import store
from jaxinv.weights.load import save_generator

FOLDER, SECONDS = 'tuning', 'seconds.json'


class Shared:
    """The one generator and the pivots of all pictures, from the work folder or made there."""

    def __init__(self, config, path: pathlib.Path, opened, log: Callable):
        """opened: (generator, weights, the generator's origin) before the tuning."""
        self._config, self._path, self._opened, self._log = config, path, opened, log
        self._folder = path / FOLDER

    def make(self) -> None:
        """Tunes the generator, or reads it. Collective; the work folder belongs to this run."""
        done = self._path / code_files.PIVOTS  # written last
        if distributed.broadcast_str(str(done.is_file())) != 'True':
            self._tune()
            distributed.wait_for_all('tuned')
        names, pivots = code_files.load_pivots(self._path)
        self._pivots = dict(zip(names, pivots, strict=True))
        self.weights = store.read(self._path / 'generator' / store.GENERATOR_FILE)[1]
        spent = read_json(self._folder / SECONDS) or {}
        # For the line of a picture: its share of the time of all.
        self.facts: dict[str, Any] = {
            'seconds': {stage: round(s / len(names), 3) for stage, s in spent.items()}
        }
        records = Manifest(self._folder / FILE, self._log).records
        self._skipped = {n: r['skipped'] for n, r in records.items() if 'skipped' in r}

    def pivots_of(self, group: bulk_group.Group) -> np.ndarray:
        """The pivots [n, k, w_dim] of a group; drops its pictures that could not be projected."""
        names = group.session.targets.names[: group.count]
        lost = {i: self._reason(n) for i, n in enumerate(names) if n not in self._pivots}
        if lost:
            group.drop(lost)
        if not group.count:
            return np.zeros((0, 1, 1), np.float32)
        targets = group.session.targets.names
        rows = [*targets[: group.count]] + [targets[group.count - 1]] * (len(targets) - group.count)
        return np.stack([self._pivots[name] for name in rows])

    def _reason(self, name: str) -> str:
        return self._skipped.get(name, 'The tuning of the generator had no such picture.')

    def _tune(self) -> None:
        session, tuned = bulk_shared.invert_all(
            self._config, self._folder, self._opened, pti.invert_shared, self._log
        )
        if not distributed.is_primary():
            return
        path, names = self._path, session.targets.names
        save_generator(path / 'generator', session.generator, tuned.per_identity[0])
        write_atomically(self._folder / SECONDS, json_text(dict(session.stopwatch.seconds)))
        code_files.save_pivots(path, names, tuned.pivots)
        for name in ('state', 'generator', bulk_group.IDENTITIES):  # of what is not needed again
            shutil.rmtree(self._folder / name, ignore_errors=True)
