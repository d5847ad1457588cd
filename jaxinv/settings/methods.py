"""The table of methods: what --config.task names, and what can be said of any config."""

import importlib
from typing import Any, NamedTuple

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, keys, of, unknown


class Method(NamedTuple):
    """A task of the launcher."""

    declared: str  # 'MODULE.CLASS' of its settings
    module: str  # with run(config, path, *, overwrite, log)
    several_processes: bool = False  # True = also with --coordinator

    @property
    def settings(self) -> type[Section]:
        module, _, name = self.declared.rpartition('.')
        return getattr(importlib.import_module(module), name)


# To add a method: its module, its settings, a config, and a line here.
METHODS = {
    'invert': Method('jaxinv.settings.tasks.Invert', 'jaxinv.experiments.pti', True),
    'invert_sam': Method('jaxinv.settings.tasks.InvertSam', 'jaxinv.experiments.sam', True),
    'fit_directions': Method(
        'jaxinv.settings.directions.FitDirections', 'jaxinv.experiments.fit_directions'
    ),
    'invertibility_data': Method(
        'jaxinv.settings.maps.InvertibilityData', 'jaxinv.experiments.invertibility_data'
    ),
    'train_invertibility': Method(
        'jaxinv.settings.maps.TrainInvertibility', 'jaxinv.experiments.train_invertibility'
    ),
    'train_encoder': Method(
        'jaxinv.settings.encoders.TrainEncoder', 'jaxinv.experiments.train_encoder'
    ),
    'train_sam_encoders': Method(
        'jaxinv.settings.sam_encoders.TrainSamEncoders', 'jaxinv.experiments.train_sam_encoders'
    ),
    'text_directions': Method(
        'jaxinv.settings.text_edits.TextDirections', 'jaxinv.experiments.text_directions'
    ),
    'train_mapper': Method(
        'jaxinv.settings.text_edits.TrainMapper', 'jaxinv.experiments.train_mapper'
    ),
    'evaluate': Method(
        'jaxinv.settings.evaluation.Evaluate', 'jaxinv.experiments.comparison', True
    ),
    'evaluate_edits': Method(
        'jaxinv.settings.evaluation.EvaluateEdits', 'jaxinv.experiments.edit_comparison'
    ),
    'preference': Method('jaxinv.settings.preference.Preference', 'jaxinv.experiments.preference'),
    'preference_results': Method(
        'jaxinv.settings.preference.PreferenceResults', 'jaxinv.experiments.preference_results'
    ),
    'invert_video': Method('jaxinv.settings.video.InvertVideo', 'jaxinv.experiments.video'),
}

# Keys by which a config was given before: the present key.
RENAMED = {
    'pivot.at_once': 'pivot.batch_per_device',
    'sam.at_once': 'sam.batch_per_device',
    'at_once': 'batch_per_device',
}


def check(config) -> None:
    """Raises JaxinvError for settings that cannot be used, before anything is computed."""
    run = _task_of(config)
    known = {key.path.partition('.')[0] for key in keys(run)}
    for name in config:
        if name not in known:
            raise JaxinvError(unknown('the config has no key', name, sorted(known)))
    of(config, run).check()


def record_of(config) -> dict[str, Any]:
    """The settings of a ConfigDict by which a resumed run is recognised.

    Without those that bound memory or time only (changes_result=False): the results are the same,
    and a run that was out of memory may continue with less. Also without settings of later versions
    at their defaults (later=True), so that a run of an earlier version continues.
    """
    record = config.to_dict()
    for key in keys(_task_of(config)):
        own = record.get(key.section.section, {}) if key.section.section else record
        at_default = key.rule.later and own.get(key.name) == key.default
        if at_default or not key.rule.changes_result:
            own.pop(key.name, None)
    # A section of later settings alone was not in a record before them.
    return {name: value for name, value in record.items() if value != {}}


def _task_of(config) -> type[Section]:
    task = config.get('task')
    if task not in METHODS:
        raise JaxinvError(f'config.task is {task!r}; it can be {", ".join(METHODS)}.')
    return METHODS[task].settings
