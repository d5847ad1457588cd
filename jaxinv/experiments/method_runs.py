"""Methods of a comparison: their configs, their runs, and the pictures that they made.

methods/NAME-HASH/     the work folder of one method, as the launcher would make it

HASH is of the settings and pictures; rows with the same ones share the folder of the first row.
"""

import ast
import functools
import hashlib
import importlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxinv import data, report, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments.comparison_targets import Pictures
from jaxinv.experiments.pti_score import DRIFTS, MOVED
from jaxinv.io import expanded, json_text, read_json, write_atomically
from jaxinv.runtime import distributed, manifest, memory, workdir
from jaxinv.runtime.progress import silent
from jaxinv.settings import method_list
from jaxinv.settings.declare import KINDS, unknown
from jaxinv.text import printable

FOLDER = 'methods'
PEAK = 'peak_memory.json'  # in a work folder, {'host', 'device': bytes}
SHARED = ('seed', 'mesh', 'generator', 'generator_key', 'resolution', 'label', 'lpips')
TASKS = ('invert', 'invert_sam')
GENERATOR = 'generator'  # in a work folder, the one for all pictures
OF_ROW = 'row:'  # generator=row:NAME
DIGITS = 8  # of a hash
DRIFT = {'drift_lpips_alex': 'lpips_alex'}  # of the generator that was tuned for a picture
NOT_THE_METHOD = ('load', 'read', 'score', 'edit table')  # stages that are no part of its time


class Row(NamedTuple):
    """A method of the table."""

    method: method_list.Method
    config: Any  # ConfigDict; None = external
    folder: pathlib.Path | None = None  # of its run, from `placed`; None = external, or not yet

    @property
    def name(self) -> str:
        return self.method.name


class Made(NamedTuple):
    """What a run left for one picture."""

    file: pathlib.Path | None  # the reconstruction; None = there is none
    reason: str = ''  # why there is none
    seconds: float | None = None  # of the method alone
    # Of MOVED, where the pivot was optimised along, and of DRIFT, where the generator is its own.
    more: Mapping[str, float | None] = {}

    @property
    def numbers(self) -> dict[str, float | None]:
        """What the run measured of the picture, for its record."""
        return {'seconds': self.seconds, **self.more}


class Outcome(NamedTuple):
    """A finished method."""

    made: dict[str, Made]  # {picture: ...}
    memory: dict[str, int]  # {'host', 'device': bytes}, largest of the starts that did work
    drift: dict[str, float | None]  # of random codes, where a generator was tuned; the mean of all


def rows_of(config, edits: Sequence[str] = ()) -> list[Row]:
    """The methods of config.methods with their configs, checked before anything is computed.

    edits: of every method's config. Raises JaxinvError for a config, variant, key or value that
    cannot be used, and for an external folder that is none.
    """
    rows = []
    for method in method_list.parse(config.methods):
        if not method.config:
            if not data.find(method.folder).files:
                raise JaxinvError(f'{method.spelling!r}: there are no pictures in that folder.')
            rows.append(Row(method, None))
            continue
        try:
            rows.append(Row(method, _config_of(method, config, edits)))
        except JaxinvError as error:
            raise JaxinvError(f'method {method.name!r}: {error}') from None
        _check_source(rows)
    return rows


def _check_source(rows: Sequence[Row]) -> None:
    """Raises JaxinvError if the last row asks for the generator of a row that has not one."""
    row = rows[-1]
    source = _source(row.config)
    if source is None:
        return
    earlier = {other.name: other for other in rows[:-1]}
    if source not in earlier:
        raise JaxinvError(
            f'method {row.name!r}: generator is {row.config.generator!r}; it can name a row before '
            f'this one, of which there are {", ".join(earlier) or "none"}.'
        )
    if earlier[source].config is None or not _tunes_one(earlier[source].config):
        raise JaxinvError(
            f'method {row.name!r}: generator is {row.config.generator!r}, and {source} does not '
            'tune one generator for all pictures; name a row that does, e.g. pti_multi_id.'
        )


def _source(config) -> str | None:
    """NAME of a config's generator row:NAME."""
    start, _, name = config.generator.partition(OF_ROW)
    return name if not start and name else None


def _tunes_one(config) -> bool:
    """Whether a run tunes one generator for all of its pictures."""
    if config.task == 'invert_sam' and not config.method.startswith('pti'):
        return False
    return bool(config.tune.shared and config.tune.num_steps)


@functools.cache
def known_configs() -> list[str]:
    """Names of the configs of inversions of photographs."""
    folder = pathlib.Path(importlib.import_module('jaxinv.configs').__path__[0])
    names = sorted(file.stem for file in folder.glob('*.py') if not file.stem.startswith('_'))
    tasks = {n: importlib.import_module(f'jaxinv.configs.{n}').get_config('').task for n in names}
    return [name for name, task in tasks.items() if task in TASKS]


def _config_of(method: method_list.Method, config, edits):
    names = known_configs()
    if method.config not in names:
        every = [*method_list.ALIASES, *names, method_list.EXTERNAL]
        raise JaxinvError(unknown('there is no method', method.config, list(dict.fromkeys(every))))
    try:
        own = importlib.import_module(f'jaxinv.configs.{method.config}').get_config(method.variants)
    except ValueError as error:
        raise JaxinvError(str(error)) from None
    with own.unlocked():
        for name in SHARED:
            own[name] = config[name]
        own.edits = tuple(edits)
        own.group = config.group
        own.scores = 'psnr'  # the comparison measures the pictures, of all methods alike
        if 'edit_table' in own:
            own.edit_table = False
    for path, value in method.overrides:
        set_by_text(own, path, value)
    settings.check(own)
    return own


def set_by_text(config, path: str, text: str) -> None:
    """Sets a key of a config from its spelling. Raises JaxinvError for a key that there is not."""
    path = settings.RENAMED.get(path, path)
    keys = {key.path: key for key in settings.keys(settings.METHODS[config.task].settings)}
    if path not in keys or path == 'task':
        raise JaxinvError(unknown('the config has no key', path, list(keys)))
    key, value = keys[path], text
    if key.optional and text == 'None':
        value = None
    elif key.kind is not str:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise JaxinvError(f'{path} is {text!r}; it must be {KINDS[key.kind]}.') from None
        if key.kind is float and type(value) is int:
            value = float(value)
        if key.kind is tuple and isinstance(value, (str, list)):
            value = tuple(value) if isinstance(value, list) else (value,)
        if not isinstance(value, key.kind) or (key.kind is int and isinstance(value, bool)):
            raise JaxinvError(f'{path} is {text!r}; it must be {KINDS[key.kind]}.')
    elif len(text) > 1 and text[0] == text[-1] and text[0] in '"\'':
        value = text[1:-1]
    section = config[key.section.section] if key.section.section else config
    with config.unlocked():
        section[key.name] = value


# --- Runs -----------------------------------------------------------------------------------------


def place_of_runs(config, path: pathlib.Path) -> pathlib.Path:
    """The folder that holds methods/ for a comparison in `path`. Raises JaxinvError."""
    if not config.runs:
        return path
    other = expanded(config.runs)
    if not (other / FOLDER).is_dir():
        raise JaxinvError(
            f'runs is {config.runs!r}, which holds no {FOLDER}/; give the work folder of '
            '--config=evaluate or evaluate_edits.'
        )
    return other


def placed(rows: Sequence[Row], path: pathlib.Path, pictures: Pictures) -> list[Row]:
    """The rows with the work folders of their runs, and generators row:NAME as folders. Collective.

    Other settings have another folder, and so have other pictures; in bulk mode with a generator
    each, pictures can be added to a run. Rows with the same settings and pictures share a folder,
    also one of another name that was made before.

    path: of the runs. Among those of another comparison a row is also found with another
    config.group, which it then takes; without one it is a new run there.
    """
    rows = [row._replace(config=_limited(row.config, len(pictures))) for row in rows]
    # One process looks, since another may already make folders.
    known = _known_runs(path, pictures) if distributed.is_primary() else {}
    known = json.loads(distributed.broadcast_str(json.dumps(known)))
    found: list[Row] = []
    for i, row in enumerate(rows):
        if row.config is not None:
            if not is_other(path, pictures):
                digest = _digest(row, rows, pictures)
            else:
                row, digest = _among(known, row, rows, pictures)
                rows[i] = row
            name = f'{report.slugs([row.name])[0]}-{digest}'
            row = row._replace(folder=path / FOLDER / known['names'].setdefault(digest, name))
            source = _source(row.config)
            if source is not None:
                (place,) = (other.folder for other in found if other.name == source)
                own = row.config.copy_and_resolve_references()
                own.generator = str(place / GENERATOR)
                row = row._replace(config=own)
        found.append(row)
    return found


def _limited(config, count: int):
    """A config whose data.limit is below the number of pictures, or 0."""
    if config is None or config.data.limit < count:
        return config
    config = config.copy_and_resolve_references()
    config.data.limit = 0
    return config


def is_other(path: pathlib.Path, pictures: Pictures) -> bool:
    """Whether the runs of a folder are those of another comparison than the pictures'."""
    return path.resolve() != pictures.path.resolve()


def _known_runs(path: pathlib.Path, pictures: Pictures) -> dict[str, Any]:
    """The runs in a folder of runs: {'names': {HASH: NAME-HASH}, 'groups', 'same'}.

    groups: values of config.group; same: HASHes of runs in groups that have these very pictures,
    perhaps among others. Both are looked for in the folders of other comparisons only.
    """
    folders = sorted((path / FOLDER).glob('*-*'))
    names = {folder.name[-DIGITS:]: folder.name for folder in folders}
    if not is_other(path, pictures):
        return {'names': names}
    groups, same = {0}, []
    for folder in folders:
        try:
            group = read_json(folder / workdir.RECORD)['config'].get('group', 0)
        except (TypeError, KeyError):
            continue  # not begun
        groups.add(group)
        lines = manifest.Manifest(folder / manifest.FILE, silent).records if group else {}
        sums = [lines.get(name, {}).get('sha256') for name in pictures]
        if sums == pictures.digests:
            same.append(folder.name[-DIGITS:])
    return {'names': names, 'groups': sorted(groups), 'same': same}


def _among(
    known: Mapping[str, Any], row: Row, rows: Sequence[Row], pictures: Pictures
) -> tuple[Row, str]:
    """(the row with the group of its run among `known`, HASH of that run or of a new one)."""
    groups = [row.config.group]
    if 'group' not in dict(row.method.overrides):
        groups += [group for group in known['groups'] if group != row.config.group]
    for group in groups:
        config = row.config.copy_and_resolve_references()
        config.group = group
        own = row._replace(config=config)
        digest, whole = (_digest(own, rows, pictures, of_all) for of_all in (False, True))
        if digest in known['names'] and (digest == whole or digest in known['same']):
            return own, digest
        if whole in known['names']:
            return own, whole
    # A run in groups that has other pictures stays as it is.
    return row, _digest(row, rows, pictures, True)


def _digest(row: Row, rows: Sequence[Row], pictures: Pictures, of_all: bool = False) -> str:
    """of_all: the pictures are part of it, also of a run to which some can be added."""
    record = settings.record_of(row.config)
    limit = record.pop('data', {}).get('limit')
    if limit:
        record['limit'] = limit
    tune = record.get('tune', {})
    if of_all or not row.config.group or (tune.get('shared') and tune.get('num_steps')):
        record['pictures'] = pictures.digests
    source = _source(row.config)
    if source is not None:
        (other,) = (other for other in rows if other.name == source)
        record['generator'] = f'{OF_ROW}{_digest(other, rows, pictures)}'
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:DIGITS]


def run(row: Row, pictures: Pictures, log: Callable) -> Outcome:
    """Runs a method of `placed` on the pictures, or resumes or reads it. Collective.

    Raises JaxinvError as the method's own run does.
    """
    if row.config is None:
        return Outcome(_external(row.method.folder, pictures, log), {}, {})
    folder = row.folder
    config = row.config.copy_and_resolve_references()
    with config.unlocked():
        for name, value in pictures.data_settings.items():
            config.data[name] = value
        config.data.images = _images_of(folder) or config.data.images
    settings.check(config)
    task = importlib.import_module(settings.METHODS[config.task].module)
    before, peak = _stamp(folder / workdir.FINISHED), memory.Peak()
    try:
        with peak:
            task.run(config, folder, log=functools.partial(_indented, log))
    except JaxinvError:  # perhaps before any work
        raise
    except BaseException:  # also of an interrupted start
        _keep_peak(folder, peak.found)
        raise
    if _stamp(folder / workdir.FINISHED) != before:  # else it was finished, and only read
        _keep_peak(folder, peak.found)
    made = made_of(folder, pictures)
    if _tunes_one(config):  # a drift is that of the one generator
        made = {name: own._replace(more=_without(own.more, DRIFT)) for name, own in made.items()}
    return Outcome(made, peak_of(folder), drift_of(folder))


def _stamp(file: pathlib.Path) -> tuple[int, int] | None:
    """Changes when a file is written anew."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _keep_peak(folder: pathlib.Path, found: Mapping[str, int]) -> None:
    """Records the memory of a start, unless an earlier one took more."""
    # A folder without the record of its run would be refused as none.
    if distributed.is_primary() and (folder / workdir.RECORD).is_file():
        known = peak_of(folder)
        largest = {name: max(count, known.get(name, 0)) for name, count in found.items()}
        write_atomically(folder / PEAK, json_text(known | largest) + b'\n')


def peak_of(folder: pathlib.Path) -> dict[str, int]:
    """{'host', 'device': bytes} of a run; {} of one of an earlier version."""
    found = read_json(folder / PEAK)
    found = found if isinstance(found, dict) else {}
    return {k: found[k] for k in ('host', 'device') if isinstance(found.get(k), int)}


def _without(numbers: Mapping, names) -> dict:
    return {name: value for name, value in numbers.items() if name not in names}


def _images_of(folder: pathlib.Path) -> str | None:
    """Where a run's targets are, if it has begun: perhaps in another comparison's work folder.

    The name of `folder` says that they are the same pictures.
    """
    try:
        images = read_json(folder / workdir.RECORD)['config']['data']['images']
    except (TypeError, KeyError):
        return None
    return images if isinstance(images, str) and pathlib.Path(images).is_dir() else None


def _indented(log, text, **options):
    log('\n'.join(f'  {line}' for line in str(text).splitlines()), **options)


def made_of(folder: pathlib.Path, pictures: Pictures) -> dict[str, Made]:
    """{picture: what the finished run in a folder made of it}."""
    found = _of_bulk(folder) if (folder / manifest.FILE).is_file() else {}
    # With a generator each, a run without groups has a manifest of its generators.
    if not any(made.file for made in found.values()):
        found = _of_run(folder) | found
    return {name: found.get(name) or Made(None, 'the run has no such picture') for name in pictures}


def _of_bulk(folder: pathlib.Path) -> dict[str, Made]:
    found = {}
    records = manifest.Manifest(folder / manifest.FILE).records
    # Of one generator for all, times are those of the run.
    whole = _own((read_json(folder / 'metrics.json') or {}).get('seconds', {}))
    shared = None if whole is None else whole / max(len(records), 1)
    for name, record in records.items():
        if 'skipped' in record:
            found[name] = Made(None, str(record['skipped']))
        elif record.get('metrics') and record.get('pictures'):
            stage = list(record['metrics'])[-1]
            (file,) = (p['file'] for p in record['pictures'] if p['label'] == stage)
            spent = _own(record.get('seconds', {}))
            spent = shared if spent is None else spent
            more = _moved(record['metrics']) | _drift(record.get('drift'))
            found[name] = Made(folder / record['folder'] / file, '', spent, more)
    return found


def _of_run(folder: pathlib.Path) -> dict[str, Made]:
    result = read_json(folder / 'metrics.json') or {}
    identities = result.get('identities', {})
    places = report.folders(folder / 'images', list(identities))
    spent = _own(result.get('seconds', {}))
    spent = None if spent is None else spent / max(len(identities), 1)
    # Runs of earlier versions with several generators have their mean alone.
    drifts = result.get(DRIFTS) or dict.fromkeys(list(identities)[:1], result.get('drift'))
    drifts = drifts if len(drifts) == len(identities) else {}
    return {
        name: Made(
            place / f'{list(stages)[-1]}.png',
            '',
            spent,
            _moved(stages) | _drift(drifts.get(name)),
        )
        for (name, stages), place in zip(identities.items(), places, strict=True)
    }


def _moved(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    return {k: v for found in stages.values() for k, v in found.items() if k in MOVED}


def _drift(found: Mapping[str, float | None] | None) -> dict[str, float | None]:
    return {name: found[metric] for name, metric in DRIFT.items() if metric in (found or {})}


def _own(seconds: Mapping[str, float]) -> float | None:
    own = [spent for stage, spent in seconds.items() if stage not in NOT_THE_METHOD]
    return sum(own) if own else None


def drift_of(folder: pathlib.Path) -> dict[str, float | None]:
    return (read_json(folder / 'metrics.json') or {}).get('drift') or {}


def _external(source: str, pictures: Pictures, log: Callable) -> dict[str, Made]:
    """Pictures of a folder by their names, upper and lower case alike."""
    files = {stem.casefold(): file for stem, file in reversed(data.find(source).files)}
    made = {}
    for name in pictures:
        file = files.get(name.casefold())
        made[name] = Made(file, '' if file else f'{printable(source)} has no picture {name!r}')
    return made
