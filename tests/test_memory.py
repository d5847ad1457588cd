"""Peak memory of the host and of accelerators."""

import jax

from jaxinv.runtime import memory


class FakeDevice:
    def __init__(self, platform, statistics):
        self.platform, self._statistics = platform, statistics

    def memory_stats(self):
        return self._statistics


def test_peak_memory_is_labelled_on_accelerators(monkeypatch):
    found = memory.peak_bytes()
    assert 1e7 < found['host'] < 1e12 and 'device' not in found
    assert memory.describe({'host': 5_100_000_000}) == {'peak memory': '5.1 GB'}
    devices = [
        FakeDevice('gpu', {'peak_bytes_in_use': 3_000_000_000}),
        FakeDevice('gpu', {'peak_bytes_in_use': 7_000_000_000}),
        FakeDevice('gpu', None),
    ]
    monkeypatch.setattr(jax, 'local_devices', lambda: devices)
    found = memory.peak_bytes()
    assert found['device'] == 7_000_000_000
    assert memory.describe(found | {'host': 2_000_000_000}) == {
        'peak memory of a device': '7.0 GB',
        'peak memory of the host': '2.0 GB',
    }


def test_memory_of_a_device_is_given_where_the_block_took_more_than_before(monkeypatch):
    statistics = {'peak_bytes_in_use': 3_000_000_000}
    monkeypatch.setattr(jax, 'local_devices', lambda: [FakeDevice('gpu', statistics)])
    with memory.Peak() as peak:
        pass
    assert 'device' not in peak.found and peak.found['host'] > 1e7
    with memory.Peak() as peak:
        statistics['peak_bytes_in_use'] = 4_000_000_000
    assert peak.found['device'] == 4_000_000_000
