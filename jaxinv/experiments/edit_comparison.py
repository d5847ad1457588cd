"""Main path of --config=evaluate_edits: runs of several methods -> the same edits of all -> tables.

    methods/NAME-HASH/          as in comparison.py: a run of each method
    edited/NAME-HASH/           numbers of each picture's edits, PICTURE.json, and PNG files
    consistency/NAME-HASH/EDIT/ edited pictures, and the run that inverts them again

PTI's table 2: change at a fixed strength and identity, of single and sequential edits. Besides: the
same at equal measured change, curves, change outside the edited region, latent consistency.
"""

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

from jaxinv import edits as edits_lib
from jaxinv import metrics, settings
from jaxinv.data import images as image_files
from jaxinv.errors import JaxinvError
from jaxinv.experiments import (
    comparison,
    comparison_targets,
    edit_measures,
    edit_plan,
    edit_tables,
    edited_pictures,
    method_runs,
)
from jaxinv.experiments import session as sessions
from jaxinv.experiments.comparison_targets import Pictures
from jaxinv.experiments.edit_plan import Plan
from jaxinv.experiments.method_runs import Row
from jaxinv.io import json_text, read_json, write_atomically
from jaxinv.metrics import identity
from jaxinv.report import comparison as report
from jaxinv.runtime.progress import Progress

AGAIN = 'consistency'


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=evaluate_edits in the folder `path`, or resumes it.

    Raises JaxinvError for settings, files or pictures that cannot be used.
    """
    start = time.perf_counter()
    settings.check(config)
    wanted = settings.of(config, settings.EvaluateEdits)
    opened = comparison.open_comparison(config, log)
    external = [row.name for row in opened.rows if row.config is None]
    if external:
        raise JaxinvError(
            f'{external[0]} is an external folder, which has no codes to edit; leave it out.'
        )
    own = method_runs.place_of_runs(config, path)
    plan = edit_plan.plan_of(wanted, *generator_of(opened.rows[0], log), config.lpips, log)
    with comparison.entered(opened, config, path, overwrite, log) as pictures:
        opened = opened._replace(rows=method_runs.placed(opened.rows, own, pictures))
        outcomes, failures = comparison.run_methods(opened.rows, pictures, log)
        rows = [row for row in opened.rows if row.name in outcomes]
        firsts = list({row.folder: row for row in reversed(rows)}.values())[::-1]
        of_runs = {row.folder: measure(row, path, pictures, plan, log) for row in firsts}
        lost = []  # methods without a second inversion
        for edit in plan.consistency:
            for row in firsts:
                if not consistency(row, path, pictures, plan, edit, of_runs[row.folder], log):
                    lost.append(f'{row.name} after {edit.name}')
        records = {row.name: of_runs[row.folder] for row in rows}
        result = edit_tables.tables(config, wanted, opened, pictures, plan, failures, records, path)
        report.write(path, result, finished=not failures and not lost)
        log(report.summary(result, path, time.perf_counter() - start))
    if failures or lost:
        parts = []
        if failures:
            parts.append(f'{len(failures)} of {len(opened.rows)} methods ({", ".join(failures)})')
        if lost:
            parts.append(f'second inversions of {", ".join(lost)}')
        raise JaxinvError(
            f'{" and ".join(parts)} failed; the table has the others, and the same command tries '
            'again.'
        )


def generator_of(row: Row, log: Callable) -> tuple:
    """(generator, weights) that a method starts from."""
    return sessions.open_generator(row.config, log)[:2]


# --- Edits of the runs ----------------------------------------------------------------------------


def measure(
    row: Row, path: pathlib.Path, pictures: Pictures, plan: Plan, log: Callable
) -> dict[str, dict]:
    """{picture: {'edits', 'equal', 'curves'}}, each from its file or measured."""
    folder = row.folder
    own = path / edit_tables.FOLDER / folder.name
    read = edited_pictures.opener(row, folder, generator_of(row, log))
    made = method_runs.made_of(folder, pictures)
    found, progress = {}, Progress('edit', len(pictures), log)
    log(f'Editing the pictures of {row.name} ...', flush=True)
    for i, name in enumerate(pictures):
        key = f'{plan.key} {pictures.digests[i]}'
        record = read_json(own / f'{name}.json')
        if not isinstance(record, dict) or record.get('key') != key:
            record = {'picture': name, 'method': row.name, 'key': key}
            if made[name].file is None:
                record['reason'] = made[name].reason
                log(f'{row.name}: {name} has no result: {made[name].reason}')
            else:
                record |= _of_picture(read(name), pictures.read(i)[0], plan, own / name)
            write_record(path, row, record)
            progress(i + 1, {})
        found[name] = record
    return found


def _of_picture(inverted, target_uint8, plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
    target = {name: judge.embed(target_uint8[None]) for name, judge in plan.judges.items()}
    before = edit_measures.original(inverted, target)
    image_files.save(folder / 'reconstruction.png', before.image)
    edits = edit_measures.of_edits(before, inverted, plan.edits, plan.judges)
    for edit, image in zip(plan.edits, inverted.render(plan.edits)[1:], strict=True):
        image_files.save(folder / f'{edited_pictures.file_name(edit)}.png', image)
    reconstruction = {}
    for name, judge in plan.judges.items():
        pair = target[name], judge.embed(before.image[None])
        reconstruction[f'id_{name}'] = edit_measures.known(judge.compare(*pair)[0])
        if where := identity.no_face(*pair)[0]:
            reconstruction.setdefault('no_face', {})[name] = where
    return {
        'reconstruction': reconstruction,
        'edits': {e.name: found for e, found in zip(plan.edits, edits, strict=True)},
        'equal': {
            wanted.name: edit_measures.at_equal_change(before, inverted, wanted, plan.judges)
            for wanted in plan.equal
        },
        'curves': {
            direction.name: edit_measures.curve(
                before, inverted, direction, plan.curve_points, plan.judges
            )
            for direction in plan.curves
        },
    }


def consistency(
    row: Row, path, pictures: Pictures, plan: Plan, edit, records: dict, log: Callable
) -> bool:
    """Adds {'consistency': {edit: {'lec_w', 'lec_lpips_alex_256'}}} to the records of a method.

    Latent editing consistency (Tov et al. 2021, e4e, section 5.3): an edited picture is inverted
    again by the same method and edited back. lec_w is the Euclidean distance in W+ of that code and
    the first one, lec_lpips_alex_256 that of their pictures. The files of the pictures get the
    numbers, too. False if the second inversion failed.
    """
    place = path / AGAIN / row.folder.name / edited_pictures.file_name(edit)
    base = generator_of(row, log)
    read = edited_pictures.opener(row, row.folder, base)
    names = [name for name in pictures if 'reason' not in records[name]]
    second = _edited_targets(place, names, pictures, read, edit)
    log(f'{row.name}: inverting the pictures of {edit.name} again ...', flush=True)
    own = row._replace(config=searching(row.config, row.name, log))
    rows = method_runs.placed([own], place, second)
    outcomes, _ = comparison.run_methods(rows, second, log)
    if row.name not in outcomes:
        return False
    folder, made = rows[0].folder, outcomes[row.name].made
    again = edited_pictures.opener(row, folder, base)
    back = edited_pictures.negated(edit)
    for name, digest in zip(names, second.digests, strict=True):
        known = records[name].setdefault('consistency', {})
        key = f'{folder.name} {digest}'
        if known.get(edit.name, {}).get('key') == key:
            continue
        found: dict[str, Any] = dict.fromkeys(edit_tables.CONSISTENCY)
        if made[name].file is not None:
            first, other = read(name), again(name)
            w = np.asarray(edits_lib.apply(other.w_plus, back, first.generator.spec.num_ws))
            values = metrics.evaluate(
                first.render([]), other.render([back])[1:], {'alex': plan.lpips},
                names=('lpips_alex_256',),
            )  # fmt: skip
            found = {
                'lec_w': edit_measures.known(np.linalg.norm(w - first.w_plus)),
                'lec_lpips_alex_256': edit_measures.known(values['lpips_alex_256'][0]),
            }
        known[edit.name] = found | {'key': key}
        write_record(path, row, records[name])
    return True


def searching(config, name: str, log: Callable):
    """The config with which a method inverts other pictures: what is given for each is searched."""
    found = config.copy_and_resolve_references()
    with found.unlocked():
        if found.start not in ('', 'mean') and settings.random_seed(found.start) is None:
            log(f'{name}: start={found.start} has no codes of edited pictures; they are searched.')
            found.start = ''
        if found.get('invertibility', {}).get('maps', ''):
            log(f'{name}: the maps of edited pictures are measured.')
            found.invertibility.maps = ''
    return found


def write_record(path: pathlib.Path, row: Row, record: dict) -> None:
    """The numbers of a picture's edits: edited/NAME-HASH/PICTURE.json."""
    file = path / edit_tables.FOLDER / row.folder.name / f'{record["picture"]}.json'
    write_atomically(file, json_text(record, indent=1) + b'\n')


def _edited_targets(place, names, pictures: Pictures, read, edit) -> Pictures:
    """The edited pictures as targets of another run, each rendered once."""
    files, digests = [], []
    for name in names:
        file = f'{comparison_targets.FOLDER}/{name}/{name}.png'
        if not (place / file).is_file():
            image_files.save(place / file, PIL.Image.fromarray(read(name).render([edit])[1]))
        files.append(file)
        digests.append(hashlib.sha256((place / file).read_bytes()).hexdigest())
    sources = [source for name, source in zip(pictures, pictures.sources, strict=True)
               if name in names]  # fmt: skip
    return dataclasses.replace(
        pictures, path=place, names=names, files=files, digests=digests, sources=sources, skipped=[]
    )
