"""Step times of LPIPS, value and gradient with respect to the images: XLA's operators and ours.

    python benchmarks/lpips.py [--batch=2] [--repeats=5]

The cases are those of pti_multi_id: AlexNet at 512 pixels (tuning) and VGG16 at 256 pixels
(projection), with given target features. 'share' is the rate of the convolutions (FLOPs of the
forward pass, and the same again for the gradient) divided by that of a float32 matrix product of
2048 x 2048 in the same run. Compilation is timed without the cache. Stock and ours alternate, so
that other work on the machine affects both.
"""

import time
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags

from jaxinv.networks import lpips
from jaxinv.nn import strided
from jaxinv.weights.networks import load_lpips

_BATCH = flags.DEFINE_integer('batch', 2, 'Images in the batch.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed runs; the fastest is shown.')
CASES = (('alex', 512), ('vgg', 256))


def step(weights, images, targets):
    def loss(images):
        return jnp.sum(lpips.distance(lpips.features(weights, images), targets))

    return jax.value_and_grad(loss)(images)


def stock_step(weights, images, targets):
    """The same step with XLA's gradients of convolution and pooling."""
    with (
        mock.patch.object(strided, 'conv', strided._stock_conv),
        mock.patch.object(strided, 'max_pool', strided._stock_pool),
    ):
        return step(weights, images, targets)


def conv_flops(net, size, batch):
    """FLOPs of the convolutions of the trunk's forward pass."""
    total, channels = 0, 3
    for layer in lpips.LAYERS[net]:
        if layer == 'tap':
            continue
        if layer[0] == 'pool':
            size = (size - layer[1]) // 2 + 1
            continue
        _, out, window, stride, padding = layer
        size = (size + 2 * padding - window) // stride + 1
        total += 2 * batch * size**2 * window**2 * channels * out
        channels = out
    return total


def seconds(function, *args):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def main(argv):
    del argv
    jax.config.update('jax_enable_compilation_cache', False)
    square = jnp.ones((2048, 2048))
    product = jax.jit(jnp.dot).lower(square, square).compile()
    rate = 2 * 2048**3 / min(seconds(product, square, square) for _ in range(10))
    print(f'{jax.devices()[0].device_kind}: matrix product {rate / 1e9:.0f} GFLOP/s')
    for net, size in CASES:
        weights = load_lpips(net)
        key = jax.random.key(0)
        shape = (_BATCH.value, size, size, 3)
        images, others = (jax.random.uniform(k, shape, minval=-1) for k in jax.random.split(key))
        args = weights, images, jax.jit(lpips.features)(weights, others)
        names, compiled, compile_seconds = ('stock', 'ours'), [], []
        for function in (stock_step, step):
            start = time.perf_counter()
            compiled.append(jax.jit(function).lower(*args).compile())
            compile_seconds.append(time.perf_counter() - start)
        runs = [[seconds(c, *args) for c in compiled] for _ in range(_REPEATS.value + 1)][1:]
        flops = 2 * conv_flops(net, size, _BATCH.value)
        for name, first, times in zip(names, compile_seconds, zip(*runs, strict=True), strict=True):
            best = min(times)
            print(
                f'{net:4} {size} px, batch {_BATCH.value}, {name:5}: {best:.3f} s a step, '
                f'{flops / best / rate:.0%} of the matrix product rate, compiled in {first:.1f} s'
            )


if __name__ == '__main__':
    app.run(main)
