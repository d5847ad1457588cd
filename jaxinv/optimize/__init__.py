"""The optimisation loop that every method shares: compiled, sharded, resumable."""

from jaxinv.optimize.loop import (
    Loop,
    LoopState,
    NotFinite,
    StoppingRule,
    Update,
    gradient_update,
    make_loop,
    run,
    vmap_optimizer,
)
from jaxinv.optimize.sharded_step import BatchAxes

__all__ = [
    'Loop', 'LoopState', 'NotFinite', 'BatchAxes', 'StoppingRule', 'Update', 'vmap_optimizer',
    'gradient_update', 'make_loop', 'run',
]  # fmt: skip
