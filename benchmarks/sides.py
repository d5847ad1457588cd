"""Two sides of a comparison, each in processes of its own that say what they measured."""

import json
import os
import subprocess
import sys
import time

import numpy as np

from jaxinv.report.provenance import peak_memory_gb

FIRST = 2  # steps that are not timed: the first compiles, after the second memory is laid out


def report(losses, steps: int) -> None:
    """For a child: prints a line of JSON about an iterator, whose first value is None.

    What comes before that value is preparation; every further one is a step's loss.
    """
    next(losses)
    times, values = [], []
    for _ in range(FIRST + steps):
        start = time.perf_counter()
        values.append(next(losses))
        times.append(time.perf_counter() - start)
    best = min(times[FIRST:])
    memory = peak_memory_gb()
    found = {'first': times[0] - best, 'step': best, 'gigabytes': memory, 'loss': values[0]}
    print(json.dumps(found))


def run(file: str, python: str = sys.executable, **options) -> dict:
    """What the child `file --name=value ...` reported, compiled without the cache."""
    command = [python, file, *(f'--{name}={value}' for name, value in options.items())]
    environment = os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def compare(ours: list[dict], theirs: list[dict]) -> dict[str, float]:
    """Medians over rounds of both sides' reports, and of the rounds' ratios of time.

    'differ': relative difference of the first losses.
    """
    found = {}
    for prefix, side in (('', ours), ('their_', theirs)):
        for key in ('first', 'step', 'gigabytes'):
            found[prefix + key] = float(np.median([run[key] for run in side]))
    ratios = [a['step'] / b['step'] for a, b in zip(ours, theirs, strict=True)]
    differ = abs(ours[0]['loss'] / theirs[0]['loss'] - 1)
    return found | {'ratio': float(np.median(ratios)), 'differ': differ}
