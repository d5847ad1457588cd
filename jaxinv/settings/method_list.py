"""The spelling of methods to compare.

    w,w_plus,pti,sam                                  rows of a table, in this order
    pti:official, sam:f6+paper                        variants of a config, joined by +
    pti?tune.num_steps=20&pivot.space=w_plus          settings of a config, joined by &
    short=pti?tune.num_steps=20                       a name for the row
    w?generator=row:pti_multi_id                      the generator that an earlier row tuned
    e4e:FILE, restyle:FILE, encoder:FILE, hybrid:FILE     codes of an encoder (docs/encoders.md)
    sam_encoder:FILE                                  SAM by its own encoders (docs/sam.md)
    external:FOLDER                                   pictures that another project made

Methods are separated by commas; commas in brackets, quotes or after a backslash do not separate. A
quote opens only where a value begins, as in external:"a,b": elsewhere it is an apostrophe. Quotes
around a value are no part of it. Configs and methods are spelled in upper and lower case alike.
"""

import re
from typing import NamedTuple

from jaxinv.errors import JaxinvError
from jaxinv.settings.sam import LABELS, WITH_ENCODER
from jaxinv.text import printable

JUDGES = ('dlib', 'sface', 'mobilefacenet', 'arcface', 'curricularface')  # they compare faces
EXTERNAL = 'external'
# 'pti' is PTI's table 1, a generator for each picture; the variant sam:pti tunes one for all.
ALIASES = {'pti': ('pti_single_id', '')} | {
    name: ('sam', name) for name in LABELS if name not in ('sam', 'pti', 'f2')
}
# Methods with a file after a colon: the setting that it is for, and what begins the value.
WITH_FILE = dict.fromkeys(WITH_ENCODER, ('pivot.start', 'encoder:'))
WITH_FILE |= {'sam_encoder': ('sam_encoders', '')}
HELP = (
    'Rows of the table, separated by commas: a method of SAM (w, w_plus, gaussian_prior, f4, f6, '
    "f8, f10, sam, pti_sam), 'pti' (= pti_single_id), or any config of an inversion; with "
    'variants, CONFIG:VARIANT+VARIANT; with settings, CONFIG?KEY=VALUE&KEY=VALUE; with a name of '
    "its own, NAME=CONFIG...; 'e4e:FILE', 'restyle:FILE', 'encoder:FILE', 'hybrid:FILE' or "
    "'sam_encoder:FILE'; and 'external:FOLDER' of pictures named as the photographs "
    '(docs/evaluate.md). The setting generator=row:NAME takes the generator that an earlier row '
    'tuned for all pictures.'
)
_NAME = re.compile(r'\s*([^=?:/\\]{1,80}?)\s*=\s*(?=\S)')
_QUOTES = '"\''
_BEFORE_A_VALUE = '=:,([{'


class Method(NamedTuple):
    """A row: a config with changes, or a folder."""

    name: str
    spelling: str
    config: str = ''  # '' = external
    variants: str = ''  # separated by commas
    overrides: tuple[tuple[str, str], ...] = ()  # (key, value as it was written)
    folder: str = ''


def parse(text: str) -> list[Method]:
    """The methods of a list, in its order. Raises JaxinvError for a spelling that is none.

    Whether configs, variants and keys exist is known only to experiments/method_runs.py.
    """
    found = [_parse_one(item) for item in split(text, ',') if item.strip()]
    if not found:
        raise JaxinvError(f'methods is {text!r}; name one at least, e.g. w_plus,pti,sam.')
    names = [method.name for method in found]
    for name in names:
        if names.count(name) > 1:
            raise JaxinvError(
                f'methods has two rows {name!r}; give one of them a name of its own, as in '
                f'again={name}.'
            )
    return found


def _parse_one(item: str) -> Method:
    item = unquoted(item)
    match = _NAME.match(item)
    name, spelling = (unquoted(match[1]), item[match.end() :]) if match else (item, item)
    head, *parts = split(spelling, '?')  # a question mark in quotes is one of a path
    settings = '?'.join(parts)
    base, colon, rest = head.partition(':')
    base = base.strip()
    key = base.lower()
    if key == EXTERNAL:
        # A folder may hold a question mark.
        folder = unquoted(spelling.partition(':')[2])
        if not folder:
            raise JaxinvError(f'{item!r} names no folder; write external:FOLDER.')
        return Method(name, spelling, folder=folder)
    overrides = []
    for part in split(settings, '&') if parts else ():
        path, equals, value = part.partition('=')
        if not equals or not path.strip():
            raise JaxinvError(
                f'{part!r} in the method {item!r} is not KEY=VALUE; write e.g. '
                'pti?tune.num_steps=20&tune.learning_rate=1e-3.'
            )
        overrides.append((path.strip().removeprefix('config.'), value))
    config, first = ALIASES.get(key, (key, ''))
    if key in WITH_FILE:
        path, prefix = WITH_FILE[key]
        if rest:
            overrides.insert(0, (path, f'{prefix}{unquoted(rest)}'))
        elif path not in dict(overrides):
            raise JaxinvError(f'{item!r} needs an encoder; write {key}:FILE.')
        rest = ''
    elif colon and not rest:
        raise JaxinvError(f'{item!r} ends with a colon; write CONFIG:VARIANT, or CONFIG alone.')
    variants = ','.join(filter(None, [first, *re.split(r'[+,]', rest)]))
    return Method(name, spelling, config, variants, tuple(overrides))


def unquoted(text: str) -> str:
    """The text without the quotes around it."""
    text = text.strip()
    whole = len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES
    return text[1:-1] if whole and text[0] not in text[1:-1] else text


def split(text: str, separator: str) -> list[str]:
    """Splits at a separator outside brackets and quotes; a backslash before it keeps it.

    Raises JaxinvError for a quote that opens and does not close.
    """
    pieces, depth, quote, escaped = [''], 0, '', False
    before = ''  # the last letter that is no space
    for letter in text:
        last, before = before, letter if letter.strip() else before
        if escaped:
            pieces[-1] += letter if letter == separator else '\\' + letter
            escaped = False
            continue
        if letter == '\\':
            escaped = True
            continue
        if quote:
            quote = '' if letter == quote else quote
        elif letter in _QUOTES and (not last or last in _BEFORE_A_VALUE):
            quote = letter
        elif letter in '([{':
            depth += 1
        elif letter in ')]}':
            depth -= 1
        elif letter == separator and depth <= 0:
            pieces.append('')
            continue
        pieces[-1] += letter
    if quote:
        raise JaxinvError(
            f'{printable(text, 200)} has a quote {quote} that does not close; close it, or put the '
            'whole value in the other quotes.'
        )
    pieces[-1] += '\\' if escaped else ''
    return pieces
