"""Copies what tests/test_invertibility.py compares with from the full set of reference figures.

python tests/record_sam_masks.py FOLDER      (sam.npz)

The maps are kept as they are: the chosen spaces must be exact.
"""

import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).parent / 'data' / 'sam_masks.npz'


def main(folder):
    with np.load(pathlib.Path(folder) / 'sam.npz') as figures:
        kept = {name[5:]: figures[name] for name in figures.files if name.startswith('mask/')}
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
