"""Pivots that are optimised along with the generator's weights (PTI, section 4.4).

The variables of the tuning are then {'params', 'pivots' [n, k, w_dim]}. The paper does not say how
the two are stepped; here by Adam with the same moments and a learning rate each. The codes of the
locality regulariser lie around the present pivots, which are constants in it: equation 6 restricts
the weights, and is no objective for w_p.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxinv import latents
from jaxinv.settings import Tuning
from jaxinv.types import GeneratorSpec

_ADAM = optax.scale_by_adam()


def make_optimizer(s: Tuning) -> optax.GradientTransformation:
    """Adam for the variables, with a learning rate for each of the two parts.

    The state is that of one Adam, so that a mesh places it as it places any other.
    """
    return optax.GradientTransformation(_ADAM.init, lambda g, state, v=None: update(s, g, state))


def update(s: Tuning, gradients, state, passes=None) -> tuple[Any, Any]:
    """(changes of the variables, next state of the optimiser).

    passes: int32 [], passes over all identities before this one, where the variables hold several
    identities; None = every step has gradients of all pivots. A pivot that is not in the step's
    batch has a gradient of exactly 0, and neither it nor its moments change, as if it had an
    optimiser of its own. Elementwise, since a device may hold a shard of the pivots.
    """
    changes, means, squares, count = {}, {}, {}, state.count
    rates = {'params': s.learning_rate, 'pivots': s.pivot_learning_rate}
    for part, rate in rates.items():
        at = passes if part == 'pivots' and passes is not None else state.count
        own = optax.ScaleByAdamState(at, state.mu[part], state.nu[part])
        directions, new = _ADAM.update(gradients[part], own)
        steps = jax.tree.map(lambda x, rate=rate: -rate * x, directions)
        if part == 'pivots':
            moves = gradients[part] != 0
            steps = jnp.where(moves, steps, 0)
            new = new._replace(
                mu=jnp.where(moves, new.mu, own.mu), nu=jnp.where(moves, new.nu, own.nu)
            )
        else:
            count = new.count
        changes[part], means[part], squares[part] = steps, new.mu, new.nu
    return changes, optax.ScaleByAdamState(count, means, squares)


def split(variables, examples, spec: GeneratorSpec) -> tuple[Any, dict[str, Any]]:
    """(params, the examples with their present pivots instead of those they started with).

    Where the variables hold the pivots of several identities, 'example_index' [b] of the examples
    says which are theirs; that of padding is one past the last. Else the pivots [k, w_dim] are of
    the one example.
    """
    pivots, index = variables['pivots'], examples.get('example_index')
    pivots = pivots[None] if index is None else jnp.take(pivots, index, axis=0, mode='clip')
    return variables['params'], examples | {'pivots': latents.freeze_class(pivots, spec)}
