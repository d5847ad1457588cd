"""What comes next is read by a thread while the devices work on what came before."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any


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
