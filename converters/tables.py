"""Weight conversion by table: every target and source exactly once, every shape checked.

A table is {target path: (source name, transform)}, paths joined by '/', transform a function of one
array. A missing, unexpected or misshapen array raises an error that names it.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxinv.converters.pickle_values import brief_name, kind_of
from jaxinv.errors import JaxinvError

Table = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


class ConversionError(JaxinvError):
    """The source is not the expected network; the message names the array or option."""


def apply(table: Table, source: Mapping[str, np.ndarray], like: Mapping) -> dict[str, np.ndarray]:
    """Flat {target path: float32 array} with the keys and shapes of the flat tree `like`.

    like: {path: anything with .shape}. Raises ConversionError naming the array.
    """
    same_names('weight', table, like)
    same_names('array', source, {name for name, _ in table.values()})
    converted = {}
    for path, (name, transform) in table.items():
        try:
            array = transform(source[name])
        except (ValueError, IndexError) as error:
            raise ConversionError(
                f'Array {name!r} of shape {list(source[name].shape)} does not fit {path}.'
            ) from error
        if np.shape(array) != tuple(like[path].shape):
            raise ConversionError(
                f'Array {name!r} gives {path} the shape {list(array.shape)}; it must be '
                f'{list(like[path].shape)}.'
            )
        converted[path] = np.array(array, np.float32, order='C')  # ascontiguousarray makes 0-d 1-d
    return converted


def same_names(kind: str, given, wanted) -> None:
    """Raises ConversionError naming up to 5 missing or unexpected names, each a `kind`."""
    missing, unexpected = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing:
        raise ConversionError(f'Missing {kind}: {", ".join(missing[:5])} ({len(missing)} in all).')
    if unexpected:
        raise ConversionError(
            f'Unexpected {kind}: {", ".join(unexpected[:5])} ({len(unexpected)} in all).'
        )


def check_floats(source: Mapping) -> None:
    """Raises ConversionError naming an entry that is no array of finite float32 values."""
    for name, array in source.items():
        if not isinstance(array, np.ndarray | np.number) or array.dtype.kind != 'f':
            what = getattr(array, 'dtype', None) or kind_of(array)
            raise ConversionError(f'Array {brief_name(name)!r} holds {what}; it must hold floats.')
        with np.errstate(over='ignore'):
            finite = np.isfinite(np.asarray(array, np.float32)).all()
        if not finite:
            raise ConversionError(f'Array {brief_name(name)!r} has values that are not finite.')
