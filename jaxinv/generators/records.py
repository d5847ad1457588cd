"""Records of generators from files, checked against a schema before a generator is made."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxinv.errors import JaxinvError
from jaxinv.text import printable

MAX_RESOLUTION = 8192  # pixels
MAX_SIZE = 2**14  # channels, or numbers of z, w and embeddings
MAX_CLASSES = 2**17
MAX_LAYERS = 64


class Field(NamedTuple):
    """What an argument of a family may be. Numbers are from `low` to `high`."""

    kind: type  # int, float (also takes int), bool or str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()  # of a str
    length: int = 0  # > 0: a list of at most so many of these
    optional: bool = False  # may be missing or null

    def allows(self, value: Any) -> bool:
        if self.length:
            listed = isinstance(value, list | tuple) and 0 < len(value) <= self.length
            return listed and all(map(self._replace(length=0).allows, value))
        kinds = (int, float) if self.kind is float else (self.kind,)
        if type(value) not in kinds:
            return False
        if self.kind is str:
            return value in self.choices
        return self.kind is bool or self.low <= value <= self.high  # False for NaN

    def describe(self) -> str:
        if self.kind is str:
            one = ' or '.join(self.choices)
        elif self.kind is bool:
            one = 'true or false'
        else:
            one = f'a {"whole " if self.kind is int else ""}number from {self.low} to {self.high}'
        return f'a list of 1 to {self.length}, each {one}' if self.length else one


def parse(arguments: Any, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The arguments of a record, as they are, without those that are null and optional.

    Raises JaxinvError naming the argument that is missing, unknown, or of another type or range.
    """
    if not isinstance(arguments, dict):
        raise JaxinvError('The record of the generator has no arguments.')
    for name in arguments:
        if name not in fields:
            raise JaxinvError(
                f'The record of the generator has the unknown argument {printable(name, 40)!r}.'
            )
    for name, field in fields.items():
        value = arguments.get(name)
        if value is None and field.optional:
            continue
        if not field.allows(value):
            shown = printable(repr(value), 40) if not isinstance(value, list | dict) else 'another'
            raise JaxinvError(
                f'The record of the generator has {name} = {shown}; it must be {field.describe()}.'
            )
    return {k: v for k, v in arguments.items() if v is not None}
