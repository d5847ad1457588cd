"""A run's results as plain data, and the numbers derived from them.

A run is: targets, an ordered list of stages that reproduce them (pivot, tuned, ...), edits of the
last stage, the drift of random latents, and the record of how it was made. No method is named here.
n is the number of identities; a number that could not be measured (no face was found) is NaN.
Pictures are uint8 [n, h, w, 3]: arrays, or files that are read one at a time (`Pictures`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxinv.report.pictures import concatenate
from jaxinv.text import printable, shortest


@dataclasses.dataclass
class Stage:
    """One reproduction of every target."""

    name: str  # key in metrics.json and file name: 'pivot', 'tuned', ...
    images_uint8: Any  # [n, h, w, 3]
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {name: [n]}
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {name: [n]}


@dataclasses.dataclass
class EditResult:
    """An edit of the last stage; `Edit.name`, `.parts` and `.requested` of jaxinv.edits."""

    name: str
    parts: Sequence[tuple[str, float]]
    images_uint8: Any  # [n, h, w, 3]
    id_distance: Any  # [n], to the target
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # as measured
    requested: bool = True  # False = only a step of a sequence; not in grid.png
    # {direction: [n]}: strengths that were found for a change in a unit (yaw=10deg); 0 = none.
    strengths: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text: str = ''  # to reproduce it elsewhere, as JSON; '' = its name, a spelling


@dataclasses.dataclass
class Drift:
    """Change of images at random latents by the tuning (PTI, figures 14 and 15)."""

    metrics: Mapping[str, float]  # mean over samples: {'lpips_alex', 'mse'}
    images_uint8: Mapping[str, Any]  # {'original': [m, h, w, 3], 'tuned': ...}, the first is before
    samples: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict
    )  # {'tuned': {'lpips_alex': [m]}}, captions under the pictures
    description: str = ''  # how the latents were drawn and how many were measured


@dataclasses.dataclass
class Trace:
    """A curve of each identity, or one of all."""

    stage: str
    metric: str
    values: Any  # [steps] or [steps, n]; NaN = not evaluated (stopped)
    first_step: float = 0
    step: float = 1.0  # between two values; a threshold's if the curve runs over thresholds


@dataclasses.dataclass
class Panel:
    """Pictures that explain a stage, the same for every target."""

    title: str
    images_uint8: Mapping[str, Any]  # {label: [n, h, w, 3]}
    notes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)  # {label: [n]}
    legend: Sequence[tuple[str, str]] = ()  # (name, '#rrggbb')
    note: str = ''


@dataclasses.dataclass
class Table:
    """A table of text in the report, and the same numbers as `values` in metrics.json."""

    name: str  # key in metrics.json
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  # the first cell names the row
    note: str = ''
    values: Any = None


@dataclasses.dataclass
class Run:
    """Everything that is reported; only the first four fields are required.

    Raises ValueError for names that are not unique, and pictures that are not uint8 [n, h, w, 3].
    """

    title: str
    names: Sequence[str]
    targets_uint8: Any  # [n, h, w, 3], aligned
    stages: Sequence[Stage]
    target_attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    edits: Sequence[EditResult] = ()
    drift: Drift | None = None
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = ()
    traces: Sequence[Trace] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # {stage: s}
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # nested settings
    generator: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # name, resolution, ...
    lpips: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {net: origin of weights}
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sources: Sequence[Mapping[str, Any]] = ()  # {'file', 'sha256', 'face'}
    skipped: Sequence[Mapping[str, str]] = ()  # {'file', 'reason'}
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {'peak memory': '5.1 GB'}
    notes: Sequence[str] = ()  # sentences to show near the top
    usage: str = ''  # Python lines that load the result
    # Whether the last stage and the edits are put back into the photographs (report/pasted.py).
    paste: bool = False

    def __post_init__(self):
        n = len(self.names)
        if len(set(self.names)) != n:
            raise ValueError(f'identity names must differ, but they are {list(self.names)}')
        pictures = [('targets', self.targets_uint8)]
        pictures += [(s.name, s.images_uint8) for s in (*self.stages, *self.edits)]
        for label, array in pictures:
            array = array if hasattr(array, 'dtype') else np.asarray(array)
            shape, dtype = array.shape, array.dtype
            if len(shape) != 4 or shape[0] != n or shape[-1] != 3 or dtype != np.uint8:
                raise ValueError(
                    f'pictures of {label!r} are {dtype} {list(shape)}; '
                    f'expected uint8 [{n}, h, w, 3]'
                )


def metrics(run: Run) -> dict[str, Any]:
    """The content of metrics.json: JSON types only, null for what could not be measured."""
    stages = {stage.name: stage for stage in run.stages}
    return {
        'identities': {
            name: {key: _pick(stage.metrics, i) for key, stage in stages.items()}
            for i, name in enumerate(run.names)
        },
        'mean': {
            key: {metric: mean(values) for metric, values in stage.metrics.items()}
            for key, stage in stages.items()
        },
        'drift': plain(run.drift.metrics) if run.drift else {},
        **{table.name: plain(table.values) for table in run.tables},
        'seconds': plain(run.seconds),
        'skipped': [dict(plain(item)) for item in run.skipped],
        'edits': {
            name: {edit.name: _edit_numbers(run, edit, i) for edit in run.edits}
            for i, name in enumerate(run.names)
        },
        'attributes': {
            name: {
                'target': _pick(run.target_attributes, i),
                **{key: _pick(stage.attributes, i) for key, stage in stages.items()},
            }
            for i, name in enumerate(run.names)
        },
        'sources': [dict(plain(item)) for item in run.sources],
        'generator': plain(run.generator),
        'lpips': plain(run.lpips),
        'facts': plain(run.facts),
        'seeds': plain(run.seeds),
        'versions': plain(run.versions),
    }


# --- Rows of a run --------------------------------------------------------------------------------


def join(runs: Sequence[Run]) -> Run:
    """One run of the identities of several; all other fields are those of the first."""
    return _map_columns(concatenate, runs)


def select(run: Run, i: int) -> Run:
    """The run of identity i alone, with its source if there is one for each."""
    one = _map_columns(lambda columns: columns[0][i : i + 1], [run])
    if len(run.sources) == len(run.names):
        one = dataclasses.replace(one, sources=[run.sources[i]])
    return one


def _map_columns(function: Callable[[list], Any], runs: Sequence[Run]) -> Run:
    """A run with function([column of each run]) for every column [n] of numbers or pictures."""
    first = runs[0]

    def over(mappings):
        return {key: function([mapping[key] for mapping in mappings]) for key in mappings[0]}

    def items(pick, convert):
        return [convert(list(same)) for same in zip(*map(pick, runs), strict=True)]

    def stage(same):
        return dataclasses.replace(
            same[0],
            images_uint8=function([s.images_uint8 for s in same]),
            metrics=over([s.metrics for s in same]),
            attributes=over([s.attributes for s in same]),
        )

    def edit(same):
        return dataclasses.replace(
            same[0],
            images_uint8=function([e.images_uint8 for e in same]),
            id_distance=function([e.id_distance for e in same]),
            attributes=over([e.attributes for e in same]),
            strengths=over([e.strengths for e in same]),
        )

    def panel(same):
        notes = over([{k: np.array(v, object) for k, v in p.notes.items()} for p in same])
        return dataclasses.replace(
            same[0],
            images_uint8=over([p.images_uint8 for p in same]),
            notes={label: list(texts) for label, texts in notes.items()},
        )

    names = function([np.array(run.names, object) for run in runs])
    return dataclasses.replace(
        first,
        names=list(names),
        targets_uint8=function([run.targets_uint8 for run in runs]),
        target_attributes=over([run.target_attributes for run in runs]),
        stages=items(lambda run: run.stages, stage),
        edits=items(lambda run: run.edits, edit),
        panels=items(lambda run: run.panels, panel),
    )


# --- Numbers --------------------------------------------------------------------------------------


def attribute_changes(run: Run, edit: EditResult) -> dict[str, np.ndarray]:
    """{attribute: [n]}: measured in the edited picture minus in the last stage's."""
    before = run.stages[-1].attributes if run.stages else {}
    return {
        name: np.asarray(values, np.float64) - np.asarray(before[name], np.float64)
        for name, values in edit.attributes.items()
        if name in before
    }


def mean(values: Any) -> float | None:
    """Mean of the finite values; None if there is none."""
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def edit_label(edit: EditResult) -> str:
    """'smile +2', or 'yaw +3, then smile -2' with a proper minus sign."""
    parts = []
    for name, strength in edit.parts:
        sign = '\N{MINUS SIGN}' if strength < 0 else '+'
        parts.append(f'{name} {sign}{shortest(abs(strength))}')
    return ', then '.join(parts)


def _edit_numbers(run: Run, edit: EditResult, i: int) -> dict[str, Any]:
    return {
        'id_distance': plain(np.asarray(edit.id_distance)[i]),
        'attributes': _pick(edit.attributes, i),
        'change': _pick(attribute_changes(run, edit), i),
        **({'strengths': _pick(edit.strengths, i)} if edit.strengths else {}),
    }


def _pick(columns: Mapping[str, Any], i: int) -> dict[str, Any]:
    return {name: plain(np.asarray(values)[i]) for name, values in columns.items()}


def plain(value: Any) -> Any:
    """JSON types: NumPy's unwrapped, None for a number that is not finite, str() of others."""
    if isinstance(value, Mapping):
        return {printable(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, '__array__'):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return printable(value, lines=True)
