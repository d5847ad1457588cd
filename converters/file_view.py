"""Untrusted files: as memory maps, and with every fault of a reader as one sentence.

A memory map, so that a large checkpoint is never in memory twice.
"""

import contextlib
import io
import json
import mmap
import os
from collections.abc import Iterator

from jaxinv.errors import JaxinvError
from jaxinv.text import printable

# Limit of a file, and of all arrays made from it. The largest common checkpoints, training states
# with two generators, a discriminator and Adam's moments, have about 2 GB.
MAX_BYTES = 2**33
MAX_JSON = 2**22
MAX_LINE = 2**20  # bytes of a line of text in a file


class UnreadableFile(JaxinvError):
    """A file cannot be read; the message is one sentence with its name and the reason."""


class Refused(Exception):
    """A predicate of the file, e.g. 'is encrypted'; the caller puts the file's name before it."""


@contextlib.contextmanager
def reading(
    file, what: str = 'a checkpoint', remedy: str = '', error: type[JaxinvError] = UnreadableFile
) -> Iterator[None]:
    """Turns whatever a reader of `file` raises in the block into `error`, one sentence.

    By construction, not by a list: decoders raise exceptions of any type for damaged or hostile
    bytes. Errors for the user pass, with the file's name before them. what: 'is not {what}, or is
    damaged'; remedy: a sentence for a file that is refused.
    """
    try:
        yield
    except Refused as refusal:
        raise error(f'{file} {refusal}{remedy}.') from None
    except JaxinvError as known:
        if str(file) in str(known):
            raise
        raise error(f'{file}: {known}') from known
    except Exception as fault:
        reason = ' '.join(str(fault).split())[:120].rstrip('.')
        reason = f'{type(fault).__name__}: {reason}' if reason else type(fault).__name__
        if isinstance(fault, OSError) and fault.strerror:
            reason = fault.strerror
        raise error(f'{file} is not {what}, or is damaged ({reason}).') from fault


def view(path) -> memoryview:
    """The bytes of the file, read-only; mapped as long as an array made of them exists."""
    with open(path, 'rb') as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b'')
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_json(path, what: str = 'a JSON file', max_bytes: int = MAX_JSON):
    """The content of a JSON file. Raises UnreadableFile."""
    with reading(path, what):
        data = view(path)
        if len(data) > max_bytes:
            raise Refused(f'has more than the {max_bytes} bytes allowed')
        return json.loads(bytes(data))


def plain(value, depth: int = 6):
    """A value of JSON with its strings made printable; for what is shown or kept in reports.

    Raises Refused for containers deeper than `depth`, or of more than 1000 entries.
    """
    if isinstance(value, str):
        return printable(value, 2000)
    if isinstance(value, list | dict):
        if not depth or len(value) > 1000:
            raise Refused('has a description that is too large')
        if isinstance(value, list):
            return [plain(item, depth - 1) for item in value]
        return {printable(key, 200): plain(item, depth - 1) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    raise Refused(f'has a {type(value).__name__} in its description')


class Reader:
    """The file object that pickletools and zipfile need, over a memoryview."""

    def __init__(self, data: memoryview, longest: int | None = None):
        """longest: bytes of one `read`; None = no limit."""
        self.data, self.position, self.longest = data, 0, longest

    def read(self, count=-1) -> bytes:
        piece = self.block(len(self.data) if count < 0 else count)
        if self.longest is not None and len(piece) > self.longest:
            raise ValueError(f'{len(piece)} bytes in one piece')
        return bytes(piece)

    def block(self, count) -> memoryview:
        """Up to `count` bytes without a copy."""
        piece = self.data[self.position : self.position + count]
        self.position += len(piece)
        return piece

    def readline(self) -> bytes:
        start, step, end = self.position, 256, -1
        while end < 0 and self.position < min(len(self.data), start + MAX_LINE):
            piece = self.read(step)
            end = piece.find(b'\n')
            step *= 2
        if end >= 0:
            self.position += end + 1 - len(piece)
        return bytes(self.data[start : self.position])

    def seek(self, offset, whence=io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: len(self.data)}[whence]
        if base + offset < 0:
            raise OSError('a position before the start of the file')
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def seekable(self) -> bool:
        return True
