"""Generators by name, and families of generators that files describe by their arguments.

To add one: a module with a factory that returns jaxinv.types.Generator, a line in GENERATORS, and a
function for its weights in jaxinv/weights/zoo.py. For generators that only come from files: the
module and a line in FAMILIES.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.generators import biggan_deep, records, stylegan2
from jaxinv.generators.biggan_deep import F, T
from jaxinv.generators.mobile_stylegan import mobile_stylegan
from jaxinv.text import printable
from jaxinv.types import Generator, GeneratorSpec


class Entry(NamedTuple):
    """A generator with a name of its own."""

    make: Callable[..., Generator]  # (resolution) -> Generator; without a family also COMPUTING
    resolution: int  # the default, pixels


class Family(NamedTuple):
    """Generators of one architecture in any size."""

    make: Callable[..., Generator]  # (**arguments, name=...) -> Generator; also takes COMPUTING
    arguments_of: Callable[[dict], dict]  # a record in JSON's types -> arguments; checks ranges


def _make_ffhq(resolution, **computing):
    generator = mobile_stylegan(resolution, **computing, name='mobile_stylegan_ffhq')
    return with_domain(generator, 'ffhq')


def _make_tiny(resolution, **computing):
    """A small MobileStyleGAN for tests: 32 pixels, or 64 with all wavelet bands."""
    sizes = {'channels': (32, 32, 32, 16), 'z_dim': 16, 'w_dim': 16, 'mapping_layers': 2}
    return mobile_stylegan(resolution, **sizes, **computing, name='tiny')


def _make_tiny_biggan(resolution):
    """BigGAN-deep of 32 pixels with ImageNet's number of classes, for tests."""
    layers = ((F, 16, 16), (T, 16, 8), (F, 8, 8), (T, 8, 4), (F, 4, 2), (T, 2, 1))
    sizes = {'channel_width': 8, 'z_dim': 16, 'class_embed_dim': 16, 'attention_position': 4}
    return biggan_deep.biggan_deep(resolution, layers=layers, **sizes, name='tiny_biggan')


GENERATORS = {
    'mobile_stylegan_ffhq': Entry(_make_ffhq, 512),
    'tiny': Entry(_make_tiny, 32),
    'tiny_biggan': Entry(_make_tiny_biggan, 32),
}
FAMILIES = {
    'stylegan2': Family(stylegan2.stylegan2, stylegan2.arguments_of),
    'biggan_deep': Family(biggan_deep.biggan_deep, biggan_deep.arguments_of),
}
# Arguments of families that a run may change without changing the weights, with their types.
OPTIONS = {'truncation': (int, float), 'truncation_mode': (str,)}
# Arguments of families that change precision and memory only; never part of a record.
COMPUTING = ('compute_dtype', 'remat')
MAX_NAME = 200  # characters of a name in a record


def make(name: str, resolution: int | None = None) -> Generator:
    """The generator without its weights.

    resolution: pixels; None = its default. Raises JaxinvError for an unknown name, or a resolution
    that the generator does not have.
    """
    entry = _entry(name)
    return entry.make(resolution or entry.resolution)


def _entry(name):
    if name not in GENERATORS:
        raise JaxinvError(f'Unknown generator {name!r}; known: {", ".join(GENERATORS)}.')
    return GENERATORS[name]


def record(spec: GeneratorSpec) -> dict[str, Any]:
    """The record from which `remake` makes the generator again, in JSON's types."""
    if not spec.family:
        return {'generator': spec.name, 'resolution': spec.resolution}
    return {
        'family': spec.family,
        'name': spec.name,
        'domain': spec.domain,
        'arguments': dict(spec.arguments),
    }


def remake(record: Any, resolution: int | None = None) -> Generator:
    """The generator of a `record`, which may come from a file and is not trusted.

    resolution: pixels; None = that of the record. Raises JaxinvError for other records, or a
    resolution that the generator does not have.
    """
    if not isinstance(record, dict):
        raise JaxinvError(f'A {type(record).__name__} is not the record of a generator.')
    texts = {name: record.get(name) or '' for name in ('family', 'generator', 'name', 'domain')}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_NAME:
            raise JaxinvError(
                f'The {name} in the record of a generator is not a string of at most {MAX_NAME} '
                'characters.'
            )
    if not texts['family']:
        own = record.get('resolution')
        if own is not None and (type(own) is not int or not 0 < own <= records.MAX_RESOLUTION):
            raise JaxinvError('The record of a generator has no resolution in pixels.')
        return make(texts['generator'], resolution or own)
    if texts['family'] not in FAMILIES:
        raise JaxinvError(
            f'The record of a generator has the unknown family {texts["family"]!r}; known: '
            f'{", ".join(FAMILIES)}.'
        )
    family = FAMILIES[texts['family']]
    arguments = family.arguments_of(record.get('arguments'))
    generator = family.make(name=printable(texts['name']), **arguments)
    check_resolution(generator, resolution)
    return with_domain(generator, printable(texts['domain']))


def check_resolution(generator: Generator, resolution: int | None) -> None:
    """Raises JaxinvError if `resolution` is neither None nor the generator's."""
    spec = generator.spec
    if resolution not in (None, spec.resolution):
        raise JaxinvError(
            f'{spec.name} makes images of {spec.resolution} pixels, not {resolution}; leave the '
            'resolution out.'
        )


def with_domain(generator: Generator, domain: str) -> Generator:
    """The generator with another GeneratorSpec.domain."""
    return generator._replace(spec=dataclasses.replace(generator.spec, domain=domain))


@functools.lru_cache(maxsize=8)  # equal results share compiled programs
def with_computing(generator: Generator, dtype: str = 'float32', remat: bool = False) -> Generator:
    """The generator in another precision, or with less memory for gradients; same weights.

    dtype: of feature maps, 'float32' or 'bfloat16'; parameters, images and losses stay float32.
    remat: gradients recompute each block and keep only the features between blocks (nn/remat.py).
    Call it after `with_options`. Raises JaxinvError for other values.
    """
    if dtype not in ('float32', 'bfloat16'):
        raise JaxinvError(f"compute_dtype is {dtype!r}; it can be 'float32' or 'bfloat16'.")
    if not isinstance(remat, bool):
        raise JaxinvError(f'remat is {remat!r}; it can be True or False.')
    spec = generator.spec
    if (dtype, remat) == ('float32', False) and spec.compute_dtype is None:
        return generator
    computing = {'compute_dtype': None if dtype == 'float32' else dtype, 'remat': remat}
    if spec.family:
        other = with_options(generator, **computing)
    else:
        other = with_domain(_entry(spec.name).make(spec.resolution, **computing), spec.domain)
    made = dataclasses.replace(other.spec, compute_dtype=computing['compute_dtype'])
    return other._replace(spec=made)


@functools.lru_cache(maxsize=8)  # equal results share compiled programs
def with_options(generator: Generator, **options) -> Generator:
    """The generator with other arguments of its family that do not change its weights.

    For example truncation and truncation_mode of BigGAN. Call it before `with_label`. Raises
    JaxinvError for options that the family does not have.
    """
    if not options:
        return generator
    spec = generator.spec
    arguments = dict(spec.arguments)
    unknown = [name for name in options if name not in (*arguments, *COMPUTING)]
    if unknown:
        raise JaxinvError(
            f'{spec.name} has no {unknown[0]}; it has {", ".join(arguments) or "no options"}.'
        )
    other = FAMILIES[spec.family].make(name=spec.name, **arguments | options)
    return with_domain(other, spec.domain)


@functools.lru_cache(maxsize=8)  # equal results share compiled programs
def with_label(generator: Generator, label: int | None) -> Generator:
    """The generator of one class: its `map` takes no label.

    label: None for a generator without classes. Raises JaxinvError for a class that it does not
    have, or if it has classes and label is None.
    """
    spec = generator.spec
    if not spec.label_dim and label is None:
        return generator
    if not spec.label_dim:
        raise JaxinvError(f'label is {label}, but {spec.name} has no classes; leave it out.')
    if label is None or not 0 <= label < spec.label_dim:
        raise JaxinvError(
            f'{spec.name} has {spec.label_dim} classes and label is {label}; choose one by '
            f'--config.label=0 ... {spec.label_dim - 1}.'
        )

    def map_(weights, z):
        one_hot = jax.nn.one_hot(jnp.full([len(z)], label), spec.label_dim)
        return generator.map(weights, z, one_hot)

    return generator._replace(spec=dataclasses.replace(spec, label_dim=0), map=map_)
