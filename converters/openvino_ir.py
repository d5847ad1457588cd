"""Reader of OpenVINO IR version 10: a network as an .xml list of layers beside a .bin of constants.

Reads the layers in network order and the constants as arrays. Nothing is executed, document types
and entities are refused, and offsets and sizes are checked against the .bin before use.
Format: https://docs.openvino.ai (IR and operation sets).
"""

import math
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

import numpy as np

from jaxinv.errors import JaxinvError

MAX_XML_BYTES = 64 * 2**20  # random-face's largest has 0.4 MB
VERSION = '10'
DTYPES = {
    'f64': np.float64,
    'f32': np.float32,
    'f16': np.float16,
    'i64': np.int64,
    'i32': np.int32,
    'i16': np.int16,
    'i8': np.int8,
    'u64': np.uint64,
    'u32': np.uint32,
    'u16': np.uint16,
    'u8': np.uint8,
    'boolean': np.bool_,
}


class OpenVINOError(JaxinvError):
    """The file is not an OpenVINO network of VERSION; the message names file, layer and reason."""


class Layer(NamedTuple):
    name: str
    type: str  # 'Const', 'Parameter', 'Convolution', ...


class Network(NamedTuple):
    """layers and constants {name: array}, both in network order, as the exporter sorted them."""

    name: str
    layers: tuple[Layer, ...]
    constants: dict[str, np.ndarray]


def read(xml_path, bin_path=None) -> Network:
    """Reads a network. `bin_path` None = the file of the same name ending in .bin.

    Raises OpenVINOError naming the file and the layer that violates the format.
    """
    xml_path = pathlib.Path(xml_path)
    bin_path = pathlib.Path(bin_path) if bin_path else xml_path.with_suffix('.bin')
    root = _parse(xml_path)
    version = root.get('version')
    if root.tag != 'net' or version != VERSION:
        raise OpenVINOError(
            f'{xml_path.name} is <{root.tag} version={version!r}>, not an OpenVINO network of '
            f'version {VERSION}.'
        )
    data = _read_bytes(bin_path)
    layers, constants = [], {}
    for element in root.iterfind('layers/layer'):
        layer = Layer(element.get('name') or '', element.get('type') or '')
        layers.append(layer)
        if layer.type == 'Const':
            if layer.name in constants:
                raise OpenVINOError(f'{xml_path.name} has two constants named {layer.name!r}.')
            constants[layer.name] = _constant(element, data, f'constant {layer.name!r}', bin_path)
    if not layers:
        raise OpenVINOError(f'{xml_path.name} lists no layers.')
    return Network(root.get('name') or '', tuple(layers), constants)


def _read_bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise OpenVINOError(f'{path} cannot be read: {error.strerror}.') from error


def _parse(path):
    if path.is_file() and path.stat().st_size > MAX_XML_BYTES:
        raise OpenVINOError(f'{path.name} is larger than {MAX_XML_BYTES >> 20} MB.')
    try:
        text = _read_bytes(path).decode('utf-8')
    except UnicodeDecodeError as error:
        raise OpenVINOError(f'{path.name} is not UTF-8 text.') from error
    # XML bombs and external entities need a document type. The parser gets the decoded text, so a
    # declared encoding cannot hide one from this check.
    if '<!DOCTYPE' in text:
        raise OpenVINOError(f'{path.name} declares a document type, which a network never does.')
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise OpenVINOError(f'{path.name} is not well-formed XML: {error}.') from error


def _constant(element, data, label, bin_path):
    attributes = element.find('data')
    attributes = {} if attributes is None else attributes.attrib
    missing = {'element_type', 'shape', 'offset', 'size'} - set(attributes)
    if missing:
        raise OpenVINOError(f'{label} has no {" and no ".join(sorted(missing))}.')
    kind = attributes['element_type']
    if kind not in DTYPES:
        raise OpenVINOError(f'{label} has element type {kind!r}; known: {", ".join(DTYPES)}.')
    try:
        shape = tuple(int(n) for n in attributes['shape'].split(',') if n.strip())
        offset, size = int(attributes['offset']), int(attributes['size'])
    except ValueError as error:
        raise OpenVINOError(f'{label} has a shape, offset or size that is no integer.') from error
    dtype = np.dtype(DTYPES[kind]).newbyteorder('<')
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise OpenVINOError(
            f'{label} of shape {list(shape)} and type {kind} cannot be {size} bytes.'
        )
    if offset < 0:
        raise OpenVINOError(f'{label} starts at byte {offset}, before the file does.')
    if offset + size > len(data):
        raise OpenVINOError(
            f'{label} ends at byte {offset + size} and {bin_path.name} has {len(data)}.'
        )
    values = np.frombuffer(data, dtype, count=math.prod(shape), offset=offset)
    return values.reshape(shape).astype(dtype.newbyteorder('='))  # astype copies: `data` is freed
