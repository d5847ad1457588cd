"""Configs of the command line, built from jaxinv.settings: same keys, defaults and sentences.

A config file starts from `get_config(task)` and changes what differs, as a variant if it can be
chosen: --config=FILE:VARIANT,VARIANT.
"""

import textwrap
from collections.abc import Callable, Mapping

import ml_collections
from ml_collections import config_dict

from jaxinv import settings

WIDTH = 100  # characters of a line of help


def get_config(task: str = 'invert') -> ml_collections.ConfigDict:
    """All settings of a task (settings.METHODS), each at its default. Takes no other keys."""
    config = ml_collections.ConfigDict()
    for key in settings.keys(settings.METHODS[task].settings):
        own = _section(config, key)
        own[key.name] = config_dict.placeholder(key.kind) if key.optional else key.default
        if key.optional and key.default is not None:
            own[key.name] = key.default
    return config.lock()


def reset(config: ml_collections.ConfigDict, *paths: str) -> None:
    """Sets keys, such as 'pivot.num_steps', to their defaults again."""
    known = {key.path: key for key in settings.keys(settings.METHODS[config.task].settings)}
    for path in paths:
        _section(config, known[path])[known[path].name] = known[path].default


def variant(
    config: ml_collections.ConfigDict,
    names: str,
    known: Mapping[str, Callable[[ml_collections.ConfigDict], None]],
) -> ml_collections.ConfigDict:
    """Applies known[name](config) for each of the names, separated by commas, in their order.

    Raises ValueError for a name that is not known.
    """
    for name in filter(None, names.split(',')):
        if name not in known:
            raise ValueError(f'Unknown variant {name!r}; known: {", ".join(sorted(known))}.')
        known[name](config)
    return config


def explain(config: ml_collections.ConfigDict) -> str:
    """Every key of a config, with its value and its sentence, section by section."""
    lines, section = [], None
    for key in settings.keys(settings.METHODS[config.task].settings):
        if key.section is not section:
            section = key.section
            head = section.__doc__.splitlines()[0]
            lines += ['', f'{section.section}: {head}' if section.section else head]
        value = _section(config, key).get(key.name, key.default)
        lines.append(f'  --config.{key.path}={value!r}')
        sentence = key.rule.sentence
        if not key.rule.changes_result:
            sentence += ' Results are the same, and a run can continue with another value.'
        lines += textwrap.wrap(sentence, WIDTH, initial_indent=' ' * 6, subsequent_indent=' ' * 6)
    return '\n'.join(lines[1:])


def _section(config, key: settings.Key):
    """The part of a config that holds a key."""
    name = key.section.section
    if not name:
        return config
    if name not in config:
        config[name] = ml_collections.ConfigDict()
    return config[name]
