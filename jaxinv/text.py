"""Printable text of strings from outside: file names, keys of checkpoints, other programs."""

import os
import re

_LONE = re.compile('[\ud800-\udfff]')  # bytes of a file name that are not UTF-8
# C0 and C1 controls (escape codes of terminals), separators of lines, and marks of writing
# direction, which reorder what a terminal or a page shows (Unicode UAX 9).
_CONTROL = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_LINES = re.compile('[^\n\t]')


def printable(value: object, limit: int | None = None, lines: bool = False) -> str:
    """The text of a path, string or bytes, such that any terminal or file can hold it.

    Bytes of a name that are not UTF-8 become U+FFFD, control characters escapes such as '\\x1b'.
    limit: characters of the result, the last ones '...'; None = all. lines: keeps newlines and
    tabs.
    """
    if isinstance(value, bytes):
        text = value.decode('utf-8', 'replace')
    else:
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        text = text.decode('utf-8', 'replace') if isinstance(text, bytes) else text
    if limit is not None and len(text) > 4 * limit:  # so that the rest costs no time
        text = text[: 4 * limit]
    text = _CONTROL.sub(lambda m: _escaped(m[0], lines), _LONE.sub('\ufffd', text))
    if limit is not None and len(text) > limit:
        text = text[: limit - 3] + '...'
    return text


def shortest(number: float) -> str:
    """The fewest digits that give the number back: '2', '0.333333333'."""
    text = f'{number:g}'
    return text if float(text) == number else repr(float(number))


def _escaped(character: str, lines: bool) -> str:
    if lines and not _LINES.match(character):
        return character
    return character.encode('unicode_escape').decode()
