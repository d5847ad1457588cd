"""Photographs to targets: found, read, aligned or cropped, named."""

from jaxinv.data.discover import find
from jaxinv.data.targets import (
    WITH_FACES,
    AlignOptions,
    DataError,
    NoImages,
    Target,
    Targets,
    align_options,
    collect,
    find_for,
    load,
    load_for,
    load_targets,
    nothing_left,
    read,
    read_all,
)

__all__ = [
    'WITH_FACES', 'DataError', 'NoImages', 'Target', 'Targets', 'AlignOptions', 'collect', 'find', 'find_for', 'load',
    'load_for', 'load_targets', 'nothing_left', 'read', 'read_all', 'align_options',
]  # fmt: skip
