"""What reading one untrusted file may cost: memory, arrays, operations and processor time."""

import time

from jaxinv.converters.file_view import MAX_BYTES, Refused

# A whole training state is interpreted in about 10^5 operations and 0.3 s.
MAX_OPERATIONS = 2 * 10**6
SECONDS = 3.0  # of the thread's processor time: a slow disk or a busy machine does not count
BYTES_PER_SECOND = 2 * 10**8  # further time by the file's size
BASE = 2**26  # bytes that any file may use
MEMORY = 2  # times the file's size: bfloat16 becomes float32
ARRAYS = 4  # times the file's size: several arrays may share values
_EVERY = 512  # operations between two looks at the clock


class Budget:
    """Limits of reading one file of `size` bytes. Every method raises Refused beyond its limit.

    limit: bytes of all arrays, however large the file is.
    """

    def __init__(self, size: int, limit: int = MAX_BYTES):
        # Python's integers: products of int64 sizes may overflow.
        self.memory = min(BASE + MEMORY * size, limit)
        self.arrays = min(BASE + ARRAYS * size, limit)
        self.operations = MAX_OPERATIONS
        self._end = time.thread_time() + SECONDS + size / BYTES_PER_SECOND
        self._look = _EVERY

    def step(self, count: int = 1) -> None:
        """Charges instructions, copied items, comparisons."""
        self.operations -= count
        if self.operations < 0:
            raise Refused('has too many instructions')
        self._look -= count
        if self._look < 0:
            self._look = _EVERY
            if time.thread_time() > self._end:
                raise Refused('takes too long to read')

    def allocate(self, count: int) -> None:
        """Charges bytes of new objects."""
        self.memory -= count
        if self.memory < 0:
            raise Refused('needs more memory than its size explains')

    def view(self, count: int) -> None:
        """Charges the bytes of an array, also of one that shares its values with another."""
        self.arrays -= count
        if self.arrays < 0:
            raise Refused('holds arrays larger than allowed')
