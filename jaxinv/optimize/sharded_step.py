"""A step on a mesh: which part of everything a device has, and what devices tell each other.

A step runs as it does on one device, on the share of rows that the device has (jax.shard_map), so
that no partitioner decides what to send. Between devices go, in shared tuning alone,

  fsdp   all-gather of the parameters that move, reduce-scatter of their gradients
  data   all-reduce of their gradients, once an Adam step; and of a few numbers an identity

and nothing in projection, SAM and tuning with a generator each, whose rows share nothing (but a
stopping rule sends a bool: whether anybody is left).
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
    """Which leaves have an axis of examples, so that devices can share them out.

    variables: every leaf of the variables and of the optimiser's moments leads with the examples,
    which share nothing. Otherwise all examples move the same variables, the gradient is the sum
    over them, and the metrics come with their `example_index`.
    """

    variables: bool
    args: dict[str, int]  # {name: axis} of those args, all leaves below; the others have none


# --- Which part ---


def row_spec(axis: int) -> P:
    """Examples along `axis`, divided over all devices."""
    return P(*[None] * axis, AXES)


def row_axis(spec: P) -> int | None:
    """The axis of examples, None if there is none."""
    return next((i for i, names in enumerate(spec) if names == AXES), None)


def weight_spec(x, mesh: Mesh) -> P:
    """A parameter that moves, or a moment of it: divided over fsdp where that is possible."""
    axis = weight_axis(x, mesh)
    return P() if axis < 0 else P(*[None] * axis, FSDP)


def weight_axis(x, mesh: Mesh) -> int:
    """The largest axis that the devices along fsdp divide, the last of equals; -1 = none."""
    count = mesh.shape[FSDP]
    fitting = [i for i, size in enumerate(x.shape) if count > 1 and size and size % count == 0]
    return max(fitting, key=lambda i: (x.shape[i], i), default=-1)


def specs(mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, state, args):
    """(state, args) of a loop as PartitionSpecs."""
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
    """The carry of a chunk as PartitionSpecs."""
    state, _ = specs(mesh, axes, optimizer, carry.state, {})
    trace = row_spec(1) if axes.variables else P()
    # A sum so far is each device's own along data, which makes it an axis of its own.
    total = None
    if carry.total is not None:
        total = jax.tree.map(lambda spec: P(DATA, *spec), state.variables)
    return type(carry)(state, P(), dict.fromkeys(carry.traces, trace), trace, total)


# --- The step ---


def microbatch_on(
    mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, one_microbatch: Callable
):
    """`one_microbatch` of every device's rows: (carry, args, key, microbatch) -> carry."""

    def on_mesh(carry, args, key, microbatch):
        _, args_specs = specs(mesh, axes, optimizer, carry.state, args)
        own_specs = carry_specs(mesh, axes, optimizer, carry)
        collectives = None
        if not axes.variables:
            axis = functools.partial(weight_axis, mesh=mesh)
            collectives = Collectives(mesh, jax.tree.map(axis, carry.state.variables))

        def local(carry, args, key, microbatch):
            carry = carry._replace(total=jax.tree.map(lambda x: x[0], carry.total))
            carry = one_microbatch(carry, args, key, microbatch, collectives)
            return carry._replace(total=jax.tree.map(lambda x: x[None], carry.total))

        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(own_specs, args_specs, P(), P()),
            out_specs=own_specs,
            check_vma=False,
        )(carry, args, key, microbatch)

    return on_mesh


def init_carry_on(
    mesh: Mesh, axes: BatchAxes, optimizer: optax.GradientTransformation, begin: Callable
):
    """`begin` in place: (state) -> carry."""

    @jax.jit
    def beginning(state):
        """All but the state, which would be copied."""
        carry = begin(state)
        count = mesh.shape[DATA]
        total = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), carry.total)
        own_specs = carry_specs(mesh, axes, optimizer, carry)
        shardings = jax.tree.map(
            lambda spec: NamedSharding(mesh, spec), own_specs._replace(state=None)
        )
        carry = carry._replace(state=None, total=total)
        return jax.lax.with_sharding_constraint(carry, shardings)

    return lambda state: beginning(state)._replace(state=state)


class Collectives(NamedTuple):
    """Shared variables on a mesh; functions to be called within shard_map."""

    mesh: Mesh
    axes: Any  # like the variables: the axis divided over fsdp, -1 = none

    def all_gather_params(self, variables):
        """The device's part of the variables -> all of them."""

        def one(x, axis):
            return x if axis < 0 else jax.lax.all_gather(x, FSDP, axis=axis, tiled=True)

        return jax.tree.map(one, variables, self.axes)

    def reduce_scatter_grads(self, gradients):
        """Gradients of the device's rows -> the device's part of their sum along fsdp."""

        def one(x, axis):
            if axis < 0:
                return jax.lax.psum(x, FSDP)
            return jax.lax.psum_scatter(x, FSDP, scatter_dimension=axis, tiled=True)

        return gradients if self.mesh.shape[FSDP] == 1 else jax.tree.map(one, gradients, self.axes)

    def psum_grads(self, gradients):
        """Their sum along data."""
        return gradients if self.mesh.shape[DATA] == 1 else jax.lax.psum(gradients, DATA)

    def gather_metrics(self, metrics: dict, example_index, count: int) -> dict:
        """{name: [m]} of the device's rows -> {name: [count]} of all, 0 where no row belongs."""
        stacked = jnp.stack(list(metrics.values()))
        wide = jnp.zeros((len(metrics), count), stacked.dtype)
        wide = jax.lax.psum(wide.at[:, example_index].set(stacked, mode='drop'), AXES)
        return dict(zip(metrics, wide, strict=True))


def fetch(x) -> np.ndarray:
    """An array on the host, whole, also when other processes hold parts of it: call it on all."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)
