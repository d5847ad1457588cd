"""What is kept on disk: the loop's state (Orbax) and generators (Orbax and safetensors).

Nothing here is a pickle, neither written nor read.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy

from converters.tables import flatten, unflatten
from jaxinv import generators
from jaxinv.errors import JaxinvError
from jaxinv.optimize import LoopState
from jaxinv.types import Generator, Weights

GENERATOR_FILE = 'generator.safetensors'
ORBAX_FOLDER = 'orbax'


class LoopCheckpoints:
    """The last two chunks of a loop; a half-written one is never seen (Orbax renames)."""

    def __init__(self, folder: pathlib.Path, num_steps: int):
        self._num_steps = num_steps
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: LoopState, traces: dict[str, np.ndarray]) -> None:
        tree = {'state': state._asdict(), 'traces': self._padded(traces)}
        self._manager.save(int(state.step), args=ocp.args.StandardSave(tree))
        self._manager.wait_until_finished()

    def restore(self, state: LoopState, metric_names, log=print):
        """(state, traces) of the newest readable checkpoint, or None. `state` gives the shapes."""
        rows = np.zeros((self._num_steps,) + state.done.shape, np.float32)
        like = {'state': state._asdict(), 'traces': dict.fromkeys(metric_names, rows)}
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self._manager.restore(step, args=ocp.args.StandardRestore(like))
            except Exception as error:  # whatever a damaged file makes the reader raise
                log(
                    f'Checkpoint {step} is damaged ({type(error).__name__}); trying the one before.'
                )
                continue
            # A fresh process places restored arrays anew, so that they may be donated.
            restored = LoopState(**jax.tree.map(jax.numpy.asarray, tree['state']))
            return restored, {k: np.asarray(v)[:step] for k, v in tree['traces'].items()}
        return None

    def close(self) -> None:
        self._manager.close()

    def _padded(self, traces):
        def pad(rows):
            padded = np.full((self._num_steps,) + rows.shape[1:], np.nan, np.float32)
            padded[: len(rows)] = rows
            return padded

        return {name: pad(rows) for name, rows in traces.items()}


def save_generator(folder: pathlib.Path, generator: Generator, weights: Weights) -> None:
    """Writes generator.safetensors (its header names the generator) and an Orbax copy beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {'generator': generator.spec.name, 'resolution': generator.spec.resolution}
    flat = {k: np.array(v, order='C') for k, v in flatten(weights).items()}
    partial = folder / (GENERATOR_FILE + '.partial')
    safetensors.numpy.save_file(flat, partial, metadata={'jaxinv': json.dumps(spec)})
    partial.chmod(0o644)  # safetensors makes files that only their owner can read
    partial.replace(folder / GENERATOR_FILE)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / ORBAX_FOLDER).absolute(), weights, force=True)


def load_generator(path_or_name, resolution: int | None = None) -> tuple[Generator, Weights]:
    """Loads a generator by name, from a work folder, or from a saved generator.

    path_or_name: a name in generators.GENERATORS; a work folder; a folder
    written by `save_generator`, its .safetensors file, or the Orbax folder beside that.
    resolution: pixels, where the generator offers several; None = its default or the saved one.
    Returns (generator, weights): see types.Generator. Raises JaxinvError with what was looked for.
    """
    if path_or_name in generators.GENERATORS:
        return generators.load(path_or_name, resolution)
    path = pathlib.Path(path_or_name)
    candidates = [path, path / GENERATOR_FILE, path / 'generator' / GENERATOR_FILE]
    candidates.append(path.parent / GENERATOR_FILE if path.name == ORBAX_FOLDER else path)
    for file in candidates:
        if file.is_file():
            return _read_generator(file, resolution)
    several = sorted(p.parent.name for p in path.glob(f'generators/*/{GENERATOR_FILE}'))
    if several:
        raise JaxinvError(
            f'{path} holds one generator per identity ({", ".join(several)}); '
            f'load one of them, e.g. {path}/generators/{several[0]}.'
        )
    raise JaxinvError(
        f'{path_or_name!r} is neither a generator ({", ".join(sorted(generators.GENERATORS))}) '
        f'nor a folder or file with {GENERATOR_FILE}; check the spelling.'
    )


def _read_generator(file: pathlib.Path, resolution) -> tuple[Generator, Weights]:
    try:
        with safetensors.safe_open(file, 'numpy') as reader:
            metadata = json.loads((reader.metadata() or {}).get('jaxinv', 'null'))
            flat = {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise JaxinvError(f'{file} is not a readable safetensors file ({error}).') from None
    if not isinstance(metadata, dict) or metadata.get('generator') not in generators.GENERATORS:
        raise JaxinvError(
            f'{file} does not say which generator it is for; only files that jaxinv wrote can be '
            'loaded this way.'
        )
    generator = generators.make(metadata['generator'], resolution or metadata['resolution'])
    expected = flatten(jax.eval_shape(generator.init, jax.random.key(0)))
    check_same_shapes(str(file), flat, expected)
    return generator, unflatten({name: jax.numpy.asarray(flat[name]) for name in expected})


def check_same_shapes(source: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises JaxinvError naming every missing, unexpected or misshapen key."""
    problems = [f'missing {k}' for k in sorted(expected.keys() - found.keys())]
    problems += [f'unexpected {k}' for k in sorted(found.keys() - expected.keys())]
    problems += [
        f'{k} is {tuple(found[k].shape)} instead of {tuple(expected[k].shape)}'
        for k in sorted(expected.keys() & found.keys())
        if tuple(found[k].shape) != tuple(expected[k].shape)
    ]
    if problems:
        raise JaxinvError(f'{source} does not fit the generator: {"; ".join(problems)}.')
