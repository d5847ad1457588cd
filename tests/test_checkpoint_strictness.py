"""Arrays that are missing, unexpected, duplicate or invalid are errors that name them."""

import numpy as np
import official_files as files
import official_weights
import pickle_writer
import pytest

from jaxinv.converters import checkpoint, tables
from jaxinv.converters.safe_pickle import UnsafePickle


def state_dict(arrays):
    return pickle_writer.torch_zip(pickle_writer.tensors(arrays))


def under(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def changed(change):
    arrays = dict(official_weights.weights())
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
        "'mapping.fc0.weight' has the shape",
    ),
    'missing_block': (
        lambda a: [a.pop(n) for n in list(a) if n.startswith('synthesis.b4.') and 'const' not in n],
        '8 pixels need 2',
    ),
    'not_finite': (
        lambda a: a.update({'mapping.fc1.bias': np.float32([0, 0, np.nan, 0, 0, 0])}),
        "'mapping.fc1.bias' has values that are not finite",
    ),
    'too_large_for_float32': (
        lambda a: a.update({'mapping.fc1.bias': np.full(6, 1e300)}),
        "'mapping.fc1.bias' has values that are not finite",
    ),
    'integers': (
        lambda a: a.update({'mapping.fc1.bias': np.zeros(6, np.int64)}),
        "'mapping.fc1.bias' holds int64; it must hold floats",
    ),
    'other_filter': (
        lambda a: a.update({'synthesis.b8.resample_filter': np.full([4, 4], 1 / 16)}),
        "'synthesis.b8.resample_filter' is not the filter",
    ),
    'two_prefixes': (
        lambda a: a.update(under('generator.', official_weights.weights())),
        r'several generators: \(the whole file\), generator; choose one by',
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
    arrays = (
        official_weights.weights()
        if write == 'safetensors'
        else pickle_writer.tensors(official_weights.weights())
    )
    data = getattr(pickle_writer, write)(arrays)
    assert data.count(b'mapping.fc0.bias') == 1
    with pytest.raises(UnsafePickle, match=r"'mapping\.fc1\.bias' twice"):
        read(data.replace(b'mapping.fc0.bias', b'mapping.fc1.bias'))


def test_two_averages_are_not_chosen_from(read):
    state, average = official_weights.rosinality_names(official_weights.weights())
    content = {
        'state_dict': pickle_writer.tensors(under('decoder.', state) | {'latent_avg': average}),
        'latent_avg': pickle_writer.tensor(average),
    }
    with pytest.raises(tables.ConversionError, match='latent_avg twice'):
        read(pickle_writer.torch_zip(content))


UNSUPPORTED = {
    'synthesis.b8.conv0': ({'use_noise': False}, 'use_noise = False; only True'),
    'synthesis.b4.conv1': ({'activation': 'relu'}, "activation = 'relu'; only 'lrelu'"),
    'synthesis.b8.torgb': ({'conv_clamp': 3.0}, 'one limit for all layers'),
    'mapping.fc1': ({'bias_gain': 1.0}, 'bias_gain = 1.0; only 0.01'),
    'synthesis': ({'img_channels': 1}, 'images of 1 channels; only'),
    'synthesis.b8': ({'architecture': 'resnet'}, 'architecture = resnet and skip'),
}


@pytest.mark.parametrize('path', UNSUPPORTED)
def test_options_that_are_not_supported_are_named(path, read):
    options, message = UNSUPPORTED[path]
    with pytest.raises(tables.ConversionError, match=message):
        read(files.nvidia_pickle(official_weights.weights(), options={path: options}))


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
        read(files.tensorflow_pickle(official_weights.weights(), **options))


def test_other_networks_are_called_by_their_name(read):
    layer = files.module('SynthesisLayer')
    synthesis = files.module('SynthesisNetwork', modules={'input': layer, 'L0_36_64': layer})
    data = pickle_writer.plain_pickle(
        {'G_ema': files.module('Generator', modules={'synthesis': synthesis})}
    )
    with pytest.raises(tables.ConversionError, match='StyleGAN3 generator'):
        read(data)
    arrays = official_weights.tensorflow_variables(official_weights.weights())
    arrays['mapping/LabelConcat/weight'] = np.zeros([3, 6], np.float32)
    network = files.tensorflow_generator(arrays)
    with pytest.raises(tables.ConversionError, match='LabelConcat'):
        read(pickle_writer.plain_pickle((network, network, network)))
    with pytest.raises(tables.ConversionError, match='embeddings.weight .1 array.*not a StyleGAN2'):
        read(state_dict({'embeddings.weight': np.zeros([8, 10], np.float32)}))
    with pytest.raises(tables.ConversionError, match='holds a list'):
        read(pickle_writer.plain_pickle([1, 2]))
    with pytest.raises(tables.ConversionError, match='It has no G_ema, only D'):
        read(pickle_writer.plain_pickle({'D': files.module('D')}))
    with pytest.raises(tables.ConversionError, match=r'Its G_ema is an object of my\.Network'):
        other = pickle_writer.New(('my', 'Network'), state={})
        read(pickle_writer.plain_pickle({'G_ema': other, 'D': files.module('D')}))


def test_a_single_generator_is_taken_whatever_its_name(read):
    generator = files.nvidia_generator(official_weights.weights())
    found = read(pickle_writer.plain_pickle({'G': generator, 'D': files.module('D')}))
    assert 'G was taken, not D.' in found.notes
    assert 'It has no averaged generator; G was taken.' in found.notes
    with pytest.raises(tables.ConversionError, match='It has no G, only G_ema'):
        read(pickle_writer.plain_pickle({'G_ema': generator}), which='G')


def test_missing_files_and_unknown_networks_are_named(tmp_path, read):
    with pytest.raises(tables.ConversionError, match='no checkpoint file .*absent.pkl'):
        checkpoint.read(tmp_path / 'absent.pkl')
