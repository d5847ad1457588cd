"""Writes the benchmark set into a folder, e.g. for other programs.

python -m jaxinv.data.benchmark_folder FOLDER
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

from jaxinv.data import benchmark, benchmark_faces
from jaxinv.io import write_atomically


def write(folder: pathlib.Path, log: Callable = print) -> list[dict]:
    """Writes the set into a folder, and returns what was skipped, {'file', 'reason'}.

    portraits/, animals/   the photographs, NAME.SUFFIX
    generated/             as benchmark_faces.make writes it
    register.json          the register
    """
    kinds = {picture.name: picture.kind for picture in benchmark.register()[1]}
    listing = benchmark.find(benchmark.NAME)
    for name, path in listing.files:
        if name in kinds:
            place = folder / f'{kinds[name]}s' / (name + path.suffix.lower())
            write_atomically(place, path.read_bytes())
    if any(name not in kinds for name, _ in listing.files):
        source = benchmark_faces.folder()
        for path in sorted(source.rglob('*')):
            if path.is_file():
                write_atomically(folder / 'generated' / path.relative_to(source), path.read_bytes())
    write_atomically(folder / 'register.json', benchmark.REGISTER.read_bytes())
    for entry in listing.skipped:
        log(f'Skipped {entry["file"]}: {entry["reason"]}')
    log(f'{len(listing.files)} pictures are in {folder}.')
    return listing.skipped


def main(arguments: list[str] | None = None) -> int:
    """0 if the set is complete, 1 if something was skipped."""
    parser = argparse.ArgumentParser(
        prog='python -m jaxinv.data.benchmark_folder', description='Writes the benchmark set.'
    )
    parser.add_argument('folder', type=pathlib.Path, help='is made if it is missing')
    return 1 if write(parser.parse_args(arguments).folder) else 0


if __name__ == '__main__':
    sys.exit(main())
