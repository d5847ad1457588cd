"""Targets: what an inversion reproduces, as arrays with names and sources."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxinv.data import crop, discover, thumbnails
from jaxinv.errors import JaxinvError
from jaxinv.pixels import to_float

FACES = ('largest', 'all')
ALIGN = ('face', 'none')


class DataError(JaxinvError):
    """Targets cannot be made with these options."""


class NoImages(DataError):
    """No picture can be used. The message is one sentence that names the request."""


class AlignOptions(NamedTuple):
    """How pictures become targets; see load_images."""

    resolution: int  # pixels a side, at least 1
    faces: str = 'largest'  # of FACES
    aligned: bool = False
    align: str = 'face'  # of ALIGN
    fit: str = 'crop'  # see jaxinv/data/crop.py
    # ((name of a file, (1, 3)), ...) of the faces to take with faces='all'; None = all.
    chosen: tuple[tuple[str, tuple[int, ...]], ...] | None = None


def check(options: AlignOptions) -> None:
    """Raises DataError for options that are not allowed, JaxinvError for `fit`."""
    if options.align not in ALIGN:
        raise DataError(f"data.align is {options.align!r}; it can be 'auto', 'face' or 'none'.")
    crop.check(options.fit)
    if options.faces not in FACES:
        raise DataError(f"data.faces is {options.faces!r}; it can be 'largest' or 'all'.")
    if options.resolution < 1:
        raise DataError(f'resolution is {options.resolution}; it must be at least 1.')


class Target(NamedTuple):
    """One target, not yet named; see Targets for the fields."""

    stem: str  # of the picture's file; the name before it is made unique
    image_uint8: np.ndarray  # [h, w, 3]
    mask: np.ndarray  # bool [h, w], False on padding
    source: dict


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Targets:
    """Targets of one resolution. `names`, `images_uint8`, `sources` and `valid` go together."""

    names: list[str]  # unique, also without case, and safe as file names
    images_uint8: np.ndarray  # [n, h, w, 3]
    # {'file', 'sha256' of its bytes, 'warning': None or a sentence,
    #  'face': None if not aligned here, else {'index', 'count', 'box', 'quad', 'side', 'score'}}
    sources: list[dict]
    skipped: list[dict]  # {'file', 'reason'} of each picture that cannot be used
    # float32 [n, h, w, 1]: 1 on the picture, 0 on padding; None = no padding anywhere
    valid: np.ndarray | None = None

    @property
    def images(self) -> np.ndarray:
        """float32 [n, h, w, 3] in [-1, 1], on the host."""
        return to_float(self.images_uint8, np)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        height, width = self.images_uint8.shape[1:3]
        shown = ', '.join(self.names[:3]) + (', ...' if len(self) > 3 else '')
        skipped = f', {len(self.skipped)} skipped' if self.skipped else ''
        return f'Targets({len(self)} of {width} x {height} pixels: {shown}{skipped})'

    def _repr_html_(self) -> str:
        return str(thumbnails.table(self.names, {'photograph': self.images_uint8}))

    def select(self, indices: Sequence[int], names: list[str] | None = None) -> 'Targets':
        """The targets at `indices` [m], in this order, under other `names` if these are given."""
        return Targets(
            [self.names[i] for i in indices] if names is None else names,
            self.images_uint8[indices],
            [self.sources[i] for i in indices],
            self.skipped,
            None if self.valid is None else self.valid[indices],
        )


def collect(targets: Sequence[Target], skipped: list[dict]) -> Targets:
    """Stacks one or more targets and makes their names unique."""
    valid = np.stack([target.mask[..., None].astype(np.float32) for target in targets])
    return Targets(
        discover.unique_names([target.stem for target in targets]),
        np.stack([target.image_uint8 for target in targets]),
        [target.source for target in targets],
        skipped,
        None if valid.all() else valid,
    )
