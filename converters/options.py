"""Options of a saved network, compared with those of jaxinv's StyleGAN2."""

import math

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.pickle_values import brief


def check(owner: str, options: dict, wanted: dict) -> None:
    """Raises ConversionError naming the first option that is given and differs from `wanted`."""
    for name, value in wanted.items():
        if not same(options.get(name, value), value):
            raise tables.ConversionError(
                f'{owner} has {name} = {brief(options[name])}; only {value!r} is supported.'
            )


def same(value, wanted) -> bool:
    """True if a value from a file equals a plain one; False for arrays and objects."""
    if isinstance(wanted, list):
        given = list(value) if isinstance(value, list | tuple) else []
        return len(given) == len(wanted) and all(map(same, given, wanted))
    plain = isinstance(value, str | int | float | None | np.number | np.bool_)
    return bool(plain and value == wanted)


def clamp(value) -> float | None:
    """conv_clamp as a float, None = no limit. Raises ConversionError for other values."""
    if value is None:
        return None
    if not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise tables.ConversionError(
            f'conv_clamp is {brief(value)}, which is not a positive number.'
        )
    return float(value)
