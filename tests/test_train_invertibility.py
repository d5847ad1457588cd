"""The tasks that measure training pictures and fit the network, and what they leave behind."""

import importlib.util
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import settings
from jaxinv.data import occluders
from jaxinv.errors import JaxinvError
from jaxinv.experiments import invertibility_data, train_invertibility
from jaxinv.weights.networks import load_invertibility


def config_of(name, variant):
    file = pathlib.Path(__file__).parents[1] / 'configs' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def silent(*args, **kwargs):
    pass


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A finished data folder of pictures that tell their maps: bright squares are hard."""
    path = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    (path / invertibility_data.ITEMS).mkdir()
    items = []
    for i in range(24):
        hard = np.zeros((32, 32), bool)
        for y, x in rng.integers(0, 24, (2, 2)):
            hard[y : y + 10, x : x + 10] = True
        picture = np.where(hard[..., None], 220, 40) + rng.integers(-20, 20, (32, 32, 3))
        maps = np.stack([0.8 * hard + 0.1, 0.3 * hard])
        file = path / invertibility_data.ITEMS / f'p{i}.npz'
        invertibility_data.write_item(file, picture.astype(np.uint8), maps)
        items.append({'name': f'p{i}', 'kind': 'real' if i < 2 else 'generated', 'means': {}})
    manifest = {'spaces': ['W+', 'F4'], 'items': items}
    (path / invertibility_data.MANIFEST).write_text(json.dumps(manifest))
    return path


@pytest.mark.exhaustive
def test_the_network_learns_what_the_pictures_tell(folder, tmp_path):
    config = config_of('train_invertibility', '')
    config.data, config.size = str(folder), 'small'
    config.num_steps, config.batch_size, config.learning_rate = 160, 6, 1e-2
    config.chunk_steps = 160
    train_invertibility.run(config, tmp_path / 'run', log=silent)
    result = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
    assert result['pictures'] == {'train': 18, 'held_out': 4, 'real': 2}
    for part in ('held_out', 'real'):
        for space in ('W+', 'F4'):
            figures = result[part][space]
            assert figures['correlation'] > 0.6 > figures['correlation_of_mean_map']
            assert figures['mse'] < 0.7 * figures['mse_of_mean_map']
    network, variables = load_invertibility(tmp_path / 'run' / 'network.safetensors')
    dataset = invertibility_data.load(folder)
    predicted = train_invertibility.predict_all(network, variables, None, dataset.images_uint8)
    place = dataset.names.index('p0')
    again = train_invertibility.correlation(predicted[place], dataset.maps[place])
    assert again > 0.6 and (tmp_path / 'run' / 'predictions.png').is_file()


class Linear(nn.Module):
    """The smallest network with batch statistics."""

    @nn.compact
    def __call__(self, images, taps, train):
        x = nn.Dense(2, name='dense')(images)
        return {'W+': nn.BatchNorm(not train, momentum=0.9, name='bn')(x)[..., 0]}


def test_batch_statistics_are_kept_by_the_network_and_not_by_the_optimizer():
    config = config_of('train_invertibility', '')
    pictures = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), minval=-1)
    variables = Linear().init(jax.random.key(1), pictures, None, False)
    state = train_invertibility.TrainState.create(
        apply_fn=Linear().apply,
        tx=train_invertibility.make_optimizer(config),
        **variables,
    )
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)]
    assert not [path for path in paths if 'mean' in jax.tree_util.keystr(path)]
    expected = 0.1 * (pictures @ variables['params']['dense']['kernel']).mean((0, 1, 2))
    bias = np.array(variables['params']['bn']['bias'])  # the step donates it
    args = {'images': jnp.stack([pictures, pictures]), 'maps': jnp.ones((2, 3, 8, 8, 1))}
    state, loss = train_invertibility.make_step(('W+',), 3)(state, args, jax.random.key(2))
    assert int(state.step) == 1 and loss.shape == (3,)
    np.testing.assert_allclose(state.batch_stats['bn']['mean'], expected, atol=1e-6)
    assert np.abs(state.params['bn']['bias'] - bias).max() > 1e-4


def test_correlation_is_numpys():
    a, b = np.random.default_rng(0).random((2, 3, 8, 8))
    expected = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    np.testing.assert_allclose(train_invertibility.correlation(a, b), expected, rtol=1e-10)
    assert train_invertibility.correlation(a, np.ones_like(a)) == 0.0


def test_no_picture_is_on_both_sides_of_the_split(folder):
    dataset = invertibility_data.load(folder)
    for on_real in (False, True):
        split = train_invertibility.split_of(dataset, 0.25, on_real, seed=3)
        assert sorted(np.concatenate(split).tolist()) == list(range(24))
        assert on_real or split.real.tolist() == [0, 1]
    with pytest.raises(JaxinvError, match='cannot be split'):
        few = dataset._replace(kinds=['generated'], names=['p0'])
        train_invertibility.split_of(few, 0.25, False, seed=3)


def test_distorted_pictures_are_seeded_and_differ_in_places():
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[20:44, 20:44] = 30
    first, again = (occluders.distort(picture, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    changed = [
        (occluders.occlude(picture, np.random.default_rng(i)) != picture).any(-1).mean()
        for i in range(20)
    ]
    assert all(0 < share < 0.7 for share in changed)
    turned = occluders.misalign(picture, np.random.default_rng(0))
    assert turned.shape == picture.shape and turned.dtype == np.uint8


def test_folders_that_are_not_data_are_refused(folder, tmp_path):
    with pytest.raises(JaxinvError, match='no manifest.json'):
        invertibility_data.load(tmp_path)
    (tmp_path / 'manifest.json').write_text(json.dumps({'spaces': ['W+'], 'items': []}))
    with pytest.raises(JaxinvError, match='the same spaces'):
        invertibility_data.load(f'{folder},{tmp_path}')
    config = config_of('invertibility_data', 'quicktest')
    config.share = 1
    with pytest.raises(JaxinvError, match='share is 1 of 1'):
        settings.check(config)


@pytest.mark.exhaustive
def test_from_measuring_to_a_network_with_interruptions(tmp_path):
    config = config_of('invertibility_data', 'quicktest')
    data = tmp_path / 'data'
    invertibility_data.run(config, data, log=silent)
    before = invertibility_data.load(data)
    assert before.spaces == ('W+', 'F4', 'F6') and before.maps.shape == (3, 3, 32, 32)
    (data / 'metrics.json').unlink()
    (data / 'items' / 'generated_00001.npz').unlink()
    invertibility_data.run(config, data, log=silent)
    after = invertibility_data.load(data)
    np.testing.assert_array_equal(before.images_uint8, after.images_uint8)
    np.testing.assert_allclose(before.maps, after.maps, atol=1e-3)

    shares = []
    for share in range(2):
        config.share, config.shares = share, 2
        invertibility_data.run(config, tmp_path / f'share{share}', log=silent)
        shares.append(str(tmp_path / f'share{share}'))
    joined = invertibility_data.load(','.join(shares))
    order = np.argsort(joined.names)
    np.testing.assert_array_equal(joined.images_uint8[order], before.images_uint8)
    np.testing.assert_allclose(joined.maps[order], before.maps, atol=1e-3)

    config = config_of('train_invertibility', 'quicktest')
    config.data = ','.join(shares)
    train_invertibility.run(config, tmp_path / 'net', log=silent)
    network, _ = load_invertibility(tmp_path / 'net' / 'network.safetensors')
    assert network.sizes.trunk == 'vgg16'
