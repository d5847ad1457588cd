"""Every recorded figure of the official StyleGAN2, BigGAN-deep, LPIPS, PTI and SAM code.

    python benchmarks/parity.py [--goldens=FOLDER] [--only=ada32,tune] [--precision=float32]

FOLDER holds stylegan2_ada.npz, stylegan2_rosinality.npz, biggan_deep.npz, lpips.npz, pti.npz,
sam.npz, specs.json and tolerances.json. Prints a table of jaxinv's errors.

Errors are relative L2 distances, absolute ones from figures that are zero. In float32 each figure
has its own limit, from tolerances.json; in float64 trajectories must agree to 1e-4 with the figures
of the official float64 runs, all else to 1e-5. Of each group the figure nearest its limit is shown.
Exits with 1 if a figure misses its limit or is not compared.
"""

import json
import pathlib
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'tests'))  # what computes the figures

import biggan_figures  # noqa: E402
import lpips_figures  # noqa: E402
import pti_figures  # noqa: E402
import recipe  # noqa: E402
import sam_figures  # noqa: E402
import stylegan2_figures  # noqa: E402

PRECISIONS = ('float32', 'float64')
_GOLDENS = flags.DEFINE_string('goldens', '../shared/goldens', 'Folder of the figures.')
_PTI = (*pti_figures.RUNS, *pti_figures.VMAPPED)
_ALL = [
    *stylegan2_figures.MODELS, biggan_figures.NAME, *lpips_figures.NETS, *_PTI, *sam_figures.PARTS
]  # fmt: skip
_ONLY = flags.DEFINE_list('only', _ALL, 'Which ones.')
_PRECISION = flags.DEFINE_list('precision', list(PRECISIONS), 'One or both.')

# An input, and what PTI's code returns 18 of whatever the generator is; jaxinv returns one w.
NOT_FIGURES = ('/shape', '/threshold', '/num_ws_returned')


class Result(NamedTuple):
    key: str
    error: float
    limit: float

    @property
    def good(self):
        return self.error <= self.limit  # not for NaN

    @property
    def share(self):
        return self.error / self.limit if self.limit else float(self.error > 0)


def main(argv):
    del argv
    folder = pathlib.Path(_GOLDENS.value)
    specs = json.loads((folder / 'specs.json').read_text())['models']
    tolerances = json.loads((folder / 'tolerances.json').read_text())
    print('| figures | float32 | limit | error | float64 | limit | error | |')
    print('|---|---|---|---|---|---|---|---|', flush=True)
    good = True
    for name in _ONLY.value:
        start = time.perf_counter()
        file, figures_name = file_of(name), pti_figures.VMAPPED.get(name, name)
        with np.load(folder / f'{file}.npz') as arrays:
            figures = dict(arrays)
        model = {'pti': 'pti64', 'sam': 'sam256'}.get(file, name)
        entries = specs[model]['entries'] if model in specs else []
        entries = [(e[0], e[1], e[2], e[5]) for e in entries]
        groups = {}
        for precision in _PRECISION.value:
            prefix = 'f64/' if precision == 'float64' else ''
            with jax.enable_x64(precision == 'float64'):
                arrays = compute(name, entries, figures, jnp.dtype(precision))
                arrays = {f'{figures_name}/{key}': array for key, array in arrays.items()}
                errors = recipe.distances(arrays, figures, prefix)
            missing = wanted(figures_name, figures, prefix) - set(errors)
            good &= not missing
            for key in sorted(missing):
                print(f'{key}: not compared', file=sys.stderr)
            for key, error in errors.items():
                if not key.endswith(NOT_FIGURES):
                    result = Result(key, error, limit(file, key, figures[key], tolerances))
                    kinds = key.removeprefix(prefix).split('/')
                    group = f'{name} {kinds[2 if file == "lpips" else 1]}'  # lpips: of all pairs
                    groups.setdefault(group, {}).setdefault(precision, []).append(result)
        for group, results in groups.items():
            print(row(group, results), flush=True)
            misses = [r for some in results.values() for r in some if not r.good]
            good &= not misses
            for miss in misses:
                print(f'{miss.key}: {miss.error:.2e}, limit {miss.limit:.0e}', file=sys.stderr)
        print(f'{name}: {time.perf_counter() - start:.0f} s', file=sys.stderr)
    sys.exit(not good)


def file_of(name):
    if name in _PTI:
        return 'pti'
    if name in sam_figures.PARTS:
        return 'sam'
    if name in lpips_figures.NETS:
        return 'lpips'
    if name == biggan_figures.NAME:
        return 'biggan_deep'
    return 'stylegan2_rosinality' if name.startswith('ros') else 'stylegan2_ada'


def wanted(name, figures, prefix):
    """The figures of a model or run that must be compared with."""
    return {
        key
        for key, figure in figures.items()
        if key.startswith(f'{prefix}{name}/')
        and '/in/' not in key
        and not key.endswith(NOT_FIGURES)
        and figure.dtype.kind not in 'Uu'  # lists of names; pixels of the official image writer
    }


def limit(file, key, figure, tolerances):
    if figure.dtype.kind in 'iu':
        return 0.0  # numbers of steps, chosen spaces
    if key.startswith('f64/'):
        return 1e-4 if file in ('pti', 'sam') else 1e-5
    return tolerances[f'{file}:{key}']['tol_rel_l2']


def compute(name, entries, figures, dtype):
    """{figure's name without its model's: array}."""
    if name in _PTI:
        return pti_figures.compute(name, entries, figures, dtype)
    if name in sam_figures.PARTS:
        return sam_figures.compute(name, entries, figures, dtype)
    if name in lpips_figures.NETS:
        return lpips_figures.compute(name, figures, dtype)
    if name == biggan_figures.NAME:
        return biggan_figures.compute(entries, figures, dtype)
    model = stylegan2_figures.load(name, entries, figures.get(f'{name}/in/c'), dtype)
    arrays, summary = stylegan2_figures.gradients(model)
    if file_of(name) == 'stylegan2_rosinality':
        like_nvidia = stylegan2_figures.load(name, entries, dtype=dtype, scaled_epsilon=False)
        arrays |= stylegan2_figures.rosinality_images(model)
        return arrays | stylegan2_figures.cross_images(like_nvidia)
    names = [str(entry) for entry in figures[f'{name}/grad/all_names']]
    assert set(names) == set(summary), 'a parameter without a figure'
    arrays['grad/all_mean_rms_maxabs'] = np.stack([summary[entry] for entry in names])
    return arrays | stylegan2_figures.forward(model)


def row(group, results):
    cells = [group]
    for precision in PRECISIONS:
        some = results.get(precision)
        if some:
            worst = max(some, key=lambda result: result.share)
            cells += [str(len(some)), f'{worst.limit:.0e}', f'{worst.error:.1e}']
        else:
            cells += ['', '', '']
    good = all(result.good for some in results.values() for result in some)
    return f'| {" | ".join(cells)} | {"ok" if good else "**misses**"} |'


if __name__ == '__main__':
    app.run(main)
