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
Nothing in the file is executed (safe_pickle.py).
"""

import pathlib
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxinv import generators
from jaxinv.converters import (
    array_files,
    biggan,
    biggan_config,
    file_view,
    persistence,
    safe_pickle,
    state_dicts,
    stylegan2,
    stylegan2_tf,
    tables,
)
from jaxinv.converters.file_view import MAX_BYTES, Refused
from jaxinv.converters.pickle_values import Budget, Record
from jaxinv.converters.state_dicts import Found
from jaxinv.errors import JaxinvError

WHICH = ('G_ema', 'G')
_DEFAULTS = {'c_dim': 0, 'architecture': 'skip', 'conv_clamp': None, 'scaled_epsilon': False}
_MISTAKES = {  # first bytes of what failed downloads often leave
    b'<!doctype': 'a web page',
    b'<html': 'a web page',
    b'version https://git-lfs': 'a Git LFS pointer',
}
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


def read(path, *, which: str = 'G_ema', max_bytes: int = MAX_BYTES) -> Checkpoint:
    """The generator in the file.

    which: 'G_ema', the average over training, or 'G', the weights of the last step, where the file
    holds both. Raises safe_pickle.UnsafePickle, tables.ConversionError or JaxinvError; the message
    names the file and the fault, e.g. each missing, unexpected, duplicate or misshapen array, or
    values that are not finite.
    """
    if which not in WHICH:
        raise tables.ConversionError(f'which is {which!r}; it can be {" or ".join(WHICH)}.')
    path = pathlib.Path(path)
    if not path.is_file():
        raise tables.ConversionError(f'There is no checkpoint file {path}.')
    content = _content(path, max_bytes)
    try:
        if biggan.is_state_dict(content):
            return _biggan(content, path)
        return _convert(_find(content, which))
    except JaxinvError as error:
        raise tables.ConversionError(f'{path}: {error}') from error


def _content(path, max_bytes):
    """The contents: {name: array}, or the plain data of a pickle."""
    data = file_view.view(path)
    if len(data) > max_bytes:
        raise safe_pickle.UnsafePickle(f'{path} has more than the {max_bytes} bytes allowed.')
    for start, what in _MISTAKES.items():
        if bytes(data[: len(start)]).lower() == start:
            raise tables.ConversionError(f'{path} is {what}, not the checkpoint itself.')
    try:
        if data[:4] == b'PK\x03\x04' and array_files.is_npz(data):
            return array_files.from_npz(data, Budget(max_bytes))
        if array_files.is_safetensors(data):
            return array_files.from_safetensors(data, Budget(max_bytes))[0]
    except Refused as e:
        raise safe_pickle.UnsafePickle(f'{path} {e}.') from None
    except safe_pickle.DAMAGE as e:
        raise safe_pickle.UnsafePickle(
            f'{path} is not a checkpoint, or is damaged ({type(e).__name__}: '
            f'{" ".join(str(e).split())[:120]}).'
        ) from None
    return safe_pickle.load_view(data, str(path), max_bytes)


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
    raise tables.ConversionError(
        f'It holds a {type(content).__name__}, not a generator in a known layout.'
    )


def _nvidia_pickle(content, which):
    if not persistence.is_module(content.get(which)):
        raise tables.ConversionError(f'It has no {which}, only {_listed(content)}.')
    found = _module(content[which], 'stylegan2-ada-pytorch pickle')
    rest = [name for name in content if name != which]
    taken = f'{which} was taken, not {_listed(rest)}.' if rest else f'{which} was taken.'
    return found._replace(notes=(taken, *found.notes))


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
    wanted = {'G_ema': 'Gs', 'G': 'G'}[which]
    if names is None or not all(map(stylegan2_tf.is_network, networks)) or wanted not in names:
        raise tables.ConversionError(f'It has no TensorFlow network {wanted}.')
    network = networks[names.index(wanted)]
    arguments, notes = stylegan2_tf.settings(network)
    source, left_out = stylegan2_tf.variables(network)
    rest = [name for name in names if name != wanted]
    taken = f'{wanted} was taken, not {_listed(rest)}.' if rest else f'{wanted} was taken.'
    kind = 'TensorFlow StyleGAN2 pickle'
    return Found(kind, 'tensorflow', source, arguments, (taken, *notes, *left_out))


def _convert(found):
    arguments_of, convert, average = _NAMINGS[found.naming]
    _check_floats(found.source)
    arguments = _DEFAULTS | arguments_of(found.source) | found.arguments
    notes = found.notes
    if arguments.get('z_dim', 1) < 1 or arguments['resolution'] > 2**14:
        raise tables.ConversionError('The arrays do not make a StyleGAN2 generator.')
    model = generators.stylegan2.stylegan2(**arguments)
    like = flatten_dict(jax.eval_shape(model.init, jax.random.key(0)), sep='/')
    if average not in found.source:
        del like['buffers/w_avg']
        notes += (f'The file has no average w ({average}).',)
    return Checkpoint(found.kind, arguments, convert(found.source, like), notes)


def _biggan(source, path):
    _check_floats(source)
    config = biggan_config.read_config(path)
    arguments = biggan.arguments(source, config)
    generators.biggan_deep.biggan_deep(**arguments)  # raises for invalid arguments
    notes = () if config else (f'There is no {biggan_config.CONFIG}; epsilon 1e-4 is assumed.',)
    flat = biggan.convert(source, arguments)
    return Checkpoint(biggan.KIND, arguments, flat, notes, family='biggan_deep')


def _check_floats(source):
    for name, array in source.items():
        if not isinstance(array, np.ndarray | np.number) or array.dtype.kind != 'f':
            what = getattr(array, 'dtype', type(array).__name__)
            raise tables.ConversionError(f'Array {name!r} holds {what}; it must hold floats.')
        with np.errstate(over='ignore'):
            finite = np.isfinite(np.asarray(array, np.float32)).all()
        if not finite:
            raise tables.ConversionError(f'Array {name!r} has values that are not finite.')


def _listed(names):
    return ', '.join(str(name)[:40] for name in list(names)[:8]) or 'nothing'
