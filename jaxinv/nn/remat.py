"""A generator's blocks, computed again for their gradient instead of keeping what is within.

jax.checkpoint (flax.linen.remat) means the same, but holds the second computation back only by
barriers, which XLA:CPU drops before it puts operations in order: it then computes everything twice
at once and keeps it, and takes more memory than without. Here the second computation depends on the
gradient that arrives, so that no compiler can begin it sooner.

The last block is left alone: its gradient comes first, and would need at once what it had saved.
"""

import flax.linen as nn
import jax
from jax.custom_derivatives import SymbolicZero

from jaxinv.nn.styled_conv import after


def call(block: nn.Module, w, *args, remat: bool):
    """block(w, *args). With remat it keeps for its gradient no more than it is given.

    w [b, ...]: rows of the latent. All that takes memory within the block must depend on them, for
    they are what the second computation waits with. args: arrays, trees of arrays or None.
    """
    if not remat or block.is_initializing():
        return block(w, *args)
    module, variables = block.unbind()
    return _computed_again(module.apply)(variables, w, *args)


def _computed_again(function):
    """function(variables, w, *rest), whose gradient keeps the arguments and calls it once more."""

    @jax.custom_vjp
    def once(*args):
        return function(*args)

    def forward(*args):
        primals, structure = jax.tree.flatten(args)
        args = structure.unflatten([primal.value for primal in primals])
        # Structures, not values: known when traced.
        moving = tuple(() if primal.perturbed else None for primal in primals)
        return function(*args), (args, moving)

    def backward(residuals, gradients):
        (variables, w, *rest), moving = residuals
        moving = [flag is not None for flag in moving]
        gradients = jax.tree.leaves(gradients)
        wanted = [not isinstance(gradient, SymbolicZero) for gradient in gradients]
        gradients = _where(wanted, gradients)
        leaves, structure = jax.tree.flatten((variables, after(w, gradients), *rest))

        def outputs(*values):
            values = iter(values)
            pairs = zip(leaves, moving, strict=True)
            args = [next(values) if moves else leaf for leaf, moves in pairs]
            return _where(wanted, jax.tree.leaves(function(*structure.unflatten(args))))

        # With respect to nothing else: a gradient by kernels that nobody asked for would be
        # computed and waited for (styled_conv.after).
        _, pull = jax.vjp(outputs, *_where(moving, leaves))
        found = iter(pull(gradients))
        return structure.unflatten([next(found) if moves else None for moves in moving])

    once.defvjp(forward, backward, symbolic_zeros=True)
    return once


def _where(flags, leaves):
    return [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]
