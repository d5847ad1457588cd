"""Pivotal tuning: moves the generator until the pivots reproduce their photographs (PTI 3.2, 3.3).

    (2, 3)  L_pt = mean over identities of LPIPS(x, G(w_p; theta)) + lambda_L2 L2(x, G(w_p; theta))
    (5, 6)  L_R = mean over samples of LPIPS(x_r, x_r*) + lambda_L2^R L2(x_r, x_r*)
    (7)     theta* = argmin L_pt + lambda_R L_R

with x_r = G(w_r; theta of the original) and x_r* = G(w_r; theta) at codes w_r around the pivots
(equation 4, losses.locality_codes). Two forms:
  shared      one generator for all, equation 3: params {..}
  one each    equation 2 for every identity at once, vmapped: params {.. [b, ...]}

With one each, every identity counts its own steps from args['examples']['start_step'], and so does
its optimiser: its numbers do not depend on when, or with which others, it is tuned
(optimize/continuous_batching.py). With settings.pivot_learning_rate the variables are not the
params alone (moving_pivots.py).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import latents, optimize
from jaxinv.inversion import losses, moving_pivots
from jaxinv.networks import lpips
from jaxinv.optimize.sharding import shard_indices
from jaxinv.pixels import to_float
from jaxinv.settings import Locality, Tuning
from jaxinv.types import Generator


class Tuner(NamedTuple):
    """The compiled tuning and how its state and arguments are made."""

    settings: Tuning
    loop: optimize.Loop
    prepare: Callable  # (weights, lpips_weights, targets, pivots, ids, w_avg) -> (state, args)
    members: list  # [num_shards] of the identities that each shard holds
    weights: Callable  # (weights before, variables) -> weights after
    pivots: Callable  # (pivots before, variables) -> pivots after
    # (targets, pivots, ids, shard, microbatch) -> {'examples': ...}, for Sharding.host_batches;
    # None = all examples are among the args. Targets: anything that is indexed by row numbers.
    examples: Callable | None


@functools.lru_cache(maxsize=8)
def make_tuner(
    generator: Generator,
    settings: Tuning,
    num_identities: int,
    draw: Callable = latents.identity_normals,
    num_shards: int = 1,
) -> Tuner:
    """The compiled tuning for a generator and settings, shared by all images.

    draw(key, ids, step, shape) -> [b, *shape]: the regulariser's z.
    num_shards: microbatches that are computed side by side, one on each device, each of
      `microbatch` identities; their gradients are summed, so the batch and the numbers are the
      same. `prepare` makes the state and arguments of one shard from the targets, pivots and ids of
      its `members`.
    """
    s = settings
    s.check()
    terms = functools.partial(_terms, generator, s, draw)
    moving = s.pivot_learning_rate > 0
    optimizer = moving_pivots.make_optimizer(s) if moving else optax.adam(s.learning_rate)
    if not s.shared:
        optimizer = optimize.vmap_optimizer(optimizer)
    stopping = None
    if s.stop_lpips is not None:
        stopping = optimize.StoppingRule(f'lpips_{s.lpips_net}', s.stop_lpips, not s.shared)
    layout = _layout(num_identities, s.batch_size, s.microbatch, num_shards)

    each = [_shard(layout, num_identities, num_shards, i) for i in range(num_shards)]
    fed = s.shared and 0 < s.resident < max(len(own.members) for own in each)

    if s.shared:
        axes = optimize.BatchAxes(variables=False, args={'examples': 0 if fed else 1})

        def gradient(variables, args, step, microbatch, key):
            """Of one microbatch."""
            if fed:
                dtype = generator.spec.compute_dtype
                examples = _with_features(dtype, args['lpips'], args['examples'])
            else:
                examples = jax.tree.map(lambda x: x[microbatch], args['examples'])

            def objective(variables):
                params, own = variables, examples
                if moving:
                    params, own = moving_pivots.split(variables, examples, generator.spec)
                metrics = terms(params, args, own, step, key, _is_due(s.locality, step))
                return jnp.sum(examples['weight'] * metrics['loss']), metrics

            return *jax.grad(objective, has_aux=True)(variables), examples['example_index']

        def apply(gradients, variables, opt_state, args, step):
            del args
            if moving:
                changes, opt_state = moving_pivots.update(s, gradients, opt_state, step)
            else:
                changes, opt_state = optimizer.update(gradients, opt_state, variables)
            return optax.apply_updates(variables, changes), opt_state

        update = optimize.Update(gradient, apply)
    else:
        axes = optimize.BatchAxes(variables=True, args={'examples': 0})

        def objective(variables, args, step, key):
            steps = step - args['examples']['start_step']
            # Under vmap a condition per identity would compute both of its branches.
            any_due = jnp.any(_is_due(s.locality, steps))

            def alone(params, example, step):
                one = jax.tree.map(lambda x: x[None], example)
                if moving:
                    params, one = moving_pivots.split(params, one, generator.spec)
                found = terms(params, args, one, step, key, any_due)
                return jax.tree.map(lambda x: x[0], found)

            if len(steps) == 1:  # a batch of kernels is slower to compile, and libtpu may crash
                first = jax.tree.map(lambda x: x[0], (variables, args['examples'], steps))
                metrics = jax.tree.map(lambda x: x[None], alone(*first))
            else:
                metrics = jax.vmap(alone)(variables, args['examples'], steps)
            return metrics['loss'].sum(), metrics  # Adam is elementwise: identities stay apart

        update = optimize.gradient_update(objective, optimizer)

    loop = optimize.make_loop(
        update,
        optimizer,
        s.metrics,
        axes=axes,
        microbatches=len(layout.index) if s.shared else 1,
        accumulate_steps=layout.accumulate_steps if s.shared else 1,
        chunk_steps=s.chunk_steps,
        stopping=stopping,
    )
    with_features = jax.jit(functools.partial(_with_features, generator.spec.compute_dtype))
    members = (
        [own.members for own in each] if s.shared else shard_indices(num_identities, num_shards)
    )

    def prepare(weights, lpips_weights, targets, pivots, ids, w_avg, shard=0, every_pivot=None):
        """Start state and arguments for targets [b, h, w, 3] and pivots [b, k, w_dim].

        every_pivot [num_identities, k, w_dim]: with one generator for all and several shards, the
        pivots of all; None = `pivots`.
        """
        params = variables = weights['params']
        if moving and s.shared:
            variables = {
                'params': params,
                'pivots': jnp.asarray(pivots if every_pivot is None else every_pivot),
            }
        args = {
            'frozen': params,
            'buffers': weights['buffers'],
            'lpips': lpips_weights,
            'w_avg': w_avg,
        }
        if fed:
            return loop.init(variables, num_identities), args
        examples = {'pivots': pivots, 'targets': _float(targets), 'ids': ids}
        examples = with_features(lpips_weights, jax.tree.map(jnp.asarray, examples))  # once
        if s.shared:
            own = each[shard]
            args['examples'] = jax.tree.map(lambda x: x[own.index], examples)
            args['examples'] |= {'weight': own.weight, 'example_index': own.example_index}
            return loop.init(variables, num_identities), args
        args['examples'] = examples | {'start_step': jnp.zeros(len(targets), jnp.int32)}
        variables = jax.tree.map(lambda x: jnp.tile(x, (len(targets),) + (1,) * x.ndim), params)
        if moving:
            variables = {'params': variables, 'pivots': examples['pivots']}
        return loop.init(variables, len(targets)), args

    def tuned(weights, variables):
        params = variables['params'] if moving else variables
        return {'params': params, 'buffers': weights['buffers']}

    def moved(pivots, variables):
        return variables['pivots'] if moving else pivots

    def examples(targets, pivots, ids, shard, microbatch):
        own = each[shard]
        which = own.members[own.index[microbatch]]
        found = {'targets': targets[which], 'pivots': np.asarray(pivots)[which], 'ids': ids[which]}
        return {
            'examples': found
            | {'weight': own.weight[microbatch], 'example_index': own.example_index[microbatch]}
        }

    return Tuner(s, loop, prepare, members, tuned, moved, examples if fed else None)


def _float(targets):
    return to_float(targets) if targets.dtype == np.uint8 else targets


def _with_features(dtype, lpips_weights, examples):
    targets = _float(examples['targets'])
    features = lpips.features(lpips_weights, targets, dtype)
    return examples | {'targets': targets, 'target_features': features}


def _is_due(s: Locality, step):
    """Whether the regulariser counts in this step."""
    return step % s.interval == 0


def _terms(
    generator, s: Tuning, draw, params, args, examples, step, key, any_due
) -> dict[str, Any]:
    """The objective of each example, {name: [b]}, at generator parameters `params`.

    any_due: whether the regulariser counts in this step for these or other examples.
    """
    weights = {'params': params, 'buffers': args['buffers']}
    pivots, b = examples['pivots'], len(examples['pivots'])
    fixed = examples  # what the regulariser takes as constants, with the pivots
    if s.pivot_learning_rate:
        fixed = examples | {'pivots': jax.lax.stop_gradient(pivots)}
    codes = functools.partial(codes_around, generator, s.locality, draw, weights, args, fixed)
    drift = functools.partial(_drift, generator, s.locality, weights, args, b)
    every_step = s.locality.weight and s.locality.interval == 1
    if every_step and s.locality.noise == 'const':
        # With the same noise one pass makes both, and goes over kernels and their gradients once.
        around = codes(step, key)
        images, _ = generator.synthesize(weights, jnp.concatenate([pivots, around]))
        images, tuned = images[:b], images[b:]
    else:
        around = tuned = None
        images, _ = generator.synthesize(weights, pivots)
    l2 = losses.l2(images, examples['targets'])
    features = lpips.features(args['lpips'], images, generator.spec.compute_dtype)
    distance = lpips.distance(features, examples['target_features'])
    loss = s.l2_weight * l2 + s.lpips_weight * distance
    locality = jnp.zeros_like(l2)
    if tuned is not None:
        locality = drift(around, tuned)
    elif every_step:
        locality = drift(codes(step, key))
    elif s.locality.weight:
        due = _is_due(s.locality, step)
        locality = jax.lax.cond(
            any_due,
            lambda: jnp.where(due, drift(codes(step, key)), 0.0),
            lambda: jnp.zeros_like(l2),
        )
    if s.locality.weight:
        loss = loss + s.locality.weight * locality
    return {'loss': loss, 'l2': l2, f'lpips_{s.lpips_net}': distance, 'locality': locality}


def codes_around(generator, s: Locality, draw, weights, args, examples, step, key):
    """Codes around the pivots, [b * num_samples, k, w_dim] (equation 4)."""
    spec = generator.spec
    z = draw(key, examples['ids'], step, (s.num_samples, spec.z_dim))
    z = latents.truncated_normal(z, spec.z_truncation)
    w = generator.map(weights, z.reshape(-1, spec.z_dim))
    w = latents.truncate(w, args['w_avg'], s.truncation_psi).reshape(*z.shape[:2], spec.w_dim)
    if spec.moving_dims is not None:  # other codes of the pivot's own class
        w = latents.with_class(w, examples['pivots'][:, :1, spec.moving_dims :])
    return losses.locality_codes(examples['pivots'], w, s.alpha, s.norm, spec.num_ws)


def _drift(generator, s: Locality, weights, args, b, codes, tuned=None):
    """L_R of equation 6 around each pivot, [b]; 0 where the weights are still the original ones.

    tuned: the images of `codes` at the present weights, if they were rendered already.
    """
    frozen = {'params': args['frozen'], 'buffers': weights['buffers']}
    original, _ = generator.synthesize(frozen, codes, noise=s.noise)
    # A target, not a variable: nothing is differentiated through the original generator.
    original = jax.lax.stop_gradient(original)
    if tuned is None:
        tuned, _ = generator.synthesize(weights, codes, noise=s.noise)
    dtype = generator.spec.compute_dtype
    distance = lpips.distance(
        *(lpips.features(args['lpips'], images, dtype) for images in (tuned, original))
    )
    drift = distance + s.l2_weight * losses.l2(tuned, original)
    return drift.reshape(b, s.num_samples).mean(axis=1)


class _Layout(NamedTuple):
    """Identities as [microbatches, num_shards * microbatch] in arrays of that shape."""

    index: np.ndarray  # which identity
    weight: np.ndarray  # 1 / identities in the batch; 0 = padding
    example_index: np.ndarray  # the identity again, or one past the last for padding
    accumulate_steps: int  # microbatches of an Adam step


def _layout(n: int, batch_size: int, microbatch: int, num_shards: int) -> _Layout:
    batch_size = min(batch_size or n, n)
    own = -(-batch_size // num_shards)  # of a batch, in a shard
    microbatch = min(microbatch or own, own)
    microbatches = -(-own // microbatch)
    starts = range(0, n, batch_size)
    index = np.zeros((len(starts), num_shards, microbatches * microbatch), np.int32)
    weight = np.zeros(index.shape, np.float32)
    example_index = np.full(index.shape, n, np.int32)
    for row, start in enumerate(starts):
        batch = np.arange(start, min(start + batch_size, n))
        for shard in range(num_shards):
            members = batch[shard * own : (shard + 1) * own]
            index[row, shard, : len(members)] = example_index[row, shard, : len(members)] = members
            weight[row, shard, : len(members)] = 1 / len(batch)  # the mean over the batch

    def arrange(x):
        x = x.reshape(len(starts), num_shards, microbatches, microbatch).swapaxes(1, 2)
        return x.reshape(len(starts) * microbatches, num_shards * microbatch)

    return _Layout(arrange(index), arrange(weight), arrange(example_index), microbatches)


class _Shard(NamedTuple):
    """One shard of a layout: arrays [microbatches, microbatch]."""

    members: np.ndarray  # the identities, each once
    index: np.ndarray  # which of the members
    weight: np.ndarray
    example_index: np.ndarray


def _shard(layout: _Layout, n: int, num_shards: int, shard: int) -> _Shard:
    columns = np.split(np.arange(layout.index.shape[1]), num_shards)[shard]
    index, weight, example_index = (x[:, columns] for x in layout[:3])
    members = np.arange(n) if num_shards == 1 else np.unique(index)
    return _Shard(members, np.searchsorted(members, index).astype(np.int32), weight, example_index)
