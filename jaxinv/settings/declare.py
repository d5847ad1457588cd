"""Declares, checks and changes settings.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Projection(Section):
        section = 'pivot'
        num_steps: int = setting(450, 'Steps.', least=1)

A class of settings is a section of a config, here config.pivot. A field is declared once, with its
default, its sentence (unit or meaning, and the value that switches it off) and its range. Settings
are frozen and hashable, so that equal ones share a compiled program.
"""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self, get_args

from jaxinv.errors import JaxinvError

KINDS = {
    bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a text',
    tuple: 'a tuple',
}  # fmt: skip


class Rule(NamedTuple):
    """What is declared of a setting besides its default."""

    sentence: str
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple | None = None  # of a tuple: of each of its elements
    changes_result: bool = True
    later: bool = False


def setting(default, sentence: str, **rule):
    """A field of a Section; see Rule.

    changes_result=False: the setting bounds memory or time only. A run may continue with another
    value, and `record_of` leaves it out. later=True: the setting came after runs were recorded;
    `record_of` leaves it out at its default, so that they resume.
    """
    return dataclasses.field(default=default, metadata={'rule': Rule(sentence, **rule)})


def subsection(cls: type['Section'], *, without: tuple[str, ...] = (), **changes):
    """A field that holds another Section, which stands beside this one in a config.

    without: names of settings that have no effect here and are no keys of the config. changes:
    other defaults.
    """
    return dataclasses.field(default=cls(**changes), metadata={'without': without})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Base of all settings."""

    section: ClassVar[str] = ''  # its key in a config; '' = the config itself

    def replace(self, **changes) -> Self:
        """A copy with these fields changed."""
        return dataclasses.replace(self, **changes)

    def check(self) -> None:
        """Raises JaxinvError for a value that cannot be used, and names its key."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Section):
                value.check()
            else:
                _check_value(self.key_of(field.name), value, field)

    @classmethod
    def key_of(cls, name: str) -> str:
        """'pivot.num_steps' of 'num_steps'."""
        return f'{cls.section}.{name}' if cls.section else name


class Key(NamedTuple):
    """A key of a config."""

    section: type[Section]
    name: str
    default: Any
    kind: type  # of values other than None
    optional: bool  # None is a value
    rule: Rule

    @property
    def path(self) -> str:
        return self.section.key_of(self.name)


def keys(settings: Section | type[Section], without=()) -> Iterator[Key]:
    """All keys of a section, and then of the sections in it."""
    cls = settings if isinstance(settings, type) else type(settings)
    fields = [field for field in dataclasses.fields(cls) if field.name not in without]
    for field in fields:
        if 'rule' in field.metadata:
            default = getattr(settings, field.name, field.default)
            optional = type(None) in get_args(field.type)
            yield Key(cls, field.name, default, kind_of(field), optional, field.metadata['rule'])
    for field in fields:
        if 'rule' not in field.metadata:
            own = getattr(settings, field.name, field.default)
            yield from keys(own, field.metadata['without'])


def kind_of(field: dataclasses.Field) -> type:
    """The type of a field's values other than None."""
    return next((t for t in get_args(field.type) if t is not type(None)), field.type)


def changed(settings: Section, **changes) -> Section:
    """A checked copy with these fields changed; a mapping changes fields of a section in it.

    Raises JaxinvError for a name that is no setting, and for a value that cannot be used.
    """
    names = [field.name for field in dataclasses.fields(settings)]
    for name, value in changes.items():
        if name not in names:
            raise JaxinvError(unknown(f'{type(settings).__name__} has no setting', name, names))
        own = getattr(settings, name)
        if isinstance(own, Section) and isinstance(value, Mapping):
            changes[name] = changed(own, **value)
        elif isinstance(own, Section) and not isinstance(value, type(own)):
            raise JaxinvError(
                f'{name} is {value!r}; it can be a {type(own).__name__} or a dict of its settings.'
            )
    settings = settings.replace(**changes)
    settings.check()
    return settings


def of(config: Mapping, cls: type[Section]) -> Section:
    """The settings of this class that a config holds; a key that it lacks has its default.

    config: nested dicts or ConfigDicts. Raises JaxinvError for a key that is no setting.
    """
    return _of(config, cls, cls())


def _of(config, cls, default: Section):
    own = config.get(cls.section, {}) if cls.section else config
    fields = {field.name: field for field in dataclasses.fields(cls)}
    # Without a section of its own, the config also holds the other sections.
    for name in own if cls.section else ():
        if name not in fields:
            raise JaxinvError(unknown(f'config.{cls.section} has no key', name, list(fields)))
    values = {}
    for name in fields:
        value = getattr(default, name)
        if isinstance(value, Section):
            values[name] = _of(config, type(value), value)
        elif name in own:
            value = own[name]
            values[name] = tuple(value) if isinstance(value, list) else value
    return default.replace(**values)


def unknown(start: str, name: str, known: list[str]) -> str:
    """The sentence for a name that is not one of the known ones."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f'; did you mean {close[0]}?' if close else '.'
    return f'{start} {name}{hint} It has: {", ".join(known)}.'


def _check_value(key: str, value, field: dataclasses.Field) -> None:
    rule, kind = field.metadata['rule'], kind_of(field)
    if value is None and type(None) in get_args(field.type):
        return
    if not _is_a(value, kind):
        raise JaxinvError(f'{key} is {value!r}; it must be {KINDS[kind]}.')
    if rule.choices is not None:
        for item in value if kind is tuple else (value,):
            if item not in rule.choices:
                raise JaxinvError(f'{key} is {value!r}; it can be {one_of(rule.choices)}.')
    if not _in_range(value, rule):
        raise JaxinvError(f'{key} is {value}; it must be {range_of(rule)}.')


def _is_a(value, kind) -> bool:
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind)


def _in_range(value, rule: Rule) -> bool:
    return (
        (rule.least is None or value >= rule.least)
        and (rule.above is None or value > rule.above)
        and (rule.most is None or value <= rule.most)
        and (rule.below is None or value < rule.below)
    )


def range_of(rule: Rule) -> str:
    """'at least 0 and at most 1'; '' if every value is allowed."""
    parts = (
        ('at least', rule.least), ('above', rule.above), ('at most', rule.most),
        ('below', rule.below),
    )  # fmt: skip
    return ' and '.join(f'{word} {bound:g}' for word, bound in parts if bound is not None)


def one_of(choices) -> str:
    """ "'a', 'b' or 'c'"."""
    *others, last = map(repr, choices)
    return f'{", ".join(others)} or {last}' if others else last
