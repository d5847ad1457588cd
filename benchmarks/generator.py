"""Times of the generator alone: images, gradient in w and noise, gradient in the parameters.

    python benchmarks/generator.py [--resolution=512] [--batches=1,2,4] [--repeats=5] [--nostock]

'stock' uses XLA's gradients of all operators. 'share' is the rate of the 1x1 and 3x3 products
(FLOPs of the forward pass, and the same again for each kind of gradient) divided by that of a
float32 matrix product of 3072 x 3072 in the same run. Compilation is timed without the cache. Stock
and ours alternate, so that other work on the machine affects both.
"""

import time
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags

from jaxinv.nn import ops
from jaxinv.runtime import malloc
from jaxinv.weights.zoo import load_named

_RESOLUTION = flags.DEFINE_integer('resolution', 512, 'Pixels: 512 or 1024.')
_BATCHES = flags.DEFINE_list('batches', ['1', '2', '4'], 'Batch sizes.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed runs; the fastest is shown.')
_STOCK = flags.DEFINE_bool('stock', True, 'Also time the stock gradients.')
PRODUCTS = {'forward': 1, 'gradient in w, noise': 2, 'gradient in params': 3}  # per layer


def programs(generator):
    """{name: function of (weights, w, noise, target)}."""

    def loss(params, w, noise, weights, target):
        weights = {'params': params, 'buffers': weights['buffers']}
        return jnp.mean((generator.synthesize(weights, w, noise)[0] - target) ** 2)

    def forward(weights, w, noise, target):
        return generator.synthesize(weights, w, noise)[0]

    def gradient(which):
        def run(weights, w, noise, target):
            return jax.value_and_grad(loss, which)(weights['params'], w, noise, weights, target)

        return run

    return dict(zip(PRODUCTS, (forward, gradient((1, 2)), gradient(0)), strict=True))


def products_flops(params, batch):
    """FLOPs of the matrix products of one forward pass: two per weight and pixel.

    to_img at half size is counted at full size; the error is below 2 % of the total.
    """
    flops = 0
    for name, block in params['synthesis'].items():
        size = int(name[1:])
        for layer in block.values():
            if isinstance(layer, dict):
                flops += sum(layer[k].size for k in ('kernel', 'pointwise') if k in layer) * size**2
    return 2 * batch * flops


def compiled(function, args):
    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    return program, time.perf_counter() - start


def seconds(program, args):
    start = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - start


def stock_operators():
    """Replaces all layers by XLA's convolutions and their gradients."""
    return mock.patch.multiple(
        ops,
        depthwise=ops._depthwise_stock,
        pointwise=lambda x, kernel: ops._conv_stock(x, kernel[None, None], 1),
        conv=lambda x, kernel: ops._conv_stock(x, kernel, 1),
    )


def main(argv):
    del argv
    jax.config.update('jax_enable_compilation_cache', False)
    generator, weights = load_named('mobile_stylegan_ffhq', _RESOLUTION.value)
    size = generator.spec.resolution
    matrix = jnp.ones((3072, 3072))
    product, _ = compiled(jnp.dot, (matrix, matrix))
    print(
        f'{"":24}{"batch":>6}{"stock s":>9}{"ours s":>9}{"compile s":>10}{"GFLOP/s":>9}{"share":>7}'
    )
    for batch in map(int, _BATCHES.value):
        w = generator.map(weights, jax.random.normal(jax.random.key(0), [batch, 512]))[:, None]
        noise = {name: jnp.ones((batch, *shape)) for name, shape in generator.spec.noise_shapes}
        args = weights, w, noise, jnp.zeros((batch, size, size, 3))
        for name, function in programs(generator).items():
            ours, compile_time = compiled(function, args)
            stock = None
            if _STOCK.value:
                with stock_operators():
                    # A new function, because jit would reuse the program just compiled.
                    stock, _ = compiled(lambda *args, f=function: f(*args), args)
            times = {'ours': [], 'stock': [], 'matrix': []}
            for _ in range(_REPEATS.value + 1):  # the first is warm-up
                times['matrix'].append(seconds(product, (matrix, matrix)))
                times['ours'].append(seconds(ours, args))
                if stock is not None:
                    times['stock'].append(seconds(stock, args))
            best = {name: min(t[1:]) if t else float('nan') for name, t in times.items()}
            flops = PRODUCTS[name] * products_flops(weights['params'], batch)
            rate = flops / best['ours']
            share = rate / (2 * 3072**3 / best['matrix'])
            print(
                f'{name:24}{batch:6}{best["stock"]:9.2f}{best["ours"]:9.2f}{compile_time:10.1f}'
                f'{rate / 1e9:9.0f}{share:7.0%}',
                flush=True,
            )


if __name__ == '__main__':
    malloc.restart_with_large_pages()
    app.run(main)
