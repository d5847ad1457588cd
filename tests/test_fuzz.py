"""500 hostile files from a seeded fuzzer: each is read, or refused by one sentence, soon.

benchmarks/fuzz.py makes tens of thousands, in processes with limits of memory and time.
"""

import time

import fuzzing
import hypothesis
import pytest
from hypothesis import strategies

EXAMPLES = 500


@pytest.mark.parametrize('kind', fuzzing.KINDS)
@hypothesis.settings(
    max_examples=-(-EXAMPLES // len(fuzzing.KINDS)),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(seed=strategies.integers(0, 2**32 - 1))
def test_hostile_files_are_read_or_refused(kind, seed, tmp_path):
    import random

    folder = tmp_path / str(seed)
    folder.mkdir(exist_ok=True)
    name, data = fuzzing.make(kind, random.Random(seed))
    path = folder / name
    path.write_bytes(data)
    start = time.thread_time()
    outcome = fuzzing.read(kind, path)
    assert time.thread_time() - start < 5
    assert fuzzing.fault_of(kind, path, outcome) is None, outcome
