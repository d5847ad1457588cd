"""Measurements in child processes, and comparisons of jaxinv with PyTorch by them.

A benchmark starts itself: `run` gives its file other options and reads the child's last line.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
from absl import app

from jaxinv.runtime import malloc, memory

WARM_UP = 2  # steps that are not timed: the first compiles, after the second memory is allocated


def run(file: str, *arguments, python: str = sys.executable, **options) -> dict:
    """The last line, JSON, of the child `python file ARGUMENTS --name=value ...`.

    The child compiles without the persistent cache. Ends with its standard error if it fails.
    """
    command = [python, file, *map(str, arguments)]
    command += [f'--{name}={value}' for name, value in options.items()]
    environment = os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(result.stderr[-4000:])
    return json.loads(result.stdout.splitlines()[-1])


def report(losses, steps: int) -> None:
    """For a child: prints one line of JSON with the times of the steps of an iterator.

    losses: its first value is None, after the preparation; each further one is a step's loss.
    """
    next(losses)
    times, values = [], []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        values.append(next(losses))
        times.append(time.perf_counter() - start)
    best = min(times[WARM_UP:])
    result = {'first': times[0] - best, 'step': best}
    print(json.dumps(result | {'gigabytes': memory.peak_host_gb(), 'loss': values[0]}))


def compare(file: str, rounds: int, pythons: dict[str, str] | None = None, **options) -> dict:
    """Medians over rounds of both sides, each in its own process with --side=jax or torch.

    pythons: {side: interpreter}, default this one. Returns 'first' (seconds to compile), 'step'
    (seconds), 'gigabytes' (peak), the same of the PyTorch side with the prefix 'torch_', 'ratio'
    (median over rounds of jax step / torch step) and 'difference' (relative, of the first losses).
    """
    pythons = pythons or {}
    results = {'jax': [], 'torch': []}
    for _ in range(rounds):  # alternately, so that other work on the machine affects both sides
        for side, runs in results.items():
            python = pythons.get(side, sys.executable)
            runs.append(run(file, python=python, side=side, **options))
    medians = {
        prefix + key: float(np.median([result[key] for result in results[side]]))
        for side, prefix in (('jax', ''), ('torch', 'torch_'))
        for key in ('first', 'step', 'gigabytes')
    }
    pairs = list(zip(results['jax'], results['torch'], strict=True))
    ratio = float(np.median([ours['step'] / theirs['step'] for ours, theirs in pairs]))
    ours, theirs = pairs[0]
    return medians | {'ratio': ratio, 'difference': abs(ours['loss'] / theirs['loss'] - 1)}


def main(function) -> None:
    """app.run; the child of the jax side first takes the launcher's allocator settings."""
    if '--side=jax' in sys.argv:
        malloc.restart_with_large_pages()
    app.run(function)
