"""A preference study: pictures of several methods to a page of blind comparisons, and its key.

    preference.html   for the raters: self-contained, without the methods' names
    study.json        which comparison is of which picture and methods; not for the raters

Two-alternative forced choice, as in SAM's user study: original | left | right. An attention check
looks like a comparison of which one side is the original itself.
"""

import hashlib
import itertools
import pathlib
import re
from typing import NamedTuple

import PIL.Image

from jaxinv import settings
from jaxinv.data import discover, images
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded, json_text, write_atomically
from jaxinv.report import page
from jaxinv.runtime import workdir as workdirs
from jaxinv.text import printable

PAGE, STUDY = 'preference.html', 'study.json'
VERSION = 1  # of the files
RUN_FOLDERS = ('images', 'identities')  # of a run: a folder for each picture in one of these
TARGET = 'target.png'
COARSE = 12  # pixels of the longer side of an attention check's wrong answer
MAX_BYTES = 80e6  # of the page


class Source(NamedTuple):
    """The pictures of a method."""

    label: str
    files: dict[str, pathlib.Path]  # by the picture's name


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Writes the page and key of --config=preference in the folder `path`."""
    settings.check(config)
    options = settings.of(config, settings.METHODS[config.task].settings)
    sources = read_sources(options.methods)
    originals = read_originals(options.originals, options.methods, sources)
    names = [name for name in originals if all(name in s.files for s in sources)]
    lost = sorted({*originals, *(n for s in sources for n in s.files)} - {*names})
    if not names:
        raise JaxinvError(
            'no picture is there of all methods and as an original; the first has '
            f'{_some(sources[0].files)}, the originals are {_some(originals)}.'
        )
    for name in lost:
        log(f'{printable(name)} is not there of every method, and left out.')
    chosen = [originals[name] for name in names]
    chosen += [source.files[name] for source in sources for name in names]
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in chosen]
    record = {'config': settings.record_of(config), 'sources': sums}
    with workdirs.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / PAGE} (--overwrite makes it again).')
            return
        pictures, trials = lay_out(names, sources, options)
        # An answer file says which study it is of.
        study = hashlib.sha256(json_text(record) + json_text(trials)).hexdigest()[:16]
        key = {
            'version': VERSION,
            'study': study,
            'seed': options.seed,
            'methods': [source.label for source in sources],
            'question': options.question,
            'per_rater': options.per_rater,
            'trials': trials,
        }
        encoded = [_encode(_file(picture, originals, sources), options.pixels, picture[0])
                   for picture in pictures]  # fmt: skip
        total = sum(map(len, encoded))
        if total > MAX_BYTES:
            raise JaxinvError(
                f'the page would have {total / 1e6:.0f} MB; take fewer pictures, or a '
                f'--config.pixels below {options.pixels}.'
            )
        shown = [{'id': t['id'], 'original': t['original'], 'pair': t['pair']} for t in trials]
        content = {
            'version': VERSION,
            'study': study,
            'seed': options.seed,
            'per_rater': options.per_rater,
            'always': sorted(t['id'] for t in trials if t['kind'] == 'check'),
            'trials': _opaque(shown),
            'pictures': encoded,
        }
        write_atomically(path / STUDY, json_text(key, indent=1))
        html = page.interactive(
            'preference.html.j2', 'preference.js', content, question=options.question
        )
        write_atomically(path / PAGE, html)
        facts = {'pictures': len(names), 'trials': len(trials), 'study': study}
        write_atomically(path / workdirs.FINISHED, json_text(facts, indent=1))
    pairs = len(list(itertools.combinations(sources, 2)))
    log(
        f'{len(names)} pictures, {pairs} pairs of methods, {len(trials)} comparisons with '
        f'{len(content["always"])} checks.'
    )
    log(f'Send {path / PAGE} to the raters, and keep {path / STUDY}.')


def read_sources(methods: str) -> list[Source]:
    """The pictures of config.methods. Raises JaxinvError."""
    parts = [part.strip() for part in methods.split(',') if part.strip()]
    if len(parts) < 2:
        raise JaxinvError(
            f'methods is {methods!r}; two or more are compared, as '
            "--config.methods='a=FOLDER,b=FOLDER'."
        )
    found: list[Source] = []
    for part in parts:
        label, _, place = part.rpartition('=')
        files = pictures_of(place)
        label = printable(label or re.split(r'[\\/]', place.rstrip('/\\'))[-1], 60)
        if label in [source.label for source in found]:
            raise JaxinvError(f'two methods are called {label}; write NAME=FOLDER for each.')
        found.append(Source(label, files))
    return found


def read_originals(place: str, methods: str, sources: list[Source]) -> dict[str, pathlib.Path]:
    """{name: file} of the photographs. Raises JaxinvError."""
    if place:
        return pictures_of(place)
    for part in methods.split(','):
        folder = expanded(part.strip().rpartition('=')[2])
        folder = folder if folder.is_dir() else expanded(str(folder).rpartition(':')[0] or '.')
        if parent := _run_folder(folder):
            return {p.name: p / TARGET for p in sorted(parent.iterdir()) if (p / TARGET).is_file()}
    raise JaxinvError(
        "originals is '', and no method is a run, which keeps them; give --config.originals=FOLDER."
    )


def pictures_of(place: str) -> dict[str, pathlib.Path]:
    """{name: file} of a folder of pictures, or of a stage of a run, RUN:STAGE."""
    folder, stage = expanded(place), None
    if not folder.is_dir() and ':' in place:
        head, _, stage = place.rpartition(':')
        folder = expanded(head)
    if not folder.is_dir():
        raise JaxinvError(f'there is no folder {printable(place)}.')
    parent = _run_folder(folder)
    if parent is None:
        if stage is not None:
            raise JaxinvError(f'{printable(folder)} is no run, so it has no stage {stage!r}.')
        listing = discover.find(folder)
        if not listing.files:
            raise JaxinvError(f'{printable(folder)} holds no pictures.')
        return {name: file for name, file in reversed(listing.files)}
    stage = stage or 'tuned'
    own = sorted(entry for entry in parent.iterdir() if entry.is_dir())
    # Upper and lower case alike: a method of SAM is sam, and its stage SAM.
    files = {
        file.parent.name: file
        for p in own
        for file in sorted(p.glob('*.png'))
        if file.stem.casefold() == stage.casefold()
    }
    if not files:
        stages = sorted({file.stem for p in own for file in p.glob('*.png')})
        raise JaxinvError(
            f'{printable(folder)} has no stage {stage!r}; it has {", ".join(stages)}, as '
            f'{printable(folder)}:{stages[0] if stages else "STAGE"}.'
        )
    return files


def _run_folder(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder of a run that holds a folder for each picture; None if it is no run."""
    if not (folder / workdirs.RECORD).is_file():
        return None
    return next((folder / name for name in RUN_FOLDERS if (folder / name).is_dir()), None)


def lay_out(names, sources, options) -> tuple[list[tuple], list[dict]]:
    """(pictures, trials) of a study.

    pictures: (kind, method's index, name); kind 'original', 'method' or 'coarse'. trials: {'id',
    'kind' 'pair' or 'check', 'picture', 'methods' [2] or None, 'original', 'pair' [2]: indices of
    pictures}. Of a check the first is the right answer.
    """
    pictures: list[tuple] = [('original', 0, name) for name in names]
    at = {}
    for m in range(len(sources)):
        for name in names:
            at[m, name] = len(pictures)
            pictures.append(('method', m, name))
    trials = []
    for i, name in enumerate(names):
        for a, b in itertools.combinations(range(len(sources)), 2):
            trials.append(
                {
                    'kind': 'pair',
                    'picture': name,
                    'methods': [sources[a].label, sources[b].label],
                    'original': i,
                    'pair': [at[a, name], at[b, name]],
                }
            )
    for k in range(options.checks):
        i = k * max(1, len(names) // max(options.checks, 1)) % len(names)
        pictures.append(('coarse', 0, names[i]))
        trials.append(
            {
                'kind': 'check',
                'picture': names[i],
                'methods': None,
                'original': i,
                'pair': [i, len(pictures) - 1],
            }
        )
    for number, trial in enumerate(trials):
        text = f'{options.seed} {number} {trial["kind"]} {trial["picture"]}'
        trial['id'] = hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]
    return pictures, trials


def _opaque(shown: list[dict]) -> list[dict]:
    """The trials in the order of their ids, which says nothing of methods or checks."""
    return sorted(shown, key=lambda trial: trial['id'])


def _file(picture, originals, sources) -> pathlib.Path:
    kind, method, name = picture
    return sources[method].files[name] if kind == 'method' else originals[name]


def _encode(file: pathlib.Path, size: int, kind: str) -> str:
    picture = images.read(file)
    if kind == 'coarse':
        small = picture.copy()
        small.thumbnail((COARSE, COARSE), PIL.Image.Resampling.BOX)
        picture = small.resize(picture.size, PIL.Image.Resampling.BICUBIC)
    return page.data_uri(picture, size)


def _some(names) -> str:
    names = [printable(name, 40) for name in names]
    return ', '.join(names[:4]) + (', ...' if len(names) > 4 else '') if names else 'none'
