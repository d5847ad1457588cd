"""Small generators' weights under the names and in the layouts of the official programs."""

import numpy as np
import recipe

FILTER = np.float32(np.outer([1, 3, 3, 1], [1, 3, 3, 1])) / 64


def weights(resolution=8, channels=4, w_dim=6, mapping_layers=2):
    """A small generator under stylegan2-ada-pytorch's names, of the usual architecture."""
    shapes, filters = {'mapping.w_avg': [w_dim]}, []
    for i in range(mapping_layers):
        shapes |= {f'mapping.fc{i}.weight': [w_dim, w_dim], f'mapping.fc{i}.bias': [w_dim]}
    size = 4
    while size <= resolution:
        block = f'synthesis.b{size}'
        filters.append(f'{block}.resample_filter')
        layers = {'conv1': (channels, 3), 'torgb': (3, 1)}
        if size == 4:
            shapes[f'{block}.const'] = [channels, 4, 4]
        else:
            layers = {'conv0': (channels, 3)} | layers
        for layer, (outputs, kernel) in layers.items():
            name = f'{block}.{layer}'
            shapes[f'{name}.affine.weight'] = [channels, w_dim]
            shapes[f'{name}.affine.bias'] = [channels]
            shapes[f'{name}.weight'] = [outputs, channels, kernel, kernel]
            shapes[f'{name}.bias'] = [outputs]
            if layer != 'torgb':
                shapes |= {f'{name}.noise_strength': [], f'{name}.noise_const': [size, size]}
                filters.append(f'{name}.resample_filter')
        size *= 2
    arrays = {name: recipe.normal(name, shape) for name, shape in shapes.items()}
    return arrays | dict.fromkeys(filters, FILTER)


def rosinality_names(source):
    """(state dict, latent_avg) under rosinality's names, from stylegan2-ada-pytorch's."""
    found = {}
    for name, array in source.items():
        parts = name.split('.')
        if parts[-1] == 'resample_filter' or name == 'mapping.w_avg':
            continue
        if parts[0] == 'mapping':
            found[f'style.{int(parts[1][2:]) + 1}.{parts[2]}'] = array
            continue
        octave = int(parts[1][1:]).bit_length() - 3
        order = 2 * octave - (parts[2] == 'conv0')
        layer = f'convs.{order - 1}' if octave else 'conv1'
        if parts[2] == 'torgb':
            layer = f'to_rgbs.{octave - 1}' if octave else 'to_rgb1'
        rest = '.'.join(parts[3:])
        if parts[2] == 'const':
            found['input.input'] = array[None]
        elif rest == 'noise_const':
            found[f'noises.noise_{order}'] = array[None, None]
        elif rest == 'noise_strength':
            found[f'{layer}.noise.weight'] = array.reshape(1)
        elif rest == 'weight':
            found[f'{layer}.conv.weight'] = array[None]
        elif rest == 'bias' and parts[2] == 'torgb':
            found[f'{layer}.bias'] = array.reshape(1, 3, 1, 1)
        elif rest == 'bias':
            found[f'{layer}.activate.bias'] = array
        else:
            found[f'{layer}.conv.{rest.replace("affine", "modulation")}'] = array
        if parts[2] == 'conv0' and rest == 'weight':
            found[f'{layer}.conv.blur.kernel'] = 4 * FILTER
            found[f'to_rgbs.{octave - 1}.upsample.kernel'] = 4 * FILTER
    return found, source['mapping.w_avg']


def tensorflow_variables(source):
    """{TensorFlow name: array} from stylegan2-ada-pytorch's names and layouts."""
    blocks = {'conv0': 'Conv0_up', 'conv1': 'Conv1', 'torgb': 'ToRGB', 'skip': 'Skip'}
    found = {}
    for name, array in source.items():
        parts = name.split('.')
        if parts[-1] == 'resample_filter':
            continue
        if name == 'mapping.w_avg':
            found['dlatent_avg'] = array
        elif parts[0] == 'mapping':
            layer = parts[1].replace('fc', 'Dense').replace('embed', 'LabelEmbed')
            found[f'mapping/{layer}/{parts[2]}'] = array.T
        elif parts[-1] == 'const':
            found['synthesis/4x4/Const/const'] = array[None]
        elif parts[-1] == 'noise_const':
            octave = int(np.log2(len(array)))
            number = 2 * octave - (5 if parts[2] == 'conv0' else 4)
            found[f'synthesis/noise{number}'] = array[None, None]
        else:
            size = parts[1][1:]
            layer = 'Conv' if parts[1:3] == ['b4', 'conv1'] else blocks[parts[2]]
            leaf = f'synthesis/{size}x{size}/{layer}/'
            if parts[3] == 'affine':
                leaf += f'mod_{parts[4]}'
                array = array.T if parts[4] == 'weight' else array - np.float32(1)
            else:
                leaf += parts[3]
            if array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
                array = array[::-1, ::-1] if parts[2] == 'conv0' else array
            found[leaf] = np.float32(array) if array.ndim == 0 else np.ascontiguousarray(array)
    return found
