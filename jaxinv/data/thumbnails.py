"""Small pictures within a page: JPEG data URIs, and a table of them for notebooks."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import markupsafe
import numpy as np
import PIL.Image

from jaxinv.pixels import to_uint8
from jaxinv.text import printable

SIZE = 192  # pixels of a thumbnail at most
MAX_ROWS, MAX_COLUMNS = 24, 12
MAX_BYTES = 2e6  # of all thumbnails of a table, roughly
MAX_LABEL = 60  # characters


def data_uri(image: PIL.Image.Image, size: int) -> str:
    """The picture as JPEG, of at most `size` pixels a side."""
    if max(image.size) > size:
        scale = size / max(image.size)
        shape = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(shape, PIL.Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=88, optimize=True)
    return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def table(names: Sequence[str], columns: dict[str, Any]) -> markupsafe.Markup:
    """HTML of a row for each name and a column for each label.

    columns: {label: images [n, h, w, 3]}, uint8 or float in about [-1, 1]. At most MAX_ROWS rows
    and MAX_COLUMNS columns are shown, with a line that says so, in sizes that keep
    photographs below MAX_BYTES. Names and labels are escaped.
    """
    labels, rows = list(columns)[:MAX_COLUMNS], min(len(names), MAX_ROWS)
    budget = MAX_BYTES / max(1, rows * len(labels))
    # A JPEG of a face at quality 88 takes about 0.2 bytes a pixel, 4/3 of that in base64.
    size = next((s for s in (SIZE, 128, 96) if 0.27 * s * s <= budget), 64)
    head = [_HEAD.format(_shown(label)) for label in ('', *labels)]
    body = []
    for i in range(rows):
        cells = [_cell(columns[label][i], f'{label} of {names[i]}', size) for label in labels]
        body.append(_ROW.format(_shown(names[i]), _join(cells)))
    left_out = []
    if len(names) > rows:
        left_out.append(f'{rows} of {len(names)} pictures')
    if len(columns) > len(labels):
        left_out.append(f'{len(labels)} of {len(columns)} columns')
    note = _NOTE.format(', '.join(left_out)) if left_out else ''
    return _TABLE.format(_join(head), _join(body), note)


# Inline styles: a notebook's page has its own style sheet, and the colours of its theme.
_TABLE = markupsafe.Markup(
    '<div style="overflow-x: auto"><table style="border-collapse: collapse"><thead><tr>{}</tr>'
    '</thead><tbody>{}</tbody></table>{}</div>'
)
_HEAD = markupsafe.Markup(
    '<th style="text-align: center; padding: 2px 4px; font-weight: 600">{}</th>'
)
_ROW = markupsafe.Markup(
    '<tr><th style="text-align: right; padding: 2px 6px; max-width: 14em; '
    'overflow-wrap: break-word; font-weight: 600">{}</th>{}</tr>'
)
_CELL = markupsafe.Markup(
    '<td style="padding: 2px"><img src="{}" alt="{}" style="max-width: none; display: block"></td>'
)
_TEXT = markupsafe.Markup('<td style="padding: 2px">{}</td>')
_NOTE = markupsafe.Markup('<p>Shown: {}.</p>')


def _cell(image, label, size):
    image = np.asarray(image)
    if image.dtype != np.uint8:
        if not np.isfinite(image).all():
            return _TEXT.format('not finite')
        image = to_uint8(image)
    uri = data_uri(PIL.Image.fromarray(np.ascontiguousarray(image)), size)
    return _CELL.format(uri, _shown(label))


def _shown(text):
    return printable(text, MAX_LABEL)


def _join(parts):
    return markupsafe.Markup('').join(parts)
