"""PTI's tuning and projection, step by step, against recorded runs of the official code.

benchmarks/parity.py compares with all figures there are; the ones here are kept in data/.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pti_figures
import pytest
import recipe

from jaxinv.configs import pti_single_id

pytestmark = pytest.mark.first

FIGURES = pathlib.Path(__file__).parent / 'data' / 'pti_stylegan2.npz'
# Limits of the relative L2 distance, as the figures' notes advise. Adam divides by the gradient's
# own size, so that what a parameter changed by is less certain than the parameter.
LOSS, FLOAT64 = 2e-4, 1e-4
LIMITS = {
    'reg': 5e-3,
    'param': 2e-4,
    'delta': 5e-2,
    'delta_mean_rms_maxabs': 5e-2,
    'final_img0': 1e-3,
    'final_img1': 1e-3,
    'noise_final': 1e-3,
    'w_per_step': 1e-3,
    'w_final': 2e-3,  # see docs/parity.md
}
GIVEN = ('delta_names', 'threshold')


@functools.cache
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


def assert_equal(run, dtype, limit_of, prefix=''):
    arrays = pti_figures.compute(run, json.loads(str(figures()['entries'])), figures(), dtype)
    run = pti_figures.VMAPPED.get(run, run)
    arrays = {f'{run}/{key}': array for key, array in arrays.items() if key not in GIVEN}
    found = recipe.distances(arrays, figures(), prefix)
    wanted = {key for key in figures() if key.startswith(f'{prefix}{run}/')}
    assert set(found) == {key for key in wanted if not key.endswith(GIVEN)}
    for key, error in found.items():
        assert error <= limit_of(key.removeprefix(prefix).split('/')[1]), (key, error)


@pytest.mark.parametrize(
    'run',
    [
        pytest.param('tune_reg', marks=pytest.mark.long),
        pytest.param('reg', marks=pytest.mark.long),
        pytest.param('tune_vmapped', marks=pytest.mark.exhaustive),
        pytest.param('tune_reg_vmapped', marks=pytest.mark.exhaustive),
        *(
            pytest.param(run, marks=pytest.mark.exhaustive)
            for run in pti_figures.RUNS
            if run not in ('tune_reg', 'reg')
        ),
    ],
)
def test_runs_equal_the_official_ones(run):
    assert_equal(run, jnp.float32, lambda kind: LIMITS.get(kind, LOSS))


@pytest.mark.exhaustive
@pytest.mark.parametrize('run', [*pti_figures.RUNS, *pti_figures.VMAPPED])
def test_runs_in_float64_equal_the_official_ones(run):
    with jax.enable_x64(True):
        assert_equal(run, jnp.float64, lambda kind: FLOAT64, 'f64/')


def test_only_the_official_variant_of_pti_single_id_stops_early():
    stops = {
        arg: pti_single_id.get_config(arg).tune.stop_lpips for arg in ('', 'paper', 'official')
    }
    assert stops == {'': None, 'paper': None, 'official': 0.06}


def test_quick_and_paper_differ_in_the_budget_only():
    quick, paper = (pti_single_id.get_config(arg) for arg in ('', 'paper'))
    differing = {
        f'{section}.{key}'
        for section, values in paper.items()
        if isinstance(values, type(paper))
        for key in values
        if values[key] != quick[section][key]
    }
    assert differing == {'pivot.num_steps', 'pivot.learning_rate', 'tune.num_steps'}
