"""Everything that the figures of the reference implementation of LPIPS hold, computed by jaxinv.

Keys are the figures' own names without their network's. Works in float32 and, under
jax.enable_x64, in float64, from the same float32 weights and images.
"""

import jax
import jax.numpy as jnp
import numpy as np
import recipe

from jaxinv.networks import lpips
from jaxinv.weights.networks import load_lpips

NETS = ('alex', 'vgg')


def compute(net, figures, dtype=jnp.float32):
    """The arrays of one of NETS, for all pairs of images in `figures`."""
    weights = jax.tree.map(lambda x: jnp.asarray(x, dtype), load_lpips(net))
    arrays = {}
    for key in figures:
        if key.startswith('in/pair/'):
            pair = key.removeprefix('in/pair/')
            images = [figures[name].astype(np.float32) / 127.5 - 1 for name in figures[key]]
            images = [jnp.asarray(image[None], dtype) for image in images]
            for name, array in of_pair(weights, *images).items():
                arrays[f'{pair}/{name}'] = array
    return arrays


@jax.jit
def _compare(weights, a, b):
    target = lpips.features(weights, b)

    def loss(a):
        features = lpips.features(weights, a)
        return lpips.distance(features, target).sum(), features

    (distance, features), gradient = jax.value_and_grad(loss, has_aux=True)(a)
    size = a.shape[1:3]
    maps = [lpips.spatial((x,), (y,), size) for x, y in zip(features, target, strict=True)]
    return {
        'distance': distance,
        'per_layer': lpips.per_layer(features, target)[0],
        'grad_a': gradient,
        'spatial': lpips.spatial(features, target, size)[..., None],
        'spatial_mean_per_layer': jnp.stack([x.mean() for x in maps]),
    }, features


def of_pair(weights, a, b):
    """Distance of images a and b [1, h, w, 3], its parts, map and gradient, and features of a."""
    arrays, features = _compare(weights, a, b)
    trunk = [np.asarray(x, np.float64) for x in jax.jit(lpips.trunk)(weights, a)]
    arrays['trunk_mean_rms'] = [(x.mean(), np.sqrt(np.mean(x**2))) for x in trunk]
    arrays['min_channel_norm'] = [np.sqrt((x**2).sum(-1)).min() for x in trunk]
    if 'conv12_kernel' in weights:  # as NVIDIA's vgg16.pt: flat features, of which L2 is LPIPS
        flat = [recipe.nchw(x).ravel() / np.sqrt(x.shape[1] * x.shape[2]) for x in features]
        arrays['nv_feat_a'] = np.concatenate(flat)
        arrays['nv_dist'] = arrays['distance']
    for name in ('grad_a', 'spatial'):
        arrays[name] = recipe.nchw(arrays[name])
    return arrays
