"""Every container gives the weights and arguments that were put in; what is odd is named."""

import functools
import json
import pathlib
import tracemalloc

import jax
import numpy as np
import official_files as files
import official_weights
import pickle_writer
import pytest
import recipe
from flax.traverse_util import flatten_dict

from jaxinv.converters import checkpoint, stylegan2
from jaxinv.generators.stylegan2 import stylegan2 as generator

FIGURES = pathlib.Path(__file__).parent / 'data' / 'stylegan2.npz'
NVIDIA = ('ada32', 'ada32c', 'ada32res', 'ada32orig', 'ada32clamp')


@functools.cache
def source(name):
    with np.load(FIGURES) as file:
        return recipe.state_dict(json.loads(str(file[f'{name}/entries'])))


@functools.cache
def nvidia(name='ada32', clamp=None):
    """Arguments and flat weights by the name tables alone, as the parity tests use them."""
    arguments = stylegan2.nvidia_arguments(source(name)) | {'conv_clamp': clamp}
    like = flatten_dict(jax.eval_shape(generator(**arguments).init, jax.random.key(0)), sep='/')
    return arguments, stylegan2.convert_nvidia(source(name), like)


@functools.cache
def rosinality(name='ros16'):
    arguments = stylegan2.rosinality_arguments(source(name))
    like = flatten_dict(jax.eval_shape(generator(**arguments).init, jax.random.key(0)), sep='/')
    average = np.arange(arguments['w_dim'], dtype=np.float32)
    state = source(name) | {'latent_avg': average}
    return arguments, stylegan2.convert_rosinality(state, like), average


@functools.cache
def small():
    return official_weights.weights()


def small_rosinality():
    return official_weights.rosinality_names(small())


def assert_same(found, arguments, flat, atol=0.0):
    given = {'c_dim': 0, 'architecture': 'skip', 'conv_clamp': None, 'scaled_epsilon': False}
    assert found.arguments == given | arguments
    assert set(found.flat) == set(flat)
    for path, array in flat.items():
        assert found.flat[path].dtype == np.float32 and found.flat[path].shape == array.shape
        np.testing.assert_allclose(found.flat[path], array, rtol=0, atol=atol, err_msg=path)


def state_dict(arrays, write=pickle_writer.torch_zip):
    return write(pickle_writer.tensors(arrays))


def under(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


# --- Formats ---

ADA = 'stylegan2-ada-pytorch'
CONTAINERS = {
    'pickle': (files.nvidia_pickle, f'{ADA} pickle'),
    'pickle_3': (lambda s: files.nvidia_pickle(s, protocol=3), f'{ADA} pickle'),
    'pickle_sg3': (
        lambda s: files.nvidia_pickle(s, layout='sg3'),
        'stylegan3-repository StyleGAN2 pickle',
    ),
    'tuned': (files.tuned_generator, 'PTI tuned generator'),
    'tuned_legacy': (
        lambda s: files.tuned_generator(s, write=pickle_writer.torch_legacy),
        'PTI tuned generator',
    ),
    'torch': (state_dict, f'{ADA} state dict'),
    'torch_legacy': (lambda s: state_dict(s, pickle_writer.torch_legacy), f'{ADA} state dict'),
    'torch_prefix': (lambda s: state_dict(under('module.', s)), f'{ADA} state dict'),
    'npz': (pickle_writer.npz, f'{ADA} state dict'),
    'npz_prefix': (lambda s: pickle_writer.npz(under('G_ema.', s)), f'{ADA} state dict'),
    'safetensors': (pickle_writer.safetensors, f'{ADA} state dict'),
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_every_container_holds_the_same_weights(container, read):
    write, kind = CONTAINERS[container]
    found = read(write(source('ada32')))
    assert found.kind == kind
    assert_same(found, *nvidia())


@pytest.mark.parametrize('name', NVIDIA)
def test_every_architecture_comes_out_of_nvidias_pickles(name, read):
    clamp = 0.75 if name == 'ada32clamp' else None
    found = read(files.nvidia_pickle(source(name), conv_clamp=clamp))
    assert_same(found, *nvidia(name, clamp))
    assert found.notes == ('G_ema was taken, not G, D, augment_pipe, training_set_kwargs.',)


@pytest.mark.parametrize('name', NVIDIA)
def test_tensorflow_pickles_hold_the_same_weights(name, read):
    clamp = 0.75 if name == 'ada32clamp' else None
    found = read(files.tensorflow_pickle(source(name), conv_clamp=clamp))
    arguments, flat = nvidia(name, clamp)
    assert found.kind == 'TensorFlow StyleGAN2 pickle'
    # 1 is taken off the modulation's biases there and added again.
    assert_same(found, arguments | {'scaled_epsilon': True}, flat, atol=2e-7)


def test_rosinality_checkpoints_with_and_without_average(read):
    arguments, flat, average = rosinality()
    found = read(files.rosinality_checkpoint(source('ros16'), average))
    assert (found.kind, found.notes) == ('rosinality checkpoint', ())
    assert_same(found, arguments, flat)
    flat = {path: array for path, array in flat.items() if path != 'buffers/w_avg'}
    found = read(files.rosinality_checkpoint(source('ros16')))
    assert_same(found, arguments, flat)
    assert 'no average w (latent_avg)' in found.notes[-1]


@pytest.mark.exhaustive
def test_rosinality_with_512_channels(read):
    arguments, flat, average = rosinality('ros32')
    assert_same(read(files.rosinality_checkpoint(source('ros32'), average)), arguments, flat)


def test_training_checkpoint_of_the_older_torch_format(read):
    state, average = small_rosinality()
    write = pickle_writer.torch_legacy
    data = files.rosinality_checkpoint(state, average, training=True, write=write)
    ema, last = read(data), read(data, which='G')
    assert ema.notes == ('g_ema was taken, not g, d, g_optim, args, ada_aug_p.',)
    assert last.notes == ('g was taken, not g_ema, d, g_optim, args, ada_aug_p.',)
    path = 'params/synthesis/b8/conv0/kernel'
    np.testing.assert_array_equal(last.flat[path], ema.flat[path] + 1)


def test_both_namings_hold_the_same_weights(read):
    state, average = small_rosinality()
    flat = read(pickle_writer.npz(small())).flat
    for container in (pickle_writer.npz, pickle_writer.safetensors, state_dict):
        found = read(container(state | {'latent_avg': average}))
        assert found.kind == 'rosinality state dict'
        assert_same(found, found.arguments, flat)


@pytest.mark.parametrize('rows', [None, 1, 4])
@pytest.mark.parametrize('namespace', [False, True])
def test_encoders_decoder_is_the_generator(rows, namespace, read):
    state, average = small_rosinality()
    given = average if rows is None else np.tile(average, (rows, 1))
    found = read(files.encoder_checkpoint(state, given, namespace))
    assert found.kind == 'e4e/pSp checkpoint'
    assert found.notes == ('decoder.* was taken, not encoder.*.',)
    assert_same(found, found.arguments, read(pickle_writer.npz(small())).flat)


def test_an_average_with_differing_rows_is_averaged_and_said(read):
    state, average = small_rosinality()
    found = read(files.encoder_checkpoint(state, np.stack([average, average + 2])))
    np.testing.assert_allclose(found.flat['buffers/w_avg'], average + 1, rtol=1e-6)
    assert any('differs between its 2 rows' in note for note in found.notes)


def test_state_dicts_without_noise_maps_get_seeded_ones(read):
    state, average = small_rosinality()
    state = {name: array for name, array in state.items() if not name.startswith('noises.')}
    found = read(files.rosinality_checkpoint(state, average))
    again = read(files.rosinality_checkpoint(state, average))
    assert any('no noise maps' in note for note in found.notes)
    for layer in ('b4_conv1', 'b8_conv0', 'b8_conv1'):
        np.testing.assert_array_equal(
            found.flat[f'buffers/noise/{layer}'], again.flat[f'buffers/noise/{layer}']
        )


def test_which_network(read):
    other = {name: array + 1 for name, array in small().items() if 'filter' not in name}
    other = small() | other
    data = files.nvidia_pickle(small(), other)
    for which, weights in (('G_ema', small()), ('G', other)):
        expected = read(pickle_writer.npz(weights)).flat
        found = read(data, which=which)
        assert found.notes[0].startswith(f'{which} was taken, not ')
        assert_same(found, found.arguments, expected)
    both = under('G.', other) | under('G_ema.', small())
    found = read(pickle_writer.npz(both))
    np.testing.assert_array_equal(found.flat['buffers/w_avg'], small()['mapping.w_avg'])
    assert 'G_ema.* was taken, not G.*.' in found.notes


def test_half_precision_is_widened_and_named(read):
    halves = {name: array.astype(np.float16) for name, array in small().items()}
    found = read(pickle_writer.npz(halves))
    expected = {name: array.astype(np.float32) for name, array in halves.items()}
    assert_same(found, found.arguments, read(pickle_writer.npz(expected)).flat)
    found = read(files.nvidia_pickle(small(), fp16=(8,), conv_clamp=256))
    assert found.arguments['conv_clamp'] == 256
    assert any('synthesis.b8 used float16' in note for note in found.notes)


def test_color_layers_of_progressive_growing_are_left_out(read):
    arrays = official_weights.tensorflow_variables(small())
    last, first = 'synthesis/8x8/ToRGB/', 'synthesis/4x4/ToRGB/'
    renamed = {
        name.replace(last, 'synthesis/ToRGB_lod0/').replace(first, 'synthesis/ToRGB_lod1/'): array
        for name, array in arrays.items()
    } | {'synthesis/lod': np.float32(0)}
    network = files.tensorflow_generator(renamed, synthesis_func='G_synthesis_stylegan_revised')
    found = read(pickle_writer.plain_pickle((network, network, network)))
    assert found.arguments['architecture'] == 'orig'
    assert any('progressive growing' in note for note in found.notes)
    assert 'params/synthesis/b4/torgb/kernel' not in found.flat


def test_a_file_is_not_in_memory_twice(tmp_path):
    path = tmp_path / 'file.pt'
    path.write_bytes(files.rosinality_checkpoint(source('ros16'), np.zeros(64, np.float32)))
    tracemalloc.start()
    found = checkpoint.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    weights = sum(array.nbytes for array in found.flat.values())
    assert weights > 0.9 * path.stat().st_size
    assert peak < 1.1 * weights + 2**20
