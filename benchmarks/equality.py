"""Devices x processes x method: how far the numbers are from those of one device.

    python benchmarks/equality.py FOLDER [--dtype=float64] [--launch=8x1]

Runs tests/sharding_cases.py (three identities, four steps, 32 pixels) on virtual CPU devices, in
one process and in two that find each other on this machine, and prints docs/devices.md's table.
Needs what the tests need. FOLDER keeps what was run, so that the command can be given in pieces.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'tests'))
from test_distributed import together  # noqa: E402
from test_sharding import largest_difference  # noqa: E402

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
    """All methods, on every mesh along data for which so many processes are enough."""
    meshes = (1, 2, 4, 8) if processes == 1 else (devices * processes,)
    for method in METHODS:
        out = file_of(folder, dtype, devices, processes, method)
        if not out.exists():
            cases = [f'{method}:{mesh}' for mesh in meshes]
            together(processes, out, *cases, devices=devices, dtype=dtype)


def differences(folder, dtype, total, processes, method):
    """Of every step's figures, and of the results."""
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
    parser.add_argument('--dtype', choices=DTYPES, help='Only this.')
    parser.add_argument('--launch', help='DEVICESxPROCESSES: only this.')
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
                    found = differences(given.folder, dtype, total, processes, method)
                    cells.append(', '.join(f'{x:.0e}' for x in found))
                except FileNotFoundError:
                    cells.append('')
            print(f'| {dtype} | {total} | {processes} |', ' | '.join(cells), '|')


if __name__ == '__main__':
    main()
