"""What notebooks show of a result without pictures: its last numbers, and how to see it."""

from collections.abc import Mapping, Sequence

import markupsafe
import numpy as np

from jaxinv.text import printable

MAX_ROWS = 24
_TABLE = markupsafe.Markup(
    '<p>{}</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table><p>{}</p>'
)
_HEAD, _CELL = markupsafe.Markup('<th>{}</th>'), markupsafe.Markup('<td>{}</td>')
_ROW = markupsafe.Markup('<tr>{}</tr>')
_CODE = markupsafe.Markup('Pictures: <code>{}</code>')


def table(
    title: str, names: Sequence[str], history: Mapping[str, np.ndarray], pictures: str
) -> str:
    """HTML of the last finite value of each curve [steps, n] or [steps].

    names: of the identities, () = numbers; pictures: the call that shows them.
    """
    curves = {key: np.asarray(values, np.float64) for key, values in history.items()}
    counts = [values.shape[1] for values in curves.values() if values.ndim == 2]
    names = list(names) or [str(i + 1) for i in range(max(counts, default=0))]
    rows = [
        _cells(_CELL, [printable(name, 60), *(_last(curve, i) for curve in curves.values())])
        for i, name in enumerate(names[:MAX_ROWS])
    ]
    if len(names) > MAX_ROWS:
        title += f', {MAX_ROWS} of {len(names)} shown'
    head = _cells(_HEAD, ['', *(printable(key, 60) for key in curves)])
    body = markupsafe.Markup('').join(map(_ROW.format, rows))
    return str(_TABLE.format(title, head, body, _CODE.format(pictures)))


def _cells(form, texts):
    return markupsafe.Markup('').join(map(form.format, texts))


def _last(curve, i) -> str:
    """The last finite value of a curve of all, or of identity i."""
    values = curve if curve.ndim == 1 else curve[:, i] if i < curve.shape[1] else curve[:0, 0]
    finite = values[np.isfinite(values)]
    return f'{finite[-1]:.4g}' if len(finite) else ''
