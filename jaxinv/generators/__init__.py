"""Generators by name.

To add one: a module with a factory that returns jaxinv.types.Generator, a function that reads its
real weights, and a line in GENERATORS.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxinv.errors import JaxinvError
from jaxinv.generators import pretrained
from jaxinv.generators.mobile_stylegan import mobile_stylegan
from jaxinv.types import Generator, Weights


class Entry(NamedTuple):
    make: Callable[..., Generator]  # (resolution) -> Generator
    load: Callable[..., Weights]  # (generator) -> weights
    resolution: int  # the default


def _make_ffhq(resolution):
    return mobile_stylegan(resolution, name='mobile_stylegan_ffhq')


def _make_tiny(resolution):
    """The same family, small enough for tests: 32 pixels, or 64 with all wavelet bands."""
    return mobile_stylegan(
        resolution, channels=(32, 32, 32, 16), z_dim=16, w_dim=16, mapping_layers=2, name='tiny'
    )


def _random_weights(generator):
    return jax.jit(generator.init)(jax.random.key(0))


GENERATORS = {
    'mobile_stylegan_ffhq': Entry(_make_ffhq, pretrained.mobile_stylegan_ffhq, 512),
    'tiny': Entry(_make_tiny, _random_weights, 32),
}


def make(name: str, resolution: int | None = None) -> Generator:
    """The generator without its weights; None = its default resolution.

    Raises JaxinvError for an unknown name or a resolution it cannot make.
    """
    entry = _entry(name)
    return entry.make(resolution or entry.resolution)


def load(name: str, resolution: int | None = None) -> tuple[Generator, Weights]:
    """The generator and its trained weights ('tiny': seeded random ones)."""
    generator = make(name, resolution)
    return generator, _entry(name).load(generator)


def _entry(name):
    if name not in GENERATORS:
        raise JaxinvError(f'Unknown generator {name!r}; known: {", ".join(GENERATORS)}.')
    return GENERATORS[name]
