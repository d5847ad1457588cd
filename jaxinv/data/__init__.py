"""Photographs to targets: found, read, aligned or cropped, named."""

from jaxinv.data.discover import find
from jaxinv.data.targets import (
    WITH_FACES,
    DataError,
    NoImages,
    Row,
    Targets,
    Way,
    collect,
    find_for,
    load,
    load_for,
    load_targets,
    nothing_left,
    read,
    read_all,
    way_for,
)

__all__ = [
    'WITH_FACES', 'DataError', 'NoImages', 'Row', 'Targets', 'Way', 'collect', 'find', 'find_for', 'load',
    'load_for', 'load_targets', 'nothing_left', 'read', 'read_all', 'way_for',
]  # fmt: skip
