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
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv import generators
from jaxinv.converters import array_files, file_view
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, write_atomically
from jaxinv.types import Generator, Weights
from jaxinv.weights import zoo

GENERATOR_FILE = 'generator.safetensors'
SIDECAR = 'generator.json'
ORBAX_FOLDER = 'orbax'


def write(
    file: pathlib.Path, generator: Generator, weights: Weights, about: dict[str, Any] | None = None
) -> None:
    """Writes the .safetensors file. about: the generator's origin, in JSON's types."""
    flat = {k: np.asarray(v, order='C') for k, v in flatten_dict(weights, sep='/').items()}
    metadata = {
        'jaxinv': json.dumps(generators.record(generator.spec)),
        'about': json.dumps(about or {}),
        'sha256': zoo.digest(flat),
    }
    with atomic_path(file) as scratch:  # without a copy of all arrays in memory
        safetensors.numpy.save_file(flat, scratch, metadata)


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
    return 'jaxinv' in array_files.read_metadata(file)


def read(
    file: pathlib.Path, resolution: int | None = None
) -> tuple[Generator, Weights, dict[str, Any]]:
    """(generator, weights, about) of a file by `write`.

    resolution: pixels, None = the saved one. Raises JaxinvError if the file is another one, is
    damaged, or does not fit the generator in its header.
    """
    flat, metadata = array_files.read(file)
    if 'sha256' in metadata and metadata['sha256'] != zoo.digest(flat):
        raise JaxinvError(f'{file} is damaged: its arrays do not have the SHA-256 in its header.')
    record = _json(file, metadata.get('jaxinv', 'null'))
    with file_view.reading(file, 'a generator of jaxinv'):
        generator = generators.remake(record, resolution)
    about = _about(file, _json(file, metadata.get('about', '{}')))
    return generator, _fitted(str(file), generator, flat), about


def read_orbax(
    folder: pathlib.Path, resolution: int | None = None
) -> tuple[Generator, Weights, dict[str, Any]]:
    """(generator, weights, about) of a folder by `write_orbax`. Raises JaxinvError like `read`."""
    header = file_view.read_json(folder / SIDECAR, 'the record of a generator')
    if not isinstance(header, dict):
        raise JaxinvError(f'{folder / SIDECAR} is not the record of a generator.')
    with file_view.reading(folder / SIDECAR, 'the record of a generator'):
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
    return generator, weights, _about(folder / SIDECAR, header.get('about', {}))


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


def _json(file, text):
    with file_view.reading(file, 'a generator of jaxinv with a sound header'):
        return json.loads(text)


_TEXTS = ('kind', 'address', 'file', 'sha256', 'base')


def _about(file, about):
    """The origin in a header: printable strings, and types as `open_generator` promises."""
    with file_view.reading(file, 'a generator of jaxinv with a sound header'):
        about = file_view.plain(about)
        if not isinstance(about, dict) or not isinstance(about.get('origin', {}), dict):
            raise ValueError('the origin is not an object')
        for owner in (about, about.get('origin', {})):
            notes = owner.get('notes', [])
            texts = [owner[name] for name in _TEXTS if name in owner]
            if not isinstance(notes, list) or not all(isinstance(x, str) for x in texts + notes):
                raise ValueError('a part of the origin is not a string')
        return about


def _fitted(source, generator, flat):
    expected = flatten_dict(_shapes(source, generator), sep='/')
    check_same_shapes(source, flat, expected)
    return unflatten_dict({name: jnp.array(flat[name], copy=True) for name in expected}, sep='/')


def _shapes(source, generator):
    with file_view.reading(source, 'a generator that can be made'):
        return jax.eval_shape(generator.init, jax.random.key(0))
