"""What is kept on disk: the loop's state (Orbax) and generators (Orbax and safetensors).

No pickle is written. Those of other projects are read as data and never executed (converters/).

The state of a loop in a process that works apart from others (distributed.independent_processes): a file each.

Orbax takes the arrays of several processes for parts of common ones: it refuses those that are on
one process's devices, and of NumPy's arrays it writes process 0's only.

"""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy

from jaxinv.io import write_atomically
from jaxinv.optimize import checkpoints
from jaxinv.optimize.loop import LoopState
from jaxinv.runtime import distributed


class NoCheckpoints:
    """In place of LoopCheckpoints where nothing is kept on disk."""

    def save(self, state, traces, table=None) -> None:
        """Does nothing."""

    def restore(self, state, metric_names, log=print, count=None, table=None) -> None:
        """None: there is no checkpoint."""

    def close(self) -> None:
        """Does nothing."""


class LoopCheckpoints:
    """The last two chunks of a loop; a half-written one is never seen (Orbax renames).

    What was saved on some number of devices goes on on any other (optimize/sharding.py).
    """

    def __init__(self, folder: pathlib.Path, num_steps: int):
        self._num_steps = num_steps
        if distributed.is_independent():
            self._manager = checkpoints.StateFiles(folder)
            return
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(
        self, state: LoopState, traces: dict[str, np.ndarray], table: dict | None = None
    ) -> None:
        """table: arrays kept beside them (optimize/continuous_batching.py)."""
        tree = {'state': state._asdict(), 'traces': self._padded(traces)}
        if table is not None:
            tree['table'] = table
        if isinstance(self._manager, checkpoints.StateFiles):
            self._manager.save(int(state.step), tree)
            return
        self._manager.save(int(state.step), args=ocp.args.StandardSave(tree))
        self._manager.wait_until_finished()

    def restore(
        self,
        state: LoopState,
        metric_names,
        log=print,
        count: int | None = None,
        table: dict | None = None,
    ):
        """(state, traces) of the newest readable checkpoint, or None.

        `state` says which shapes, and where they lie; count: examples without padding, None = all.
        With `table`, arrays like those that were saved, it is (state, traces, table), and examples
        may be more than rows, whose padding is left as it is.
        """
        count = len(state.done) if count is None else count
        rows = np.zeros((self._num_steps, count), np.float32)
        like = {'state': state._asdict(), 'traces': dict.fromkeys(metric_names, rows)}
        if table is not None:
            like['table'] = table
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self._read_alone(step, like)
                reason = ''
            except Exception as error:  # whatever a damaged file makes the reader raise
                reason = type(error).__name__
            if not all(distributed.allgather_int(not reason)):
                reason = reason or 'for another process'
                log(f'Checkpoint {step} is damaged ({reason}); trying the one before.')
                continue
            # A fresh process places restored arrays anew, so that they may be donated.
            restored = LoopState(**jax.tree.map(jax.numpy.asarray, tree['state']))
            traces = {name: np.asarray(x)[:step] for name, x in tree['traces'].items()}
            if table is not None:
                return restored, traces, tree['table']
            if count < len(state.done):
                restored = restored._replace(done=_with_padding_done(restored.done, count))
            return restored, traces
        return None

    def close(self) -> None:
        self._manager.close()

    def _read_alone(self, step, like):
        """By this process alone: together with others it would wait at the end for those that have
        failed on the way, and they wait elsewhere."""
        if isinstance(self._manager, checkpoints.StateFiles):
            return self._manager.restore(step, like)
        # Not strict: on other devices there was more or less padding.
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.StandardRestore(like, strict=False)
        if not distributed.is_multiprocess():
            return self._manager.restore(step, args=args)
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        options = ocp.CheckpointManagerOptions(
            create=False, read_only=True, multiprocessing_options=alone
        )
        with ocp.CheckpointManager(self._manager.directory, options=options) as reader:
            return reader.restore(step, args=args)

    def _padded(self, traces):
        def pad(rows):
            padded = np.full((self._num_steps,) + rows.shape[1:], np.nan, np.float32)
            padded[: len(rows)] = rows
            return padded

        return {name: pad(rows) for name, rows in traces.items()}


def _with_padding_done(done, count):
    mark = jax.jit(lambda x: x | (jax.numpy.arange(len(x)) >= count), out_shardings=done.sharding)
    return mark(done)


KEPT = 2


class StateFiles:
    """folder/STEP.safetensors, the newest two; a half-written one is never seen."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def save(self, step: int, tree) -> None:
        leaves = enumerate(jax.tree.leaves(tree))
        content = safetensors.numpy.save({str(i): np.array(x, order='C') for i, x in leaves})
        write_atomically(self._file(step), content)
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
