"""Pictures of a run put back into their photographs, beside the aligned ones."""

import pathlib
from collections.abc import Sequence

from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.faces import paste
from jaxinv.report.schema import Run
from jaxinv.runtime import console

PREFIX = 'pasted_'


def save(run: Run, folders: Sequence[pathlib.Path], slugs: Sequence[str]) -> None:
    """Writes pasted_STAGE and pasted_edit_NAME of each target, with its own face alone.

    slugs: file names of run.edits. A photograph that was not aligned here, or cannot be read any
    more, is left out; the latter with a line.
    """
    if not run.stages or len(run.sources) != len(run.names):
        return
    columns = [(run.stages[-1].name, run.stages[-1].images_uint8)]
    columns += [
        (f'edit_{slug}', edit.images_uint8)
        for slug, edit in zip(slugs, run.edits, strict=True)
        if edit.requested
    ]
    for i, (folder, source) in enumerate(zip(folders, run.sources, strict=True)):
        if not source.get('face'):
            continue
        try:
            photograph = images.read(source['file'])
        except JaxinvError as error:
            console.say(f'{run.names[i]} is not put back into its photograph: {error}')
            continue
        for name, column in columns:
            picture = paste(photograph, column[i], source['face']['quad'])
            images.save(folder / f'{PREFIX}{name}{images.kept_suffix(source["file"])}', picture)
