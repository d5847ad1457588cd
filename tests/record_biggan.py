"""Copies what tests/test_biggan_deep.py compares with from the full set of reference figures.

    python tests/record_biggan.py FOLDER      (biggan_deep.npz, specs.json)

Large arrays become samples (recipe.sampled); inputs that follow from their names are left out.
"""

import json
import pathlib
import sys

import biggan_figures
import numpy as np
import recipe

COUNT = 512
OUT = pathlib.Path(__file__).parent / 'data' / 'biggan.npz'


def main(folder):
    folder = pathlib.Path(folder)
    specs = json.loads((folder / 'specs.json').read_text())
    with np.load(folder / 'biggan_deep.npz') as arrays:
        figures = dict(arrays)
    model = biggan_figures.NAME
    kept = {f'{model}/entries': recipe.entries(specs, model)}
    for name, array in figures.items():
        given = name.partition('/in/')[2]
        if given in ('z', 'emb'):
            formula = recipe.normal(f'input/{model}/{given}', array.shape)
            formula = np.clip(formula, -2, 2) if given == 'z' else formula
            np.testing.assert_array_equal(formula, array)
        elif given:
            kept[name] = array
        elif 'sigma' in name or array.dtype == np.uint8:
            kept[name] = array
        else:
            kept |= recipe.shortened({name: array}, COUNT)
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
