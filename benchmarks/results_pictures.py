r"""The pictures of docs/results.md, from what benchmarks/results.sh left in its folder.

    python benchmarks/results_pictures.py FOLDER/portraits docs/results.jpg [--edits yaw=2]
    python benchmarks/results_pictures.py FOLDER/figure15 docs/results_drift.jpg --random 3

A row for each photograph: the target, what each method made of it, and with --edits that edit of
each. With --random N, of methods that tune one generator: a column for each of N random codes, a
row for the generator before the tuning and one for each method (PTI, figure 15).
"""

import argparse
import pathlib

import numpy as np
import PIL.Image

import jaxinv
from jaxinv import latents, pixels, report
from jaxinv.io import read_json
from jaxinv.report.grid import grid

QUALITY = 85  # of JPEG


def runs_of(folder: pathlib.Path, names=()) -> dict[str, pathlib.Path]:
    """{method: the work folder of its run}, in the order of the table."""
    found = {}
    for name in read_json(folder / 'metrics.json')['methods']:
        (found[name],) = (folder / 'methods').glob(f'{report.slugs([name])[0]}-????????')
    return {name: found[name] for name in names} if names else found


def random_codes(runs: dict[str, pathlib.Path], count: int, cell: int) -> PIL.Image.Image:
    """Images of random codes by the generator before the tuning, and by each tuned one."""
    first = read_json(next(iter(runs.values())) / 'run.json')['config']
    generator, weights = jaxinv.load_generator(first['generator'], first['resolution'])
    # The same codes as those that the runs measured their drift by.
    z = latents.sample_z(first['drift']['seed'], count, generator.spec.z_dim)
    w = np.asarray(generator.map(weights, z))[:, None]
    rows = [pixels.to_uint8(jaxinv.render(generator, weights, w))]
    for folder in runs.values():
        rows.append(pixels.to_uint8(jaxinv.render(generator, jaxinv.load(folder).weights, w)))
    return grid(rows, ['before', *runs], cell=cell)


def photographs(runs: dict[str, pathlib.Path], edits, cell: int) -> PIL.Image.Image:
    """A row for each target: the target, its reconstructions, its edits."""
    columns: list[list] = [[], *([] for _ in runs), *([] for _ in edits for _ in runs)]
    names = list(read_json(next(iter(runs.values())) / 'metrics.json')['identities'])
    for place, folder in enumerate(runs.values()):
        found = jaxinv.load(folder)
        stages = read_json(folder / 'metrics.json')['identities']
        for i, own in enumerate(report.folders(folder / 'images', list(stages))):
            if not place:
                columns[0].append(read(own / 'target.png'))
            columns[1 + place].append(read(own / f'{list(stages[names[i]])[-1]}.png'))
        for k, edit in enumerate(edits):
            made = jaxinv.render(found.generator, found.weights, found.codes, edit=edit)
            columns[1 + place + len(runs) * (k + 1)] = list(pixels.to_uint8(made))
    labels = ['photograph', *runs, *(f'{name}, {edit}' for edit in edits for name in runs)]
    return grid(zip(*columns, strict=True), names, labels, cell=cell)


def read(path: pathlib.Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path).convert('RGB'))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path, help='of a table')
    parser.add_argument('out', type=pathlib.Path, help='a .jpg')
    parser.add_argument('--methods', nargs='*', default=(), help='all where left out')
    parser.add_argument('--edits', nargs='*', default=(), help='such as yaw=2')
    parser.add_argument('--random', type=int, default=0, help='random codes instead')
    parser.add_argument('--cell', type=int, default=160, help='pixels of a picture')
    args = parser.parse_args()
    runs = runs_of(args.folder, args.methods)
    if args.random:
        sheet = random_codes(runs, args.random, args.cell)
    else:
        sheet = photographs(runs, args.edits, args.cell)
    sheet.save(args.out, quality=QUALITY)
    print(f'{args.out}: {sheet.width} x {sheet.height}')


if __name__ == '__main__':
    main()
