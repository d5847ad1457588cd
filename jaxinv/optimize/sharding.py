"""Where things lie on several devices, decided once; the methods do not know that devices exist.

A mesh has two axes. The rows of a batch (identities, pictures, candidates) are divided over both of
them: a device of either axis does its own shard of the work. What axes differ in is the generator
that shared tuning moves and its optimiser's moments: on every device along `data`, divided along
their largest divisible axis over `fsdp`. All else (frozen weights, LPIPS) is on every device.

Numbers of rows that the devices do not divide are filled up with repeated rows, which are done from
the start, weigh nothing and are cut off at the end.
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
    """A mesh with the axes `data` and `fsdp`, or None: everything on the default device."""

    mesh: Mesh | None = None

    @property
    def num_shards(self) -> int:
        """Parts that a batch's rows are divided into, one a device."""
        return 1 if self.mesh is None else self.mesh.size

    def __str__(self) -> str:
        if self.mesh is None:
            return '1 device'
        return (
            f'{self.num_shards} devices, data={self.mesh.shape[DATA]}, fsdp={self.mesh.shape[FSDP]}'
        )

    def start(self, loop, count: int, prepare: Callable, members=None):
        """The loop, its first state and its arguments, all in place.

        count: rows without padding. prepare(which, shard) -> (state, args) makes those of one
        shard: `which` is an index of rows, all of them on one device. members [num_shards]: the rows of
        each shard; None = as `shard_indices` divides them. Only a process's own num_shards are made, one after
        the other, so that no device ever holds all.
        """
        if self.mesh is None:
            return loop, *prepare(slice(None), 0)
        members = shard_indices(count, self.num_shards) if members is None else members
        rows, others = [], None
        for shard, device in self._own():
            state, args = prepare(members[shard], shard)
            if loop.axes.variables:
                first = shard * len(members[shard])
                padding = jnp.arange(first, first + len(members[shard])) >= count
                state = state._replace(done=padding)
            leaves, treedef = jax.tree.flatten((state, args))
            specs = sharded_step.specs(self.mesh, loop.axes, loop.optimizer, state, args)
            specs = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, P))
            axes = [sharded_step.row_axis(spec) for spec in specs]
            own = [
                None if axis is None else jax.device_put(x, device)
                for x, axis in zip(leaves, axes, strict=True)
            ]
            rows.append(own)
            if others is None:
                others = [
                    _put(x, NamedSharding(self.mesh, spec)) if axis is None else None
                    for x, spec, axis in zip(leaves, specs, axes, strict=True)
                ]
        placed = [
            x if axis is None else self._join([own[i] for own in rows], spec, axis)
            for i, (x, spec, axis) in enumerate(zip(others, specs, axes, strict=True))
        ]
        return loop.on(self.mesh), *jax.tree.unflatten(treedef, placed)

    def host_batches(self, examples: Callable) -> Callable:
        """What `optimize.run` takes as `host_batches`, in place.

        examples(shard, microbatch) -> {name: arrays on the host [rows, ...]} of one shard; those of a
        process's own num_shards are asked for, and nothing but them is sent to its devices.
        """
        if self.mesh is None:
            return lambda microbatch: jax.device_put(examples(0, microbatch))

        def of_microbatch(microbatch):
            own = [
                jax.device_put(examples(shard, microbatch), device) for shard, device in self._own()
            ]
            return jax.tree.map(lambda *rows: self._join(rows, sharded_step.row_spec(0), 0), *own)

        return of_microbatch

    def _own(self):
        """(shard, device) of this process."""
        devices = enumerate(self.mesh.devices.flat)
        return [(i, d) for i, d in devices if d.process_index == jax.process_index()]

    def _join(self, parts, spec, axis):
        shape = list(parts[0].shape)
        shape[axis] *= self.num_shards
        sharding = NamedSharding(self.mesh, spec)
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, parts)

    def replicate(self, x):
        """An array, or a key, on every device."""
        if self.mesh is None:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self.replicate(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return _put(x, NamedSharding(self.mesh, P()))

    def collect(self, loop, variables, count: int):
        """The variables without padding; those of rows that were on several devices on the host."""
        if self.mesh is None:
            return variables
        if loop.axes.variables:
            return jax.tree.map(lambda x: fetch(x)[:count], variables)
        return jax.tree.map(lambda x: jnp.asarray(fetch(x)), variables)


def make(text: str = '', devices=None) -> Sharding:
    """The placement that config.mesh asks for.

    text: '' = all devices of all processes along data; or 'D,F' or 'data=D,fsdp=F', where what is
    left out is 1. On one process fewer devices than there are will do. Raises JaxinvError.
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
    """In the order that suits the network between the devices."""
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
    """Row numbers of each shard, equally many: 0 ... in order, the last row repeated as padding."""
    each = -(-count // num_shards)
    return np.split(np.minimum(np.arange(each * num_shards), count - 1), num_shards)


def _put(x, sharding: NamedSharding):
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    # device_put would send the whole array around to compare it between the processes.
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
