"""The optimisation loop that every method shares: compiled, sharded, resumable."""

from jaxinv.optimize.loop import (
    Loop,
    LoopState,
    NotFinite,
    StoppingRule,
    Update,
    each_row,
    gradient_update,
    make_loop,
    run,
)
from jaxinv.optimize.sharded_step import Rows

__all__ = [
    'Loop', 'LoopState', 'NotFinite', 'Rows', 'StoppingRule', 'Update', 'each_row',
    'gradient_update', 'make_loop', 'run',
]  # fmt: skip
