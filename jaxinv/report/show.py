"""Photograph, reconstruction and edits side by side, for notebooks.

jaxinv.show(targets, images, {'smile=1.2': smiling})
"""

import html
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinv.data import Targets, images, thumbnails
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded, write_atomically
from jaxinv.pixels import to_uint8
from jaxinv.report import grid as grid_lib
from jaxinv.text import printable

PHOTOGRAPH, RECONSTRUCTION = 'photograph', 'reconstruction'
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
</head>
<body style="font: 14px system-ui, sans-serif">
{table}
</body>
</html>
"""


class Shown:
    """Pictures in columns, a row for each name; what `show` returns. Nothing is drawn before it
    is asked for."""

    def __init__(self, names: tuple[str, ...], columns: dict[str, Any]):
        """columns: {label: images [n, h, w, 3]}, uint8 or float in about [-1, 1]."""
        self.names, self.columns = names, columns

    def __repr__(self) -> str:
        names = ', '.join(printable(name, 40) for name in self.names[:3])
        more = ', ...' if len(self.names) > 3 else ''
        labels = ' | '.join(printable(label, 40) for label in self.columns)
        return f'Shown({names}{more}: {labels})'

    def _repr_html_(self) -> str:
        return str(thumbnails.table(self.names, self.columns))

    def save(self, path) -> pathlib.Path:
        """Writes the pictures and returns the path.

        path: ends in .html (thumbnails, as in the notebook), or in .png, .jpg or .webp: one picture
        of all columns, in full size. Raises JaxinvError for other endings.
        """
        path = expanded(path)
        if path.suffix.lower() == '.html':
            title = html.escape(printable(', '.join(self.names), 80))
            write_atomically(path, _PAGE.format(title=title, table=self._repr_html_()))
        elif path.suffix.lower() in ('.png', '.jpg', '.jpeg', '.webp'):
            rows = [
                [_picture(column[i]) for column in self.columns.values()]
                for i in range(len(self.names))
            ]
            labels = [printable(label, 60) for label in self.columns]
            names = [printable(name, 60) for name in self.names]
            images.save(path, grid_lib.grid(rows, names, labels))
        else:
            raise JaxinvError(f'{path} should end in .html, .png, .jpg or .webp.')
        return path


def show(targets, images=None, edits: Mapping[str, Any] | None = None) -> Shown:
    """Photographs, reconstructions and edits in columns, which a notebook draws.

    targets: what `load_images` returned, or images [n, h, w, 3]; images: of `render`, None = none;
    edits: {label: images}, e.g. {'smile=1.2': ...}. All images are uint8 or float in about [-1, 1].

    The result draws thumbnails, a few megabytes at most; `.save('a.png')` or `.save('a.html')`
    writes a file. Raises JaxinvError where the numbers of images differ.
    """
    known = isinstance(targets, Targets)
    photographs = _checked(PHOTOGRAPH, targets.images_uint8 if known else targets)
    names = tuple(targets.names) if known else tuple(map(str, range(1, len(photographs) + 1)))
    columns = {PHOTOGRAPH: photographs}
    given = {} if images is None else {RECONSTRUCTION: images}
    for label, column in (given | dict(edits or {})).items():
        columns[str(label)] = _checked(label, column)
        if len(column) != len(names):
            raise JaxinvError(
                f'{label} has {len(column)} images for {len(names)} targets; give one for each.'
            )
    return Shown(names, columns)


def _checked(label, column):
    shape = np.shape(column)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise JaxinvError(f'{label} has the shape {list(shape)}; images are [n, h, w, 3].')
    return column


def _picture(image):
    image = np.asarray(image)
    return image if image.dtype == np.uint8 else to_uint8(image)
