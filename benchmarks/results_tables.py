"""The tables of docs/results.md, in Markdown, from what benchmarks/results.sh left in its folder.

    python benchmarks/results_tables.py FOLDER [TABLE...]

Cells are means and 95 % intervals over the pictures; a superscript counts the pictures without a
number. With --differences: to the reference of each table, picture by picture.
"""

import argparse
import json
import pathlib

from jaxinv.report.comparison import kind_of

RECONSTRUCTION = ('lpips_alex_256', 'lpips_vgg_256', 'psnr_unit', 'ms_ssim_full', 'id_sface')
RECONSTRUCTION += ('id_dlib', 'moved_lpips_alex', 'drift_lpips_alex', 'seconds')
RECONSTRUCTION += ('peak_memory_host',)


def cell(entry, digits: int) -> str:
    if entry is None or entry.get('mean', [None])[0] is None:
        return '-'
    value, low, high = entry['mean']
    text = f'{value:.{digits}f}'
    text += '' if low is None else f' ({low:.{digits}f} to {high:.{digits}f})'
    return text + (f'<sup>{entry["missing"]}</sup>' if entry.get('missing') else '')


def columns_of(found: dict) -> list[str]:
    """Of edits all that there are, of reconstructions the chosen ones."""
    known = dict.fromkeys(name for own in found.values() for name in own['metrics'])
    if any(' @ ' in name for name in known):
        return list(known)
    return [name for name in RECONSTRUCTION if name in known]


def table(path: pathlib.Path, differences: bool) -> str:
    found = json.loads((path / 'metrics.json').read_text())['methods']
    names = columns_of(found)
    kinds = [kind_of(name) for name in names]
    heads = [
        kind.title + ''.join(name.partition(' @ ')[1:])
        for kind, name in zip(kinds, names, strict=True)
    ]
    lines = ['| | ' + ' | '.join(heads) + ' |', '|---' * (len(heads) + 1) + '|']
    for method, own in found.items():
        cells = []
        for name, kind in zip(names, kinds, strict=True):
            entry = own['metrics'].get(name)
            entry = (entry or {}).get('difference') if differences else entry
            cells.append(cell(entry, kind.digits))
        lines.append(f'| {method} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('tables', nargs='*')
    parser.add_argument('--differences', action='store_true')
    args = parser.parse_args()
    every = sorted(
        path.parent.name
        for path in args.folder.glob('*/metrics.json')
        if (path.parent / 'table.csv').is_file()
    )
    for name in args.tables or every:
        print(f'### {name}\n\n{table(args.folder / name, args.differences)}\n')
    times = args.folder / 'times.txt'
    print(times.read_text() if times.is_file() else '', end='')


if __name__ == '__main__':
    main()
