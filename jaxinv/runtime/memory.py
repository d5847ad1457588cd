"""Peak memory of this process, on the host and on its accelerators."""

import sys


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
