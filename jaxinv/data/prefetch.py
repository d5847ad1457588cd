"""Pictures are read ahead of the devices, and each process reads only its share of them."""

import collections
import concurrent.futures
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxinv.data import targets
from jaxinv.runtime import distributed

# Bytes that processes send each other at a time, since they lie on every device meanwhile; and
# pictures, so that it is heard how far they are.
SENT_AT_ONCE = 256 * 2**20
READ_AT_ONCE = 32


def ahead(read: Callable[[Any, Callable[[], bool]], Any], items: Iterable) -> Iterator:
    """read(item, stopped) of every item, in order, the next one already begun.

    stopped(): nobody wants it any more; what `read` then returns is dropped. Close the iterator
    (contextlib.closing) to be rid of the thread at once.
    """
    stop, coming = threading.Event(), collections.deque()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            for item in items:
                coming.append(pool.submit(read, item, stop.is_set))
                if len(coming) > 1:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            stop.set()
            for future in coming:
                future.cancel()


def together(
    files, way: targets.AlignOptions, log=print
) -> tuple[list[targets.Target], list[dict]]:
    """What data.read_all returns, with each process reading and aligning an equal part of it.

    All processes must call it, with the same files; each gets the rows of all.
    """
    distributed.check_same([str(file) for _, file in files])
    index, count = jax.process_index(), jax.process_count()
    each = min(READ_AT_ONCE, max(1, SENT_AT_ONCE // (count * 4 * way.resolution**2)))
    rows, skipped = [], []
    for start in range(0, len(files), each * count):
        own = files[start + each * index : start + each * (index + 1)]
        for packed in distributed.allgather_bytes(_packed(*targets.read_all(own, way))):
            more_rows, more_skipped = _unpacked(packed)
            rows += more_rows
            skipped += more_skipped
        done = min(start + each * count, len(files))
        if len(files) > each * count:
            log(f'{done} of {len(files)} pictures read.', flush=True)
    return rows, skipped


def _packed(rows: list[targets.Target], skipped: list[dict]) -> bytes:
    about = {'rows': [[row.stem, row.source] for row in rows], 'skipped': skipped}
    arrays = {'about': np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for i, row in enumerate(rows):
        arrays |= {f'image_{i}': row.image_uint8, f'mask_{i}': np.asarray(row.mask, bool)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(packed: bytes) -> tuple[list[targets.Target], list[dict]]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        about = json.loads(arrays['about'].tobytes())
        rows = [
            targets.Target(stem, arrays[f'image_{i}'], arrays[f'mask_{i}'], source)
            for i, (stem, source) in enumerate(about['rows'])
        ]
    return rows, about['skipped']
