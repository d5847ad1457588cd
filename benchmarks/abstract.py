"""Tuning steps compiled from shapes: no array of a generator's size is allocated, nothing is run.

    compiled = abstract.tuning_step(generator, Tuning(num_steps=20), mesh, identities=8).compile()

The mesh may consist of virtual CPU devices, or of those of a topology that is not present
(jax.experimental.topologies); XLA compiles for both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxinv import generators, latents
from jaxinv.generators import biggan_deep, stylegan2
from jaxinv.inversion import project, pti, sam, sam_prior
from jaxinv.networks import lpips
from jaxinv.optimize import sharded_step
from jaxinv.settings import Locality, Projection, Search, Tuning

GENERATORS = {
    'config-f, 1024²': lambda: stylegan2.stylegan2(1024),
    'embedded, 512²': lambda: generators.make('mobile_stylegan_ffhq', 512),
}
ALL_GENERATORS = GENERATORS | {
    'BigGAN-deep, 256²': lambda: generators.with_label(biggan_deep.biggan_deep(256), 0),
}
OFF = Locality(weight=0.0)
METHODS = {
    'shared, regularised': dict(locality=Locality()),
    'shared': dict(locality=OFF),
    'one each': dict(shared=False, locality=OFF),
}


def settings(method: str, **others) -> Tuning:
    return Tuning(**dict(num_steps=10, microbatch=1) | METHODS[method] | others)


class Step(NamedTuple):
    """One microbatch of a step; the whole step if a device has one microbatch."""

    function: Callable  # (carry, args, key, microbatch) -> carry
    arguments: tuple  # of jax.ShapeDtypeStruct with shardings
    params: Any  # shapes of the optimised parameters
    microbatches: int  # of a step

    def compile(self, **options):
        return jax.jit(self.function, donate_argnums=0).lower(*self.arguments).compile(options)


def tuning_step(generator, settings: Tuning, mesh: Mesh, identities: int) -> Step:
    """The step of pivotal tuning's loop.

    mesh: with the axes data and fsdp; a mesh of one device gives the program without collectives.
    """
    spec, num_shards = generator.spec, mesh.size
    tuner = pti.make_tuner(generator, settings, identities, num_shards=num_shards)
    own = len(tuner.members[0])
    key = jax.eval_shape(jax.random.key, 0)
    picture = spec.resolution, spec.resolution, 3
    given = (
        jax.eval_shape(generator.init, key),
        {name: _shape(x) for name, x in lpips.shapes(settings.lpips_net).items()},
        _shape((own, *picture)),
        _shape((own, 1, spec.w_dim)),
        _shape((own,), np.uint32),
        _shape((spec.w_dim,)),
    )
    state, args = jax.eval_shape(tuner.prepare, *given)
    if tuner.examples is not None:
        targets = np.broadcast_to(np.uint8(0), (identities, *picture))
        pivots = np.zeros((identities, 1, spec.w_dim), np.float32)
        ids = np.zeros(identities, np.uint32)
        args |= jax.eval_shape(lambda: tuner.examples(targets, pivots, ids, 0, 0))
    microbatch = _shape((), np.int32) if tuner.loop.microbatches > 1 else None
    if num_shards == 1:
        sharding = SingleDeviceSharding(mesh.devices.item())
        arguments = jax.eval_shape(tuner.loop.init_carry, state), args, key, microbatch
        arguments = jax.tree.map(lambda x: _shape(x.shape, x.dtype, sharding), arguments)
        return Step(
            tuner.loop.microbatch_step,
            arguments,
            state.variables,
            tuner.loop.microbatches,
        )
    loop = tuner.loop.on(mesh)
    state_specs, args_specs = sharded_step.specs(mesh, loop.axes, loop.optimizer, state, args)
    state, args = (
        _with_specs(lambda x, spec: _shape(_whole(x, spec, num_shards), x.dtype), *pair)
        for pair in ((state, state_specs), (args, args_specs))
    )
    carry = jax.eval_shape(tuner.loop.init_carry, state)
    count = mesh.shape[sharded_step.DATA]
    grad_sum = jax.tree.map(lambda x: _shape((count, *x.shape), x.dtype), carry.grad_sum)
    carry = carry._replace(grad_sum=grad_sum)
    carry_specs = sharded_step.carry_specs(mesh, loop.axes, loop.optimizer, carry)
    arguments = _with_specs(
        lambda x, spec: _shape(x.shape, x.dtype, NamedSharding(mesh, spec)),
        (carry, args, key, microbatch),
        (carry_specs, args_specs, P(), None if microbatch is None else P()),
    )
    return Step(loop.microbatch_step, arguments, state.variables, loop.microbatches)


def step_of(method: str, generator, mesh: Mesh, identities: int, microbatch: int = 1) -> Step:
    """The step of a method of METHODS, of 'projection', or of 'SAM' (its joint search).

    The latter two on one device, for one picture.
    """
    if method in METHODS:
        chosen = settings(method, microbatch=microbatch)
        return tuning_step(generator, chosen, mesh, identities)
    spec, key = generator.spec, jax.eval_shape(jax.random.key, 0)
    weights = jax.eval_shape(generator.init, key)
    net = {name: _shape(x) for name, x in lpips.shapes('vgg').items()}
    picture, ids = _shape((1, spec.resolution, spec.resolution, 3)), _shape((1,), np.uint32)
    if method == 'projection':
        made = project.make_projector(generator, Projection(num_steps=10))
        statistics = latents.WStatistics(_shape((spec.w_dim,)), _shape(()))
        given = weights, {'vgg': net}, picture, ids, statistics, key
    else:
        made = sam.make_inverter(generator, Search(num_steps=10))
        known = sam.spaces(spec)
        masks = {s: _shape((1, h, w, 1)) for s, (h, w, _) in spec.feature_shapes if s in known}
        size = spec.moving_dims or spec.w_dim
        prior = sam_prior.Prior(_shape((size,)), _shape((size, size)))
        given = weights, net, picture, masks, _shape((1, 1, spec.w_dim)), ids, prior
    state, args = jax.eval_shape(made.prepare, *given)
    sharding = SingleDeviceSharding(mesh.devices.flat[0])
    arguments = jax.eval_shape(made.loop.init_carry, state), args, key, None
    arguments = jax.tree.map(lambda x: _shape(x.shape, x.dtype, sharding), arguments)
    return Step(made.loop.microbatch_step, arguments, state.variables, 1)


def _shape(shape, dtype=np.float32, sharding=None):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _with_specs(function, tree, specs):
    is_spec = lambda x: isinstance(x, P)  # noqa: E731
    return jax.tree.map(lambda spec, x: function(x, spec), specs, tree, is_leaf=is_spec)


def _whole(x, spec, num_shards):
    """The shape of an array with the rows of all shards, from that of one shard."""
    axis = sharded_step.row_axis(spec)
    return tuple(size * num_shards if i == axis else size for i, size in enumerate(x.shape))


def one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), sharded_step.AXES)


def argument_bytes(step: Step) -> int:
    """Bytes of the arguments that a step on one device uses."""
    jaxpr = jax.make_jaxpr(step.function)(*step.arguments).jaxpr
    wanted = [True] * len(jaxpr.outvars)
    _, used = partial_eval.dce_jaxpr(jaxpr, wanted, instantiate=False)
    leaves = jax.tree.leaves(step.arguments)
    # A key is two numbers of 32 bits.
    sizes = [
        x.size * (8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize)
        for x in leaves
    ]
    return sum(size for size, used in zip(sizes, used, strict=True) if used)


def kept_bytes(generator, settings: Tuning) -> int:
    """Bytes that the forward pass of one identity keeps for its gradient.

    A lower bound, independent of the compiler, of a step's memory beside its arguments.
    """
    step = tuning_step(generator, settings.replace(shared=True), one_device(), 1)
    carry, args, key, _ = step.arguments
    totals = []

    def trace(params, args, key):
        own = {name: x[0] for name, x in args['examples'].items() if name != 'target_features'}
        own['target_features'] = tuple(x[0] for x in args['examples']['target_features'])

        def objective(params):
            draw = latents.identity_normals
            return pti._terms(generator, settings, draw, params, args, own, 0, key, True)[
                'loss'
            ].sum()

        loss, pull = jax.vjp(objective, params)
        leaves, structure = jax.tree.flatten(pull)
        backwards = jax.make_jaxpr(lambda leaves, g: structure.unflatten(leaves)(g))(leaves, loss)
        # An operator keeps residuals of its kernel's gradient also if that is not used (LPIPS).
        wanted = [True] * len(backwards.jaxpr.outvars)
        _, used = partial_eval.dce_jaxpr(backwards.jaxpr, wanted, instantiate=False)
        leaves = [leaf for leaf, used in zip(leaves, used[: len(leaves)], strict=True) if used]
        given = {id(x) for x in jax.tree.leaves((params, args, own))}
        kept = {id(x): x for x in leaves if id(x) not in given}
        totals.append(sum(x.size * x.dtype.itemsize for x in kept.values()))

    jax.eval_shape(trace, carry.state.variables, args, key)
    return totals[0]
