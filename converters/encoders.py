"""Encoders of pSp, e4e, ReStyle and HyperStyle, ArcFace and CurricularFace: .pt files -> weights.

An encoder's file is {state_dict: {encoder.*, decoder.*}, opts, latent_avg}; the encoder alone,
with or without the prefix, is read, too. The number of rows comes from the arrays. The arrays of
pSp and e4e have the same names, so their kind comes from opts.encoder_type, or from the user.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.pickle_values import brief, kind_of
from jaxinv.networks import encoders, ir_se50

_PREFIX = 'encoder.'
_COUNTER = 'num_batches_tracked'  # of batch norms; unused in evaluation
_KINDS = {  # opts.encoder_type of the released codes
    'Encoder4Editing': 'e4e',
    'GradualStyleEncoder': 'psp',
    'BackboneEncoderUsingLastLayerIntoW': 'w',
    'SingleStyleCodeEncoder': 'w',
    'ProgressiveBackboneEncoder': 'restyle_e4e',
    'BackboneEncoder': 'restyle_psp',
}
MAX_ROWS = 26  # of W+


def is_encoder(content) -> bool:
    """True for a dict with an encoder in it."""
    return isinstance(content, Mapping) and bool(_arrays(content))


def convert(content, kind: str | None = None) -> encoders.Encoder:
    """The encoder of a checkpoint, with NumPy arrays.

    content: the plain data of a file (safe_pickle.load). kind: of encoders.KINDS; None = as the
    file says. Raises tables.ConversionError naming what is missing, unexpected or misshapen.
    """
    arrays = _arrays(content)
    if not arrays:
        raise tables.ConversionError(
            'It holds no encoder: no input_layer.0.weight, with or without "encoder." before it.'
        )
    options = content.get('opts')
    options = options if isinstance(options, dict) else {}
    spec = _spec(arrays, options, content.get('latent_avg'), kind)
    shapes = encoders.shapes(spec)
    flat = _fitted(arrays, shapes)
    return encoders.Encoder(spec, flat, _average(content.get('latent_avg'), spec))


def convert_identity(content, spec: ir_se50.Spec = ir_se50.IR_SE50) -> dict[str, np.ndarray]:
    """Weights of ir_se50.identity with this spec, from the state dict of a network of identities.

    content: the plain data (safe_pickle.load) of ArcFace's file model_ir_se50.pth (IR_SE50), or of
    CurricularFace_Backbone.pth (IR_101). Raises tables.ConversionError naming what is missing,
    unexpected or misshapen.
    """
    if not isinstance(content, Mapping) or 'output_layer.3.weight' not in content:
        raise tables.ConversionError(
            'It holds no output_layer.3.weight, as networks of identities do.'
        )
    arrays = {n: a for n, a in content.items() if isinstance(n, str) and not n.endswith(_COUNTER)}
    return _fitted(arrays, ir_se50.identity_shapes(spec))


def _arrays(content) -> dict[str, Any]:
    """{name without prefix: array} of the encoder; {} if there is none."""
    inner = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping):
        return {}
    first = 'input_layer.0.weight'
    for prefix in (_PREFIX, ''):
        if prefix + first in inner:
            return {
                name.removeprefix(prefix): array
                for name, array in inner.items()
                if isinstance(name, str) and name.startswith(prefix) and not name.endswith(_COUNTER)
            }
    return {}


def _spec(arrays, options, average, kind) -> encoders.Spec:
    names = [re.fullmatch(r'styles\.(\d{1,3})\.linear\.weight', name) for name in arrays]
    rows = len([match for match in names if match])
    first = arrays['input_layer.0.weight']
    channels = first.shape[1] if isinstance(first, np.ndarray) and first.ndim == 4 else 3
    said = options.get('encoder_type')
    found = kind or _KINDS.get(said if isinstance(said, str) else None)
    if kind is not None and kind not in encoders.KINDS:
        raise tables.ConversionError(f'kind is {kind!r}; it can be {", ".join(encoders.KINDS)}.')
    if found is None and not rows and 'linear.weight' in arrays:
        found = 'w'
    if found is None:
        given = '' if said is None else f' (opts.encoder_type is {brief(said)})'
        raise tables.ConversionError(
            f'It does not say which encoder it is{given}; give kind, one of '
            f'{", ".join(encoders.KINDS)}.'
        )
    if found == 'w':
        rows = _rows_of(average, options)
    if not 1 <= rows <= MAX_ROWS:
        raise tables.ConversionError(f'It makes {rows} rows of W+; 1 to {MAX_ROWS} are possible.')
    spec = encoders.Spec(found, rows, options.get('start_from_latent_avg', True) is not False)
    if channels != spec.channels:
        raise tables.ConversionError(
            f'Its first layer takes {channels} channels; a {found} encoder takes {spec.channels}.'
        )
    return spec


def _rows_of(average, options):
    """Rows of W+ for an encoder of one w: from the average, or the generator's size."""
    if isinstance(average, np.ndarray) and average.ndim == 2:
        return len(average)
    size = options.get('stylegan_size', options.get('output_size'))
    if type(size) is int and 8 <= size <= 8192 and not size & (size - 1):
        return 2 * size.bit_length() - 4
    raise tables.ConversionError(
        'It does not say how many rows of W+ its generator has: it has neither latent_avg of all '
        'rows nor opts.stylegan_size.'
    )


def _fitted(arrays, shapes):
    """The arrays in jaxinv's layout, each checked."""
    tables.same_names('array', arrays, shapes)
    tables.check_floats(arrays)
    flat = {}
    for name, shape in shapes.items():
        array = arrays[name]
        given = array.shape
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        if array.shape != shape:
            raise tables.ConversionError(f'Array {name!r} has the shape {list(given)}.')
        if name.endswith('running_var') and (array < 0).any():
            raise tables.ConversionError(f'Array {name!r} has negative numbers.')
        flat[name] = np.array(array, np.float32, order='C')
    return flat


def _average(average, spec):
    """latent_avg as [num_ws, 512]."""
    if average is None:
        if spec.from_average or spec.is_restyle:
            raise tables.ConversionError(
                'It has no latent_avg, from which its codes are differences.'
            )
        return np.zeros([spec.num_ws, encoders.WIDTH], np.float32)
    if not isinstance(average, np.ndarray) or average.dtype.kind != 'f':
        raise tables.ConversionError(f'latent_avg is {kind_of(average)}, not an array of floats.')
    rows = average.reshape(-1, average.shape[-1]) if average.ndim else average.reshape(1, 1)
    if rows.shape[1] != encoders.WIDTH or len(rows) not in (1, spec.num_ws):
        raise tables.ConversionError(
            f'latent_avg has the shape {list(average.shape)}; {spec.num_ws} rows of '
            f'{encoders.WIDTH} are needed.'
        )
    return np.array(np.broadcast_to(rows, (spec.num_ws, encoders.WIDTH)), np.float32)
