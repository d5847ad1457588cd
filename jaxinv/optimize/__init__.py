"""The optimisation loop of all methods: compiled, sharded, resumable."""

from jaxinv.optimize.loop import Loop, NotFinite, make_loop, run
from jaxinv.optimize.sharded_step import BatchAxes
from jaxinv.optimize.step import LoopState, StoppingRule, Update, gradient_update, vmap_optimizer

__all__ = [
    'BatchAxes', 'Loop', 'LoopState', 'NotFinite', 'StoppingRule', 'Update', 'gradient_update',
    'make_loop', 'run', 'vmap_optimizer',
]  # fmt: skip
