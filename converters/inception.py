"""FID's Inception: pytorch-fid's state dict (pt_inception-2015-12-05-6726825d.pth) -> weights."""

from collections.abc import Mapping

import numpy as np

from jaxinv.converters import tables
from jaxinv.networks import inception

_UNUSED = ('.num_batches_tracked', 'fc.weight', 'fc.bias')  # counters, and the classes


def convert(content) -> dict[str, np.ndarray]:
    """Weights of inception.pooled, {name: float32 array} as inception.shapes() has them.

    Raises tables.ConversionError naming a missing, unexpected or misshapen array, or one with
    values that are not finite.
    """
    if not isinstance(content, Mapping) or 'Conv2d_1a_3x3.conv.weight' not in content:
        raise tables.ConversionError(
            'It holds no Conv2d_1a_3x3.conv.weight; give pt_inception-2015-12-05-6726825d.pth.'
        )
    arrays = {name: array for name, array in content.items() if not str(name).endswith(_UNUSED)}
    shapes = inception.shapes()
    tables.same_names('array', arrays, shapes)
    tables.check_floats(arrays)
    flat = {}
    for name, shape in shapes.items():
        array = arrays[name]
        given = list(np.shape(array))
        array = array.transpose(2, 3, 1, 0) if np.ndim(array) == 4 else array
        if np.shape(array) != shape:
            raise tables.ConversionError(f'Array {name!r} has the shape {given}.')
        if name.endswith('running_var') and (array < 0).any():
            raise tables.ConversionError(f'Array {name!r} has negative numbers.')
        flat[name] = np.array(array, np.float32, order='C')
    return flat
