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

from converters import checkpoint, stylegan2, tables
from converters.safe_pickle import UnsafePickle
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
    like = tables.flatten(jax.eval_shape(generator(**arguments).init, jax.random.key(0)))
    return arguments, stylegan2.convert_nvidia(source(name), like)


@functools.cache
def rosinality(name='ros16'):
    arguments = stylegan2.rosinality_arguments(source(name))
    like = tables.flatten(jax.eval_shape(generator(**arguments).init, jax.random.key(0)))
    average = np.arange(arguments['w_dim'], dtype=np.float32)
    state = source(name) | {'latent_avg': average}
    return arguments, stylegan2.convert_rosinality(state, like), average


@functools.cache
def small():
    return official_weights.weights()


def small_rosinality():
    return official_weights.rosinality_names(small())


@pytest.fixture
def read(tmp_path):
    def read_bytes(data, **options):
        path = tmp_path / 'file'
        path.write_bytes(data)
        return checkpoint.read(path, **options)

    return read_bytes


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
    assert 'latent_avg' in found.notes[-1] and 'computed from samples' in found.notes[-1]


@pytest.mark.long
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
    assert any('float16 was used in synthesis.b8' in note for note in found.notes)


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


# --- Strictness ---


def changed(change):
    arrays = dict(small())
    change(arrays)
    return arrays


WRONG = {
    'missing': (
        lambda a: a.pop('synthesis.b8.conv0.affine.bias'),
        'Missing array: synthesis.b8.conv0.affine.bias',
    ),
    'unexpected': (
        lambda a: a.update({'synthesis.b8.conv1.gain': a['mapping.fc0.bias']}),
        'Unexpected array: synthesis.b8.conv1.gain',
    ),
    'misshapen': (
        lambda a: a.update({'synthesis.b8.conv1.weight': np.zeros([4, 5, 3, 3], np.float32)}),
        "'synthesis.b8.conv1.weight' gives",
    ),
    'flat_kernel': (
        lambda a: a.update({'synthesis.b8.torgb.weight': np.zeros([3, 4], np.float32)}),
        "'synthesis.b8.torgb.weight'",
    ),
    'flat_first_layer': (
        lambda a: a.update({'mapping.fc0.weight': np.zeros(3, np.float32)}),
        "'mapping.fc0.weight' has shape",
    ),
    'missing_block': (
        lambda a: [a.pop(n) for n in list(a) if n.startswith('synthesis.b4.') and 'const' not in n],
        '8 pixels need 2',
    ),
    'not_finite': (
        lambda a: a.update({'mapping.fc1.bias': np.float32([0, 0, np.nan, 0, 0, 0])}),
        "'mapping.fc1.bias' has numbers that are not finite",
    ),
    'too_large_for_float32': (
        lambda a: a.update({'mapping.fc1.bias': np.full(6, 1e300)}),
        "'mapping.fc1.bias' has numbers that are not finite",
    ),
    'integers': (
        lambda a: a.update({'mapping.fc1.bias': np.zeros(6, np.int64)}),
        "'mapping.fc1.bias' holds int64; floats are wanted",
    ),
    'other_filter': (
        lambda a: a.update({'synthesis.b8.resample_filter': np.full([4, 4], 1 / 16)}),
        "'synthesis.b8.resample_filter' is not the filter",
    ),
    'two_prefixes': (
        lambda a: a.update(under('generator.', small())),
        'more than one prefix',
    ),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_wrong_arrays_are_named(wrong, read):
    change, message = WRONG[wrong]
    arrays = changed(change)
    containers = [pickle_writer.npz, state_dict]
    if wrong in ('missing', 'unexpected', 'not_finite'):
        containers.append(files.tuned_generator)
    for container in containers:
        with pytest.raises(tables.ConversionError, match=message) as error:
            read(container(arrays))
        assert '/file: ' in str(error.value)


@pytest.mark.parametrize('write', ['safetensors', 'torch_legacy'])
def test_doubled_names_are_named(write, read):
    arrays = small() if write == 'safetensors' else pickle_writer.tensors(small())
    data = getattr(pickle_writer, write)(arrays)
    assert data.count(b'mapping.fc0.bias') == 1
    with pytest.raises(UnsafePickle, match=r"'mapping\.fc1\.bias' twice"):
        read(data.replace(b'mapping.fc0.bias', b'mapping.fc1.bias'))


def test_two_averages_are_not_chosen_from(read):
    state, average = small_rosinality()
    content = {
        'state_dict': pickle_writer.tensors(under('decoder.', state) | {'latent_avg': average}),
        'latent_avg': pickle_writer.tensor(average),
    }
    with pytest.raises(tables.ConversionError, match='latent_avg is there twice'):
        read(pickle_writer.torch_zip(content))


UNSUPPORTED = {
    'synthesis.b8.conv0': ({'use_noise': False}, 'use_noise = False; only True'),
    'synthesis.b4.conv1': ({'activation': 'relu'}, "activation = 'relu'; only 'lrelu'"),
    'synthesis.b8.torgb': ({'conv_clamp': 3.0}, 'one limit for all layers'),
    'mapping.fc1': ({'bias_gain': 1.0}, 'bias_gain = 1.0; only 0.01'),
    'synthesis': ({'img_channels': 1}, 'img_channels = 1; only 3'),
    'synthesis.b8': ({'architecture': 'resnet'}, 'say they are resnet and skip'),
}


@pytest.mark.parametrize('path', UNSUPPORTED)
def test_options_that_are_not_supported_are_named(path, read):
    options, message = UNSUPPORTED[path]
    with pytest.raises(tables.ConversionError, match=message):
        read(files.nvidia_pickle(small(), options={path: options}))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'nonlinearity': 'relu'}, "nonlinearity = 'relu'"),
        ({'resample_kernel': [1, 2, 1]}, 'resample_kernel = a list'),
        ({'mapping_lrmul': 1}, 'mapping_lrmul = 1; only 0.01'),
        ({'synthesis_func': 'G_style'}, "synthesis_func = 'G_style'"),
        ({'conv_clamp': 'x'}, "conv_clamp is 'x'"),
        ({'version': 3}, 'version 3'),
    ],
)
def test_tensorflow_options_that_are_not_supported_are_named(options, message, read):
    with pytest.raises(tables.ConversionError, match=message):
        read(files.tensorflow_pickle(small(), **options))


def test_other_networks_are_called_by_their_name(read):
    layer = files.module('SynthesisLayer')
    synthesis = files.module('SynthesisNetwork', modules={'input': layer, 'L0_36_64': layer})
    data = pickle_writer.plain_pickle(
        {'G_ema': files.module('Generator', modules={'synthesis': synthesis})}
    )
    with pytest.raises(tables.ConversionError, match='StyleGAN3 generator'):
        read(data)
    arrays = official_weights.tensorflow_variables(small())
    arrays['mapping/LabelConcat/weight'] = np.zeros([3, 6], np.float32)
    network = files.tensorflow_generator(arrays)
    with pytest.raises(tables.ConversionError, match='LabelConcat'):
        read(pickle_writer.plain_pickle((network, network, network)))
    with pytest.raises(
        tables.ConversionError, match='embeddings.weight .1 arrays.*not a StyleGAN2'
    ):
        read(state_dict({'embeddings.weight': np.zeros([8, 10], np.float32)}))
    with pytest.raises(tables.ConversionError, match='holds a list'):
        read(pickle_writer.plain_pickle([1, 2]))
    with pytest.raises(tables.ConversionError, match='It has no G_ema, only G, D'):
        generator_only = {'G': files.nvidia_generator(small()), 'D': files.module('D')}
        read(pickle_writer.plain_pickle(generator_only))


def test_missing_files_and_unknown_networks_are_named(tmp_path, read):
    with pytest.raises(tables.ConversionError, match='no checkpoint file .*absent.pkl'):
        checkpoint.read(tmp_path / 'absent.pkl')
    with pytest.raises(tables.ConversionError, match="which is 'D'"):
        read(b'', which='D')
