"""Copies what tests/test_pti_parity.py compares with from the full set of reference figures.

    python tests/record_pti.py FOLDER      (pti.npz, specs.json)

Large arrays become samples (recipe.sampled); start noise follows from its names.
"""

import json
import pathlib
import sys

import numpy as np
import recipe

COUNT = 50
WHOLE = ('/w_avg', '/w_per_step', '/delta_mean_rms_maxabs')
OUT = pathlib.Path(__file__).parent / 'data' / 'pti_stylegan2.npz'


def main(folder):
    folder = pathlib.Path(folder)
    specs = json.loads((folder / 'specs.json').read_text())
    kept = {'entries': recipe.entries(specs, 'pti64')}
    with np.load(folder / 'pti.npz') as figures:
        for name in figures.files:
            if name.startswith('in/noise0/') or name.endswith('num_ws_returned'):
                continue
            whole = name.startswith('in/') or name.endswith(WHOLE)
            figure = {name: figures[name]}
            kept |= figure if whole else recipe.shortened(figure, COUNT)
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
