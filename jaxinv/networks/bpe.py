"""CLIP's tokenizer: byte pair encoding of lower-case texts (Sennrich et al. 2016, arXiv:1508.07909;
CLIP, section 2.4).

A text is normalised (NFC, lower case, single spaces), cut into words, numbers of one digit and runs
of other signs, and each piece, as UTF-8 bytes, is merged pair by pair in the order of the list of
merges. The vocabulary follows from that list: 256 bytes, the same 256 at the end of a piece, the
merged pairs, and the two tokens of start and end.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.text import printable

START, END = '<|startoftext|>', '<|endoftext|>'
END_OF_WORD = '</w>'
MAX_CHARACTERS = 10_000  # of a text
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Tokenizer:
    """Texts to tokens.

    merges: pairs of symbols in the order in which they are merged, the signs of bytes as in
    `byte_signs`; CLIP's list has 48 894.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        merges = list(merges)
        signs = list(byte_signs().values())
        words = [*signs, *(sign + END_OF_WORD for sign in signs), *map(''.join, merges), START, END]
        self.tokens = {word: i for i, word in enumerate(words)}
        self.size = len(words)
        self._ranks = {pair: i for i, pair in enumerate(merges)}
        self._merge = functools.lru_cache(maxsize=4096)(self._merged)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        if len(text) > MAX_CHARACTERS:
            raise JaxinvError(
                f'a text has {len(text)} characters; at most {MAX_CHARACTERS} are taken.'
            )
        signs = byte_signs()
        found = []
        for piece in pieces(normalise(text)):
            if piece in (START, END):
                found.append(self.tokens[piece])
                continue
            word = ''.join(signs[byte] for byte in piece.encode())
            found += [self.tokens[symbol] for symbol in self._merge(word)]
        return found

    def __call__(self, texts: str | Sequence[str], context: int = 77) -> np.ndarray:
        """Tokens int32 [n, context] with start and end, padded with 0.

        Raises JaxinvError for a text that is longer, which CLIP cannot read to its end.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = np.zeros((len(texts), context), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            found = [self.tokens[START], *self.encode(text), self.tokens[END]]
            if len(found) > context:
                raise JaxinvError(
                    f'the text {printable(text, 60)!r} has {len(found)} tokens, with start and '
                    f'end; this CLIP reads {context}, so shorten it.'
                )
            row[: len(found)] = found
        return tokens

    def _merged(self, word: str) -> tuple[str, ...]:
        """The symbols of a piece, after all merges that apply."""
        symbols = [*word[:-1], word[-1] + END_OF_WORD]
        while len(symbols) > 1:
            pairs = set(zip(symbols[:-1], symbols[1:], strict=True))
            first = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if first not in self._ranks:
                break
            joined, i = [], 0
            while i < len(symbols):
                if tuple(symbols[i : i + 2]) == first:
                    joined.append(''.join(first))
                    i += 2
                else:
                    joined.append(symbols[i])
                    i += 1
            symbols = joined
        return tuple(symbols)


@functools.cache
def byte_signs() -> dict[int, str]:
    """{byte: a visible sign}: bytes that Latin-1 prints stand for themselves, the others for 256...

    The order is that of the vocabulary.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


def normalise(text: str) -> str:
    """NFC, runs of white space as one space, lower case, as Hugging Face's tokenizer."""
    return re.sub(r'\s+', ' ', unicodedata.normalize('NFC', text)).lower()


def pieces(text: str) -> list[str]:
    """The pieces of a normalised text: START, END, contractions, words, digits and other runs."""
    found, i = [], 0
    while i < len(text):
        special = next((s for s in (START, END, *_CONTRACTIONS) if text.startswith(s, i)), None)
        if special is not None:
            found.append(special)
            i += len(special)
            continue
        kind = _kind(text[i])
        stop = i + 1
        if kind != 'number':
            while stop < len(text) and _kind(text[stop]) == kind:
                stop += 1
        if kind != 'space':
            found.append(text[i:stop])
        i = stop
    return found


def _kind(sign: str) -> str:
    if sign.isspace():
        return 'space'
    category = unicodedata.category(sign)[0]
    return {'L': 'letter', 'N': 'number'}.get(category, 'other')
