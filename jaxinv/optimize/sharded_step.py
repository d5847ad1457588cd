"""PartitionSpecs and collectives of one step on a mesh.

Each device runs the same step as a single device would, on its shard of the examples
(jax.shard_map), so that the collectives are those written here and not a partitioner's choice. Only
methods whose examples share variables (shared tuning) communicate:

  fsdp   all-gather of the variables, reduce-scatter of their gradients
  data   all-reduce of the gradients, once per batch; all-reduce of the metrics

Projection, SAM and tuning with one generator per identity send nothing, except for one bool per
step if there is a stopping rule: any example is still active.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA, FSDP = AXES = ('data', 'fsdp')


class BatchAxes(NamedTuple):
    """Which leaves have a batch axis, along which they are sharded.

    variables: True if every leaf of the variables and of the optimiser's moments leads with the
    batch axis; the examples are then independent. False if all examples share the variables; the
    gradient is then a sum over examples, and `gradient` returns the example_index of its metrics.
    """

    variables: bool
    args: dict[str, int]  # {name of an arg: batch axis of all its leaves}; other args have none


# --- PartitionSpecs ---


def row_spec(axis: int) -> P:
    """Examples along `axis`, sharded over all devices."""
    return P(*[None] * axis, AXES)


def row_axis(spec: P) -> int | None:
    """The batch axis of a spec, None if there is none."""
    return next((i for i, names in enumerate(spec) if names == AXES), None)


def weight_spec(x, mesh: Mesh) -> P:
    """Spec of a shared variable or of a moment of it: sharded over fsdp if an axis is divisible."""
    axis = weight_axis(x, mesh)
    return P() if axis < 0 else P(*[None] * axis, FSDP)


def weight_axis(x, mesh: Mesh) -> int:
    """The largest axis divisible by the size of fsdp, the last of equal ones; -1 = none."""
    count = mesh.shape[FSDP]
    fitting = [i for i, size in enumerate(x.shape) if count > 1 and size and size % count == 0]
    return max(fitting, key=lambda i: (x.shape[i], i), default=-1)


def specs(mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, state, args):
    """PartitionSpecs of a loop's (state, args)."""
    if axes.variables:
        example, moving = row_spec(0), lambda x: row_spec(0) if x.ndim else P()
        moments = jax.tree.map(moving, state.opt_state)
    else:
        example, moving = P(), functools.partial(weight_spec, mesh=mesh)
        moments = optax.tree_utils.tree_map_params(
            optimizer, moving, state.opt_state, transform_non_params=lambda x: P()
        )
    variables = jax.tree.map(moving, state.variables)
    arg_axes = {name: axes.args.get(name, -1) for name in args}
    args = {
        name: jax.tree.map(lambda x, axis=arg_axes[name]: P() if axis < 0 else row_spec(axis), x)
        for name, x in args.items()
    }
    fields = {'step': P(), 'done': example, 'variables': variables, 'opt_state': moments}
    return type(state)(**fields), args


def carry_specs(mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, carry):
    """PartitionSpecs of a step.Carry."""
    state, _ = specs(mesh, axes, optimizer, carry.state, {})
    trace = row_spec(1) if axes.variables else P()
    grad_sum = None
    if carry.grad_sum is not None:
        # Devices along data have different sums until the batch ends: a leading axis holds them.
        grad_sum = jax.tree.map(lambda spec: P(DATA, *spec), state.variables)
    return type(carry)(state, P(), dict.fromkeys(carry.traces, trace), trace, grad_sum)


# --- The step ---


def shard_step(
    mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, step: Callable
) -> Callable:
    """step(carry, args, key, microbatch, collectives=) -> carry, on the shards of a mesh."""

    def on_mesh(carry, args, key, microbatch):
        _, args_specs = specs(mesh, axes, optimizer, carry.state, args)
        own_specs = carry_specs(mesh, axes, optimizer, carry)
        collectives = None
        if not axes.variables:
            axis = functools.partial(weight_axis, mesh=mesh)
            collectives = Collectives(mesh, jax.tree.map(axis, carry.state.variables))

        def local(carry, args, key, microbatch):
            carry = carry._replace(grad_sum=jax.tree.map(lambda x: x[0], carry.grad_sum))
            carry = step(carry, args, key, microbatch, collectives=collectives)
            return carry._replace(grad_sum=jax.tree.map(lambda x: x[None], carry.grad_sum))

        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(own_specs, args_specs, P(), P()),
            out_specs=own_specs,
            check_vma=False,
        )(carry, args, key, microbatch)

    return on_mesh


def shard_init_carry(
    mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, init_carry: Callable
) -> Callable:
    """init_carry(state) -> carry, with the carry's arrays sharded over the mesh."""

    @jax.jit
    def without_state(state):
        carry = init_carry(state)
        count = mesh.shape[DATA]
        grad_sum = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), carry.grad_sum)
        own_specs = carry_specs(mesh, axes, optimizer, carry)
        shardings = jax.tree.map(
            lambda spec: NamedSharding(mesh, spec), own_specs._replace(state=None)
        )
        carry = carry._replace(state=None, grad_sum=grad_sum)
        return jax.lax.with_sharding_constraint(carry, shardings)

    # The state is not an output of the jitted function, which would copy it.
    return lambda state: without_state(state)._replace(state=state)


class Collectives(NamedTuple):
    """Collectives for variables that all examples share; called within jax.shard_map."""

    mesh: Mesh
    axes: Any  # like the variables: the axis sharded over fsdp, -1 = none

    def all_gather_params(self, variables):
        """The device's shards of the variables -> whole variables."""

        def gather(x, axis):
            return x if axis < 0 else jax.lax.all_gather(x, FSDP, axis=axis, tiled=True)

        return jax.tree.map(gather, variables, self.axes)

    def reduce_scatter_grads(self, gradients):
        """Gradients of the device's examples -> the device's shards of the sums along fsdp."""

        def reduce(x, axis):
            if axis < 0:
                return jax.lax.psum(x, FSDP)
            return jax.lax.psum_scatter(x, FSDP, scatter_dimension=axis, tiled=True)

        if self.mesh.shape[FSDP] == 1:
            return gradients
        return jax.tree.map(reduce, gradients, self.axes)

    def psum_grads(self, gradients):
        """Sums along data."""
        return gradients if self.mesh.shape[DATA] == 1 else jax.lax.psum(gradients, DATA)

    def gather_metrics(self, metrics: dict, example_index, count: int) -> dict:
        """{name: [m]} of the device's examples -> {name: [count]} of all; 0 for absent ones."""
        stacked = jnp.stack(list(metrics.values()))
        wide = jnp.zeros((len(metrics), count), stacked.dtype)
        wide = jax.lax.psum(wide.at[:, example_index].set(stacked, mode='drop'), AXES)
        return dict(zip(metrics, wide, strict=True))


def fetch(x) -> np.ndarray:
    """A whole array on the host. Collective if other processes hold shards of it."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)
