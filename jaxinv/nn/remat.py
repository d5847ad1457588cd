"""Rematerialisation: a block's intermediates are recomputed for its gradient and not stored.

jax.checkpoint (flax.linen.remat) delays the recomputation by optimisation barriers only. XLA:CPU
removes these before it schedules, runs both computations in the forward pass, and needs more memory
than without. Here the recomputation depends on the incoming gradient, so it cannot start earlier.

It saves nothing for the last block, whose gradient comes first; callers leave that one out.
"""

import flax.linen as nn
import jax
from jax.custom_derivatives import SymbolicZero

from jaxinv.nn.styled_conv import after


def call(block: nn.Module, w, *args, remat: bool):
    """block(w, *args); with remat its gradient stores the arguments only.

    w [b, ...]: an argument, such as the rows of a latent, on which all large intermediates depend:
    the recomputation waits for the gradient through it. args: arrays, trees of arrays or None.
    """
    if not remat or block.is_initializing():
        return block(w, *args)
    module, variables = block.unbind()
    return _recomputed(module.apply)(variables, w, *args)


def _recomputed(function):
    """function(variables, w, *rest), whose gradient stores the arguments and calls it again."""

    @jax.custom_vjp
    def once(*args):
        return function(*args)

    def forward(*args):
        primals, structure = jax.tree.flatten(args)
        args = structure.unflatten([primal.value for primal in primals])
        # As tree structure, () or None, the flags stay static.
        perturbed = tuple(() if primal.perturbed else None for primal in primals)
        return function(*args), (args, perturbed)

    def backward(residuals, gradients):
        (variables, w, *rest), perturbed = residuals
        perturbed = [flag is not None for flag in perturbed]
        gradients = jax.tree.leaves(gradients)
        wanted = [not isinstance(gradient, SymbolicZero) for gradient in gradients]
        gradients = _where(wanted, gradients)
        leaves, structure = jax.tree.flatten((variables, after(w, gradients), *rest))

        def outputs(*values):
            values = iter(values)
            pairs = zip(leaves, perturbed, strict=True)
            args = [next(values) if flag else leaf for leaf, flag in pairs]
            return _where(wanted, jax.tree.leaves(function(*structure.unflatten(args))))

        # Only by the perturbed arguments: styled_conv.after would also compute and wait for
        # unused gradients by kernels.
        _, pull = jax.vjp(outputs, *_where(perturbed, leaves))
        found = iter(pull(gradients))
        return structure.unflatten([next(found) if flag else None for flag in perturbed])

    once.defvjp(forward, backward, symbolic_zeros=True)
    return once


def _where(flags, leaves):
    return [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]
