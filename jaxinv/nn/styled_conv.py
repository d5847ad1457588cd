"""StyleGAN2's styled convolution as one operator, which keeps one array for its gradient.

    out = clamp(gain * leaky_relu(conv(x * style) * demodulation + noise + bias))

Differentiated step by step it would keep the scaled input, the convolution's result, its scaled
form and the output: at 1024 pixels 134 MB each. But each step can be undone from `out`: a leaky
ReLU is invertible, and where the clamp was met no gradient passes. So only `x`, which is the output
of the layer before, and `out`, which is the input of the next, are kept.
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

    style [b, c], kernel [3, 3, c, d], demodulation [b, d] (positive), noise broadcasting against
    the result's [b, h, w, 1], bias [d]; gain a positive number; limit of the result, None = none.
    """
    out = _linear(x, style, kernel, up) * demodulation[:, None, None]
    out = ops.leaky_relu(out + noise + bias, SLOPE) * gain
    return out if limit is None else jnp.clip(out, -limit, limit)


def _linear(x, style, kernel, up):
    x = x * style[:, None, None]
    return upsample_fir.up_conv(x, kernel) if up else ops.conv(x, kernel)


def _forward(x, style, kernel, demodulation, noise, bias, up, gain, limit):
    tuned = () if kernel.perturbed else None  # a structure, not a value: known when traced
    operands = [operand.value for operand in (x, style, kernel, demodulation, noise, bias)]
    out = styled_conv(*operands, up, gain, limit)
    return out, (*operands, out, tuned)


def _backward(up, gain, limit, residuals, g):
    x, style, kernel, demodulation, noise, bias, out, tuned = residuals
    # Else the compiler would find x * style in the forward pass and keep it after all.
    x, out, g = lax.optimization_barrier((x, out, g))
    if limit is not None:
        g = jnp.where(jnp.abs(out) < limit, g, 0)
    # What the activation was given is `out` over its slope, so times `inner` it is out * g.
    inner = lax.optimization_barrier(g * jnp.where(out >= 0, gain, SLOPE * gain).astype(g.dtype))
    by_channel = jnp.sum(inner, (1, 2))
    g_noise = jnp.sum(inner, 3, keepdims=True)
    g_noise = jnp.sum(g_noise, [i for i in range(3) if noise.shape[i] == 1], keepdims=True)
    by_noise = jnp.einsum('bhwd,bhw->bd', inner, _full(noise, inner))
    g_demodulation = (jnp.sum(g * out, (1, 2)) - by_noise - bias * by_channel) / demodulation
    g_scaled, g_kernel = _linear_grads(x, style, kernel, inner * demodulation[:, None, None], up)
    g_style = jnp.sum(g_scaled * x, (1, 2))
    rest = (g_style, g_kernel, g_demodulation, g_noise, by_channel.sum(0))
    if tuned is not None:
        style = after(style, rest)
    return (g_scaled * style[:, None, None], *rest)


styled_conv.defvjp(_forward, _backward, symbolic_zeros=True)


@jax.custom_vjp
def image_kernels(x, kernels):
    """1x1 convolution with a kernel for each image: x [b, h, w, c], kernels [b, c, d].

    The result, pixels, is float32 even if x is bfloat16.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum('bhwc,bcd->bhwd', x, kernels, preferred_element_type=dtype)


def _image_kernels_forward(x, kernels):
    tuned = () if kernels.perturbed else None
    return image_kernels(x.value, kernels.value), (x.value, kernels.value, tuned)


def _image_kernels_backward(residuals, g):
    x, kernels, tuned = residuals
    g = g.astype(x.dtype)
    # With the few channels first, so that the product has no need to transpose x.
    g_kernels = jnp.einsum('bhwd,bhwc->bdc', g, x).swapaxes(1, 2)
    if tuned is not None:
        kernels = after(kernels, [g_kernels])
    return jnp.einsum('bhwd,bcd->bhwc', g, kernels), g_kernels


image_kernels.defvjp(_image_kernels_forward, _image_kernels_backward, symbolic_zeros=True)


def after(value, arrays):
    """`value`, but not before the arrays are computed.

    Gradients with respect to weights are wanted only at the end, so XLA's CPU scheduler likes to
    compute them there, which keeps every feature map alive until then. Zero times a float is not
    simplified away, for it may be a NaN; then the step is lost anyway.
    """
    return value + 0 * sum(array.reshape(-1)[0] for array in arrays)


def _full(noise, like):
    return jnp.broadcast_to(noise[..., 0], like.shape[:3])


def _linear_grads(x, style, kernel, g, up):
    """Gradients with respect to x * style and to the kernel."""
    fast = upsample_fir.up_conv_grads_cpu if up else ops.conv_grads_cpu

    def stock(x, style, kernel, g):
        return jax.vjp(upsample_fir.up_conv if up else ops.conv, x * style[:, None, None], kernel)[
            1
        ](g)

    def cpu(x, style, kernel, g):
        return fast(x, kernel, g, style)

    return lax.platform_dependent(x, style, kernel, g, cpu=cpu, default=stock)
