"""Copies what tests/test_sam_parity.py compares with from the full set of reference figures.

python tests/record_sam.py FOLDER      (sam.npz, specs.json)
"""

import json
import pathlib
import sys

import numpy as np

TERMS = ('mse', 'lpips', 'mvg', 'delta', 'frec', 'total')
OUT = pathlib.Path(__file__).parent / 'data' / 'sam.npz'


def main(folder):
    folder = pathlib.Path(folder)
    entries = json.loads((folder / 'specs.json').read_text())['models']['sam256']['entries']
    kept = {'entries': np.array(json.dumps([[e[0], e[1], e[2], e[5]] for e in entries]))}
    with np.load(folder / 'sam.npz') as figures:
        for name in figures.files:
            plain = name.removeprefix('f64/')
            group, _, rest = plain.partition('/')
            if group == 'in' or plain in ('mvg/mean_v', 'mvg/inv_cov_v', 'mvg/mean_w'):
                kept[name] = figures[name]
            elif plain.startswith('mask/soft/') and plain == name:
                kept[name] = figures[name]
            elif group == 'given' and (plain.endswith('/sample') or figures[name].ndim == 0):
                kept[name] = figures[name].ravel()[:256]
            elif group.startswith('opt') and (rest in TERMS or rest in ('grad0/W+', 'final/W+')):
                kept[name] = figures[name]
            elif group.startswith('opt') and rest.endswith('/sample'):
                kept[name] = figures[name][:256]
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
