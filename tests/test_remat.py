"""Blocks that are computed again for their gradient: the same numbers from less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval

from jaxinv import defaults, generators, settings
from jaxinv.errors import JaxinvError
from jaxinv.generators.biggan_deep import F, T, biggan_deep
from jaxinv.generators.mobile_stylegan import mobile_stylegan
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.types import Affine

# Machine code that takes little time to make; the scheduler is the one that steps are run with.
OPTIONS = {
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
    'xla_cpu_enable_concurrency_optimized_scheduler': False,
}
MAPPED = {'z_dim': 4, 'w_dim': 4, 'mapping_layers': 1}
LAYERS = ((F, 16, 8), (T, 8, 4), (T, 4, 2), (F, 2, 1))
BIGGAN = {'layers': LAYERS, 'channel_width': 8, 'z_dim': 8, 'class_embed_dim': 8}
MAKES = {
    'stylegan2': lambda **how: stylegan2(16, channels=(32, 32, 4), **MAPPED, **how),
    'mobile': lambda **how: mobile_stylegan(16, channels=(32, 32, 4), **MAPPED, **how),
    'biggan': lambda **how: biggan_deep(16, **BIGGAN, attention_position=3, num_classes=3, **how),
}


def normal(i, *shape):
    return np.random.default_rng(i).standard_normal(shape)


def arguments(generator, batch):
    """Weights and everything that may be differentiated, in float64."""
    shapes, structure = jax.tree.flatten(jax.eval_shape(generator.init, jax.random.key(0)))
    leaves = [0.1 + np.abs(normal(i, *leaf.shape)) for i, leaf in enumerate(shapes)]
    weights, spec = structure.unflatten(leaves), generator.spec
    first, shape = spec.feature_shapes[0]
    moving = {
        'params': weights['params'],
        'w': normal(0, batch, spec.num_ws, spec.w_dim),
        'noise': {name: normal(1, batch, *shape) for name, shape in spec.noise_shapes},
        'taps': {first: Affine(1 + normal(2, batch, *shape), normal(3, batch, *shape))},
    }
    return weights, moving


def loss(moving, weights, generator):
    weights = weights | {'params': moving['params']}
    images, features = generator.synthesize(weights, moving['w'], moving['noise'], moving['taps'])
    first = features[generator.spec.feature_shapes[0][0]]
    return jnp.mean(images**2) + jnp.mean(first**2), (images, features)


def kept_bytes(generator, weights, moving):
    found = []

    def trace(moving, weights):
        _, pull, _ = jax.vjp(lambda m: loss(m, weights, generator), moving, has_aux=True)
        given = {id(x) for x in jax.tree.leaves((moving, weights))}
        kept = {id(x): x.nbytes for x in jax.tree.leaves(pull) if id(x) not in given}
        found.append(sum(kept.values()))

    jax.eval_shape(trace, moving, weights)
    return found[0]


@pytest.mark.parametrize(
    'name',
    [
        'mobile',
        pytest.param('stylegan2', marks=pytest.mark.exhaustive),
        pytest.param('biggan', marks=pytest.mark.exhaustive),
    ],
)
def test_same_images_and_gradients_from_less_memory(name):
    with jax.enable_x64(True):
        plain, remat = MAKES[name](), MAKES[name](remat=True)
        assert plain.spec == remat.spec
        weights, moving = arguments(plain, batch=16)
        shapes = [jax.eval_shape(g.init, jax.random.key(0)) for g in (plain, remat)]
        assert shapes[0] == shapes[1]
        gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)
        programs = [gradient.lower(moving, weights, g).compile(OPTIONS) for g in (plain, remat)]
        results = [program(moving, weights) for program in programs]
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12 * np.abs(a).max())
        kept = [kept_bytes(g, weights, moving) for g in (plain, remat)]
        assert kept[1] < 0.8 * kept[0]
        # By a compiler that puts the second computation where it likes.
        sizes = [program.memory_analysis().temp_size_in_bytes for program in programs]
        assert sizes[1] < sizes[0]


def convolutions(jaxpr):
    """How many of them are left once nothing unused is."""
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    inner = [x for e in jaxpr.eqns for x in jaxprs_in_params(e.params)]
    own = sum(e.primitive.name == 'conv_general_dilated' for e in jaxpr.eqns)
    return own + sum(map(convolutions, inner))


@pytest.mark.long
def test_gradients_by_kernels_are_computed_only_where_kernels_move():
    generator = MAKES['stylegan2'](remat=True)
    weights, moving = arguments(generator, batch=2)

    def count(*wanted):
        def of(some, moving, weights):
            return loss(moving | some, weights, generator)[0]

        some = {name: moving[name] for name in wanted}
        return convolutions(jax.make_jaxpr(jax.grad(of))(some, moving, weights).jaxpr)

    assert count('w', 'taps', 'noise') < count('params')


def test_is_no_part_of_what_a_generator_or_a_run_is():
    generator = generators.make('tiny')
    remat = generators.with_computing(generator, remat=True)
    assert remat is generators.with_computing(generator, remat=True) and remat != generator
    assert generators.record(remat.spec) == generators.record(generator.spec)
    assert remat.spec == generator.spec
    family = generators.with_computing(MAKES['biggan'](), 'bfloat16', True)
    assert generators.record(family.spec) == generators.record(MAKES['biggan']().spec)
    config = defaults.get_config()
    record = settings.record_of(config)
    config.remat = True
    assert settings.record_of(config) == record


@pytest.mark.parametrize('value', ['yes', 1, None])
def test_is_true_or_false(value):
    with pytest.raises(JaxinvError, match='remat is .*; it can be True or False'):
        generators.with_computing(generators.make('tiny'), remat=value)
