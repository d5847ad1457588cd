r"""The pictures of docs/results.md, from what benchmarks/results.sh left in its folder.

    python benchmarks/results_pictures.py FOLDER/portraits docs/results.jpg [--edits yaw=2]
    python benchmarks/results_pictures.py FOLDER/figure15 docs/results_drift.jpg --random 6

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
from jaxinv.experiments import method_runs
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
    names = list(read_json(next(iter(runs.values())) / 'metrics.json')['identities'])
    files = {method: reconstructions(folder, names) for method, folder in runs.items()}
    columns = {'photograph': [read(target_of(file)) for file in next(iter(files.values()))]}
    columns |= {method: [read(file) for file in own] for method, own in files.items()}
    found = {method: jaxinv.load(folder) for method, folder in runs.items()} if edits else {}
    for edit in edits:
        for method, own in found.items():
            made = jaxinv.render(own.generator, own.weights, own.codes, edit=edit)
            columns[f'{method}, {edit}'] = list(pixels.to_uint8(made))
    return grid(zip(*columns.values(), strict=True), names, list(columns), cell=cell)


def reconstructions(folder: pathlib.Path, names: list[str]) -> list[pathlib.Path]:
    """The PNG file of each picture that a run made."""
    made = method_runs.made_of(folder, names)
    return [made[name].file for name in names]


def target_of(reconstruction: pathlib.Path) -> pathlib.Path:
    """The file of its target, which is beside it."""
    return reconstruction.with_name('target.png')


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
