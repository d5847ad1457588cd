"""Copies what tests/test_encoders.py compares with from the full set of reference figures.

python tests/record_encoders.py FOLDER      (encoders.npz, specs.json)
"""

import json
import pathlib
import sys

import encoder_figures
import numpy as np
import recipe

OUT = pathlib.Path(__file__).parent / 'data' / 'encoders.npz'


def main(folder):
    folder = pathlib.Path(folder)
    specs = json.loads((folder / 'specs.json').read_text())
    with np.load(folder / 'encoders.npz') as arrays:
        kept = {name: array for name, array in arrays.items() if not name.endswith('/shape')}
    for model in (*encoder_figures.MODELS, encoder_figures.IDENTITY):
        kept[f'{model}/entries'] = recipe.entries(specs, model)
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
