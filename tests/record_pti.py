"""Copies what tests/test_pti_parity.py compares with from the full set of reference figures.

python tests/record_pti.py FOLDER      (pti.npz, specs.json)
"""

import json
import pathlib
import sys

import numpy as np

RUNS = ('tune_reg', 'multi_reg', 'proj_wnoise')
LOSSES = ('total', 'l2', 'lpips', 'reg', 'loss', 'dist', 'w_per_step')
OUT = pathlib.Path(__file__).parent / 'data' / 'pti_stylegan2.npz'


def main(folder):
    folder = pathlib.Path(folder)
    entries = json.loads((folder / 'specs.json').read_text())['models']['pti64']['entries']
    kept = {'entries': np.array(json.dumps([[e[0], e[1], e[2], e[5]] for e in entries]))}
    with np.load(folder / 'pti.npz') as figures:
        for name in figures.files:
            run, _, rest = name.partition('/')
            if run == 'in' and 'noise0' not in name:  # those follow from their names
                kept[name] = figures[name]
            elif run in RUNS and (rest in LOSSES or rest.endswith('conv0.weight/sample')):
                kept[name] = figures[name][:512]
        kept |= {name: figures[name] for name in ('proj/w_avg', 'proj/w_std')}
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
