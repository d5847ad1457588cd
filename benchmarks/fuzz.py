"""Reads thousands of hostile files (tests/fuzzing.py) in processes with limits of memory and time.

  python benchmarks/fuzz.py [--cases=10000] [--seed=0] [--kinds=opcodes,pictures]

Prints a row for each kind of file: how many were read and refused, the longest processor time and
the growth of the process's memory over all its cases, and each case that crashed, was stopped by a
limit, or raised anything but one sentence that names the file. Exit code 1 if there is such a case.
"""

import argparse
import collections
import faulthandler
import json
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

import checkout

SECONDS = 20  # of one case, after which its process is ended
MEMORY = 4 * 10**9  # bytes that a process may use


def worker(kind: str, seeds: range) -> None:
    """Reads the cases and prints a line of JSON for each."""
    fuzzing = checkout.tests_module('fuzzing')
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, 'sound')
        path.mkdir()
        fuzzing.read(kind, path / 'absent')  # imports what reading needs
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        for seed in seeds:
            name, data = fuzzing.make(kind, random.Random(seed))
            path = pathlib.Path(scratch, str(seed), name)
            path.parent.mkdir()
            path.write_bytes(data)
            print(json.dumps({'seed': seed}), flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            begin = time.thread_time()
            try:
                outcome = fuzzing.read(kind, path)
                fault = fuzzing.fault_of(kind, path, outcome)
            except Exception as error:
                outcome, fault = f'{type(error).__name__}: {error}', 'another exception'
            seconds = time.thread_time() - begin
            faulthandler.cancel_dump_traceback_later()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            line = {'seed': seed, 'read': outcome == 'read', 'seconds': seconds}
            line |= {'memory': 1024 * (peak - start), 'fault': fault}
            print(json.dumps(line | ({'outcome': outcome[:300]} if fault else {})), flush=True)


def run(kind: str, seeds: range) -> list[dict]:
    """Lines of `worker`; a process that ends early is started again behind the case it read."""
    lines, first = [], seeds.start
    while first < seeds.stop:
        command = [sys.executable, __file__, '--worker', kind, str(first), str(seeds.stop)]
        done = subprocess.run(command, capture_output=True, text=True)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        lines += [line for line in found if 'read' in line]
        if done.returncode == 0:
            break
        last = found[-1]['seed'] if found else first
        fault = f'the process ended with code {done.returncode}: {done.stderr[-200:]}'
        lines.append({'seed': last, 'read': False, 'seconds': SECONDS, 'memory': 0, 'fault': fault})
        first = last + 1
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default='')
    parser.add_argument('--worker', nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        kind, start, stop = given.worker
        worker(kind, range(int(start), int(stop)))
        return
    kinds = checkout.tests_module('fuzzing').KINDS
    chosen = given.kinds.split(',') if given.kinds else kinds
    count = -(-given.cases // len(chosen))
    print('| kind of file | cases | read | refused | longest | memory | faults |')
    print('|---|---|---|---|---|---|---|')
    faults = []
    for kind in chosen:
        lines = run(kind, range(given.seed, given.seed + count))
        read = collections.Counter(line['read'] for line in lines)
        longest = max(line['seconds'] for line in lines)
        memory = max(line['memory'] for line in lines)
        own = [line | {'kind': kind} for line in lines if line['fault']]
        faults += own
        print(
            f'| {kind} | {len(lines)} | {read[True]} | {read[False]} | {longest:.2f} s | '
            f'{memory / 1e6:.0f} MB | {len(own)} |',
            flush=True,
        )
    for line in faults[:50]:
        print(json.dumps(line))
    raise SystemExit(bool(faults))


if __name__ == '__main__':
    main()
