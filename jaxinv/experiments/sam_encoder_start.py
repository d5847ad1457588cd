"""Where the training of SAM's encoders starts: an encoder to W, and linear fits to features.

w_plus   an encoder of --config=train_encoder, or ImageNet's features with a linear fit to w; the
         rows of w_plus are equal
F4 ...   ImageNet's EfficientNet-Lite0, with a convolution that is fitted, by ridge regression, to
         the features that the samples were made of. An encoder that does not see the feature is
         fitted to their difference from those of the encoder to W+.

No layer looks at the mask yet.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import pixels
from jaxinv.errors import JaxinvError
from jaxinv.experiments import encoder_start
from jaxinv.networks import encoders, sam_encoders
from jaxinv.networks.sam_encoders import W_PLUS, WINDOW, Spec
from jaxinv.weights.encoders import load_encoder
from jaxinv.weights.networks import load_efficientnet

BATCH = 4  # pictures of a forward pass
PLACES = 64  # of a picture's feature, for the fits
SUMMARIES = 64  # pictures whose maps are scaled to unit variance
FLOOR = 0.1  # added to the deviation of a channel, in units of their median


def check(config, spec: Spec) -> None:
    """Raises JaxinvError if config.start cannot be where a training for these spaces starts."""
    if config.start:
        _compact(config, spec)


def start(config, spec: Spec, generator, weights, dataset, statistics, log) -> dict:
    """Weights of the encoders before the first step."""
    shapes = sam_encoders.shapes(spec)
    if config.start:
        own, average = _compact(config, spec)
        own = own | {'w/bias': own['w/bias'] + average - statistics.mean}
    else:
        own = encoder_start.start(config, dataset, statistics)
    rows = encoder_start.rows(own, spec.num_ws, sam_encoders.RANK, dataset, config.seed)
    own = _with_mask(own) | rows
    found = {f'{W_PLUS}/{name}': x for name, x in own.items()}
    imagenet = _with_mask(load_efficientnet())
    for space, _, channels in spec.features:
        names = sam_encoders.part(shapes, space)
        found |= {f'{space}/{k}': x for k, x in imagenet.items() if k in names}
        inputs = names['maps/centre']
        found |= {
            f'{space}/maps/centre': jnp.zeros(inputs),
            f'{space}/maps/scale': jnp.ones(inputs),
        }
        if spec.sees_feature:
            found[f'{space}/replaced'] = jnp.ones(channels)
    found |= scales(spec, found, dataset)
    for space, (kernel, bias, explained) in fits(
        config, spec, generator, weights, found, dataset, statistics
    ).items():
        log(f'{space}: {100 * explained:.0f} % of the variance by the linear fit at the start.')
        found |= {f'{space}/offset/kernel': kernel, f'{space}/offset/bias': bias}
    return {name: jnp.asarray(found[name], jnp.float32) for name in shapes}


def _compact(config, spec: Spec):
    """(weights, average w) of config.start."""
    encoder = load_encoder(config.start)
    kind, w_dim = encoder.spec.kind, encoder.spec.w_dim
    if kind != encoders.COMPACT or w_dim != spec.w_dim:
        raise JaxinvError(
            f'start is {config.start!r}, an encoder of the kind {kind!r} to {w_dim} numbers; give '
            f'one of --config=train_encoder to {spec.w_dim}.'
        )
    return encoder.weights, encoder.average[0]


def _with_mask(weights: dict) -> dict:
    """The weights with a stem that takes a fourth channel, and does not look at it."""
    kernel = weights['stem/kernel']
    return weights | {'stem/kernel': jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))}


def scales(spec: Spec, own: dict, dataset) -> dict:
    """The weights SPACE/maps/centre and scale: each channel with mean 0 and deviation 1.

    own: weights in which these are 0 and 1. Channels that hardly vary stay small.
    """

    @jax.jit
    def moments(own, pictures):
        mask = jnp.ones((*pictures.shape[:3], 1))
        maps = [sam_encoders.read_maps(spec, own, s, pictures, mask) for s in spec.spaces[1:]]
        return [(x.mean((0, 1, 2)), (x**2).mean((0, 1, 2))) for x in maps]

    pictures, found = dataset.images_uint8[:SUMMARIES], {}
    parts = [moments(own, pixels.to_float(pictures[rows])) for rows in _batches(len(pictures))]
    for i, space in enumerate(spec.spaces[1:]):
        mean, square = (np.mean([part[i][j] for part in parts], 0, np.float64) for j in range(2))
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        floor = FLOOR * np.median(deviation) + 1e-6
        found |= {f'{space}/maps/centre': mean, f'{space}/maps/scale': 1 / (deviation + floor)}
    return found


def fits(config, spec: Spec, generator, weights, own: dict, dataset, statistics) -> dict:
    """{space: (kernel, bias, share of the variance explained)} by ridge regression.

    own: the other weights of the encoders, see `start`.
    """
    count = min(config.fit_pictures, len(dataset.w))
    rng = np.random.default_rng([config.seed, 2])
    sums = {space: Sums() for space in spec.spaces[1:]}

    @jax.jit
    def rows_of(own, weights, average, pictures, w, places):
        mask = jnp.ones((*pictures.shape[:3], 1))
        features = generator.synthesize(weights, w[:, None])[1]
        if not spec.sees_feature:
            w_plus = sam_encoders.w_plus(spec, own, average, pictures, mask)
            before = generator.synthesize(weights, w_plus)[1]
            features = {space: x - before[space] for space, x in features.items()}
        found = {}
        for space, at in places.items():
            x = patches(sam_encoders.read_maps(spec, own, space, pictures, mask))
            found[space] = at_places(x, at), at_places(features[space], at)
        return found

    for rows in _batches(count):
        places = {
            space: np.stack([rng.choice(n * n, min(PLACES, n * n), False) for _ in rows])
            for space, n, _ in spec.features
        }
        pictures = pixels.to_float(dataset.images_uint8[rows])
        found = rows_of(own, weights, statistics.mean, pictures, dataset.w[rows], places)
        for space, (x, y) in found.items():
            sums[space].add(np.asarray(x, np.float64), np.asarray(y, np.float64))
    result = {}
    for space, own_sums in sums.items():
        solution, bias, explained = own_sums.solve(config.ridge)
        kernel = solution.reshape(WINDOW, WINDOW, -1, len(bias))
        result[space] = (kernel, bias, explained)
    return result


def patches(x):
    """Windows of a convolution, [b, h, w, c] -> [b, h, w, WINDOW^2 c], in the order of kernels."""
    pad, (height, width) = WINDOW // 2, x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifted = [
        padded[:, i : i + height, j : j + width] for i in range(WINDOW) for j in range(WINDOW)
    ]
    return jnp.concatenate(shifted, -1)


def at_places(x, places):
    """Rows [b k, c] of x [b, h, w, c] at places [b, k], numbers of pixels."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    found = jnp.take_along_axis(flat, jnp.asarray(places)[..., None], axis=1)
    return found.reshape(-1, x.shape[-1])


class Sums:
    """Moments of rows x [n, d] and y [n, c], for a linear fit of y to x."""

    def __init__(self):
        self.count = 0
        self.moments = None

    def add(self, x, y) -> None:
        own = [x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y**2).sum(0)]
        moments = self.moments or [0.0] * len(own)
        self.moments = [a + b for a, b in zip(moments, own, strict=True)]
        self.count += len(x)

    def solve(self, ridge: float):
        """(solution [d, c], bias [c], share of y's variance explained); y ~ x @ solution + bias.

        ridge: added to the diagonal of the covariance of x scaled to unit variance.
        """
        x, y, xx, xy, yy = (moment / self.count for moment in self.moments)
        spread = np.sqrt(np.maximum(np.diag(xx) - x**2, 0)) + 1e-6
        covariance = (xx - np.outer(x, x)) / np.outer(spread, spread)
        joint = (xy - np.outer(x, y)) / spread[:, None]
        solution = np.linalg.solve(covariance + ridge * np.eye(len(x)), joint)
        # E (y - s x)^2 = var y - 2 s c + s C s, of scaled x.
        left = (
            (yy - y**2)
            - 2 * (solution * joint).sum(0)
            + (solution * (covariance @ solution)).sum(0)
        )
        explained = 1 - left.sum() / max((yy - y**2).sum(), 1e-12)
        solution = solution / spread[:, None]
        return solution, y - x @ solution, float(explained)


def _batches(count):
    return [np.minimum(np.arange(i, i + BATCH), count - 1) for i in range(0, count, BATCH)]
