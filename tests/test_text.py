"""Text from outside is printable in terminals, files and reports."""

import json

import pytest

from jaxinv import io, text
from jaxinv.errors import JaxinvError
from jaxinv.report import page


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('plain.png', 'plain.png'),
        ('\u00e9\u4e2d\U0001f600', '\u00e9\u4e2d\U0001f600'),
        ('bad\udc80name', 'bad\ufffdname'),
        (b'bad\x80name', 'bad\ufffdname'),
        ('\x1b[2J\x07', '\\x1b[2J\\x07'),
        ('a\nb\tc\rd', 'a\\nb\\tc\\rd'),
        ('\x85\u2028\u202egnp', '\\x85\\u2028\\u202egnp'),
    ],
)
def test_printable(given, expected):
    found = text.printable(given)
    assert found == expected
    assert found.isprintable() and found.encode()


def test_lines_are_kept_where_they_are_asked_for():
    assert text.printable('a\n\tb\x1b', lines=True) == 'a\n\tb\\x1b'
    assert text.printable('a' * 10**7, 20) == 'a' * 17 + '...'


@pytest.mark.parametrize('number', [2.0, -0.5, 1 / 3, 0.333333333, 1e-9, 123456789.0])
def test_shortest_gives_the_number_back(number):
    assert float(text.shortest(number)) == number
    assert len(text.shortest(number)) <= len(repr(number))


def test_errors_are_one_printable_line():
    assert str(JaxinvError('no \x1b[31m\udc80\n here')) == 'no \\x1b[31m\ufffd\\n here'
    assert len(str(JaxinvError('a' * 10**6))) <= 2000


def test_json_keeps_names_that_are_not_utf8(tmp_path):
    content = {'file': 'bad\udc80\x1b.png', 'other': '\u00e9'}
    data = io.json_text(content)
    data.decode()
    assert json.loads(data) == content
    io.write_atomically(tmp_path / 'a.json', 'bad\udc80')
    assert (tmp_path / 'a.json').read_bytes() == b'bad\\udc80'


def test_pages_show_a_mark_for_what_they_cannot_hold():
    found = page._printable('bad\udc80\x1b')
    assert found == 'bad\ufffd\\x1b' and found.encode()
