"""Pictures of a report that lie in PNG files: read one at a time, so that no report holds all."""

import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image


class Pictures(Sequence):
    """uint8 pictures [n, h, w, 3], one PNG file each; an index reads a file, a slice reads none.

    It has the `shape` and `dtype` of the array that it stands for.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[pathlib.Path], size: tuple[int, int]):
        """size: (height, width) of every picture."""
        self.paths = [pathlib.Path(path) for path in paths]
        self.shape = (len(self.paths), *size, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Pictures(self.paths[index], self.shape[1:3])
        with PIL.Image.open(self.paths[index]) as image:
            return np.asarray(image.convert('RGB'))


def concatenate(columns: Sequence):
    """Columns [n, ...] as one: Pictures if all are, else an array."""
    if all(isinstance(column, Pictures) for column in columns):
        paths = [path for column in columns for path in column.paths]
        return Pictures(paths, columns[0].shape[1:3])
    return np.concatenate([np.asarray(column) for column in columns])
