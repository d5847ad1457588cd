"""Pivotal tuning as a plain function (PTI 3.2 and 3.3); the objective is in pti.py."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import latents
from jaxinv.errors import JaxinvError
from jaxinv.inversion import inputs, notebook, pti
from jaxinv.inversion.project import Pivots
from jaxinv.optimize.continuous_batching import Finished
from jaxinv.optimize.runner import LoopTask, Runner
from jaxinv.settings import Tuning, changed
from jaxinv.types import Generator, Weights

MANY = 8  # generators on a device; from here on `slots` is recommended


class Tuned(NamedTuple):
    """The result of tuning."""

    # Of the one generator; with shared=False a list [n]. None if on_finished received them.
    weights: Any
    history: dict[str, np.ndarray]  # {'loss': [steps, n], 'l2': ..., 'lpips_alex': ..., ...}
    # [n, 1 or num_ws, w_dim], which the weights render: those given, or with pivot_learning_rate
    # where they have moved. None if on_finished received them.
    pivots: np.ndarray | None = None

    def _repr_html_(self) -> str:
        call = 'jaxinv.show(targets, jaxinv.render(generator, tuned.weights, tuned.pivots))'
        return notebook.table('Tuned', (), self.history, call)


def tune(
    generator: Generator,
    weights: Weights,
    targets: Any,
    pivots: Any,
    *,
    settings: Tuning | None = None,
    seed: int = 0,
    statistics: latents.WStatistics | None = None,
    lpips: Any = 'auto',
    mesh: str = '',
    verbose: bool = True,
    callback: Callable | None = None,
    runner: Runner | None = None,
    on_finished: Callable[[int, Weights | None, Finished], None] | None = None,
    min_slots: int = 0,
    **changes,
) -> Tuned:
    """Tunes the generator until the pivots reproduce their targets.

    One generator for all targets (equation 3, shared=True, the default), or one for each (equation
    2, shared=False, tuned side by side).

    pivots: what `project` returned, or codes [n, 1 or num_ws, w_dim].
    settings: the paper's where None; **changes: fields of settings.Tuning, as num_steps=80,
      shared=False, locality={'weight': 0}.
    on_finished(i, weights, finished), with shared=False: receives each generator when it is
      finished, so that memory holds `slots` of them; weights is None if its numbers became
      infinite (finished.error). `pivot_of` has its pivot. None = they are returned, and such an
      error is raised.
    min_slots: rows of the program at least, `slots` at most, so that calls with fewer targets do
      not compile anew; 0 = as many as there are targets.
    targets, statistics, lpips, mesh, verbose, callback, runner: as in `project`.

    The weights returned share the buffers (mapping network, noise) of `weights`. Raises JaxinvError
    for settings, targets or pivots that do not fit, and NotFinite.
    """
    s = changed(settings or Tuning(), **changes)
    spec = generator.spec
    examples = inputs.examples_of(targets, spec)
    n = len(examples.names)
    w = np.asarray(pivots.w if isinstance(pivots, Pivots) else pivots)
    if w.shape not in ((n, 1, spec.w_dim), (n, spec.num_ws, spec.w_dim)):
        raise JaxinvError(
            f'pivots are {list(w.shape)}; {n} targets and {spec.name} take [{n}, 1 or '
            f'{spec.num_ws}, {spec.w_dim}].'
        )
    if s.num_steps == 0:
        return Tuned(weights if s.shared else [weights] * n, {}, w)
    runner = runner or inputs.make_runner(examples.names, mesh, verbose, callback)
    if runner.folder is not None and not s.shared and on_finished is None:
        raise JaxinvError(
            'on_finished is missing: a run with a folder resumes, and then returns only the '
            'generators that were not finished before; save each where on_finished receives it.'
        )
    net = inputs.lpips_weights(lpips, (s.lpips_net,))[s.lpips_net]
    if statistics is None:
        statistics = latents.w_statistics(generator, weights)
    slots = 0 if s.shared else min(s.slots or max(n, min_slots), max(n, min_slots))
    shards = runner.sharding.num_shards
    tuner = pti.make_tuner(generator, s, slots or n, num_shards=shards)
    if slots and not s.slots:
        _recommend_slots(-(-slots // shards), weights['params'], runner.log)
    images, ids = examples.images_uint8, examples.ids
    from_host = tuner.examples is not None  # then prepare is not given the targets

    def prepare(which, shard):
        own = images if from_host else images[which]
        return tuner.prepare(weights, net, own, w[which], ids[which], statistics.mean, shard, w)

    def result(variables):
        return tuner.weights(weights, variables), np.asarray(tuner.pivots(w, variables))

    task = LoopTask(
        tuner.loop,
        prepare,
        latents.stream(seed, 'tune'),
        s.num_steps,
        s.metrics,
        result,
        members=tuner.members if s.shared else None,
        host_batches=functools.partial(tuner.examples, images, w, ids) if from_host else None,
    )
    if s.shared:
        (tuned, moved), history = runner.run('tune', lambda rows: task)
        return Tuned(tuned, history, moved)
    kept, moved = [None] * n, np.array(w)

    def finish(example: Finished) -> None:
        own = None if example.error else tuner.weights(weights, example.variables)
        if on_finished is not None:
            on_finished(example.identity, own, example)
        elif example.error is not None:
            raise example.error
        else:
            kept[example.identity] = jax.tree.map(np.asarray, own)
            moved[example.identity] = pivot_of(s, example, w[example.identity])

    _, history = runner.run('tune', lambda rows: task, slots=slots, on_finished=finish)
    return Tuned(None, history) if on_finished else Tuned(kept, history, moved)


def pivot_of(settings: Tuning, finished: Finished, before) -> np.ndarray:
    """The pivot [k, w_dim] that the weights of a finished identity render.

    before: the one given to `tune`, which it still is without pivot_learning_rate.
    """
    moved = settings.pivot_learning_rate > 0
    return np.asarray(finished.variables['pivots'] if moved else before)


def _recommend_slots(count: int, params, log) -> None:
    """A sentence where so many generators with these parameters are many for a device."""
    if count <= MANY:
        return
    # Parameters and Adam's two moments.
    size = 3 * count * sum(x.nbytes for x in jax.tree.leaves(params)) / 1e9
    log(
        f'{count} generators on a device take {size:.1f} GB with their moments, feature maps not '
        'counted; --config.tune.slots=S tunes S at a time, in the memory of S.'
    )
