"""Peak memory of this process, on the host and on its accelerators."""

import os
import sys
import threading


def peak_bytes() -> dict[str, int]:
    """{'host': bytes, 'device': bytes}, the largest so far; 'device' is of the fullest accelerator.

    Without 'host' where the system does not count (Windows), without 'device' on CPUs and on
    backends without memory statistics.
    """
    found = {}
    host, device = _host(), _device()
    if host is not None:
        found['host'] = host
    if device is not None:
        found['device'] = device
    return found


def describe(found: dict[str, int]) -> dict[str, str]:
    """`peak_bytes` as facts of a report: {'peak memory': '5.1 GB'}, with accelerators labelled."""
    if 'device' not in found:
        return {'peak memory': _gb(found['host'])} if 'host' in found else {}
    facts = {'peak memory of a device': _gb(found['device'])}
    if 'host' in found:
        facts['peak memory of the host'] = _gb(found['host'])
    return facts


def peak_host_gb() -> float:
    """Peak memory of the host in GB; 0 where the system does not count it."""
    return (_host() or 0) / 1e9


def _gb(count: int) -> str:
    return f'{count / 1e9:.1f} GB'


def _host() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device() -> int | None:
    import jax

    peaks = []
    for device in jax.local_devices():
        statistics = None if device.platform == 'cpu' else device.memory_stats()
        if statistics and 'peak_bytes_in_use' in statistics:
            peaks.append(statistics['peak_bytes_in_use'])
    return max(peaks, default=None)


class Peak:
    """Memory while a block runs: `found` is {'host', 'device': bytes} at its end.

    'host' is the largest resident set of this process, sampled (Linux; elsewhere the largest so
    far, which can be older than the block). Backends count 'device' since the process began and do
    not reset it: it is missing where the block took no more than what was before it.
    """

    def __init__(self, interval: float = 0.05):
        """interval: seconds between samples."""
        self._interval, self._highest, self._end = interval, 0, threading.Event()
        self.found: dict[str, int] = {}

    def __enter__(self):
        self._before = peak_bytes().get('device')
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        self.found = peak_bytes()
        if self._before is not None and self.found.get('device') == self._before:
            del self.found['device']
        if self._highest:
            self.found['host'] = self._highest

    def _watch(self):
        while True:
            self._highest = max(self._highest, _resident() or 0)
            if self._end.wait(self._interval):
                return


def _resident() -> int | None:
    """Bytes of this process in memory now; None where the system does not say."""
    try:
        with open('/proc/self/statm', 'rb') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except (OSError, ValueError, IndexError, AttributeError):
        return None
