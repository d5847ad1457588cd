"""The loss of StyleCLIP's latent mapper (section 5) and its training as an optimisation loop.

    w_hat = w + 0.1 M(w)
    L(w) = D(G(w_hat), t) + lambda_L2 mean((w_hat - w)^2) + lambda_ID (1 - <R(G(w_hat)), R(G(w))>)

The paper writes |M(w)| for the second term; the official code takes this mean, for which its
weights are.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxinv import optimize
from jaxinv.faces import identity_loss
from jaxinv.networks import clip as clip_network
from jaxinv.networks import text_mapper
from jaxinv.optimize import LoopState
from jaxinv.prompts import features
from jaxinv.settings import TrainMapper
from jaxinv.types import Generator

METRICS = ('loss', 'clip', 'l2')
SYNC_STEPS, SLOW_STEP = 6, 0.5  # of Ranger's lookahead (Zhang et al. 2019, arXiv:1907.08610)


def edited(spec: text_mapper.Spec, weights, w):
    """w_hat [b, num_ws, w_dim] of codes of that shape."""
    return w + text_mapper.STEP * text_mapper.apply(spec, weights, w)


def losses(generator, clip_spec, mapper_spec, s: TrainMapper, kind, mapper_weights, args, w):
    """{'loss', 'clip', 'l2', and of a kind 'identity': [b]} of codes w [b, num_ws, w_dim]."""
    moved = edited(mapper_spec, mapper_weights, w)
    images = generator.synthesize(args['weights'], moved)[0]
    seen = features.image_features(clip_spec, args['clip'], images, s.preparation)
    distance = 1 - seen @ args['text']
    l2 = jnp.mean((moved - w) ** 2, (1, 2))
    found = {'clip': distance, 'l2': l2}
    loss = s.clip_weight * distance + s.l2_weight * l2
    if kind:
        start = generator.synthesize(args['weights'], w)[0]
        start = identity_loss.before(kind, args['faces'], start)
        found['identity'] = identity_loss.distance(kind, args['faces'], images, start)
        loss = loss + s.identity_weight * found['identity']
    return {'loss': loss} | found


def _centred(gradient, _):
    """A kernel's gradient less its mean over the inputs (Yong et al. 2020, arXiv:2004.01461)."""
    # optax.centralize takes the mean over the outputs of a kernel [inputs, outputs].
    return gradient - gradient.mean(0, keepdims=True) if gradient.ndim > 1 else gradient


@functools.lru_cache(maxsize=4)
def make_training(
    generator: Generator, clip_spec: clip_network.Spec, s: TrainMapper, kind: str | None
):
    """(Loop, initial state of a mapper's weights, its Spec) for the runner, with one example.

    The loop's args: weights, clip, text [features], codes [n, num_ws, w_dim], and of a
    kind (of identity_loss.KINDS) faces.
    """
    spec = text_mapper.Spec(tuple(s.groups), s.norm)
    names = (*METRICS, 'identity') if kind else METRICS
    optimizer = optax.adam(s.learning_rate)
    if s.optimizer == 'ranger':
        optimizer = optax.chain(
            optax.stateless_with_tree_map(_centred),
            optax.radam(s.learning_rate, b1=0.95, b2=0.999, eps=1e-5),
        )

    def gradient(variables, args, step, microbatch, key):
        del microbatch
        own = jax.random.fold_in(key, step)
        chosen = jax.random.randint(own, [s.batch_size], 0, len(args['codes']))

        def objective(mapper):
            w = args['codes'][chosen]
            found = losses(generator, clip_spec, spec, s, kind, mapper, args, w)
            return found['loss'].mean(), {k: v.mean(keepdims=True) for k, v in found.items()}

        gradients, found = jax.grad(objective, has_aux=True)(variables['mapper'])
        return gradients, found, None

    def apply(gradients, variables, opt_state, args, step):
        del args
        now = variables['mapper']
        changes, opt_state = optimizer.update(gradients, opt_state, now)
        now = optax.apply_updates(now, changes)
        if s.optimizer != 'ranger':
            return {'mapper': now}, opt_state
        together = (step + 1) % SYNC_STEPS == 0

        def towards(slow, fast):
            return jnp.where(together, slow + SLOW_STEP * (fast - slow), slow)

        slow = jax.tree.map(towards, variables['slow'], now)
        now = jax.tree.map(lambda fast, own: jnp.where(together, own, fast), now, slow)
        return {'mapper': now, 'slow': slow}, opt_state

    update = optimize.Update(gradient, apply)
    loop = optimize.make_loop(
        update,
        optimizer,
        names,
        chunk_steps=s.chunk_steps,
        axes=optimize.BatchAxes(variables=False, args={}),
    )

    def start(mapper: dict[str, Any]) -> LoopState:
        variables = {'mapper': mapper}
        if s.optimizer == 'ranger':
            variables['slow'] = mapper
        variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        return LoopState(
            jnp.int32(0), jnp.zeros([1], bool), variables, optimizer.init(variables['mapper'])
        )

    return loop, start, spec
