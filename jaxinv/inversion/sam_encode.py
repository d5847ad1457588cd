"""SAM by its encoders: codes of regions in one pass (appendix 6.2, networks/sam_encoders.py).

    w_plus = encoder of W+ (x, mask of W+);  delta_f_l = encoder of F_l (x, mask of F_l)

and the image of equations 3 and 4, in the same pass of the generator: an encoder that sees the
feature reads it where its offset is added.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.inversion import inputs
from jaxinv.inversion.sam import Codes
from jaxinv.networks import sam_encoders
from jaxinv.networks.sam_encoders import Encoders
from jaxinv.pixels import area_resize, to_float
from jaxinv.rendering import full_precision
from jaxinv.types import Generator, GeneratorSpec, Weights

BATCH = 4  # pictures in one program


def space_masks(chosen, spaces) -> dict[str, jax.Array]:
    """{space: [b, h, w, 1]}: 1 where chosen [b, h, w], an index into `spaces`, is the space."""
    chosen = jnp.asarray(chosen)
    return {space: (chosen == i).astype(jnp.float32)[..., None] for i, space in enumerate(spaces)}


def invert(
    encoders: Encoders,
    generator: Generator,
    weights: Weights,
    pictures,  # [b, h, h, 3] in [-1, 1]
    regions: dict[str, Any],  # {space: [b, h', h', 1]} of all spaces of the encoders, `space_masks`
    masks: dict[str, Any],  # {feature: [b, h, w, 1]} at the features' sizes, see `soft_masks`
) -> tuple[jax.Array, Codes]:
    """(images [b, h, w, 3], codes) of pictures. A pure function, differentiable.

    Offsets are those of the features in `masks`, 0 where the mask is 0.
    """
    spec, own, average = encoders
    w_plus = sam_encoders.w_plus(spec, own, average, pictures, regions['W+'])
    offsets = {}

    def tap(space, x):
        seen = sam_encoders.content(spec, own, space, pictures, regions[space])
        found = sam_encoders.offset(spec, own, space, seen, x.astype(seen.dtype))
        # Kept for the codes: the generator returns features with their offsets only.
        offsets[space] = jnp.where(masks[space] > 0, found, 0)
        return (x + masks[space] * offsets[space]).astype(x.dtype)

    taps = {space: functools.partial(tap, space) for space in masks}
    images, _ = generator.synthesize(weights, w_plus, taps=taps)
    return images, Codes(w_plus, {space: offsets[space] for space in masks})


def check_fits(encoders: Encoders, spec: GeneratorSpec) -> None:
    """Raises JaxinvError unless the encoders' codes are of the generator."""
    own, shapes = encoders.spec, dict(spec.feature_shapes)
    fits = (own.num_ws, own.w_dim) == (spec.num_ws, spec.w_dim) and not spec.moving_dims
    if not fits or any(
        shapes.get(name) != (size, size, channels) for name, size, channels in own.features
    ):
        raise JaxinvError(
            f"SAM's encoders make {own.num_ws} rows of {own.w_dim} numbers and offsets of "
            f'{own.features}, and {spec.name} takes {spec.num_ws} of {spec.w_dim} and has '
            f'{shapes}; they were trained for another generator.'
        )


def start(encoders: Encoders, targets: Any, spec: GeneratorSpec) -> np.ndarray:
    """w_plus [n, num_ws, w_dim] of whole pictures: W+ everywhere. targets: as of jaxinv.project."""
    check_fits(encoders, spec)
    images = inputs.examples_of(targets, spec).images_uint8
    run = _start_program(encoders.spec)

    def own(rows):
        return run(encoders.weights, encoders.average, _pictures(images[rows]))

    return np.concatenate([np.asarray(x)[:n] for x, n in _batches(own, len(images))])


def encode(
    encoders: Encoders,
    generator: Generator,
    weights: Weights,
    targets: Any,
    chosen,  # int [n, h, w]: index into the encoders' spaces
    masks: dict[str, Any],  # {feature: [n, h, w, 1]}, of `soft_masks`
) -> Codes:
    """Codes of all pictures, on the host; targets as of jaxinv.project.

    Raises JaxinvError if the encoders are of another generator.
    """
    check_fits(encoders, generator.spec)
    images = inputs.examples_of(targets, generator.spec).images_uint8
    run = _program(encoders.spec, generator)

    def own(rows):
        masks_of_rows = {space: mask[rows] for space, mask in masks.items()}
        arrays = _pictures(images[rows]), np.asarray(chosen)[rows], masks_of_rows
        return run(encoders.weights, encoders.average, weights, *arrays)

    parts = [jax.tree.map(lambda x, n=n: x[:n], x) for x, n in _batches(own, len(images))]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return Codes(joined.w_plus, {space: joined.offsets[space] for space in masks})


def _batches(run, count):
    """(result on the host, own rows) of BATCH rows each; the last batch repeats its last row."""
    for begin in range(0, count, BATCH):
        rows = np.arange(begin, begin + min(BATCH, count))
        # Codes are results: the policy is in jaxinv/rendering.py.
        with full_precision():
            found = jax.device_get(run(np.minimum(rows, count - 1)))
        yield found, min(BATCH, count - begin)


def _pictures(images_uint8):
    return area_resize(to_float(images_uint8), sam_encoders.SIZE)


@functools.lru_cache(maxsize=8)
def _start_program(spec):
    @jax.jit
    def run(own, average, pictures):
        mask = jnp.ones((*pictures.shape[:3], 1), pictures.dtype)
        return sam_encoders.w_plus(spec, own, average, pictures, mask)

    return run


@functools.lru_cache(maxsize=8)
def _program(spec, generator):
    @jax.jit
    def run(own, average, weights, pictures, chosen, masks):
        encoders = Encoders(spec, own, average)
        regions = space_masks(chosen, spec.spaces)
        return invert(encoders, generator, weights, pictures, regions, masks)[1]

    return run
