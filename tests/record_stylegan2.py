"""Copies what tests/test_stylegan2_parity.py compares with from the full set of reference figures.

    python tests/record_stylegan2.py FOLDER      (stylegan2_ada.npz, specs.json, ...)

Large arrays become samples (recipe.sampled); inputs that follow from their names are left out.
"""

import json
import pathlib
import sys

import numpy as np
import recipe
import stylegan2_figures

COUNT = 512
OUT = pathlib.Path(__file__).parent / 'data' / 'stylegan2.npz'


def main(folder):
    folder = pathlib.Path(folder)
    specs = json.loads((folder / 'specs.json').read_text())
    figures = {}
    for file in ('stylegan2_ada.npz', 'stylegan2_rosinality.npz'):
        with np.load(folder / file) as arrays:
            figures |= dict(arrays)
    kept = {f'{name}/entries': recipe.entries(specs, name) for name in stylegan2_figures.MODELS}
    for name, array in figures.items():
        model, _, given = name.partition('/in/')
        if given == 'c':  # not made by formula
            kept[name] = array
        elif given == 'latent_avg':
            np.testing.assert_array_equal(recipe.weight(given, array.shape, 'N*0.3'), array)
        elif given:
            formula = recipe.normal(f'input/{model}/{given}', array.shape)
            np.testing.assert_array_equal(formula, array)
        elif 'unfused' not in name:
            kept |= recipe.shortened({name: array}, COUNT)
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
