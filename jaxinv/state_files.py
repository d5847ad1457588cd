"""The state of a loop in a process that works apart from others (distributed.apart): a file each.

Orbax takes the arrays of several processes for parts of common ones: it refuses those that are on
one process's devices, and of NumPy's arrays it writes process 0's only.
"""

import pathlib

import jax
import numpy as np
import safetensors.numpy

from jaxinv import assets

KEPT = 2


class StateFiles:
    """folder/STEP.safetensors, the newest two; a half-written one is never seen."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def save(self, step: int, tree) -> None:
        leaves = enumerate(jax.tree.leaves(tree))
        content = safetensors.numpy.save({str(i): np.array(x, order='C') for i, x in leaves})
        assets.write_atomically(self._file(step), content)
        for old in sorted(self.all_steps())[:-KEPT]:
            self._file(old).unlink()

    def all_steps(self) -> list[int]:
        return [int(file.stem) for file in self._folder.glob('*.safetensors')]

    def restore(self, step: int, like):
        """A tree like `like`, whose arrays say where it lies and how much padding the rows have."""
        arrays = safetensors.numpy.load(self._file(step).read_bytes())
        leaves, structure = jax.tree.flatten(like)
        return structure.unflatten([_fitted(arrays[str(i)], x) for i, x in enumerate(leaves)])

    def close(self) -> None:
        """Nothing is open."""

    def _file(self, step):
        return self._folder / f'{step}.safetensors'


def _fitted(x: np.ndarray, like):
    if x.shape != like.shape:
        x = x[tuple(slice(size) for size in like.shape)]
        x = np.pad(x, [(0, size - own) for size, own in zip(like.shape, x.shape, strict=True)])
    return jax.device_put(x, like.sharding) if isinstance(like, jax.Array) else x
