"""Checkpoints of a loop: its state and traces, so that a run resumes after the last chunk.

A checkpoint is a flat dict of arrays {'state.variables.w': ..., 'traces.loss': ...}, written with
Orbax (shards of several processes) or, by independent processes, with state_files.py. No pickle is
written or read.

A run may resume on another number of devices and with another number of slots: then the batch axis
has another length. A checkpoint whose arrays differ in anything else is of another run and is
refused. A checkpoint that cannot be read is damaged: it is renamed to STEP.damaged and the one
before is used.
"""

import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxinv import io
from jaxinv.errors import JaxinvError
from jaxinv.optimize.state_files import DAMAGED, KEPT, StateFiles
from jaxinv.optimize.step import LoopState
from jaxinv.runtime import distributed

_READABLE, _DIFFERENT, _DAMAGED = range(3)


class Restored(NamedTuple):
    """What a checkpoint holds."""

    state: LoopState  # more rows than were saved: zeros
    traces: dict[str, np.ndarray]  # {name: [steps, count]}, float32
    table: dict[str, np.ndarray]  # with the shapes that were saved


class _Read(NamedTuple):
    status: int
    reason: str
    arrays: dict | None = None  # if it is readable


class LoopCheckpoints:
    """The newest two checkpoints of a loop, in folder/STEP.

    Each is written under a temporary name, flushed to disk and renamed. Call all methods on all
    processes, unless they are independent.
    """

    def __init__(self, folder: pathlib.Path, num_steps: int):
        """num_steps: rows that the saved traces are padded to."""
        self._folder, self._num_steps = folder.absolute(), num_steps
        files = StateFiles if distributed.is_independent() else _OrbaxFiles
        self._files = files(self._folder)

    def save(
        self, state: LoopState, traces: dict[str, np.ndarray], table: dict | None = None
    ) -> None:
        """Saves state and traces {name: [steps, count]}, and arrays beside them.

        Raises JaxinvError if the folder holds a later checkpoint, which is then of another run.
        """
        step = int(state.step)
        padded = {name: self._pad(rows) for name, rows in traces.items()}
        arrays = _flatten({'state': state, 'traces': padded, 'table': table or {}})
        if not self._files.save(step, arrays):
            raise JaxinvError(
                f'checkpoint {step} was not written to {self._folder}, which holds step '
                f'{max(self._files.all_steps())}, of another run; use another folder, or '
                '--overwrite.'
            )

    def restore(
        self,
        state: LoopState,
        metric_names,
        log=print,
        count: int | None = None,
        table: dict[str, np.ndarray] | None = None,
    ) -> Restored | None:
        """The newest readable checkpoint, or None.

        state: gives shapes and shardings. count: examples without padding; None = all rows. Rows
        beyond are marked done, except with a table, whose owner decides which rows are in use.
        table: arrays as they were given to `save`; their shapes may differ.

        Raises JaxinvError for a checkpoint of another run.
        """
        rows = len(state.done)
        count = rows if count is None else count
        traces = dict.fromkeys(metric_names, np.zeros((self._num_steps, count), np.float32))
        like = {'state': state, 'traces': traces, 'table': table or {}}
        damaged, found = [], None
        steps = json.loads(distributed.broadcast_str(json.dumps(self._files.all_steps())))
        while found is None and steps:
            step = steps.pop()
            found = self._read(step, _flatten(like))
            statuses = distributed.allgather_int(found.status)
            if _DAMAGED in statuses:
                reason = found.reason if found.status == _DAMAGED else 'for another process'
                damaged.append((step, reason))
                found = None
            elif _DIFFERENT in statuses:
                raise JaxinvError(
                    f'checkpoint {step} in {self._folder} is of another run: {found.reason}; use '
                    'the settings that it was made with, another folder, or --overwrite.'
                )
        for bad, reason in damaged:
            name = self._files.set_aside(bad)
            log(f'Checkpoint {bad} is damaged ({reason}); renamed to {name}.')
        if found is None:
            return None
        tree = _unflatten(found.arrays, like)
        restored = tree['state']
        if table is None and count < rows:
            restored = restored._replace(done=_mark_padding(restored.done, count))
        traces = {name: x[:step] for name, x in tree['traces'].items()}
        return Restored(restored, traces, tree['table'])

    def close(self) -> None:
        """Ends Orbax's threads."""
        self._files.close()

    def _read(self, step: int, like: dict) -> '_Read':
        """A checkpoint, read by this process alone.

        Raises errors of memory that does not suffice, which are not damage.
        """
        try:
            shapes = self._files.shapes(step)
            difference = _difference(shapes, like)
            if difference:
                return _Read(_DIFFERENT, difference)
            tables = {
                name: np.zeros(x.shape, x.dtype)
                for name, x in shapes.items()
                if name.startswith('table.')
            }
            arrays = self._files.restore(step, like | tables)
            # Arrays of their own buffers, which may be donated.
            arrays = {
                name: jnp.asarray(x) if name.startswith('state.') else np.array(x)
                for name, x in arrays.items()
            }
            return _Read(_READABLE, '', arrays)
        except MemoryError:
            raise
        except Exception as error:  # damaged files raise errors of many types
            if 'RESOURCE_EXHAUSTED' in str(error):
                raise
            return _Read(_DAMAGED, type(error).__name__)

    def _pad(self, rows):
        padded = np.full((self._num_steps,) + rows.shape[1:], np.nan, np.float32)
        padded[: len(rows)] = rows
        return padded


class NoCheckpoints:
    """In place of LoopCheckpoints where nothing is saved."""

    def save(self, state, traces, table=None) -> None:
        """Saves nothing."""

    def restore(self, state, metric_names, log=print, count=None, table=None) -> None:
        """None: there is no checkpoint."""

    def close(self) -> None:
        """Nothing is open."""


class _OrbaxFiles:
    """As StateFiles, but with arrays that several processes may share."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(
            folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, arrays: dict) -> bool:
        if not self._manager.save(step, args=ocp.args.StandardSave(arrays)):
            return False
        self._manager.wait_until_finished()
        if distributed.is_primary():
            # TensorStore flushes the arrays; Orbax does not flush its JSON files and the renaming.
            io.fsync_tree(self._folder / str(step), self._folder)
        return True

    def shapes(self, step: int) -> dict:
        with self._reader() as reader:
            metadata = reader.item_metadata(step).tree
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in metadata.items()}

    def restore(self, step: int, like: dict) -> dict:
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        # strict=False: axes are cut or padded with zeros.
        args = ocp.args.StandardRestore(like, strict=False)
        with self._reader() as reader:
            return reader.restore(step, args=args)

    def set_aside(self, step: int) -> str:
        path = self._folder / str(step)
        aside = path.with_name(path.name + DAMAGED)
        if distributed.is_primary() and path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.replace(aside)
        distributed.wait_for_all(f'{aside.name} renamed')
        self._manager.reload()
        return aside.name

    def close(self) -> None:
        self._manager.close()

    def _reader(self):
        """A manager of this process alone.

        Processes that read together wait for each other at the end, also for one that has failed
        on a damaged file and waits in another collective.
        """
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        options = ocp.CheckpointManagerOptions(
            create=False, read_only=True, multiprocessing_options=alone
        )
        return ocp.CheckpointManager(self._folder, options=options, item_handlers=handler)


# --- Trees as flat dicts --------------------------------------------------------------------------


def _names(tree) -> tuple[list[str], list, Any]:
    """(names, leaves, structure); a name is the path, e.g. 'state.variables.w'."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in pairs]
    return names, [leaf for _, leaf in pairs], structure


def _flatten(tree) -> dict:
    names, leaves, _ = _names(tree)
    return dict(zip(names, leaves, strict=True))


def _unflatten(arrays: dict, like):
    names, _, structure = _names(like)
    return structure.unflatten([arrays[name] for name in names])


def _difference(saved: dict, like: dict) -> str:
    """How a checkpoint's arrays differ from those expected, '' if they fit.

    The batch axis, which is as long as 'state.done', may have another length.
    """
    for names, others, verb in ((saved, like, 'has'), (like, saved, 'lacks')):
        if other := sorted(set(names) - set(others)):
            more = f' and {len(other) - 1} more' if other[1:] else ''
            return f'it {verb} {other[0]}{more}'
    rows = saved['state.done'].shape[0], like['state.done'].shape[0]
    for name, y in like.items():
        x = saved[name]
        if name.startswith('table.'):
            continue
        if x.dtype != y.dtype:
            return f'{name} is {x.dtype} in it and {y.dtype} here'
        if x.shape == y.shape:
            continue
        by_row = x.ndim == y.ndim > 0 and (x.shape[0], y.shape[0]) == rows
        if name.startswith('traces.') or not by_row or x.shape[1:] != y.shape[1:]:
            return f'{name} is {list(x.shape)} in it and {list(y.shape)} here'
    return ''


def _mark_padding(done, count: int):
    """`done` with the rows from `count` on set."""
    mark = jax.jit(lambda x: x | (jnp.arange(len(x)) >= count), out_shardings=done.sharding)
    return mark(done)
