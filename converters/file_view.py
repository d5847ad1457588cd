"""Files as memory maps, so that a large checkpoint is never in memory twice."""

import io
import mmap
import os

# Limit of a file, and of all arrays made from it. The largest common checkpoints, training states
# with two generators, a discriminator and Adam's moments, have about 2 GB.
MAX_BYTES = 2**33


class Refused(Exception):
    """A predicate of the file, e.g. 'is encrypted'; the caller puts the file's name before it."""


def view(path) -> memoryview:
    """The bytes of the file, read-only; mapped as long as an array made of them exists."""
    with open(path, 'rb') as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b'')
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class Reader:
    """The file object that pickletools and zipfile need, over a memoryview."""

    def __init__(self, data: memoryview):
        self.data, self.position = data, 0

    def read(self, count=-1) -> bytes:
        return bytes(self.block(len(self.data) if count < 0 else count))

    def block(self, count) -> memoryview:
        """Up to `count` bytes without a copy."""
        piece = self.data[self.position : self.position + count]
        self.position += len(piece)
        return piece

    def readline(self) -> bytes:
        start, step, end = self.position, 256, -1
        while end < 0 and self.position < len(self.data):
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
