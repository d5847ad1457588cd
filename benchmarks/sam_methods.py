"""Tables of SAM's methods on the same pictures, from runs that are started or finished.

    python benchmarks/sam_methods.py FOLDER [--methods=sam,w_plus,f10] [-- --config.KEY=VALUE ...]

Each method is a run in FOLDER/METHOD; finished ones are only read. All start from the pivots of
the first one, and the time of the projection is excluded. Prints in Markdown: means over all
pictures; the PSNR of each picture; the PSNR of the regions that SAM does not invert into W+;
changes by edits.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image

from jaxinv.settings import WITH_ENCODER

ENCODED = (*WITH_ENCODER, 'sam_encoder')  # methods that start from no given pivots

METHODS = 'sam,w,w_plus,gaussian_prior,f4,f6,f8,f10,pti,pti_sam'
COLUMNS = {'psnr': '.2f', 'psnr_256': '.2f', 'lpips_vgg': '.3f', 'lpips_vgg_full': '.3f'}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--methods', default=METHODS)
    # Arguments after -- are for jaxinv.launch; argparse would take them as positional ones.
    arguments = [*sys.argv[1:], '--']
    end = arguments.index('--')
    options, rest = parser.parse_args(arguments[:end]), arguments[end + 1 : -1]
    methods, first = options.methods.split(','), None
    for method in methods:
        path = options.folder / method
        command = [sys.executable, '-m', 'jaxinv.launch', f'--config=sam:{method}']
        command += [f'--workdir={path}', *rest]
        if first is not None and method not in ENCODED:
            command.append(f'--config.start={first}')
        first = first or path
        if not (path / 'metrics.json').exists():
            subprocess.run(command, check=True)
    results = {m: json.loads((options.folder / m / 'metrics.json').read_text()) for m in methods}
    print_means(results)
    print_pictures(results)
    if 'sam' in methods:
        print_regions(results, options.folder)
    print_edits(results)


def stage_of(result) -> str:
    """The last stage, which is the method's result."""
    return list(result['mean'])[-1]


def print_row(*cells):
    print(f'| {" | ".join(cells)} |')


def print_head(*cells):
    print()
    print_row(*cells)
    print_row(*['---'] * len(cells))


def print_means(results):
    print_head('method', 'PSNR', 'PSNR 256', 'LPIPS vgg 256', 'LPIPS vgg', 'identity', 'seconds')
    for result in results.values():
        stage = stage_of(result)
        values = result['mean'][stage]
        cells = [format(values[name], spec) for name, spec in COLUMNS.items()]
        cells.append(_number(values.get('id_distance'), 'no face'))
        seconds = sum(t for name, t in result['seconds'].items() if name != 'project')
        print_row(stage, *cells, f'{seconds:.0f}')


def print_pictures(results):
    names = list(next(iter(results.values()))['identities'])
    print_head('PSNR', *names)
    for result in results.values():
        stage = stage_of(result)
        values = [result['identities'][name][stage]['psnr'] for name in names]
        print_row(stage, *(f'{v:.2f}' for v in values))


def print_regions(results, folder):
    """PSNR in the regions for which the sam run selected another space than W+."""
    with np.load(folder / 'sam' / 'regions.npz') as arrays:
        outside = arrays['chosen'] > 0
    names = list(results['sam']['identities'])
    shares = [f'{name} ({mask.mean():.0%})' for name, mask in zip(names, outside, strict=True)]
    print_head('PSNR outside W+', *shares)
    for method, result in results.items():
        cells = []
        for name, mask in zip(names, outside, strict=True):
            pictures = folder / method / 'images' / name
            target, image = (_read(pictures / f'{n}.png') for n in ('target', stage_of(result)))
            size = (target.shape[1], target.shape[0])
            mask = np.asarray(PIL.Image.fromarray(mask).resize(size, PIL.Image.Resampling.NEAREST))
            error = np.mean((target - image)[mask] ** 2) if mask.any() else np.nan
            cells.append(_number(10 * np.log10(255**2 / error) if error else None, '', '.2f'))
        print_row(stage_of(result), *cells)


def print_edits(results):
    """Mean changes of the edited attributes from inversion to edit, and the identity distance."""
    edits = sorted({e for r in results.values() for rows in r['edits'].values() for e in rows})
    if not edits:
        return
    print_head('edit: changes (identity)', *edits)
    for result in results.values():
        cells = []
        for edit in edits:
            rows = [rows[edit] for rows in result['edits'].values() if edit in rows]
            rows = [row for row in rows if row.get('id_distance') is not None]
            named = sorted({part.split('=')[0] for part in edit.split(',')})
            changes = [
                f'{name} {_mean(row["change"].get(name) for row in rows)}'
                for name in named
                if any(name in row['change'] for row in rows)
            ]
            identity = _mean((row['id_distance'] for row in rows), '.2f')
            cells.append(f'{", ".join(changes)} ({identity})')
        print_row(stage_of(result), *cells)


def _read(path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path).convert('RGB'), np.float64)


def _mean(values, spec: str = '+.2f') -> str:
    values = [v for v in values if v is not None]
    return format(np.mean(values), spec) if values else 'no face'


def _number(value, missing: str, spec: str = '.3f') -> str:
    return missing if value is None or not np.isfinite(value) else format(value, spec)


if __name__ == '__main__':
    main()
