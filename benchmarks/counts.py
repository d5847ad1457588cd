"""FLOPs of a step: of its jaxpr with the operators of GPUs and TPUs, and of config-f by hand.

XLA's count of a CPU program is too small: it counts the body of a loop once, and on CPUs gradients
with respect to kernels are loops over bands of rows (jaxinv/nn/conv_grads.py).
"""

import math

import jax
from jax.interpreters import partial_eval

from jaxinv.networks import lpips


def of_function(function, arguments) -> float:
    """FLOPs of matrix products and convolutions on one device; a multiply-add counts as two."""
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr) -> float:
    total = 0.0
    # Removes the primal results that a jaxpr of a gradient computes and does not use.
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            shape = equation.invars[0].aval.shape
            size = math.prod(shape[i] for i in contracted)
            total += 2 * size * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == 'conv_general_dilated':
            total += _of_convolution(equation)
        elif (
            equation.primitive.name == 'cond'
        ):  # by platform; the last branch is the stock operator
            total += _of_jaxpr(equation.params['branches'][-1].jaxpr)
        else:
            total += sum(_of_jaxpr(inner) for inner in jax.core.jaxprs_in_params(equation.params))
    return total


def _of_convolution(equation) -> float:
    numbers = equation.params['dimension_numbers']
    kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    taps = math.prod(kernel[i] for i in numbers.rhs_spec[2:])
    inputs = kernel[numbers.rhs_spec[1]]  # channels of a group
    zeros = math.prod(equation.params['lhs_dilation'])  # inserted between pixels; not multiplied
    return 2 * math.prod(out) * taps * inputs / zeros / equation.params['batch_group_count']


def stylegan2_pass(resolution, channel_base=32768, channel_max=512) -> float:
    """Forward pass of one picture of StyleGAN2.

    A block has two 3x3 convolutions, the first at half the resolution, and one 1x1 to RGB.
    """
    total, before, size = 0, 0, 4
    while size <= resolution:
        c = min(channel_base // size, channel_max)
        total += 9 * before * c * (size // 2) ** 2 + (9 * c * c + 3 * c) * size**2
        before, size = c, 2 * size
    return 2 * total


def lpips_pass(net: str, size: int) -> float:
    """Forward pass of one picture through LPIPS' trunk."""
    total, c = 0, 3
    for layer in lpips.LAYERS[net]:
        if layer[0] == 'pool':
            size = (size - layer[1]) // 2 + 1
        elif layer[0] == 'conv':
            _, channels, window, stride, padding = layer
            size = (size + 2 * padding - window) // stride + 1
            total, c = total + window**2 * c * channels * size**2, channels
    return 2 * total


def config_f_step(resolution: int, regularised: bool) -> float:
    """A tuning step of one identity with LPIPS alex.

    The backward pass costs one pass for inputs and one for kernels; for LPIPS only the former. The
    regulariser adds a step at another code, a second forward pass of LPIPS, and a forward pass of
    the original generator.
    """
    generator, distance = stylegan2_pass(resolution), lpips_pass('alex', resolution)
    plain = 3 * generator + 2 * distance
    return plain + (4 * generator + 3 * distance if regularised else 0)
