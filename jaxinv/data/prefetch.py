"""Reads pictures ahead of the devices, and divides the reading among processes."""

import collections
import concurrent.futures
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxinv.data import reader
from jaxinv.data.targets import AlignOptions, Target
from jaxinv.runtime import distributed

# Limits of one all-gather: its bytes are held on every device, and progress is logged after it.
MAX_GATHERED_BYTES = 256 * 2**20
MAX_GATHERED_PICTURES = 32  # of each process


def map_ahead(function: Callable[[Any, Callable[[], bool]], Any], items: Iterable) -> Iterator:
    """Yields function(item, stopped) in order, and computes the next result in a thread meanwhile.

    stopped(): True once the iterator is closed; the result is then discarded. Close the iterator
    (contextlib.closing) so that the thread ends before the caller continues.
    """
    stop, results = threading.Event(), collections.deque()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            for item in items:
                results.append(pool.submit(function, item, stop.is_set))
                if len(results) > 1:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            stop.set()
            for future in results:
                future.cancel()


def read_distributed(files, options: AlignOptions, log=print) -> tuple[list[Target], list[dict]]:
    """reader.read_all, with the pictures divided equally among processes. Collective.

    All processes call it with the same files, and each gets the targets of all of them, in order.
    """
    distributed.check_same([str(file) for _, file in files])
    index, count = jax.process_index(), jax.process_count()
    fitting = MAX_GATHERED_BYTES // (count * 4 * options.resolution**2)
    size = min(MAX_GATHERED_PICTURES, max(1, fitting))
    targets, skipped = [], []
    for start in range(0, len(files), size * count):
        own = files[start + size * index : start + size * (index + 1)]
        for packed in distributed.allgather_bytes(_pack(*reader.read_all(own, options))):
            more_targets, more_skipped = _unpack(packed)
            targets += more_targets
            skipped += more_skipped
        if len(files) > size * count:
            done = min(start + size * count, len(files))
            log(f'{done} of {len(files)} pictures read.', flush=True)
    return targets, skipped


def _pack(targets: list[Target], skipped: list[dict]) -> bytes:
    header = {'targets': [[t.stem, t.source] for t in targets], 'skipped': skipped}
    arrays = {'header': np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for i, target in enumerate(targets):
        arrays |= {f'image_{i}': target.image_uint8, f'mask_{i}': np.asarray(target.mask, bool)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpack(packed: bytes) -> tuple[list[Target], list[dict]]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        header = json.loads(arrays['header'].tobytes())
        targets = [
            Target(stem, arrays[f'image_{i}'], arrays[f'mask_{i}'], source)
            for i, (stem, source) in enumerate(header['targets'])
        ]
    return targets, header['skipped']
