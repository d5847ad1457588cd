"""Checkpoints in the layouts of the official programs, from arrays by their official names.

The bytes are what torch.save or pickle.dump would write there, down to names of modules, classes
and attributes (pickle_writer.py).
"""

import collections
import json
import re

import numpy as np
from official_weights import tensorflow_variables
from pickle_writer import (
    Call,
    New,
    easy_dict,
    parameter,
    plain_pickle,
    tensor,
    tensors,
    torch_legacy,
    torch_zip,
)

SOURCE = "import os; os.system('touch ran')  # in place of the text of training/networks.py\n"


# --- NVIDIA's PyTorch code ---


def module(class_name, parameters=(), buffers=(), modules=(), **attributes):
    """A torch module as torch_utils.persistence reduces it."""
    state = dict(
        training=False,
        _parameters=collections.OrderedDict(parameters),
        _buffers=collections.OrderedDict(buffers),
        _non_persistent_buffers_set=set(),
        _backward_hooks=collections.OrderedDict(),
        _forward_hooks=collections.OrderedDict(),
        _forward_pre_hooks=collections.OrderedDict(),
        _state_dict_hooks=collections.OrderedDict(),
        _load_state_dict_pre_hooks=collections.OrderedDict(),
        _modules=collections.OrderedDict(modules),
        **attributes,
    )
    state |= {'_init_args': (), '_init_kwargs': attributes.get('_init_kwargs', {})}
    meta = dict(type='class', version=6, module_src=SOURCE, class_name=class_name, state=state)
    return Call(('torch_utils.persistence', '_reconstruct_persistent_obj'), meta)


def nvidia_generator(source, layout='ada', conv_clamp=None, fp16=(), options=None):
    """training.networks.Generator with these weights.

    layout: 'ada', or 'sg3' for the StyleGAN2 networks of stylegan3's repository, whose synthesis
    options are not collected in synthesis_kwargs. fp16: resolutions that ran in float16.
    options: {'synthesis.b8.conv0': {'use_noise': False}, ...} overrides attributes.
    """
    tree = {}
    for name, array in source.items():
        path, _, leaf = name.rpartition('.')
        tree.setdefault(path, {})[leaf] = array
    sizes = sorted({int(n) for p in tree for n in re.findall(r'^synthesis\.b(\d+)$', p)})
    if any('.skip' in path for path in tree):
        architecture = 'resnet'
    else:
        architecture = 'skip' if 'synthesis.b4.torgb' in tree else 'orig'
    resolution = sizes[-1]

    def attributes(path):
        last = path.rpartition('.')[2]
        if re.fullmatch(r'fc\d+|embed|affine', last):
            weight = source[f'{path}.weight']
            rate = 0.01 if last.startswith('fc') else 1
            activation = 'lrelu' if last.startswith('fc') else 'linear'
            gain = rate / np.sqrt(weight.shape[1])
            found = dict(activation=activation, weight_gain=gain, bias_gain=rate)
        elif last in ('conv0', 'conv1'):
            found = dict(
                resolution=int(path.split('.')[1][1:]),
                up=2 if last == 'conv0' else 1,
                use_noise=True,
                activation='lrelu',
                conv_clamp=conv_clamp,
                padding=1,
                act_gain=np.sqrt(2),
            )
        elif last == 'torgb':
            found = dict(conv_clamp=conv_clamp, weight_gain=np.float64(0.1))
        elif last == 'skip':
            found = dict(activation='linear', up=2, down=1, conv_clamp=None, padding=0)
        elif path.startswith('synthesis.b'):
            size = int(last[1:])
            found = dict(
                resolution=size,
                img_channels=3,
                is_last=size == resolution,
                architecture=architecture,
                use_fp16=size in fp16,
            )
        elif path == 'synthesis':
            found = dict(img_resolution=resolution, img_channels=3, block_resolutions=sizes)
        elif path == 'mapping':
            found = dict(num_layers=8, w_avg_beta=0.995)
        else:
            found = dict(img_resolution=resolution, img_channels=3)
            synthesis = dict(channel_base=32768, channel_max=512, num_fp16_res=len(fp16))
            synthesis['conv_clamp'] = conv_clamp
            if layout == 'ada':
                synthesis = dict(synthesis_kwargs=easy_dict(**synthesis))
            found['_init_kwargs'] = dict(
                img_resolution=resolution, mapping_kwargs=easy_dict(num_layers=8), **synthesis
            )
        return found | (options or {}).get(path, {})

    def build(path, class_name):
        parameters, buffers = {}, {}
        for leaf, array in tree.get(path, {}).items():
            if leaf in ('w_avg', 'noise_const', 'resample_filter'):
                buffers[leaf] = tensor(array)
            else:
                parameters[leaf] = parameter(array)
        if class_name == 'Conv2dLayer':
            parameters['bias'] = None
        start = f'{path}.' if path else ''
        below = {p.removeprefix(start).split('.')[0] for p in tree if p.startswith(start) and p}
        children = {
            child: build(start + child, _class_name(child)) for child in sorted(below - {''})
        }
        return module(class_name, parameters, buffers, children, **attributes(path))

    return build('', 'Generator')


def _class_name(child):
    if re.fullmatch(r'b\d+', child):
        return 'SynthesisBlock'
    if re.fullmatch(r'fc\d+', child):
        return 'FullyConnectedLayer'
    return {
        'synthesis': 'SynthesisNetwork',
        'mapping': 'MappingNetwork',
        'conv0': 'SynthesisLayer',
        'conv1': 'SynthesisLayer',
        'torgb': 'ToRGBLayer',
        'skip': 'Conv2dLayer',
        'affine': 'FullyConnectedLayer',
        'embed': 'FullyConnectedLayer',
    }[child]


def nvidia_pickle(source, other=None, protocol=4, **options):
    """A network snapshot of stylegan2-ada-pytorch. other: the weights of G; None = as G_ema's."""
    kernel = np.ones([4, 3, 1, 1], np.float32)
    from_rgb = module('Conv2dLayer', {'weight': parameter(kernel), 'bias': None}, up=1)
    augment = module('AugmentPipe', buffers={'p': tensor(np.float32(0.5))}, xflip=1.0)
    return plain_pickle(
        dict(
            G=nvidia_generator(source if other is None else other, **options),
            D=module('Discriminator', modules={'fromrgb': from_rgb}, img_channels=3),
            G_ema=nvidia_generator(source, **options),
            augment_pipe=augment,
            training_set_kwargs=easy_dict(class_name='training.dataset.ImageFolderDataset'),
        ),
        protocol,
    )


def tuned_generator(source, write=torch_zip, **options):
    """What PTI saves: torch.save of the whole generator."""
    return write(nvidia_generator(source, **options))


# --- NVIDIA's TensorFlow code ---


def network(name, variables, components=None, version=4, **static_kwargs):
    """dnnlib.tflib.network.Network."""
    state = dict(
        version=version,
        name=name,
        static_kwargs=static_kwargs,
        components=components or {},
        build_module_src=SOURCE,
        build_func_name='G_main',
        variables=list(variables.items()),
    )
    return New(('dnnlib.tflib.network', 'Network'), state=state)


def tensorflow_generator(variables, **options):
    def below(component):
        start = f'{component}/'
        own = {n.removeprefix(start): a for n, a in variables.items() if n.startswith(start)}
        return network(f'G_{component}', own, **options)

    own = {n: a for n, a in variables.items() if '/' not in n}
    components = easy_dict(synthesis=below('synthesis'), mapping=below('mapping'))
    options = dict(num_channels=3, truncation_psi=0.5) | options
    return network('Gs', {'lod': np.float32(0)} | own, components, **options)


def tensorflow_pickle(source, **options):
    """(G, D, Gs) from weights under stylegan2-ada-pytorch's names."""
    generator = tensorflow_generator(tensorflow_variables(source), **options)
    discriminator = network('D', {'4x4/Dense0/bias': np.zeros(4, np.float32)})
    return plain_pickle((generator, discriminator, generator))


# --- rosinality's code, and encoders that build on it ---


def rosinality_checkpoint(source, latent_avg=None, training=False, write=torch_zip):
    """What convert_weight.py or, with training=True, train.py writes."""
    content = {'g_ema': tensors(source)}
    if latent_avg is not None:
        content['latent_avg'] = tensor(latent_avg)
    if training:
        step = tensor(np.float32(3))
        content |= {
            'g': tensors({n: a if n.endswith('.kernel') else a + 1 for n, a in source.items()}),
            'd': tensors({'convs.0.0.weight': np.ones([4, 3, 1, 1], np.float32)}),
            'g_optim': {'state': {0: {'step': 3, 'exp_avg': step}}, 'param_groups': [{'lr': 2e-3}]},
            'args': New(('argparse', 'Namespace'), state={'size': 32, 'lr': 0.002, 'path': 'x'}),
            'ada_aug_p': 0,
        }
    return write(content)


def biggan_folder(folder, source, config=None, write=torch_legacy):
    """What pytorch-pretrained-biggan loads: a state dict and settings, in files of fixed names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'pytorch_model.bin').write_bytes(write(tensors(source)))
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config, indent=2)
        (folder / 'config.json').write_text(text)
    return folder


def encoder_checkpoint(source, latent_avg=None, namespace=False):
    """What e4e and pSp write: encoder and decoder in one state dict, options, average."""
    state = {'encoder.input_layer.0.weight': np.ones([4, 3, 3, 3], np.float32)}
    state['encoder.input_layer.1.num_batches_tracked'] = np.array(7)
    state |= {f'decoder.{name}': array for name, array in source.items()}
    opts = {'stylegan_size': 32, 'encoder_type': 'Encoder4Editing', 'lr': 1e-4, 'exp_dir': None}
    if namespace:
        opts = New(('argparse', 'Namespace'), state=opts)
    content = {'state_dict': tensors(state), 'opts': opts}
    if latent_avg is not None:
        content['latent_avg'] = tensor(latent_avg)
    return torch_zip(content)
