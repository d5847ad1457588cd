"""Table of SAM's methods: runs the sam task's configs on the same pictures, or reads the results.

    python benchmarks/sam_methods.py FOLDER [--methods=w_plus,f10,sam] [-- --config.KEY=VALUE ...]

Every method is a run under FOLDER/METHOD (finished ones are only read); the first one's pivots are
the start of all. Prints a table in Markdown: mean PSNR, LPIPS, identity after edits, seconds.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

METHODS = 'sam,w,w_plus,gaussian_prior,f4,f6,f8,f10,pti,pti_sam'
COLUMNS = {'psnr': '.2f', 'psnr_256': '.2f', 'lpips_vgg': '.3f', 'lpips_vgg_full': '.3f'}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--methods', default=METHODS)
    parser.add_argument('rest', nargs='*', help='options of jaxinv.launch')
    options = parser.parse_args()
    methods, first = options.methods.split(','), None
    for method in methods:
        path = options.folder / method
        command = [sys.executable, '-m', 'jaxinv.launch', f'--config=sam:{method}']
        command += [f'--workdir={path}', *options.rest]
        if first is not None:
            command.append(f'--config.start={first}')
        first = first or path
        if not (path / 'metrics.json').exists():
            subprocess.run(command, check=True)
    print_table({m: json.loads((options.folder / m / 'metrics.json').read_text()) for m in methods})


def print_table(results):
    print('| method | PSNR | PSNR 256 | LPIPS vgg 256 | LPIPS vgg | identity | edited | seconds |')
    print('|---|---|---|---|---|---|---|---|')
    for method, result in results.items():
        stage, values = list(result['mean'].items())[-1]
        cells = [format(values[name], spec) for name, spec in COLUMNS.items()]
        cells.append(_number(values.get('id_distance')))
        edited = [
            edit['id_distance']
            for edits in result['edits'].values()
            for edit in edits.values()
            if edit.get('id_distance') is not None
        ]
        cells.append(_number(np.mean(edited) if edited else None))
        cells.append(f'{sum(result["seconds"].values()):.0f}')
        print(f'| {stage} (`{method}`) | {" | ".join(cells)} |')


def _number(value):
    return 'no face' if value is None else f'{value:.3f}'


if __name__ == '__main__':
    main()
