"""A checkpoint of another project -> arguments and weights of its generator.

| layout | written by | generator taken |
|---|---|---|
| pickle {G, D, G_ema, ...} of modules | stylegan2-ada-pytorch; stylegan3's repository | G_ema |
| a module, by torch.save | PTI, after tuning | the module |
| pickle (G, D, Gs) of tflib networks | stylegan2, stylegan2-ada (TensorFlow) | Gs |
| {g_ema, g, d, latent_avg, ...} by torch.save | rosinality/stylegan2-pytorch | g_ema |
| {state_dict, opts, latent_avg} by torch.save | pSp, e4e, ReStyle, HyperStyle | decoder.* |
| names and arrays in .pt, .npz or .safetensors | any program, with one of the two namings | all |
| the same, config.json beside it | pytorch-pretrained-biggan: BigGAN-deep | all |

All but the last are StyleGAN2. The layout is found from the contents, not from the file's name.
Nothing in the file is executed (safe_pickle.py). Where a checkpoint has other names, the generator
is looked for under any key, and of several the averaged one is taken (state_dicts.py).
"""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxinv import generators
from jaxinv.converters import (
    array_files,
    biggan,
    biggan_config,
    file_view,
    foreign_files,
    persistence,
    safe_pickle,
    state_dicts,
    stylegan2,
    stylegan2_tf,
    tables,
)
from jaxinv.converters.budget import Budget
from jaxinv.converters.file_view import MAX_BYTES, Refused
from jaxinv.converters.pickle_values import Opaque, Record, brief_name, kind_of, opaque_names
from jaxinv.converters.state_dicts import Found, listed
from jaxinv.converters.zip_members import Members
from jaxinv.generators import records

DEFAULT = 'G_ema'
MAX_RESOLUTION = 2**14  # pixels
_DEFAULTS = {'c_dim': 0, 'architecture': 'skip', 'conv_clamp': None, 'scaled_epsilon': False}
_NAMINGS = {
    # naming: (arguments from the arrays, conversion, name of w_avg)
    'nvidia': (stylegan2.nvidia_arguments, stylegan2.convert_nvidia, 'mapping.w_avg'),
    'rosinality': (stylegan2.rosinality_arguments, stylegan2.convert_rosinality, 'latent_avg'),
    'tensorflow': (stylegan2_tf.arguments, stylegan2_tf.convert, 'dlatent_avg'),
}


class Checkpoint(NamedTuple):
    """The generator of a file."""

    kind: str  # the layout, e.g. 'rosinality state dict'
    arguments: dict  # for the factory in generators.FAMILIES, without `name`
    flat: dict[str, np.ndarray]  # 'params/synthesis/b4/const' ...; 'buffers/w_avg' may be missing
    notes: tuple[str, ...]  # sentences: what was taken, and what was left out and why
    family: str = 'stylegan2'


class Located(NamedTuple):
    """A generator whose arrays are views of the file wherever that holds their bytes."""

    data: memoryview  # the file
    content: Any  # all of it
    found: Found  # the arrays under their names in the file, in its layouts and types
    checkpoint: Checkpoint  # the same converted


def read(path, *, which: str = DEFAULT, max_bytes: int = MAX_BYTES) -> Checkpoint:
    """The generator in the file.

    which: of several, 'G_ema', the average over training, 'G', the weights of the last step, or a
    name in the file. Raises safe_pickle.UnsafePickle or tables.ConversionError; the message names
    the file and the fault, e.g. each missing, unexpected, duplicate or misshapen array, or values
    that are not finite.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise tables.ConversionError(f'There is no checkpoint file {path}.')
    with file_view.reading(path, error=tables.ConversionError):
        content = _content(path, max_bytes)
        if biggan.is_state_dict(content):
            return _biggan(content, path)
        found = _convert(_find(content, which))
        unread = opaque_names(content)
        if unread:
            note = f'Objects of {listed(unread)} were left out; nothing of them was executed.'
            found = found._replace(notes=(*found.notes, note))
        return found


def locate(path, which: str = DEFAULT) -> Located:
    """The generator in the file, and where its arrays are. Raises like `read`."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise tables.ConversionError(f'There is no checkpoint file {path}.')
    with file_view.reading(path, error=tables.ConversionError):
        data = file_view.view(path)
        content = _content(path, MAX_BYTES, data, in_place=True)
        if biggan.is_state_dict(content):
            raise tables.ConversionError(
                'It is a BigGAN-deep, whose kernels are stored with their spectral norms; use '
                '--to=safetensors or --to=onnx.'
            )
        found = _find(content, which)
        return Located(data, content, found, _convert(found))


def _content(path, max_bytes, data=None, in_place=False):
    """The contents: {name: array}, or the plain data of a pickle."""
    data = file_view.view(path) if data is None else data
    if len(data) > max_bytes:
        raise safe_pickle.UnsafePickle(f'{path} has more than the {max_bytes} bytes allowed.')
    mistake = foreign_files.describe(data) or foreign_files.unpacked(path)
    if mistake:
        raise tables.ConversionError(f'{path} {mistake}.')
    with file_view.reading(path, error=safe_pickle.UnsafePickle):
        if data[:4] == b'PK\x03\x04':
            budget = Budget(len(data), max_bytes)
            members = Members(data, budget)
            names = list(members)
            if names and all(name.endswith('.npy') for name in names):
                return array_files.from_npz(members, budget)
            if not any(name.split('/')[1:] == ['data.pkl'] for name in names):
                raise Refused(foreign_files.archive(names))
        if array_files.is_safetensors(data):
            budget = Budget(len(data), max_bytes)
            return array_files.from_safetensors(data, budget, widen=not in_place)[0]
    return safe_pickle.load_view(data, str(path), max_bytes, in_place)


def _find(content, which) -> Found:
    if isinstance(content, tuple) and any(map(stylegan2_tf.is_network, content)):
        return _tensorflow(content, which)
    if stylegan2_tf.is_network(content):
        return _tensorflow((content,), which)
    if persistence.is_module(content):
        return _module(content, 'PTI tuned generator')
    if isinstance(content, dict) and any(isinstance(v, Record) for v in content.values()):
        return _nvidia_pickle(content, which)
    if isinstance(content, dict):
        return state_dicts.find(content, which)
    raise tables.ConversionError(f'It holds {kind_of(content)}, not a generator in a known layout.')


def _nvidia_pickle(content, which):
    """{G, D, G_ema, ...}: modules, of which those with a synthesis network are generators."""
    names = [k for k, v in content.items() if isinstance(k, str) and persistence.is_generator(v)]
    unread = content.get(which)
    if isinstance(unread, Opaque):
        raise tables.ConversionError(f'Its {which} is {kind_of(unread)}.')
    if not names:
        raise tables.ConversionError(f'It has no {which[:60]}, only {_listed(content)}.')
    name = names[state_dicts.choose(names, which)]
    found = _module(content[name], 'stylegan2-ada-pytorch pickle')
    rest = [other for other in content if other != name]
    taken = f'{name} was taken, not {_listed(rest)}.' if rest else f'{name} was taken.'
    notes = (*state_dicts.not_averaged(name, which), taken, *found.notes)
    return found._replace(notes=notes)


def _module(module, kind):
    arguments, notes = persistence.settings(module)
    source = persistence.state_dict(module)
    declared = persistence.architectures(module)
    if source and declared != {stylegan2.nvidia_arguments(source)['architecture']}:
        raise tables.ConversionError(
            f'Its blocks have the option architecture = {" and ".join(sorted(declared))}, but its '
            'arrays belong to another one.'
        )
    if persistence.is_flat(module):
        kind = kind.replace('stylegan2-ada-pytorch', 'stylegan3-repository StyleGAN2')
    return Found(kind, 'nvidia', source, arguments, tuple(notes))


def _tensorflow(networks, which):
    names = {1: ('Gs',), 3: ('G', 'D', 'Gs')}.get(len(networks))
    wanted = {'G_ema': 'Gs', 'G': 'G'}.get(which, which)
    if names is None or not all(map(stylegan2_tf.is_network, networks)) or wanted not in names:
        raise tables.ConversionError(
            f'It has no TensorFlow network {wanted[:60]}; {state_dicts.HOW_TO_CHOOSE}: '
            f'{", ".join(names or ("Gs", "G"))}.'
        )
    network = networks[names.index(wanted)]
    arguments, notes = stylegan2_tf.settings(network)
    source, left_out = stylegan2_tf.variables(network)
    rest = [name for name in names if name != wanted]
    taken = f'{wanted} was taken, not {_listed(rest)}.' if rest else f'{wanted} was taken.'
    kind = 'TensorFlow StyleGAN2 pickle'
    return Found(kind, 'tensorflow', source, arguments, (taken, *notes, *left_out))


def _convert(found):
    arguments_of, convert, average = _NAMINGS[found.naming]
    tables.check_floats(found.source)
    arguments = _DEFAULTS | arguments_of(found.source) | found.arguments
    notes = found.notes
    _check_sizes(arguments)
    model = generators.stylegan2.stylegan2(**arguments)
    like = flatten_dict(jax.eval_shape(model.init, jax.random.key(0)), sep='/')
    if average not in found.source:
        del like['buffers/w_avg']
        notes += (f'The file has no average w ({average}).',)
    return Checkpoint(found.kind, arguments, convert(found.source, like), notes)


def _check_sizes(arguments):
    """Raises ConversionError for a generator that is none, or beyond all limits."""
    sizes = ('z_dim', 'w_dim', 'mapping_layers', 'embed_features', 'layer_features')
    least = [arguments[name] for name in sizes if arguments.get(name) is not None]
    if min(least + list(arguments['channels']), default=0) < 1:
        raise tables.ConversionError('It has layers of no channels: this is not a generator.')
    if arguments['resolution'] > MAX_RESOLUTION or len(arguments['channels']) > 16:
        raise tables.ConversionError(f'Its images have more than {MAX_RESOLUTION} pixels a side.')
    if arguments['mapping_layers'] > records.MAX_LAYERS:
        raise tables.ConversionError(
            f'Its mapping network has more than {records.MAX_LAYERS} layers.'
        )


def _biggan(source, path):
    tables.check_floats(source)
    config = biggan_config.read_config(path)
    arguments = biggan.arguments(source, config)
    generators.biggan_deep.biggan_deep(**arguments)  # raises for invalid arguments
    notes = () if config else (f'There is no {biggan_config.CONFIG}; epsilon 1e-4 is assumed.',)
    flat = biggan.convert(source, arguments)
    return Checkpoint(biggan.KIND, arguments, flat, notes, family='biggan_deep')


def _listed(names):
    return listed([brief_name(name) for name in list(names)[:9]])
