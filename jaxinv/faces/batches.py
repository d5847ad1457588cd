"""uint8 pictures through a jitted function in batches of one size, so that it is compiled once."""

import jax
import numpy as np

from jaxinv.errors import JaxinvError

# A picture costs as much in a batch of 2 as of 8 on two cores, and most calls bring one to three.
BATCH = 2


def in_batches(function, network, images_uint8):
    """Results of function(network, pictures float32 [BATCH, h, w, 3] in 0 ... 255), concatenated.

    The last batch is filled with zeros. Raises JaxinvError for other than square uint8 pictures.
    """
    images = np.asarray(images_uint8)
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:] != (images.shape[1],) * 2 + (3,)
    ):
        raise JaxinvError(
            f'square uint8 pictures [n, h, h, 3] are needed, not {images.dtype} '
            f'{list(images.shape)}.'
        )
    results = []
    for start in range(0, max(len(images), 1), BATCH):
        batch = np.zeros((BATCH, *images.shape[1:]), np.float32)
        part = images[start : start + BATCH]
        batch[: len(part)] = part
        result = function(network, batch)
        results.append(jax.tree.map(lambda array: np.asarray(array)[: len(part)], result))  # noqa: B023
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)
