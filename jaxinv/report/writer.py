"""The report of a run: grid.png, report.html, metrics.json and the pictures, from plain data.

    run = report.Run(
        title='Pivotal tuning', names=['Grace Hopper'], targets_uint8=targets,
        stages=[
            report.Stage('pivot', pivots, metrics={'lpips_alex': [0.35], ...}, attributes=...),
            report.Stage('tuned', tuned, metrics={'lpips_alex': [0.06], ...}, attributes=...),
        ],
        edits=[report.EditResult(edit.name, edit.parts, images, id_distance, attributes)],
        drift=report.Drift({'lpips_alex': 0.02, 'mse': 0.001},
                           {'original': before, 'tuned': after}),
        traces=[report.Trace('tune', 'lpips_alex', values)],     # [steps] or [steps, n]
        seconds={'project': 100.0, 'tune': 200.0}, config=config.to_dict(), ...)
    report.write(workdir, run)

The fields are described in `report/schema.py`.
"""

import json
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from jaxinv.data import images
from jaxinv.io import write_atomically
from jaxinv.report import grid as grid_lib
from jaxinv.report import page
from jaxinv.report.schema import (
    Drift,
    EditResult,
    Panel,
    Run,
    Stage,
    Table,
    Trace,
    edit_label,
    metrics,
)

__all__ = [
    'Drift', 'EditResult', 'Panel', 'Run', 'Stage', 'Table', 'Trace', 'grid',
    'write',
]  # fmt: skip

MAX_WIDTH, MAX_HEIGHT = 3600, 12_000  # pixels of grid.png, roughly


def write(workdir: str | os.PathLike, run: Run) -> None:
    """Writes grid.png, report.html, metrics.json and images/NAME/*.png into workdir."""
    workdir = pathlib.Path(workdir)
    _write_pictures(workdir / 'images', run)
    images.save(workdir / 'grid.png', grid(run))
    text = json.dumps(metrics(run), indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    write_atomically(workdir / 'report.html', page.render(run).encode())
    # Last: a work folder that has it is finished (runtime/workdir.py).
    write_atomically(workdir / 'metrics.json', text.encode())


def write_one(folder: pathlib.Path, run: Run) -> None:
    """Writes the pictures and metrics.json of a run's only target into the folder."""
    _write_pictures_of(folder, run, 0)
    found = metrics(run)
    for of_all in ('mean', 'seconds', 'skipped', 'generator', 'seeds', 'versions'):
        del found[of_all]
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    write_atomically(folder / 'metrics.json', text.encode())


def grid(run: Run) -> PIL.Image.Image:
    """The PIL picture of grid.png: a row per identity, target | stages | edits."""
    edits = [edit for edit in run.edits if edit.requested]
    # The font of the sheet has no proper minus sign.
    labels = [edit_label(edit).replace('\N{MINUS SIGN}', '-') for edit in edits]
    columns = ['target', *(stage.name for stage in run.stages), *labels]
    pictures = [run.targets_uint8, *(s.images_uint8 for s in (*run.stages, *edits))]
    rows = [[column[i] for column in pictures] for i in range(len(run.names))]
    # Full size where the sheet stays handy to open and to publish.
    cell = min(np.shape(run.targets_uint8)[1], MAX_WIDTH // len(columns), MAX_HEIGHT // len(rows))
    return grid_lib.grid(rows, list(run.names), columns, cell=max(cell, 96))


def slugs(names: Sequence[str]) -> list[str]:
    """File names for any strings, distinct also where upper and lower case are one."""
    result: list[str] = []
    used: set[str] = set()
    for name in names:
        base = re.sub(r'[^\w+-]+', '_', str(name)).strip('_')[:60] or 'unnamed'
        slug, i = base, 2
        while slug.casefold() in used:
            slug, i = f'{base}_{i}', i + 1
        used.add(slug.casefold())
        result.append(slug)
    return result


def _write_pictures(folder: pathlib.Path, run: Run) -> None:
    for i, slug in enumerate(slugs(run.names)):
        _write_pictures_of(folder / slug, run, i)


def _write_pictures_of(folder: pathlib.Path, run: Run, i: int) -> None:
    images.save(folder / 'target.png', run.targets_uint8[i])
    for stage in run.stages:
        images.save(folder / f'{stage.name}.png', stage.images_uint8[i])
    for panel in run.panels:
        labels = slugs(panel.images_uint8)
        for label, pictures in zip(labels, panel.images_uint8.values(), strict=True):
            name = f'{slugs([panel.title])[0]}_{label}.png'
            images.save(folder / name.lower(), pictures[i])
    for slug, edit in zip(slugs([edit.name for edit in run.edits]), run.edits, strict=True):
        images.save(folder / f'edit_{slug}.png', edit.images_uint8[i])
