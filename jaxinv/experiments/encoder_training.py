"""Steps of an encoder's training: Adam, a running mean of the weights, checkpoints."""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv.experiments.encoder_batches import placing
from jaxinv.optimize import LoopState, checkpoints, sharding
from jaxinv.optimize.loop import append_traces
from jaxinv.optimize.sharded_step import fetch
from jaxinv.runtime import distributed
from jaxinv.runtime.progress import Progress

WARMUP = 100  # steps in which the learning rate rises


class Stage(NamedTuple):
    """Steps with one loss."""

    name: str
    num_steps: int
    batch_size: int
    learning_rate: float
    metrics: tuple[str, ...]
    loss: Callable  # (params, args, batch) -> {metric: [b]}, of which 'loss' is minimised
    rate_of: Callable[[str], float] = lambda name: 1.0  # of a weight, in units of learning_rate
    optimizer: Callable = optax.adam  # (schedule of the learning rate) -> GradientTransformation


def relative_adam(schedule) -> optax.GradientTransformation:
    """Adam whose rate is in units of the RMS of each array of weights."""
    return optax.chain(
        optax.scale_by_adam(),
        optax.scale_by_param_block_rms(),
        optax.scale_by_learning_rate(schedule),
    )


def train_stage(
    config,
    stage: Stage,
    shapes: dict[str, tuple[int, ...]],
    start: Callable[[], dict[str, jax.Array]],
    args: dict[str, Any],
    batches: Callable,
    path: pathlib.Path,
    log,
) -> dict[str, np.ndarray]:
    """The running mean of the weights after a stage; resumes from the last checkpoint below `path`.

    shapes: of the weights; start() -> weights before the first step; args: constants of the loss;
    batches(step) -> a context manager of batches from that step on. Raises NotFinite.
    """
    # Adam's first steps move every weight by the full rate, whatever the gradient.
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, stage.learning_rate, min(WARMUP, stage.num_steps // 4), stage.num_steps
    )
    optimizer = stage.optimizer(schedule)
    devices = sharding.make(config.mesh)

    def initial(found):
        # Copies: the step donates its state, and weights may be the same buffer twice.
        found, average = (jax.tree.map(jnp.copy, found) for _ in range(2))
        variables = {'params': found, 'average': average}
        done = jnp.zeros(stage.batch_size, bool)
        return LoopState(jnp.int32(0), done, variables, optimizer.init(found))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, args, batch):
        def objective(params):
            found = stage.loss(params, args, batch)
            return found['loss'].mean(), found

        now = state.variables['params']
        gradients, found = jax.grad(objective, has_aux=True)(now)
        changes, opt_state = optimizer.update(gradients, state.opt_state, now)
        changes = {name: stage.rate_of(name) * change for name, change in changes.items()}
        now = optax.apply_updates(now, changes)
        # A short run's mean would still hold its start.
        decay = jnp.minimum(config.average, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(
            lambda a, x: decay * a + (1 - decay) * x, state.variables['average'], now
        )
        variables = {'params': now, 'average': average}
        return LoopState(state.step + 1, state.done, variables, opt_state), found

    progress, traces = Progress(stage.name, stage.num_steps, log), {}
    like = initial({name: jnp.zeros(shape) for name, shape in shapes.items()})
    saved = checkpoints.LoopCheckpoints(path / 'state' / stage.name, stage.num_steps)
    with contextlib.closing(saved), distributed.defer_sigterm():
        restored = saved.restore(like, stage.metrics, log)
        if restored is None:
            state = initial(start())
        else:
            state, traces = restored.state, restored.traces
            log(f'{stage.name}: going on after step {int(state.step)}.')
        state, args = jax.tree.map(devices.replicate, (state, args))
        place = placing(devices, stage.batch_size, log)
        with batches(int(state.step)) as source:
            while (begin := int(state.step)) < stage.num_steps:
                rows = []
                for _ in range(min(config.chunk_steps, stage.num_steps - begin)):
                    state, found = step(state, args, place(next(source)))
                    rows.append(found)
                rows = {name: np.stack([fetch(r[name]) for r in rows]) for name in stage.metrics}
                active = np.ones((len(rows['loss']), stage.batch_size), bool)
                traces = append_traces(traces, rows, active, begin, int(state.step))
                saved.save(state, traces)
                progress(int(state.step), traces)
                distributed.raise_if_preempted()
    return jax.tree.map(fetch, state.variables['average'])
