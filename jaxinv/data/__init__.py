"""Photographs to targets: find, read, align or crop, and name them."""

from jaxinv.data.loader import (
    ALIGNED_DOMAINS,
    align_options,
    find,
    find_for,
    load,
    load_for,
    load_images,
    nothing_left,
)
from jaxinv.data.reader import read, read_all
from jaxinv.data.targets import (
    AlignOptions,
    DataError,
    NoImages,
    Target,
    Targets,
    collect,
)

__all__ = [
    'ALIGNED_DOMAINS', 'AlignOptions', 'DataError', 'NoImages', 'Target', 'Targets',
    'align_options', 'collect', 'find', 'find_for', 'load', 'load_for', 'load_images',
    'nothing_left', 'read', 'read_all',
]  # fmt: skip
