"""Codes of photographs by an encoder, in one pass or in a few (networks/encoders.py)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents
from jaxinv.errors import JaxinvError
from jaxinv.inversion import inputs
from jaxinv.networks import encoders
from jaxinv.networks.encoders import Encoder
from jaxinv.pixels import to_float
from jaxinv.settings import Projection
from jaxinv.types import Generator, GeneratorSpec, Weights
from jaxinv.weights.encoders import load_encoder

BATCH = 8  # pictures in one program
FAR = 3.0  # distance from the mean of W, in units of its spread, beyond which no photograph is
START = 'encoder:'  # of the setting pivot.start
REFINEMENTS = Projection().refinements


def encode(
    encoder: Encoder,
    generator: Generator,
    weights: Weights,
    targets: Any,
    *,
    steps: int = REFINEMENTS,
) -> np.ndarray:
    """w_plus [n, num_ws, w_dim] of every target.

    targets: as of jaxinv.project. steps: refinements by a ReStyle encoder. Raises JaxinvError if
    the encoder is of another generator.
    """
    check_fits(encoder, generator.spec)
    images = inputs.examples_of(targets, generator.spec).images_uint8
    run = _program(encoder.spec, generator, steps)
    found = []
    for start in range(0, len(images), BATCH):
        own = images[start : start + BATCH]
        padded = np.concatenate([own, np.repeat(own[-1:], BATCH - len(own), axis=0)])
        padded = padded if len(images) > BATCH else own
        codes = run(encoder.weights, encoder.average, weights, to_float(padded))
        found.append(np.asarray(codes)[: len(own)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=8)
def _program(spec, generator, steps):
    @jax.jit
    def run(own, average, weights, images):
        encoder = Encoder(spec, own, average)
        if not spec.is_restyle:
            return encoders.encode(encoder, images)

        def synthesize(w):
            return jnp.clip(generator.synthesize(weights, w)[0], -1, 1)

        return encoders.refine(encoder, images, synthesize, steps)[-1]

    return run


def check_fits(encoder: Encoder, spec: GeneratorSpec) -> None:
    """Raises JaxinvError unless the encoder's codes are W+ of the generator."""
    rows, w_dim = encoder.spec.num_ws, encoder.spec.w_dim
    if (rows, w_dim) != (spec.num_ws, spec.w_dim) or spec.moving_dims:
        raise JaxinvError(
            f'the encoder makes {rows} rows of {w_dim} numbers, and {spec.name} takes '
            f'{spec.num_ws} of {spec.w_dim}; it was trained for another generator.'
        )


def opened(source: Any) -> Any:
    """The Encoder of 'encoder:PATH'; anything else that is no text as it is."""
    if not isinstance(source, str):
        return source
    if not source.startswith(START):
        raise JaxinvError(f"pivot.start is {source!r}; it can be '' or 'encoder:PATH'.")
    return load_encoder(source.removeprefix(START))


def start_codes(
    source: Any, generator, weights, targets, statistics, log=None, steps: int = REFINEMENTS
) -> np.ndarray:
    """Codes [n, 1 or num_ws, w_dim] where a projection starts.

    source: 'encoder:PATH', an Encoder, or codes [n, 1 or num_ws, w_dim]. Codes of an encoder whose
    mean over the rows is farther than FAR from the mean of W are replaced by that mean, and named.
    steps: refinements by a ReStyle encoder.
    """
    spec, examples = generator.spec, inputs.examples_of(targets, generator.spec)
    source = opened(source)
    if not isinstance(source, Encoder):
        codes = np.asarray(source, np.float32)
        if codes.ndim != 3 or len(codes) != len(examples.names) or codes.shape[2] != spec.w_dim:
            raise JaxinvError(
                f'start has the shape {list(codes.shape)}; codes [{len(examples.names)}, 1 or '
                f'{spec.num_ws}, {spec.w_dim}] are needed.'
            )
        return codes
    codes = encode(source, generator, weights, targets, steps=steps)
    distances = distance_from_mean(codes, statistics)
    far = ~(distances <= FAR)  # NaN is far
    for name, distance in zip(np.array(examples.names)[far], distances[far], strict=True):
        if log:
            log(
                f"{name}: the encoder's code is {distance:.1f} times the spread of W from its "
                'mean, where no photograph is; the search starts from the mean.'
            )
    codes[far] = np.asarray(statistics.mean, np.float32)
    return codes


def distance_from_mean(codes, statistics: latents.WStatistics) -> np.ndarray:
    """Distance [n] of the mean rows of codes from the mean of W, in units of its spread."""
    rows = np.asarray(codes, np.float64).mean(1)
    return np.linalg.norm(rows - np.asarray(statistics.mean), axis=1) / float(statistics.std)
