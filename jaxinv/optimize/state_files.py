"""Checkpoints of independent processes (distributed.independent_processes): one file each.

Orbax cannot write them. In a program of several processes it treats arrays as shards of global
arrays, also with MultiprocessingOptions(primary_host=i, active_processes={i}): it refuses jax
arrays on the devices of one process ("Cannot serialize host local jax.Array"), and of NumPy arrays
only process 0 writes the values, so that the checkpoints of the others are empty (tried with
orbax-checkpoint 0.12.8).
"""

import pathlib

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jaxinv.io import write_atomically

KEPT = 2
DAMAGED = '.damaged'  # suffix of a file or folder that is kept but not read any more


class StateFiles:
    """FOLDER/STEP.safetensors, the newest two, each written atomically.

    A checkpoint is a flat dict {name: array}.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def all_steps(self) -> list[int]:
        """Steps that have a checkpoint, in ascending order."""
        return sorted(int(file.stem) for file in self._folder.glob('*.safetensors'))

    def save(self, step: int, arrays: dict) -> bool:
        """False, and nothing is written, if the folder holds this step or a later one."""
        steps = self.all_steps()
        if steps and steps[-1] >= step:
            return False
        host = {name: np.array(x, order='C') for name, x in arrays.items()}
        write_atomically(self._file(step), safetensors.numpy.save(host))
        for old in [*steps, step][:-KEPT]:
            self._file(old).unlink()
        return True

    def shapes(self, step: int) -> dict:
        """{name: jax.ShapeDtypeStruct} of a checkpoint. Raises if the file is damaged."""
        with safetensors.safe_open(self._file(step), 'numpy') as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {
                name: jax.ShapeDtypeStruct(x.get_shape(), _dtype(x.get_dtype()))
                for name, x in slices.items()
            }

    def restore(self, step: int, like: dict) -> dict:
        """Arrays with the shapes and shardings of `like`; axes are cut or padded with zeros."""
        arrays = safetensors.numpy.load(self._file(step).read_bytes())
        return {name: _fit(arrays[name], x) for name, x in like.items()}

    def set_aside(self, step: int) -> str:
        """Renames a damaged checkpoint and returns its new name."""
        file = self._file(step)
        return file.replace(file.with_name(file.name + DAMAGED)).name

    def close(self) -> None:
        """Nothing is open between calls."""

    def _file(self, step):
        return self._folder / f'{step}.safetensors'


_DTYPES = {'BOOL': 'bool', 'F': 'float', 'I': 'int', 'U': 'uint'}


def _dtype(name: str) -> np.dtype:
    """safetensors' name of a type, e.g. 'F32'."""
    kind = name.rstrip('0123456789')
    if kind == 'BF':
        return jax.numpy.dtype('bfloat16')
    return np.dtype(_DTYPES[kind] + name.removeprefix(kind))


def _fit(x: np.ndarray, like):
    if x.shape != like.shape:
        x = x[tuple(slice(size) for size in like.shape)]
        x = np.pad(x, [(0, size - own) for size, own in zip(like.shape, x.shape, strict=True)])
    return jax.device_put(x, like.sharding) if isinstance(like, jax.Array) else x
