"""Writes the report of a run: grid.png, report.html, metrics.json and the pictures.

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

The fields are described in `report/schema.py`. Pictures of a target have fixed names: target.png,
STAGE.png, PANEL_LABEL.png, edit_NAME.png, in this order.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

from jaxinv.data import images
from jaxinv.io import json_text, write_atomically
from jaxinv.report import grid as grid_lib
from jaxinv.report import page, pasted
from jaxinv.report.pictures import Pictures
from jaxinv.report.schema import Run, edit_label, metrics, select

MAX_WIDTH, MAX_HEIGHT = 3600, 12_000  # pixels of grid.png, roughly
# Of metrics.json, what a single identity of many does not repeat.
OF_ALL = ('mean', 'seconds', 'skipped', 'generator', 'lpips', 'facts', 'seeds', 'versions')


def write(workdir: str | os.PathLike, run: Run) -> None:
    """Writes grid.png, report.html, metrics.json and images/NAME/*.png into workdir.

    Pictures that are files of images/NAME/ already (`save_pictures`) are not written again.
    """
    workdir = pathlib.Path(workdir)
    _save_all(run, folders(workdir / 'images', run.names))
    images.save(workdir / 'grid.png', grid(run))
    write_atomically(workdir / 'report.html', page.render(run))
    # Last: a work folder that has it is finished (runtime/workdir.py).
    write_atomically(workdir / 'metrics.json', _json(metrics(run)))


def write_identity(folder: pathlib.Path, run: Run, i: int = 0) -> list[dict[str, str]]:
    """Writes the pictures and metrics.json of identity i of a run into the folder.

    Returns its pictures in the order of the run: [{'label': 'target', 'file': 'target.png'}, ...].
    """
    run = select(run, i)
    _save_all(run, [folder])
    pictures = [{'label': label, 'file': file} for label, file, _ in _pictures(run)]
    found = metrics(run)
    for name in OF_ALL:
        del found[name]
    write_atomically(folder / 'metrics.json', _json(found | {'pictures': pictures}))
    return pictures


def _save_all(run: Run, folders: Sequence[pathlib.Path]) -> None:
    save_pictures(run, folders)
    if run.paste:
        pasted.save(run, folders, slugs([edit.name for edit in run.edits]))


def save_pictures(run: Run, folders: Sequence[pathlib.Path]) -> Run:
    """Writes the pictures of each target into its folder, and returns the run with the files.

    Pictures that are these files already are left as they are.
    """
    saved = []
    for _, file, column in _pictures(run):
        paths = [folder / file for folder in folders]
        for i, path in enumerate(paths):
            if not isinstance(column, Pictures) or column.paths[i] != path:
                images.save(path, column[i])
        saved.append(Pictures(paths, np.shape(column)[1:3]))
    left = iter(saved)  # in the order of _pictures
    return dataclasses.replace(
        run,
        targets_uint8=next(left),
        stages=[dataclasses.replace(stage, images_uint8=next(left)) for stage in run.stages],
        panels=[
            dataclasses.replace(panel, images_uint8={key: next(left) for key in panel.images_uint8})
            for panel in run.panels
        ],
        edits=[dataclasses.replace(edit, images_uint8=next(left)) for edit in run.edits],
    )


def _pictures(run: Run) -> Iterator[tuple[str, str, Any]]:
    """(label, file name, pictures [n, h, w, 3]) of everything that a target has, in order."""
    yield 'target', 'target.png', run.targets_uint8
    for stage in run.stages:
        yield stage.name, f'{stage.name}.png', stage.images_uint8
    for panel in run.panels:
        title = slugs([panel.title])[0]
        labels = slugs(panel.images_uint8)
        for slug, (label, column) in zip(labels, panel.images_uint8.items(), strict=True):
            yield f'{panel.title}: {label}', f'{title}_{slug}.png'.lower(), column
    for slug, edit in zip(slugs([edit.name for edit in run.edits]), run.edits, strict=True):
        yield edit_label(edit), f'edit_{slug}.png', edit.images_uint8


def folders(parent: pathlib.Path, names: Sequence[str]) -> list[pathlib.Path]:
    """A folder in `parent` for each of the names, safe and distinct."""
    return [parent / slug for slug in slugs(names)]


def _json(content) -> bytes:
    return json_text(content, indent=2) + b'\n'


def grid(run: Run) -> PIL.Image.Image:
    """The picture of grid.png: a row for each identity, target | stages | edits."""
    edits = [edit for edit in run.edits if edit.requested]
    # The font of the sheet has no proper minus sign.
    labels = [edit_label(edit).replace('\N{MINUS SIGN}', '-') for edit in edits]
    columns = ['target', *(stage.name for stage in run.stages), *labels]
    pictures = [run.targets_uint8, *(s.images_uint8 for s in (*run.stages, *edits))]
    count = len(run.names)
    # Full size, unless the sheet would exceed MAX_WIDTH or MAX_HEIGHT.
    cell = min(np.shape(run.targets_uint8)[1], MAX_WIDTH // len(columns), MAX_HEIGHT // count)
    cell = max(cell, 96)
    rows = [[grid_lib.fit(column[i], cell) for column in pictures] for i in range(count)]
    return grid_lib.grid(rows, list(run.names), columns, cell=cell)


def slugs(names: Sequence[str]) -> list[str]:
    """File names for any strings, distinct also on file systems that ignore case."""
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
