"""BigGAN-deep from the files of pytorch-pretrained-biggan: equal weights, and errors that name."""

import functools
import json
import pathlib

import biggan_figures
import jax
import jax.numpy as jnp
import numpy as np
import official_files
import pickle_writer
import pytest
import recipe
from flax.traverse_util import flatten_dict

import jaxinv
from jaxinv import convert as command
from jaxinv.converters import biggan, biggan_config
from jaxinv.generators.biggan_deep import biggan_deep

FIGURES = pathlib.Path(__file__).parent / 'data' / 'biggan.npz'
# Small: 16 pixels, attention before block 2.
ARGUMENTS = {
    'resolution': 16,
    'layers': ((True, 16, 8), (False, 8, 4), (True, 4, 2), (False, 2, 1)),
    'channel_width': 8,
    'num_classes': 5,
    'z_dim': 6,
    'class_embed_dim': 4,
    'attention_position': 2,
    'num_statistics': 5,
    'epsilon': 1e-3,
}
CONFIG = {
    'output_dim': 16,
    'layers': ARGUMENTS['layers'],
    'channel_width': 8,
    'num_classes': 5,
    'z_dim': 6,
    'class_embed_dim': 4,
    'attention_layer_position': 2,
    'n_stats': 5,
    'eps': 1e-3,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))


@functools.cache
def official():
    """The recorded model's state dict, entry by entry as the official program has it."""
    with np.load(FIGURES) as file:
        return recipe.state_dict(json.loads(str(file[f'{biggan_figures.NAME}/entries'])))


@functools.cache
def small():
    """A small state dict with the official names."""
    shapes = biggan.shapes(biggan.entries(ARGUMENTS))
    return {name: np.abs(recipe.normal(name, shape)) + 0.1 for name, shape in shapes.items()}


def changed(**arrays):
    """small() with arrays in place of others, None = without; 'conv_0__bias' = conv_0.bias."""
    source = dict(small())
    for name, array in arrays.items():
        name = name.replace('__', '.')
        source = source | {name: array} if array is not None else source
        if array is None:
            del source[name]
    return source


def refused(folder, words):
    with pytest.raises(ValueError, match=words) as error:
        jaxinv.load_generator(folder)
    assert str(folder) in str(error.value)


def test_every_name_and_shape_is_the_official_ones():
    arguments = biggan.arguments(official(), biggan_config.checked(biggan_figures.CONFIG))
    shapes = biggan.shapes(biggan.entries(arguments))
    assert shapes == {name: array.shape for name, array in official().items()}
    generator = biggan_deep(**arguments)
    like = flatten_dict(jax.eval_shape(generator.init, jax.random.key(0)), sep='/')
    flat = biggan.convert(official(), arguments)
    assert {k: a.shape for k, a in flat.items()} == {k: a.shape for k, a in like.items()}
    assert {a.dtype.name for a in flat.values()} == {'float32'}


def test_spectral_norms_are_divided_out():
    source = small()
    flat = biggan.convert(source, ARGUMENTS)
    name = 'generator.layers.1.conv_1.weight'
    matrix = source[f'{name}_orig'].reshape(8 * 8 // 4, -1).astype(np.float64)
    divisor = source[f'{name}_u'] @ matrix @ source[f'{name}_v']
    kernel = source[f'{name}_orig'].transpose(2, 3, 1, 0) / divisor
    np.testing.assert_allclose(flat['params/synthesis/block_1/conv_1/kernel'], kernel, rtol=1e-6)
    # Attention takes number 2, so the block after it has the file's number 3.
    bias = source['generator.layers.3.conv_0.bias']
    np.testing.assert_array_equal(flat['params/synthesis/block_2/conv_0/bias'], bias)
    average = np.concatenate([np.zeros(6), source['embeddings.weight'].mean(1)])
    np.testing.assert_allclose(flat['buffers/w_avg'], average, rtol=1e-5)


@pytest.mark.parametrize('write', [pickle_writer.torch_legacy, pickle_writer.torch_zip])
def test_a_folder_or_its_file_loads_and_is_kept(write, tmp_path):
    folder = official_files.biggan_folder(tmp_path / 'my_biggan', small(), CONFIG, write)
    expected = biggan.convert(small(), ARGUMENTS)
    for source in (folder, folder / 'pytorch_model.bin', str(folder)):
        generator, weights = jaxinv.load_generator(source, log=lambda *_, **__: None)
        assert generator.spec == biggan_deep(**ARGUMENTS, name='my_biggan').spec
        for path, array in flatten_dict(weights, sep='/').items():
            np.testing.assert_array_equal(array, expected[path])
    # Another config is another network, though the weights' file is the same.
    other = CONFIG | {'layers': [[False, 16, 8], [True, 8, 4], [True, 4, 2], [False, 2, 1]]}
    (folder / 'config.json').write_text(json.dumps(other))
    assert jaxinv.load_generator(folder)[0].spec.arguments[1][1][0] == (False, 16, 8)


@pytest.mark.parametrize('name', [pytest.param('out', marks=pytest.mark.long), 'out.safetensors'])
def test_the_command_describes_and_writes(name, tmp_path, capsys):
    folder = official_files.biggan_folder(tmp_path / 'net', small(), CONFIG)
    command.FLAGS.unparse_flags()
    command.main(['converters', str(folder), str(tmp_path / name)])
    out = capsys.readouterr().out
    for words in (
        'pytorch-pretrained-biggan state dict',
        '16 pixels, 5 rows of W+',
        '64 at 8, 32 at 8, 16 at 16, 8 at 16',
        'before block 2',
        '5 rows; truncation 1',
        'classes        5',
    ):
        assert words in out
    generator, weights = jaxinv.load_generator(tmp_path / name)
    first, expected = jaxinv.load_generator(folder)
    assert generator.spec == first.spec
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), weights, expected))


@pytest.mark.exhaustive
def test_the_recorded_model_loads_from_its_file_to_the_official_image(tmp_path):
    folder = official_files.biggan_folder(tmp_path, official(), biggan_figures.CONFIG)
    generator, weights = jaxinv.load_generator(folder)
    with np.load(FIGURES) as file:
        figures = dict(file)
    model = biggan_figures.load(json.loads(str(figures['bigdeep128/entries'])), figures)
    w = generator.map(weights, model.z, model.label)
    image = recipe.nchw(jax.jit(generator.synthesize)(weights, w[:, None])[0])
    figure = figures['bigdeep128/t1.0/img/sample']
    assert recipe.distance(recipe.sampled(image, len(figure)), figure) < 2e-5


def test_without_a_config_official_blocks_are_known_and_others_are_not(tmp_path):
    found = biggan.arguments(official())
    assert found == biggan.arguments(official(), biggan_config.checked(biggan_figures.CONFIG))
    refused(official_files.biggan_folder(tmp_path, small()), 'put its config.json beside it')


# --- What is wrong is named ---


def test_every_missing_unexpected_and_misshapen_array_is_named(tmp_path):
    source = changed(
        generator__layers__0__conv_1__weight_u=None,
        generator__layers__3__bn_2__running_vars=None,
        generator__layers__9__extra=np.ones(3, np.float32),
        generator__layers__2__gamma=np.ones(2, np.float32),
    )
    source['generator.layers.1.conv_1.extra'] = source.pop('generator.layers.9.extra')
    folder = official_files.biggan_folder(tmp_path, source, CONFIG)
    with pytest.raises(ValueError) as error:
        jaxinv.load_generator(folder)
    for words in (
        'missing generator.layers.0.conv_1.weight_u',
        'missing generator.layers.3.bn_2.running_vars',
        'unexpected generator.layers.1.conv_1.extra',
        'generator.layers.2.gamma is [2] instead of [1]',
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'generator__bn__weight': None}, 'Missing array: generator.bn.weight'),
        ({'embeddings__weight': np.ones([3], np.float32)}, 'embeddings.weight.*2 axes'),
        ({'generator__layers__3__gamma': np.ones(1, np.float32)}, '2 attention layers'),
        (
            {'generator__gen_z__weight_u': np.zeros(2048, np.float32)},
            'norm of .*gen_z is 0',
        ),
        ({'generator__gen_z__bias': np.full(2048, np.nan, np.float32)}, 'not finite'),
        ({'generator__gen_z__bias': np.ones(2048, np.int64)}, 'it must hold floats'),
    ],
)
def test_arrays_that_cannot_be_are_named(change, words, tmp_path):
    refused(official_files.biggan_folder(tmp_path, changed(**change), CONFIG), words)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'channel_width': 16}, 'channel_width = 16, but its arrays give 8'),
        ({'num_classes': 1000}, 'num_classes = 1000, but its arrays give 5'),
        ({'z_dim': 128}, 'z_dim = 128, but its arrays give 6'),
        ({'n_stats': 51}, 'n_stats = 51, but its arrays give 5'),
        ({'attention_layer_position': 3}, 'attention_layer_position = 3, but its arrays give 2'),
        ({'output_dim': 128}, 'output_dim = 128, but its layers give 16'),
        ({'layers': [[True, 16, 8], [True, 8, 1]]}, 'has 2 layers, but the arrays belong to 4'),
        (
            {'layers': [[1, 16, 8], [0, 8, 8], [1, 8, 2], [0, 2, 1]]},
            r'layers\[1\] from 64 to 64 channels, but its arrays go from 64 to 32',
        ),
    ],
)
def test_what_the_config_and_the_arrays_disagree_about_is_named(change, words, tmp_path):
    refused(official_files.biggan_folder(tmp_path, small(), CONFIG | change), words)


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        ('{', 'config.json is not JSON'),
        ('[' * 100_000, 'config.json is not JSON'),
        ('[]', 'holds a list, not an object'),
        ('{"a": "' + 'x' * (1 << 20) + '"}', 'more than the 1048576 bytes'),
        ({'layers': 5}, 'layers is 5; it must be a list'),
        ({'layers': [[True, 16, 8]] * 100}, 'it must be a list'),
        ({'layers': [[True, 16, 1e300]]}, 'it must be a list'),
        ({'layers': [[True, 16]]}, 'it must be a list'),
        ({'z_dim': '128'}, 'z_dim is 128; it must be an integer'),
        ({'n_stats': True}, 'n_stats is True; it must be an integer'),
        ({'num_classes': 1 << 40}, 'num_classes is .*; it must be an integer'),
        ({'eps': -1}, 'eps is -1; it must be a number between 0 and 1'),
        ({'eps': float('nan')}, 'eps is nan'),
    ],
)
def test_configs_are_not_trusted(config, words, tmp_path):
    if isinstance(config, dict):
        config = CONFIG | config
    refused(official_files.biggan_folder(tmp_path, small(), config), words)


def test_a_pickle_that_asks_for_code_is_refused(tmp_path):
    folder = official_files.biggan_folder(tmp_path, small(), CONFIG)
    call = pickle_writer.Call(('os', 'system'), f'touch {tmp_path}/ran')
    (folder / 'pytorch_model.bin').write_bytes(pickle_writer.torch_legacy({'embeddings': call}))
    refused(folder, 'os.system')
    assert not (tmp_path / 'ran').exists()
