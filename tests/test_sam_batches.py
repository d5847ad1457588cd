"""SAM a few pictures at a time: the numbers of all at once, and after an interruption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiment import load_config

from jaxinv import data, latents, settings
from jaxinv.errors import JaxinvError
from jaxinv.inversion import inputs, invert_sam, sam, sam_prior, sam_regions
from jaxinv.inversion.sam_regions import Problem
from jaxinv.optimize.runner import Runner
from jaxinv.runtime import distributed
from jaxinv.settings import Prior, Search
from jaxinv.weights.networks import load_lpips

NAMES = ['ada', 'bob', 'cyd', 'dot', 'eve']
SPACES = ('W+', 'F6')


@pytest.fixture
def start(tiny, monkeypatch):
    """Five pictures with bars, weights and codes to begin with, all of float64."""
    with jax.enable_x64(True):
        generator, weights = tiny
        nets = {net: load_lpips(net) for net in ('alex', 'vgg')}
        weights, nets = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (weights, nets))
        w = generator.map(weights, latents.sample_z(1, 10, generator.spec.z_dim))
        w = np.asarray(w, np.float64)
        prior = sam_prior.from_samples(w, Prior())
        valid = np.ones((5, 32, 32, 1), np.float32)
        valid[1, :4] = valid[4, 28:] = 0
        pictures = np.random.RandomState(0).randint(0, 255, (5, 32, 32, 3)).astype(np.uint8)
        targets = data.Targets(NAMES, pictures, [], [], valid)
        yield generator, weights, targets, nets, np.repeat(w[:5, None], 11, 1), prior


def invert(start, path, batch_per_device, log=lambda *_, **__: None):
    """(maps, singles, codes) of all, and the traces of the search."""
    generator, weights, targets, nets, w_plus, prior = start
    config = load_config('sam')
    config.sam.batch_per_device = batch_per_device
    config.sam.lpips_net = 'alex'
    run = settings.of(config, settings.InvertSam)
    examples = inputs.examples_of(targets)
    problem = Problem(generator, weights, examples, nets, Runner(NAMES, folder=path, log=log), 0)
    maps, singles, _ = sam_regions.measure(problem, w_plus, prior, run.measuring, SPACES, 1)
    assert list(maps) == list(singles) == list(SPACES)
    masks = jax.device_get(sam.full_masks(generator.spec, ['F6', 'F4', 'W+', 'F6', 'F4']))
    codes, traces = invert_sam.search(problem, 'invert', masks, w_plus, prior, run.searching)
    found = maps, singles, codes
    assert all(isinstance(x, np.ndarray) and len(x) == 5 for x in jax.tree.leaves(found))
    return found, traces


@pytest.mark.exhaustive
def test_two_at_a_time_end_as_all_at_once_also_when_interrupted(start, tmp_path):
    together, losses = invert(start, tmp_path / 'together', 0)
    apart, own_losses = invert(start, tmp_path / 'apart', 2)
    # What LPIPS sees in the targets is of float32, and Adam divides by gradients of nearly nothing.
    for x, y in zip(jax.tree.leaves(apart), jax.tree.leaves(together), strict=True):
        rounding = 1 if x.dtype == np.uint8 else 0
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.abs(x - y).max() <= rounding + 1e-4 * np.abs(y).max()
    for name in losses:
        np.testing.assert_allclose(own_losses[name], losses[name], rtol=1e-5)

    def stop(text, **_):
        if text.startswith('invert/2    2/4'):
            raise distributed.Preempted

    with pytest.raises(distributed.Preempted):
        invert(start, tmp_path / 'work', 2, stop)
    lines = []
    again, again_losses = invert(start, tmp_path / 'work', 2, lambda text, **_: lines.append(text))
    assert 'measure_F6/4: going on after step 4.' in lines
    assert not any(line.startswith('invert/0 ') for line in lines)
    assert any(line.startswith('invert/2    2/4') for line in lines)
    jax.tree.map(np.testing.assert_array_equal, apart, again)
    for name in losses:
        np.testing.assert_allclose(again_losses[name], own_losses[name], rtol=1e-6)


def test_a_number_of_pictures_that_cannot_be_is_named():
    with pytest.raises(JaxinvError, match='sam.batch_per_device is -1'):
        Search(batch_per_device=-1).check()
