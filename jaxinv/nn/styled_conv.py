"""Modulated convolution with activation (StyleGAN2) as one operator with a small gradient.

    out = clamp(gain * leaky_relu(conv(x * style) * demodulation + noise + bias))

Automatic differentiation would store the scaled input, the result of the convolution, its scaled
form and the output, 134 MB each at 1024 pixels. All of them follow from x and `out`: a leaky ReLU
is invertible, and clamped values have no gradient. So only x, the output of the layer before, and
`out`, the input of the next, are stored.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.nn import ops, upsample_fir

SLOPE = 0.2


@partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def styled_conv(x, style, kernel, demodulation, noise, bias, up, gain, limit):
    """x [b, h, w, c] -> [b, h, w, d], or [b, 2h, 2w, d] if `up`.

    style [b, c], kernel [3, 3, c, d], demodulation [b, d] > 0, noise broadcast to [b, h, w, 1] of
    the result, bias [d]; gain > 0; limit: clamp of the result, None = none.
    """
    out = _linear(x, style, kernel, up) * demodulation[:, None, None]
    out = ops.leaky_relu(out + noise + bias[None, None, None], SLOPE) * gain
    return out if limit is None else jnp.clip(out, -limit, limit)


def _linear(x, style, kernel, up):
    x = x * style[:, None, None]
    return upsample_fir.up_conv(x, kernel) if up else ops.conv(x, kernel)


def _forward(x, style, kernel, demodulation, noise, bias, up, gain, limit):
    tuned = () if kernel.perturbed else None  # as tree structure the flag stays static
    operands = [operand.value for operand in (x, style, kernel, demodulation, noise, bias)]
    out = styled_conv(*operands, up, gain, limit)
    return out, (*operands, out, tuned)


def _backward(up, gain, limit, residuals, g):
    x, style, kernel, demodulation, noise, bias, out, tuned = residuals
    # Without the barrier XLA would reuse, and store, x * style of the forward pass.
    x, out, g = lax.optimization_barrier((x, out, g))
    if limit is not None:
        g = jnp.where(jnp.abs(out) < limit, g, 0)
    # The input of the activation is `out` over its slope; times `inner` it is out * g.
    inner = lax.optimization_barrier(g * jnp.where(out >= 0, gain, SLOPE * gain).astype(g.dtype))
    by_channel = jnp.sum(inner, (1, 2))
    g_noise = jnp.sum(inner, 3, keepdims=True)
    g_noise = jnp.sum(g_noise, [i for i in range(3) if noise.shape[i] == 1], keepdims=True)
    by_noise = jnp.einsum('bhwd,bhw->bd', inner, _full(noise, inner))
    g_demodulation = (jnp.sum(g * out, (1, 2)) - by_noise - bias[None] * by_channel) / demodulation
    g_scaled, g_kernel = _linear_grads(x, style, kernel, inner * demodulation[:, None, None], up)
    g_style = jnp.sum(g_scaled * x, (1, 2))
    rest = (g_style, g_kernel, g_demodulation, g_noise, by_channel.sum(0))
    if tuned is not None:
        style = after(style, rest)
    return (g_scaled * style[:, None, None], *rest)


styled_conv.defvjp(_forward, _backward, symbolic_zeros=True)


@jax.custom_vjp
def image_kernels(x, kernels):
    """1x1 convolution with a kernel per image: x [b, h, w, c], kernels [b, c, d] -> [b, h, w, d].

    The result is float32, also for bfloat16 x.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum('bhwc,bcd->bhwd', x, kernels, preferred_element_type=dtype)


def _image_kernels_forward(x, kernels):
    tuned = () if kernels.perturbed else None
    return image_kernels(x.value, kernels.value), (x.value, kernels.value, tuned)


def _image_kernels_backward(residuals, g):
    x, kernels, tuned = residuals
    g = g.astype(x.dtype)
    # With the few channels first, the product does not transpose x.
    g_kernels = jnp.einsum('bhwd,bhwc->bdc', g, x).swapaxes(1, 2)
    if tuned is not None:
        kernels = after(kernels, [g_kernels])
    return jnp.einsum('bhwd,bcd->bhwc', g, kernels), g_kernels


image_kernels.defvjp(_image_kernels_forward, _image_kernels_backward, symbolic_zeros=True)


def after(value, arrays):
    """`value`, with a data dependence on the arrays.

    XLA:CPU would compute gradients by weights at the end of the program, where they are used, and
    keep every feature map alive until then. 0 * x is not simplified away, because x may be NaN;
    NaN then propagates, which is right for a gradient.
    """
    return value + 0 * sum(array.reshape(-1)[0] for array in arrays)


def _full(noise, like):
    return jnp.broadcast_to(noise[..., 0], like.shape[:3])


def _linear_grads(x, style, kernel, g, up):
    """Gradients by x * style and by the kernel."""
    fast = upsample_fir.up_conv_grads_cpu if up else ops.conv_grads_cpu

    def stock(x, style, kernel, g):
        function = upsample_fir.up_conv if up else ops.conv
        return jax.vjp(function, x * style[:, None, None], kernel)[1](g)

    def cpu(x, style, kernel, g):
        return fast(x, kernel, g, style)

    return lax.platform_dependent(x, style, kernel, g, cpu=cpu, default=stock)
