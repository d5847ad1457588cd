"""Written state dicts are those of the official codes, name by name, and read back equal."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import official_weights
import pytest
import recipe
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxinv
from jaxinv import generators
from jaxinv.converters import checkpoint, export, stylegan2
from jaxinv.generators.stylegan2 import stylegan2 as make
from jaxinv.weights import export as export_lib
from jaxinv.weights import formats, store
from jaxinv.weights.load import load_generator, save_generator

FIGURES = pathlib.Path(__file__).parent / 'data' / 'stylegan2.npz'
NVIDIA = ('ada32', 'ada32c', 'ada32res', 'ada32orig')


@functools.cache
def official(name):
    """The state dict of the official code for a model of the reference figures."""
    with np.load(FIGURES) as file:
        return recipe.state_dict(json.loads(str(file[f'{name}/entries'])))


@functools.cache
def ours(name):
    """(generator, weights) made of it."""
    if name in NVIDIA:
        source = official(name)
        tell, convert = stylegan2.nvidia_arguments, stylegan2.convert_nvidia
    else:
        source = official(name) | {'latent_avg': recipe.normal('latent_avg', [64])}
        tell, convert = stylegan2.rosinality_arguments, stylegan2.convert_rosinality
    generator = make(name=name, **tell(source))
    like = flatten_dict(jax.eval_shape(generator.init, jax.random.key(0)), sep='/')
    return generator, jax.tree.map(jnp.asarray, unflatten_dict(convert(source, like), sep='/'))


def image(generator, weights):
    w = jax.random.normal(jax.random.key(1), [1, generator.spec.num_ws, generator.spec.w_dim])
    return np.asarray(jax.jit(generator.synthesize)(weights, w)[0])


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize('name', NVIDIA)
def test_ada_state_dicts_are_nvidias_entry_by_entry(name):
    generator, weights = ours(name)
    assert_same(export.state_dict(generator.spec, weights, 'ada'), official(name))


def test_rosinality_state_dicts_are_rosinalitys_entry_by_entry():
    generator, weights = ours('ros16')
    found = export.state_dict(generator.spec, weights, 'rosinality')
    average = recipe.normal('latent_avg', [64])
    assert_same(found, official('ros16') | {'latent_avg': average})


@pytest.mark.parametrize('ending', formats.STATE_DICTS)
@pytest.mark.parametrize('name,to', [('ada32', 'ada'), ('ros16', 'rosinality')])
def test_what_was_written_reads_back_to_equal_weights(name, to, ending, tmp_path):
    generator, weights = ours(name)
    export_lib.write(tmp_path / f'model{ending}', generator, weights, to)
    found = checkpoint.read(tmp_path / f'model{ending}')
    assert found.kind.startswith('stylegan2-ada' if to == 'ada' else 'rosinality')
    assert dict(generator.spec.arguments) == found.arguments
    assert_same(found.flat, flatten_dict(jax.tree.map(np.asarray, weights), sep='/'))
    if ending == '.safetensors':
        with safetensors.safe_open(tmp_path / 'model.safetensors', 'numpy') as file:
            assert file.metadata()['format'] == 'pt'


@pytest.mark.parametrize('to,path', [('orbax', 'folder'), ('safetensors', 'model.safetensors')])
def test_our_own_formats_keep_every_argument(to, path, tmp_path):
    generator, weights = ours('ada32c')
    clamped = make(
        **dict(generator.spec.arguments) | {'conv_clamp': 0.75, 'scaled_epsilon': True}, name='odd'
    )
    clamped = generators.with_domain(clamped, 'cars')
    export_lib.write(tmp_path / path, clamped, weights, to, {'kind': 'a test'})
    again, read = jaxinv.load_generator(tmp_path / path)
    assert again.spec == clamped.spec
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), weights, read))
    sidecar = tmp_path / ('folder/generator.json' if to == 'orbax' else 'model.json')
    record = json.loads(sidecar.read_text())
    assert record['jaxinv']['arguments']['channels'] == [64, 64, 64, 32]
    assert record['about'] == {'kind': 'a test'}


@pytest.mark.long
def test_a_tuned_generator_goes_to_rosinality_and_back_to_equal_images(tmp_path, monkeypatch):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    generator, weights = ours('ros16')
    moved = jax.tree.map(lambda x: x + 0.01 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), weights)
    tuned = {'params': moved['params'], 'buffers': weights['buffers']}
    save_generator(tmp_path / 'run' / 'generator', generator, tuned)
    generator, tuned = jaxinv.load_generator(tmp_path / 'run')
    export_lib.write(tmp_path / 'tuned.safetensors', generator, tuned, 'rosinality')
    again, read = jaxinv.load_generator(tmp_path / 'tuned.safetensors')
    np.testing.assert_array_equal(image(again, read), image(generator, tuned))
    assert np.abs(image(generator, weights) - image(generator, tuned)).max() > 1e-3


@pytest.mark.long
def test_nvidias_generator_under_rosinalitys_names_differs_by_the_epsilon_only(
    tmp_path, monkeypatch
):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    plain = make(16, channels=(16, 16, 16), z_dim=16, w_dim=16, mapping_layers=2)
    weights = jax.jit(plain.init)(jax.random.key(0, impl='unsafe_rbg'))  # compiles sooner
    sentences = export_lib.write(tmp_path / 'a.npz', plain, weights, 'rosinality')
    assert any('1e-6' in sentence for sentence in sentences)
    again, read = jaxinv.load_generator(tmp_path / 'a.npz')
    assert dict(again.spec.arguments)['scaled_epsilon']
    np.testing.assert_allclose(image(again, read), image(plain, weights), atol=2e-5)


@pytest.mark.parametrize(
    'name,to,words',
    [
        ('ada32c', 'rosinality', 'has no classes'),
        ('ada32res', 'rosinality', 'not resnet'),
        ('ada32', 'rosinality', 'not 96 and 128'),
    ],
)
def test_what_a_code_cannot_load_is_refused(name, to, words):
    generator, weights = ours(name)
    with pytest.raises(export.ExportError, match=words):
        export.state_dict(generator.spec, weights, to)


def test_generators_of_other_families_are_refused(tiny):
    with pytest.raises(export.ExportError, match='not a StyleGAN2'):
        export.state_dict(tiny[0].spec, tiny[1], 'ada')


def test_notes_tell_how_to_make_the_model():
    spec = make(1024).spec
    (note,) = export.notes(spec, 'ada')
    assert 'channel_base=32768, channel_max=512' in note and 'num_layers=8' in note
    note, epsilon = export.notes(spec, 'rosinality')
    assert note == 'Make the model with Generator(1024, 512, 8, channel_multiplier=2).'
    half = make(256, channel_base=16384, conv_clamp=256, scaled_epsilon=True).spec
    assert 'channel_multiplier=1' in export.notes(half, 'rosinality')[0]
    assert 'conv_clamp' in export.notes(half, 'rosinality')[-1]
    odd = make(32, channels=(64, 48, 64, 32)).spec
    assert 'no channel_base gives' in export.notes(odd, 'ada')[0]
    assert 'setting self.channels' in export.notes(odd, 'rosinality')[0]


def test_mapping_networks_with_other_layer_sizes(tmp_path):
    """embed_features and layer_features of NVIDIA's code that are not w_dim."""
    arrays = dict(official_weights.weights())
    sizes = {'fc0': (7, 6 + 5), 'fc1': (6, 7), 'embed': (5, 3)}
    for layer, shape in sizes.items():
        arrays[f'mapping.{layer}.weight'] = recipe.normal(f'mapping.{layer}.weight', shape)
        arrays[f'mapping.{layer}.bias'] = recipe.normal(f'mapping.{layer}.bias', shape[:1])
    path = tmp_path / 'a.npz'
    np.savez(path, **arrays)
    generator, weights = load_generator(path, log=lambda *a, **k: None)
    arguments = dict(generator.spec.arguments)
    assert (arguments['embed_features'], arguments['layer_features']) == (5, 7)

    def unit(x):
        return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)

    z, label = recipe.normal('z', [2, 6]), np.eye(3)[[0, 2]]
    embed, first, last = (
        (arrays[f'mapping.{name}.weight'].astype(float), arrays[f'mapping.{name}.bias'])
        for name in ('embed', 'fc0', 'fc1')
    )
    x = np.concatenate([unit(z), unit(label @ embed[0].T / np.sqrt(3) + embed[1])], 1)
    for kernel, bias in (first, last):  # learning-rate factor 0.01, lrelu with gain sqrt(2)
        x = x @ kernel.T * 0.01 / np.sqrt(kernel.shape[1]) + 0.01 * bias
        x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    found = generator.map(weights, jnp.asarray(z), jnp.asarray(label, jnp.float32))
    np.testing.assert_allclose(found, x, rtol=1e-4)
    assert_same(export.state_dict(generator.spec, weights, 'ada'), arrays)
    made = export.notes(generator.spec, 'ada')[0]
    assert 'embed_features=5, layer_features=7' in made
    assert 'synthesis_kwargs=dict(' in made and "stylegan3's repository" in made
    with pytest.raises(export.ExportError, match='classes|one size'):
        export.state_dict(generator.spec, weights, 'rosinality')
    store.write(tmp_path / 'own.safetensors', generator, weights)
    again, _ = load_generator(tmp_path / 'own.safetensors')
    assert again.spec.arguments == generator.spec.arguments
