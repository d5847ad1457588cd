"""Any StyleGAN2 checkpoint -> its generator's arguments and weights, by what the file holds.

The name and the ending of a file are not looked at. Nothing in it is executed (safe_pickle.py).
"""

import pathlib
from typing import NamedTuple

import jax
import numpy as np
import safetensors.numpy

from converters import safe_pickle, stylegan2, tables
from jaxinv.generators import stylegan2 as generator


class Checkpoint(NamedTuple):
    """A generator as found in a file."""

    kind: str  # who writes such files, e.g. 'rosinality state dict'
    arguments: dict  # of jaxinv.generators.stylegan2.stylegan2, all but `name`
    flat: dict[str, np.ndarray]  # 'params/synthesis/b4/const' ...; maybe without 'buffers/w_avg'
    notes: tuple[str, ...]  # sentences: what was taken, what was left out and why


def read(path, *, which: str = 'G_ema') -> Checkpoint:
    """The generator in the file; which: 'G_ema', the averaged weights, or 'G', those of the step.

    Raises safe_pickle.UnsafePickle or tables.ConversionError with one sentence.
    """
    path = pathlib.Path(path)
    head = path.open('rb').read(9)
    if head[:4] == b'PK\x03\x04' and path.suffix == '.npz':
        with np.load(path) as file:
            source = dict(file)
    elif head[8:] == b'{':
        source = safetensors.numpy.load_file(path)
    else:
        source = safe_pickle.load(path)
    if 'g_ema' in source:
        source = source[which.lower()] | (
            {'latent_avg': source['latent_avg']} if 'latent_avg' in source else {}
        )
    if 'synthesis.b4.const' in source:
        kind, arguments = 'stylegan2-ada-pytorch state dict', stylegan2.nvidia_arguments(source)
        convert, average = stylegan2.convert_nvidia, 'mapping.w_avg'
    else:
        kind, arguments = 'rosinality state dict', stylegan2.rosinality_arguments(source)
        convert, average = stylegan2.convert_rosinality, 'latent_avg'
    model = generator.stylegan2(**arguments)
    like = tables.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    if average not in source:
        del like['buffers/w_avg']
    return Checkpoint(kind, arguments, convert(source, like), ())
