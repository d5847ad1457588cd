"""Copies what tests/test_stylegan2.py compares with from the full set of reference figures.

    python tests/record_stylegan2.py FOLDER      (stylegan2_ada.npz, specs.json, ...)

Large arrays become samples (recipe.sampled); inputs that follow from their names are left out.
"""

import json
import pathlib
import sys

import numpy as np
import recipe

MODELS = ('ada32', 'ada32c', 'ada32res', 'ada32orig', 'ada32clamp', 'ros16', 'ros32')
LARGE = 512
OUT = pathlib.Path(__file__).parent / 'data' / 'stylegan2.npz'


def main(folder):
    folder = pathlib.Path(folder)
    specs = json.loads((folder / 'specs.json').read_text())['models']
    figures = {}
    for file in ('stylegan2_ada.npz', 'stylegan2_rosinality.npz'):
        with np.load(folder / file) as arrays:
            figures |= {k: arrays[k] for k in arrays.files if k.split('/')[0] in MODELS}
    kept = {}
    for model in MODELS:
        entries = [[e[0], e[1], e[2], e[5]] for e in specs[model]['entries']]
        kept[f'{model}/entries'] = np.array(json.dumps(entries))
    for name, array in figures.items():
        model, rest = name.split('/', 1)
        if 'unfused' in name or name.endswith(('_img', '_img/sample', '/loss')):
            continue
        if rest.startswith('in/') and rest not in ('in/c', 'in/latent_avg'):
            formula = recipe.normal(f'input/{model}/{rest[3:]}', array.shape)
            np.testing.assert_array_equal(formula, array)
        elif name.endswith('/sample'):
            kept[name] = array[:LARGE]
        elif array.dtype == np.float32:
            large = array.size > LARGE and not rest.startswith('in/')
            kept[f'{name}/sample' if large else name] = (
                recipe.sampled(array, LARGE) if large else array
            )
        elif rest in ('grad/all_names', 'grad/all_mean_rms_maxabs'):
            kept[name] = array
    np.savez_compressed(OUT, **kept)


if __name__ == '__main__':
    main(sys.argv[1])
