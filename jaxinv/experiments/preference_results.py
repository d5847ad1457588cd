"""The raters' files of a preference study, to preferences with exact binomial intervals.

    metrics.json   of each pair of methods: choices, preference, interval, p; who was left out, why
    table.csv      the same as a table
    report.html    the same as a page

Files come from outside: their size is bounded, everything in them is checked against the study, and
text of theirs is escaped. Intervals are those of Clopper and Pearson 1934; they assume independent
choices. Choices by one rater or of one picture are correlated, so the true interval is wider.
"""

import csv
import io
import itertools
import json
import math
import pathlib
from typing import Any, NamedTuple

import scipy.stats

from jaxinv import settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments.preference import STUDY, VERSION
from jaxinv.io import expanded, json_text, read_json, write_atomically
from jaxinv.report import page
from jaxinv.runtime import workdir as workdirs
from jaxinv.text import printable

MAX_FILE = 2_000_000  # bytes of a rater's file
MAX_FILES = 20_000
MAX_MS = 86_400_000  # of an answer: a day


class Rater(NamedTuple):
    """A rater's checked answers."""

    file: str
    number: int
    answers: list[tuple[str, int]]  # (trial, chosen index of its pair)
    milliseconds: list[int]


class BadFile(JaxinvError):
    """A rater's file cannot be used; the message is the reason."""


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=preference_results in the folder `path`."""
    settings.check(config)
    options = settings.of(config, settings.METHODS[config.task].settings)
    for name in ('study', 'results'):
        if not getattr(options, name):
            raise JaxinvError(f"{name} is ''; give --config.study=FOLDER --config.results=FOLDER.")
    study = read_study(options.study)
    files = find_files(options.results)
    record = {'config': settings.record_of(config), 'study': study['study']}
    # With more answers the same command counts anew: it takes no time.
    with workdirs.claim(path, record, overwrite):
        (path / workdirs.FINISHED).unlink(missing_ok=True)
        raters, skipped = read_raters(files, study)
        kept, failed = screen(raters, study, options.max_failed)
        for entry in (*skipped, *failed):
            log(f'Left out {printable(entry["file"])}: {entry["reason"]}')
        if not kept:
            raise JaxinvError(
                f'none of {len(files)} files can be used; the first reason is: '
                f'{(*skipped, *failed)[0]["reason"] if files else "there are none"}'
            )
        pairs = preferences(kept, study, options.level)
        facts = {
            'study': study['study'],
            'question': study['question'],
            'raters': len(kept),
            'left_out': [*skipped, *failed],
            'failed_checks': len(failed),
            'level': options.level,
            'max_failed': options.max_failed,
            'pairs': pairs,
        }
        write_atomically(path / 'table.csv', table(pairs))
        write_atomically(path / 'report.html', page.fill('preference_results.html.j2', facts))
        write_atomically(path / workdirs.FINISHED, json_text(facts, indent=1) + b'\n')
    log('\n'.join(map(sentence, pairs)))
    log(f'{len(kept)} raters, {len(failed)} left out by checks. Open {path / "report.html"}')


def read_study(folder: str) -> dict[str, Any]:
    """study.json of a folder of --config=preference. Raises JaxinvError."""
    file = expanded(folder) / STUDY
    study = read_json(file)
    if not isinstance(study, dict) or study.get('version') != VERSION:
        raise JaxinvError(f'there is no {printable(file)} of --config=preference.')
    return study


def find_files(source: str) -> list[pathlib.Path]:
    """The .json files of a folder, or of a pattern. Raises JaxinvError."""
    path = expanded(source)
    found = path.glob('*.json') if path.is_dir() else path.parent.glob(path.name)
    files = sorted(file for file in itertools.islice(found, MAX_FILES + 1) if file.is_file())
    if not files or len(files) > MAX_FILES:
        raise JaxinvError(
            f'results is {printable(source)!r}, which has {len(files) or "no"} files; 1 to '
            f'{MAX_FILES} are read.'
        )
    return files


def read_raters(files, study) -> tuple[list[Rater], list[dict]]:
    """(raters, [{'file', 'reason'}] of files that cannot be used), each rater once."""
    raters: dict[int, Rater] = {}
    skipped = []
    for file in files:
        try:
            rater = read_rater(file, study)
            if rater.number in raters:
                raise BadFile(
                    f'it is of the same rater as {printable(raters[rater.number].file, 80)}.'
                )
            raters[rater.number] = rater
        except BadFile as error:
            skipped.append({'file': printable(file.name, 120), 'reason': str(error)})
    return list(raters.values()), skipped


def read_rater(file: pathlib.Path, study) -> Rater:
    """A rater's file, checked against the study. Raises BadFile."""
    try:
        with open(file, 'rb') as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise BadFile(f'it cannot be read ({error.strerror}).') from None
    if len(data) > MAX_FILE:
        raise BadFile(f'it has more than {MAX_FILE} bytes.')
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadFile('it is not JSON.') from None
    if not isinstance(found, dict) or found.get('version') != VERSION:
        raise BadFile('it is not a file of the page.')
    if found.get('study') != study['study']:
        raise BadFile(f'it is of another study, {printable(found.get("study"), 40)}.')
    number, answers = found.get('rater'), found.get('answers')
    if not _is_int(number, 2**32 - 1) or not isinstance(answers, list):
        raise BadFile('it has no rater or no answers.')
    known = {trial['id'] for trial in study['trials']}
    chosen: dict[str, int] = {}
    times = []
    for answer in answers:
        whole = isinstance(answer, dict) and isinstance(answer.get('trial'), str)
        whole = whole and _is_int(answer.get('choice'), 1) and _is_int(answer.get('ms'), MAX_MS)
        if not whole or answer['trial'] not in known or answer['trial'] in chosen:
            raise BadFile('an answer in it is of no comparison of the study, or not the first.')
        chosen[answer['trial']] = answer['choice']
        times.append(answer['ms'])
    asked = answers_of_a_rater(study)
    kinds = [trial['kind'] for trial in study['trials'] if trial['id'] in chosen]
    found = {kind: kinds.count(kind) for kind in asked}
    if any(found[kind] < count for kind, count in asked.items()):
        raise BadFile(
            f'it is incomplete: {found["pair"]} of {asked["pair"]} comparisons and '
            f'{found["check"]} of {asked["check"]} checks are answered.'
        )
    return Rater(file.name, number, list(chosen.items()), times)


def answers_of_a_rater(study) -> dict[str, int]:
    """{'pair', 'check': how many of them the page shows a rater}."""
    kinds = [trial['kind'] for trial in study['trials']]
    pairs = kinds.count('pair')
    # Keys of earlier versions do not say how many pairs; a single one is required then.
    shown = study.get('per_rater', 1) or pairs
    return {'pair': min(shown, pairs), 'check': kinds.count('check')}


def _is_int(value, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def screen(raters, study, max_failed: int) -> tuple[list[Rater], list[dict]]:
    """(raters who failed at most max_failed checks, [{'file', 'reason'}] of the others)."""
    checks = {trial['id'] for trial in study['trials'] if trial['kind'] == 'check'}
    kept, failed = [], []
    for rater in raters:
        wrong = sum(trial in checks and choice != 0 for trial, choice in rater.answers)
        if wrong > max_failed:
            reason = f'the rater failed {wrong} of {len(checks)} attention checks.'
            failed.append({'file': printable(rater.file, 120), 'reason': reason})
        else:
            kept.append(rater)
    return kept, failed


def preferences(raters, study, level: float) -> list[dict[str, Any]]:
    """Of each pair of methods: how often the first was preferred, with its exact interval."""
    trials = {trial['id']: trial for trial in study['trials'] if trial['kind'] == 'pair'}
    counts = {pair: [0, 0, set(), set()] for pair in itertools.combinations(study['methods'], 2)}
    for rater in raters:
        for name, choice in rater.answers:
            if name in trials:
                own = counts[tuple(trials[name]['methods'])]
                own[choice] += 1
                own[2].add(rater.number)
                own[3].add(trials[name]['picture'])
    found = []
    for (first, second), (wins, losses, who, pictures) in counts.items():
        total = wins + losses
        low, high = clopper_pearson(wins, total, level)
        p = scipy.stats.binomtest(wins, total).pvalue if total else None
        found.append(
            {
                'first': first,
                'second': second,
                'first_preferred': wins,
                'choices': total,
                'preference': wins / total if total else None,
                'low': low,
                'high': high,
                'p_value': None if p is None else float(p),
                'raters': len(who),
                'pictures': len(pictures),
            }
        )
    return found


def clopper_pearson(wins: int, total: int, level: float) -> tuple[float, float]:
    """The exact interval of a binomial share (Clopper and Pearson 1934)."""
    alpha, beta = 1 - level, scipy.stats.beta.ppf
    low = float(beta(alpha / 2, wins, total - wins + 1)) if wins else 0.0
    high = float(beta(1 - alpha / 2, wins + 1, total - wins)) if wins < total else 1.0
    return low, high


def sentence(pair: dict) -> str:
    """'pti over sam: 61.2 % (52.1 % to 69.8 %) of 120 choices by 10 raters, p = 0.012'."""
    if not pair['choices']:
        return f'{pair["first"]} and {pair["second"]}: no choices.'
    share, low, high = (100 * pair[k] for k in ('preference', 'low', 'high'))
    p = pair['p_value']
    shown = f'{p:.3f}' if p >= 0.001 else f'{p:.0e}'
    return (
        f'{pair["first"]} over {pair["second"]}: {share:.1f} % ({low:.1f} % to {high:.1f} %) of '
        f'{pair["choices"]} choices by {pair["raters"]} raters, p = {shown}'
    )


def table(pairs: list[dict]) -> str:
    """CSV; a cell that a spreadsheet would take for a formula is quoted by an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(pairs[0])
    for pair in pairs:
        cells = []
        for value in pair.values():
            if isinstance(value, str) and value[:1] in '=+-@\t':
                value = f"'{value}"
            is_whole = not isinstance(value, float) or math.isfinite(value)
            cells.append(value if is_whole else '')
        writer.writerow(cells)
    return text.getvalue()
