"""The one thread that computes: requests by urgency, and of each place on a page the newest.

    work = Work()
    jpeg = await work.do(render, key=('tab', 'picture'))   # Superseded if a newer one came

Pictures of several requests never compete for the processor, and a slider that moves faster than
pictures are made leaves nothing behind: of the requests with one key only the newest waits.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Hashable
from typing import Any

MAX_WAITING = 64  # requests; more are refused
NOW, LATER = 0, 1  # urgency: what a hand waits for, and what fills the page


class Superseded(Exception):
    """A newer request with the same key replaced this one."""


class Busy(Exception):
    """More requests wait than are taken."""


class Work:
    """A queue and its thread. `do` may be called from several event loops."""

    def __init__(self):
        self._condition = threading.Condition()
        self._heap: list[tuple[int, int, Any]] = []
        self._newest: dict[Hashable, Any] = {}
        self._count = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name='studio-work', daemon=True)
        self._thread.start()

    async def do(self, function: Callable[[], Any], key: Hashable = None, urgency: int = NOW):
        """function(), in the thread. Raises Superseded, Busy, and what the function raises.

        key: the waiting request with this key is dropped; None = none is.
        """
        loop = asyncio.get_running_loop()
        task = _Task(function, key, loop, loop.create_future())
        with self._condition:
            earlier = self._newest.pop(key, None) if key is not None else None
            if earlier is not None:
                earlier.dropped = True
                earlier.fail(Superseded())
            if self._closed or sum(not t.dropped for _, _, t in self._heap) >= MAX_WAITING:
                raise Busy('The studio has more to do than it takes on; wait a moment.')
            if key is not None:
                self._newest[key] = task
            heapq.heappush(self._heap, (urgency, next(self._count), task))
            self._condition.notify()
        try:
            return await task.future
        except asyncio.CancelledError:  # the browser went away
            task.dropped = True
            raise

    def close(self) -> None:
        """Ends the thread after the function at work; what waits is dropped."""
        with self._condition:
            self._closed = True
            for _, _, task in self._heap:
                task.fail(Superseded())
            self._heap.clear()
            self._condition.notify()
        self._thread.join(timeout=60)

    def _run(self):
        while True:
            with self._condition:
                while not self._heap and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                task = heapq.heappop(self._heap)[2]
                if self._newest.get(task.key) is task:
                    del self._newest[task.key]
            if task.dropped:
                continue
            try:
                task.succeed(task.function())
            except BaseException as error:  # goes to who asked; the thread stays
                task.fail(error)


class _Task:
    def __init__(self, function, key, loop, future):
        self.function, self.key, self.loop, self.future = function, key, loop, future
        self.dropped = False

    def succeed(self, result):
        self._tell(self.future.set_result, result)

    def fail(self, error):
        self._tell(self.future.set_exception, error)

    def _tell(self, function, value):
        def tell():
            if not self.future.done():
                function(value)

        try:
            self.loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop has ended
            pass
