"""Builds the mesh and places a loop's state and arguments on it; the methods are per device.

A mesh has two axes. The examples of a batch (identities, pictures, candidates) are sharded over
both. Variables that all examples share (the generator of shared tuning, with its optimiser's
moments) are replicated along `data` and sharded along their largest divisible axis over `fsdp`.
Everything else (frozen weights, LPIPS) is replicated.

If the number of devices does not divide the number of examples, the last one is repeated as
padding. Padding is done from the start, has weight 0 and is cut off at the end.
"""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxinv.errors import JaxinvError
from jaxinv.optimize import sharded_step
from jaxinv.optimize.sharded_step import AXES, DATA, FSDP, fetch


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh with the axes `data` and `fsdp`; None = the default device alone."""

    mesh: Mesh | None = None

    @property
    def num_shards(self) -> int:
        """Number of devices, each with a shard of the examples."""
        return 1 if self.mesh is None else self.mesh.size

    def __str__(self) -> str:
        if self.mesh is None:
            return '1 device'
        return (
            f'{self.num_shards} devices, data={self.mesh.shape[DATA]}, fsdp={self.mesh.shape[FSDP]}'
        )

    def start(self, loop, count: int, prepare: Callable, members=None):
        """(loop, state, args): the loop for this mesh, its first state and its arguments, sharded.

        count: examples without padding. prepare(which, shard) -> (state, args) makes those of one
        shard; `which` indexes examples. members [num_shards]: indices of the examples of each
        shard; None = shard_indices(count, num_shards). Each process prepares its own shards, one
        after the other, so that no device ever holds all examples.
        """
        if self.mesh is None:
            return loop, *prepare(slice(None), 0)
        members = shard_indices(count, self.num_shards) if members is None else members
        shards, unsharded = [], None
        for shard, device in self._local_shards():
            state, args = prepare(members[shard], shard)
            if loop.axes.variables:
                first = shard * len(members[shard])
                padding = jnp.arange(first, first + len(members[shard])) >= count
                state = state._replace(done=padding)
            leaves, structure = jax.tree.flatten((state, args))
            specs = sharded_step.specs(self.mesh, loop.axes, loop.optimizer, state, args)
            specs = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, P))
            axes = [sharded_step.row_axis(spec) for spec in specs]
            shards.append(
                [
                    None if axis is None else jax.device_put(x, device)
                    for x, axis in zip(leaves, axes, strict=True)
                ]
            )
            if unsharded is None:  # without a batch axis: the same in every shard
                unsharded = [
                    _put(x, NamedSharding(self.mesh, spec)) if axis is None else None
                    for x, spec, axis in zip(leaves, specs, axes, strict=True)
                ]
        placed = [
            x if axis is None else self._join([own[i] for own in shards], spec, axis)
            for i, (x, spec, axis) in enumerate(zip(unsharded, specs, axes, strict=True))
        ]
        return loop.on(self.mesh), *jax.tree.unflatten(structure, placed)

    def host_batches(self, examples: Callable) -> Callable:
        """Makes host_batches(microbatch) -> sharded args, for `optimize.run`.

        examples(shard, microbatch) -> {name: arrays on the host [m, ...]} of one shard. Each
        process calls it for its own shards only.
        """
        if self.mesh is None:
            return lambda microbatch: jax.device_put(examples(0, microbatch))

        spec = sharded_step.row_spec(0)

        def sharded(microbatch):
            shards = [
                jax.device_put(examples(shard, microbatch), device)
                for shard, device in self._local_shards()
            ]
            return jax.tree.map(lambda *arrays: self._join(arrays, spec, 0), *shards)

        return sharded

    def _local_shards(self):
        """(shard, device) pairs of this process."""
        devices = enumerate(self.mesh.devices.flat)
        return [(i, d) for i, d in devices if d.process_index == jax.process_index()]

    def _join(self, arrays, spec, axis):
        """The global array of this process's shards, which lie on their devices."""
        shape = list(arrays[0].shape)
        shape[axis] *= self.num_shards
        sharding = NamedSharding(self.mesh, spec)
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, list(arrays))

    def replicate(self, x):
        """An array or PRNG key, replicated on all devices."""
        if self.mesh is None:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self.replicate(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return _put(x, NamedSharding(self.mesh, P()))

    def collect(self, loop, variables, count: int):
        """The variables without padding; from a mesh, those with a batch axis are on the host."""
        if self.mesh is None:
            return variables
        if loop.axes.variables:
            return jax.tree.map(lambda x: fetch(x)[:count], variables)
        return jax.tree.map(lambda x: jnp.asarray(fetch(x)), variables)


def make(text: str = '', devices=None) -> Sharding:
    """The Sharding of a `mesh` setting.

    text: '' = all devices of all processes along data; or 'D,F' or 'data=D,fsdp=F', where an axis
    left out has size 1. A single process may use fewer devices than there are. Raises JaxinvError.
    """
    devices = jax.devices() if devices is None else devices
    sizes = _sizes(text) if text else (len(devices), 1)
    wanted, processes = sizes[0] * sizes[1], {d.process_index for d in devices}
    if wanted > len(devices) or (wanted < len(devices) and len(processes) > 1):
        raise JaxinvError(
            f'mesh {text!r} takes {wanted} device{"s" * (wanted != 1)} and there are '
            f'{len(devices)}; '
            + (
                'several processes must use all of them.'
                if wanted < len(devices)
                else 'ask for fewer, or leave mesh empty to use them all.'
            )
        )
    if wanted == 1:
        return Sharding()
    if wanted == len(devices):
        return Sharding(_mesh(sizes, tuple(devices)))
    return Sharding(Mesh(np.array(devices[:wanted]).reshape(sizes), AXES))


def _mesh(sizes, devices) -> Mesh:
    """jax.make_mesh orders the devices by the network between them."""
    auto = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(sizes, AXES, axis_types=auto, devices=devices)


def _sizes(text: str) -> tuple[int, int]:
    found = dict(zip(AXES, (1, 1), strict=True))
    words = text.replace(' ', '').split(',')
    named = [re.fullmatch(r'(data|fsdp)=([1-9]\d*)', word) for word in words]
    plain = [re.fullmatch(r'[1-9]\d*', word) for word in words]
    if all(named) and len({m[1] for m in named}) == len(words):
        found |= {m[1]: int(m[2]) for m in named}
    elif all(plain) and len(words) <= 2:
        found |= dict(zip(AXES, map(int, words), strict=False))
    else:
        raise JaxinvError(
            f"mesh is {text!r}; it can be empty, 'D,F' or 'data=D,fsdp=F' with numbers of devices."
        )
    return found[DATA], found[FSDP]


def shard_indices(count: int, num_shards: int) -> list[np.ndarray]:
    """Indices of each shard's examples, equally many, in order; the last is repeated as padding."""
    each = -(-count // num_shards)
    return np.split(np.minimum(np.arange(each * num_shards), count - 1), num_shards)


def _put(x, sharding: NamedSharding):
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    # device_put would send the whole array around to compare it between the processes.
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
