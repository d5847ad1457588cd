"""Generators on disk.

generator.safetensors   flat weights; header: the record that makes the generator again
                        (generators.record), its origin, and a hash of the arrays
generator.json          the header as JSON
orbax/                  the weights for Orbax; read together with generator.json
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv import generators
from jaxinv.errors import JaxinvError
from jaxinv.io import write_atomically
from jaxinv.types import Generator, Weights
from jaxinv.weights import zoo

GENERATOR_FILE = 'generator.safetensors'
SIDECAR = 'generator.json'
ORBAX_FOLDER = 'orbax'


def write(
    file: pathlib.Path, generator: Generator, weights: Weights, about: dict[str, Any] | None = None
) -> None:
    """Writes the .safetensors file. about: the generator's origin, in JSON's types."""
    flat = {k: np.array(v, order='C') for k, v in flatten_dict(weights, sep='/').items()}
    metadata = {
        'jaxinv': json.dumps(generators.record(generator.spec)),
        'about': json.dumps(about or {}),
        'sha256': zoo.digest(flat),
    }
    write_atomically(file, safetensors.numpy.save(flat, metadata))


def write_sidecar(file: pathlib.Path, generator: Generator, about: dict[str, Any] | None = None):
    """Writes the header as JSON."""
    record = {'jaxinv': generators.record(generator.spec), 'about': about or {}}
    write_atomically(file, (json.dumps(record, indent=1) + '\n').encode())


def write_orbax(
    folder: pathlib.Path,
    generator: Generator,
    weights: Weights,
    about: dict[str, Any] | None = None,
) -> None:
    """Writes folder/orbax and folder/generator.json."""
    write_sidecar(folder / SIDECAR, generator, about)
    # By default Orbax waits for all processes at a barrier; only this one writes.
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(own, {own}, f'process_{own}')
    weights = jax.tree.map(np.asarray, weights)
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save((folder / ORBAX_FOLDER).absolute(), weights, force=True)


def is_ours(file: pathlib.Path) -> bool:
    """True if a .safetensors file was written by `write`. Raises JaxinvError if unreadable."""
    return 'jaxinv' in _open(file, lambda reader: reader.metadata() or {})


def read(
    file: pathlib.Path, resolution: int | None = None
) -> tuple[Generator, Weights, dict[str, Any]]:
    """(generator, weights, about) of a file by `write`.

    resolution: pixels, None = the saved one. Raises JaxinvError if the file is another one, is
    damaged, or does not fit the generator in its header.
    """
    metadata, flat = _open(
        file,
        lambda reader: (
            reader.metadata() or {},
            {key: reader.get_tensor(key) for key in reader.keys()},  # noqa: SIM118
        ),
    )
    if 'sha256' in metadata and metadata['sha256'] != zoo.digest(flat):
        raise JaxinvError(f'{file} is damaged: its arrays do not have the SHA-256 in its header.')
    generator = generators.remake(_json(file, metadata.get('jaxinv', 'null')), resolution)
    return generator, _fitted(str(file), generator, flat), _json(file, metadata.get('about', '{}'))


def read_orbax(
    folder: pathlib.Path, resolution: int | None = None
) -> tuple[Generator, Weights, dict[str, Any]]:
    """(generator, weights, about) of a folder by `write_orbax`. Raises JaxinvError like `read`."""
    header = _json(folder / SIDECAR, (folder / SIDECAR).read_text(encoding='utf-8'))
    if not isinstance(header, dict):
        raise JaxinvError(f'{folder / SIDECAR} is not the record of a generator.')
    generator = generators.remake(header.get('jaxinv'), resolution)
    shapes = _shapes(str(folder / SIDECAR), generator)
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, shapes)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            weights = checkpointer.restore((folder / ORBAX_FOLDER).absolute(), like)
    except Exception as error:  # Orbax raises many types for damaged files
        raise JaxinvError(
            f'{folder / ORBAX_FOLDER} is damaged or not this generator ({type(error).__name__}).'
        ) from None
    return generator, weights, header.get('about', {})


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


def _open(file, read_all):
    try:
        with safetensors.safe_open(file, 'numpy') as reader:
            return read_all(reader)
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise JaxinvError(f'{file} is not a readable safetensors file ({error}).') from None


def _json(file, text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JaxinvError(f'{file} has a damaged header ({str(error)[:80]}).') from None


def _fitted(source, generator, flat):
    expected = flatten_dict(_shapes(source, generator), sep='/')
    check_same_shapes(source, flat, expected)
    return unflatten_dict({name: jnp.asarray(flat[name]) for name in expected}, sep='/')


def _shapes(source, generator):
    try:
        return jax.eval_shape(generator.init, jax.random.key(0))
    except (TypeError, ValueError, ArithmeticError) as error:  # the header is not trusted
        reason = ' '.join(str(error).split())[:100]
        raise JaxinvError(f'{source} describes an impossible generator ({reason}).') from None
