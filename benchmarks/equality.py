"""Differences between several devices or processes and one device, for each method.

    python benchmarks/equality.py FOLDER [--dtype=float64] [--launch=8x1]

Runs tests/sharding_cases.py (three identities, four steps, 32 pixels) on virtual CPU devices, in
one process and in two on this machine, and prints the table of docs/devices.md. Needs
`pip install -e ".[test]"`. FOLDER keeps the results, so that parts can be run separately.
"""

import argparse
import pathlib

import checkout
import numpy as np

METHODS = {
    'projection': 'projection',
    'shared': 'shared tuning',
    'each': 'one generator each',
    'sam': 'SAM',
}
LAUNCHES = ((8, 1), (1, 2), (2, 2), (4, 2))  # (devices of a process, processes)
ROWS = ((2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (8, 2))  # (devices in all, processes)
DTYPES = ('float64', 'float32')


def file_of(folder, dtype, devices, processes, method):
    return folder / f'{dtype}-{devices}x{processes}-{method}.npz'


def run(folder, dtype, devices, processes):
    """All methods, on the meshes along data of these devices and processes."""
    together = checkout.tests_module('test_distributed').together
    meshes = (1, 2, 4, 8) if processes == 1 else (devices * processes,)
    for method in METHODS:
        out = file_of(folder, dtype, devices, processes, method)
        if not out.exists():
            cases = [f'{method}:{mesh}' for mesh in meshes]
            together(processes, out, *cases, devices=devices, dtype=dtype)


def differences(folder, dtype, total, processes, method):
    """[largest difference of all steps' figures, of the results]."""
    largest_difference = checkout.tests_module('test_sharding').largest_difference
    devices = 8 if processes == 1 else total // processes
    alone = np.load(file_of(folder, dtype, 8, 1, method))
    other = np.load(file_of(folder, dtype, devices, processes, method))
    both = {name: alone[name] for name in alone.files if name.startswith(f'{method}:1/')}
    start = f'{method}:{total}/'
    both |= {name: other[name] for name in other.files if name.startswith(start)}
    return [largest_difference(both, f'{method}:{total}', group) for group in ('trace', 'result')]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--dtype', choices=DTYPES, help='run only this one')
    parser.add_argument('--launch', help='DEVICESxPROCESSES: run only this one')
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for dtype in DTYPES:
        for devices, processes in LAUNCHES:
            wanted = given.dtype in (None, dtype)
            if wanted and given.launch in (None, f'{devices}x{processes}'):
                run(given.folder, dtype, devices, processes)
    if given.dtype or given.launch:
        return
    print('| | devices | processes |', ' | '.join(METHODS.values()), '|')
    print('|---' * (3 + len(METHODS)) + '|')
    for dtype in DTYPES:
        for total, processes in ROWS:
            cells = []
            for method in METHODS:
                try:
                    pair = differences(given.folder, dtype, total, processes, method)
                    cells.append(', '.join(f'{x:.0e}' for x in pair))
                except FileNotFoundError:
                    cells.append('')
            print(f'| {dtype} | {total} | {processes} |', ' | '.join(cells), '|')


if __name__ == '__main__':
    main()
