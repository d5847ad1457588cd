"""Settings of a preference study: --config=preference and --config=preference_results."""

import dataclasses

from jaxinv.settings.declare import Section, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference(Section):
    """--config=preference: a page of blind comparisons of two methods."""

    task: str = setting('preference', 'Main path of this config; not to be changed.')
    seed: int = setting(0, "Of the order and sides, with each rater's number.", least=0)
    methods: str = setting(
        '',
        'Two or more, separated by commas: NAME=FOLDER of pictures, or NAME=RUN:STAGE of a run, as '
        "'pti=runs/a:tuned,sam=runs/b:SAM' (docs/preference.md); without NAME= the folder's name.",
    )
    originals: str = setting(
        '', "Folder of the photographs, under the same names; '' = the targets of the first run."
    )
    question: str = setting(
        'Which picture is closer to the original?', 'Shown above every comparison.'
    )
    per_rater: int = setting(
        0, 'Comparisons that a rater sees, chosen at random, without the checks; 0 = all.', least=0
    )
    checks: int = setting(
        4,
        'Attention checks among them: the original against a coarse copy of it; 0 = none.',
        least=0,
    )
    pixels: int = setting(384, 'Pixels of the longer side of the pictures on the page.', least=32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceResults(Section):
    """--config=preference_results: the raters' files to preferences with exact intervals."""

    task: str = setting('preference_results', 'Main path of this config; not to be changed.')
    study: str = setting('', 'Work folder of --config=preference.')
    results: str = setting('', "Folder or pattern of the raters' files, as 'answers/*.json'.")
    level: float = setting(0.95, 'Of the intervals.', above=0, below=1)
    max_failed: int = setting(
        0, 'Attention checks that a rater may fail; raters with more are left out.', least=0
    )
