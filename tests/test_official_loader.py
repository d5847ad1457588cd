"""A tuned copy of an official .pkl opens in NVIDIA's own loader, and renders the tuned pictures.

    JAXINV_OFFICIAL_CODE=STYLEGAN2_ADA_PYTORCH_OR_STYLEGAN3 JAXINV_OFFICIAL_PYTHON=PYTHON \
        python -m pytest tests/test_official_loader.py
"""

import os
import pathlib
import subprocess

import limits
import numpy as np
import official_loader
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from test_convert_command import run

import jaxinv

CODE, PYTHON = (os.environ.get(f'JAXINV_OFFICIAL_{name}', '') for name in ('CODE', 'PYTHON'))
pytestmark = pytest.mark.skipif(
    not (CODE and PYTHON),
    reason='JAXINV_OFFICIAL_CODE (a checkout) and JAXINV_OFFICIAL_PYTHON (with torch) are not set',
)


def official(*arguments):
    script = pathlib.Path(official_loader.__file__)
    subprocess.run([PYTHON, script, CODE, *map(str, arguments)], check=True, timeout=limits.SECONDS)


def test_the_official_loader_renders_the_tuned_pictures(tmp_path, capsys):
    base, tuned = tmp_path / 'base.pkl', tmp_path / 'tuned.pkl'
    official('make', base)
    generator, weights = jaxinv.load_generator(base)
    rng = np.random.default_rng(0)
    flat = {
        name: np.float32(array + 0.05 * rng.standard_normal(array.shape))
        if name.startswith('params/')
        else array
        for name, array in flatten_dict(weights, sep='/').items()
    }
    moved = unflatten_dict(flat, sep='/')
    folder = jaxinv.save(tmp_path / 'run', generator, moved)
    assert run(capsys, folder, tuned, f'--base={base}')[2] == 0
    w = official_loader.codes(np, generator.spec.num_ws)
    pictures = {}
    for file, own in ((base, weights), (tuned, moved)):
        official('render', file, tmp_path / 'found.npz')
        found = np.load(tmp_path / 'found.npz')['images'].transpose(0, 2, 3, 1)
        pictures[file] = jaxinv.render(generator, own, w)
        np.testing.assert_allclose(found, pictures[file], atol=2e-5 * np.abs(found).max())
        as_shown = [np.rint(np.clip(x * 127.5 + 128, 0, 255)) for x in (found, pictures[file])]
        assert np.abs(as_shown[0] - as_shown[1]).max() <= 1
    assert np.abs(pictures[base] - pictures[tuned]).max() > 0.1
