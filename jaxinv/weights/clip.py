"""CLIP and its tokenizer from files: OpenAI's, open_clip's, Hugging Face's, and copies.

No package carries CLIP's weights; `FETCH` has the two lines that fetch and use them.
"""

import functools
import gzip
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jaxinv.converters import array_files, file_view, safe_pickle, tables
from jaxinv.converters import clip as converter
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded
from jaxinv.networks import bpe, clip
from jaxinv.weights import assets, download
from jaxinv.weights.addresses import DownloadError, is_address

FETCH = (
    'hf download openai/clip-vit-base-patch32 config.json pytorch_model.bin --local-dir clip',
    "clip = jaxinv.load_clip('clip')",
)
FILES = (  # of a folder, the first that is there
    'model.safetensors',
    'open_clip_model.safetensors',
    'pytorch_model.bin',
    'open_clip_pytorch_model.bin',
)
CONFIGS = ('config.json', 'open_clip_config.json')
VOCABULARY = ('open-clip-torch', 'open_clip/bpe_simple_vocab_16e6.txt.gz')
RANDOM = 'random'  # a small network with random weights, for tests
_RANDOM_SIZES = clip.Sizes(
    clip.Tower(32, 2, 64), clip.Tower(32, 2, 64), patch=8, grid=4, context=77, vocabulary=0,
    features=24,
)  # fmt: skip
_MERGES = 48_894  # of CLIP's list
_MAX_TEXT = 2**24  # bytes of the list of merges
_HEADER = 'jaxinv_clip'


def load_clip(source, activation: str | None = None, *, log=print) -> clip.Clip:
    """A CLIP with a vision transformer (ViT-B/32, B/16, L/14 and others of that form).

    source: OpenAI's .pt, a file of open_clip or Hugging Face (.safetensors, .bin, .pt), a folder
      with one of FILES, a file by `save_clip`, an address of one (https://, hf://OWNER/NAME/FILE),
      or 'random', a small network whose features mean nothing, for tests.
    activation: 'quick_gelu' or 'gelu', for files that do not say it; None = as a config.json or
      open_clip_config.json beside the file says, or the layout.
    log: called with the lines of a download.

    Nothing in a file is executed. Raises JaxinvError naming what is missing, unexpected or
    misshapen.
    """
    if source == RANDOM:
        return _random()
    path, config = _found(str(source), log)
    options = converter.options_of(config)
    if activation is not None:
        options = options._replace(activation=activation)
    with file_view.reading(path, 'a CLIP', error=tables.ConversionError):
        if array_files.is_safetensors(file_view.view(path)):
            arrays, metadata = array_files.read(path)
            if _HEADER in metadata:
                spec, weights = _ours(arrays, json.loads(metadata[_HEADER]))
            else:
                spec, weights = converter.convert(arrays, options)
        else:
            spec, weights = converter.convert(safe_pickle.load(path), options)
        tokenizer = load_tokenizer()
        if clip.sizes_of(weights).vocabulary != tokenizer.size:
            raise tables.ConversionError(
                f'It has {clip.sizes_of(weights).vocabulary} tokens; those with the byte pairs of '
                f"OpenAI's CLIP, {tokenizer.size} tokens, are read."
            )
    return clip.Clip(spec, jax.tree.map(jnp.asarray, weights), tokenizer, str(source))


def save_clip(path, network: clip.Clip, dtype='float16') -> None:
    """Writes a .safetensors file that `load_clip` reads; float16 is the precision of OpenAI's."""
    flat = {name: np.array(x, dtype, order='C') for name, x in network.weights.items()}
    with atomic_path(pathlib.Path(path)) as scratch:
        about = json.dumps(network.spec._asdict())
        safetensors.numpy.save_file(flat, scratch, {_HEADER: about})


@functools.cache
def load_tokenizer() -> bpe.Tokenizer:
    """CLIP's tokenizer, with the list of merges that the package open-clip-torch carries.

    All CLIPs of OpenAI, and those of open_clip and Hugging Face in that form, share it.
    Raises assets.AssetError.
    """
    with gzip.open(assets.get(*VOCABULARY)) as file:  # its SHA-256 was checked
        lines = file.read(_MAX_TEXT).decode().split('\n')
    return bpe.Tokenizer(tuple(line.split()) for line in lines[1 : 1 + _MERGES])


def _found(source: str, log):
    """(path of the weights, content of the config beside them or None)"""
    if is_address(source):
        path = download.get(source, log=log)
        return path, _config_of_address(source, log) or _config_beside(path)
    path = expanded(source)
    if path.is_dir():
        names = [name for name in FILES if (path / name).is_file()]
        if not names:
            raise JaxinvError(
                f'The folder {path} holds no CLIP; one of {", ".join(FILES)} is looked for.'
            )
        path = path / names[0]
    if not path.is_file():
        raise JaxinvError(
            f'There is no file or folder {path} with a CLIP. No package carries its weights; where '
            f'there is a network, `{FETCH[0]}` fetches them and `{FETCH[1]}` reads them '
            '(docs/text_edits.md).'
        )
    return path, _config_beside(path)


def _config_beside(path: pathlib.Path):
    for name in CONFIGS:
        if (path.parent / name).is_file():
            return file_view.read_json(path.parent / name)
    return None


def _config_of_address(source: str, log):
    """The config in the folder of an hf:// address; None if there is none to be had."""
    address, _, _ = source.partition('#')
    if not address.startswith('hf://'):
        return None
    folder, _, file = address.rpartition('/')
    _, at, revision = file.partition('@')
    for name in CONFIGS:
        try:
            return file_view.read_json(download.get(f'{folder}/{name}{at}{revision}', log=log))
        except DownloadError:
            continue
    return None


def _ours(arrays, record):
    valid = (
        isinstance(record, dict)
        and set(record) == set(clip.Spec._fields)
        and record['activation'] in clip.ACTIVATIONS
        and all(type(record[n]) is int and 0 < record[n] <= 1024 for n in clip.Spec._fields[:2])
    )
    if not valid:
        raise tables.ConversionError('Its header is not the record of a CLIP.')
    tables.check_floats(arrays)
    like = clip.shapes(clip.sizes_of(arrays))
    like = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in like.items()}
    flat = tables.apply({name: (name, np.asarray) for name in like}, arrays, like)
    return clip.Spec(**record), flat


@functools.cache
def _random() -> clip.Clip:
    tokenizer = load_tokenizer()
    sizes = _RANDOM_SIZES._replace(vocabulary=tokenizer.size)
    weights = jax.tree.map(jnp.asarray, clip.random_weights(sizes))
    return clip.Clip(clip.Spec(2, 2, 'quick_gelu'), weights, tokenizer, clip.RANDOM)
