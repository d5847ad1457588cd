"""Pivotal tuning: moves the generator until the pivots reproduce their photographs (PTI 3.2, 3.3).

    (2, 3)  L_pt = mean over identities of LPIPS(x, G(w_p; theta)) + lambda_L2 L2(x, G(w_p; theta))
    (5, 6)  L_R = mean over samples of LPIPS(x_r, x_r*) + lambda_L2^R L2(x_r, x_r*)
    (7)     theta* = argmin L_pt + lambda_R L_R

with x_r = G(w_r; theta of the original) and x_r* = G(w_r; theta) at codes w_r around the pivots
(equation 4, losses.locality_codes). Two ways to spend parameters on identities:
  shared      one generator for all, equation 3: params {..}
  one each    equation 2 for every identity at once, vmapped: params {.. [b, ...]}

With one each, an identity counts its own steps, from args['examples']['begun'], and its optimiser
does too: its numbers are the same whenever and beside whomever it is tuned (optimize/continuous_batching.py).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import latents, optimize
from jaxinv.errors import JaxinvError
from jaxinv.inversion import losses
from jaxinv.networks import lpips
from jaxinv.optimize.sharding import blocks
from jaxinv.pixels import to_float
from jaxinv.types import Generator


class Locality(NamedTuple):
    """The locality regulariser. PTI's code differs in norm, truncation and noise; see README."""

    weight: float = 0.1  # lambda_R; 0 = off
    l2_weight: float = 1.0  # lambda_L2^R
    alpha: float = 30.0  # distance of the codes from the pivot
    num_samples: int = 1  # N_r, codes a pivot and step
    interval: int = 1  # every so many steps
    norm: str = 'w'  # 'w' (equation 4) or 'all_layers' (PTI's code)
    truncation_psi: float = 1.0  # of the random codes; PTI's code 0.5
    noise: str = 'const'  # noise maps in both images; PTI's code 'none'


class Settings(NamedTuple):
    """Settings of the tuning; hashable, so that equal settings share a compiled program."""

    num_steps: int
    learning_rate: float = 3e-4
    shared: bool = True
    l2_weight: float = 1.0  # lambda_L2
    lpips_weight: float = 1.0
    lpips_net: str = 'alex'
    batch_size: int = (
        0  # shared only: identities an Adam step; 0 = all (equation 3), 1 = PTI's code
    )
    microbatch: int = 0  # identities a forward pass, gradients accumulated; 0 = the whole batch
    # shared only: identities whose targets and features may lie on a device; with more each
    # microbatch comes from the host and its targets' features are computed again. 0 = all
    resident: int = 0
    stop_lpips: float | None = None  # LPIPS at which an identity is done; None = all steps
    locality: Locality = Locality()
    chunk_steps: int = 20

    @property
    def metrics(self) -> tuple[str, ...]:
        return ('loss', 'l2', f'lpips_{self.lpips_net}', 'locality')


def check(settings: Settings) -> None:
    """Raises JaxinvError for a setting that cannot be used."""
    s = settings
    choices = {
        'tune.lpips_net': (s.lpips_net, ('alex', 'vgg')),
        'locality.norm': (s.locality.norm, ('w', 'all_layers')),
        'locality.noise': (s.locality.noise, ('const', 'none')),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise JaxinvError(f'{name} is {value!r}; it can be {allowed[0]!r} or {allowed[1]!r}.')
    least = {
        'tune.num_steps': (s.num_steps, 0),  # 0 = keep the generator
        'tune.batch_size': (s.batch_size, 0),
        'tune.microbatch': (s.microbatch, 0),
        'tune.resident': (s.resident, 0),
        'tune.chunk_steps': (s.chunk_steps, 1),
        'locality.num_samples': (s.locality.num_samples, 1),
        'locality.interval': (s.locality.interval, 1),
    }
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise JaxinvError(f'{name} is {value}; it must be at least {minimum}.')


class Tuner(NamedTuple):
    settings: Settings
    loop: optimize.Loop
    prepare: Callable  # (weights, lpips_weights, targets, pivots, ids, w_avg) -> (state, args)
    members: list  # [shares] of the identities that each share holds
    weights: Callable  # (weights before, params) -> weights after
    # (targets, pivots, ids, share, part) -> {'examples': ...}, for Sharding.feed; None = all
    # examples are among the args. Targets can be anything that gives arrays for row numbers.
    examples: Callable | None


@functools.lru_cache(maxsize=8)
def make_tuner(
    generator: Generator,
    settings: Settings,
    num_identities: int,
    draw: Callable = latents.identity_normals,
    shares: int = 1,
) -> Tuner:
    """The compiled tuning for a generator and settings, shared by all images.

    `draw(key, ids, step, shape) -> [b, *shape]` supplies the regulariser's z. shares: so many
    microbatches are computed side by side, each of `microbatch` identities, and added up; the batch
    and so the numbers stay the same. `prepare` then makes the state and arguments of one `share`
    from the targets, pivots and ids of its `members`.
    """
    s = settings
    check(s)
    terms = functools.partial(_terms, generator, s, draw)
    optimizer = optax.adam(s.learning_rate)
    if not s.shared:
        optimizer = optimize.each_row(optimizer)
    stopping = None
    if s.stop_lpips is not None:
        stopping = optimize.StoppingRule(f'lpips_{s.lpips_net}', s.stop_lpips, not s.shared)
    layout = _layout(num_identities, s.batch_size, s.microbatch, shares)

    each = [_share(layout, num_identities, shares, i) for i in range(shares)]
    fed = s.shared and 0 < s.resident < max(len(own.members) for own in each)

    if s.shared:
        rows = optimize.Rows(variables=False, args={'examples': 0 if fed else 1})

        def gradient(params, args, step, part, key):
            """Of one microbatch."""
            if fed:
                examples = _with_features(args['lpips'], args['examples'])
            else:
                examples = jax.tree.map(lambda x: x[part], args['examples'])

            def objective(params):
                metrics = terms(params, args, examples, step, key, _is_due(s.locality, step))
                return jnp.sum(examples['weight'] * metrics['loss']), metrics

            return *jax.grad(objective, has_aux=True)(params), examples['place']

        def apply(gradients, params, opt_state, args, step):
            del args, step
            changes, opt_state = optimizer.update(gradients, opt_state, params)
            return optax.apply_updates(params, changes), opt_state

        update = optimize.Update(gradient, apply)
    else:
        rows = optimize.Rows(variables=True, args={'examples': 0})

        def objective(params, args, step, key):
            steps = step - args['examples']['begun']
            # Under vmap a condition of each identity would compute both of its sides.
            anybody_due = jnp.any(_is_due(s.locality, steps))

            def alone(params, example, step):
                one = jax.tree.map(lambda x: x[None], example)
                found = terms(params, args, one, step, key, anybody_due)
                return jax.tree.map(lambda x: x[0], found)

            metrics = jax.vmap(alone)(params, args['examples'], steps)
            return metrics['loss'].sum(), metrics  # Adam is elementwise: identities stay apart

        update = optimize.gradient_update(objective, optimizer)

    loop = optimize.make_loop(
        update,
        optimizer,
        s.metrics,
        rows=rows,
        parts=len(layout.index) if s.shared else 1,
        batch_parts=layout.batch_parts if s.shared else 1,
        chunk_steps=s.chunk_steps,
        stopping=stopping,
    )
    with_features = jax.jit(_with_features)
    members = [own.members for own in each] if s.shared else blocks(num_identities, shares)

    def prepare(weights, lpips_weights, targets, pivots, ids, w_avg, share=0):
        """Start state and arguments for targets [b, h, w, 3] and pivots [b, k, w_dim]."""
        params = weights['params']
        args = {
            'frozen': params,
            'buffers': weights['buffers'],
            'lpips': lpips_weights,
            'w_avg': w_avg,
        }
        if fed:
            return loop.init(params, num_identities), args
        examples = {'pivots': pivots, 'targets': _float(targets), 'ids': ids}
        examples = with_features(lpips_weights, jax.tree.map(jnp.asarray, examples))  # once
        if s.shared:
            own = each[share]
            args['examples'] = jax.tree.map(lambda x: x[own.index], examples)
            args['examples'] |= {'weight': own.weight, 'place': own.place}
            return loop.init(params, num_identities), args
        args['examples'] = examples | {'begun': jnp.zeros(len(targets), jnp.int32)}
        params = jax.tree.map(lambda x: jnp.tile(x, (len(targets),) + (1,) * x.ndim), params)
        return loop.init(params, len(targets)), args

    def tuned(weights, params):
        return {'params': params, 'buffers': weights['buffers']}

    def examples(targets, pivots, ids, share, part):
        own = each[share]
        which = own.members[own.index[part]]
        found = {'targets': targets[which], 'pivots': np.asarray(pivots)[which], 'ids': ids[which]}
        return {'examples': found | {'weight': own.weight[part], 'place': own.place[part]}}

    return Tuner(s, loop, prepare, members, tuned, examples if fed else None)


def _float(targets):
    return to_float(targets) if targets.dtype == np.uint8 else targets


def _with_features(lpips_weights, examples):
    targets = _float(examples['targets'])
    features = lpips.features(lpips_weights, targets)
    return examples | {'targets': targets, 'target_features': features}


def _is_due(s: Locality, step):
    """Whether the regulariser counts in this step."""
    return step % s.interval == 0


def _terms(
    generator, s: Settings, draw, params, args, examples, step, key, anybody_due
) -> dict[str, Any]:
    """The objective of each example, {name: [b]}, at generator parameters `params`.

    anybody_due: whether the regulariser counts in this step for these or other examples.
    """
    weights = {'params': params, 'buffers': args['buffers']}
    pivots, b = examples['pivots'], len(examples['pivots'])
    codes = functools.partial(codes_around, generator, s.locality, draw, weights, args, examples)
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
    features = lpips.features(args['lpips'], images)
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
            anybody_due,
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

    tuned: the images of `codes`, where they are made already.
    """
    frozen = {'params': args['frozen'], 'buffers': weights['buffers']}
    original, _ = generator.synthesize(frozen, codes, noise=s.noise)
    # A target, not a variable: nothing is differentiated through the original generator.
    original = jax.lax.stop_gradient(original)
    if tuned is None:
        tuned, _ = generator.synthesize(weights, codes, noise=s.noise)
    distance = lpips.distance(
        lpips.features(args['lpips'], tuned), lpips.features(args['lpips'], original)
    )
    drift = distance + s.l2_weight * losses.l2(tuned, original)
    return drift.reshape(b, s.num_samples).mean(axis=1)


class _Layout(NamedTuple):
    """Identities as [parts, shares * microbatch]; batch_parts of them make an Adam step."""

    index: np.ndarray  # which identity
    weight: np.ndarray  # 1 / identities in the batch; 0 = padding
    place: np.ndarray  # the identity again, or one past the last for padding
    batch_parts: int


def _layout(n: int, batch_size: int, microbatch: int, shares: int) -> _Layout:
    batch_size = min(batch_size or n, n)
    own = -(-batch_size // shares)  # of a batch, in a share
    microbatch = min(microbatch or own, own)
    parts = -(-own // microbatch)
    starts = range(0, n, batch_size)
    index = np.zeros((len(starts), shares, parts * microbatch), np.int32)
    weight = np.zeros(index.shape, np.float32)
    place = np.full(index.shape, n, np.int32)
    for row, start in enumerate(starts):
        batch = np.arange(start, min(start + batch_size, n))
        for share in range(shares):
            members = batch[share * own : (share + 1) * own]
            index[row, share, : len(members)] = place[row, share, : len(members)] = members
            weight[row, share, : len(members)] = 1 / len(batch)  # the mean over the batch

    def arrange(x):
        x = x.reshape(len(starts), shares, parts, microbatch).swapaxes(1, 2)
        return x.reshape(len(starts) * parts, shares * microbatch)

    return _Layout(arrange(index), arrange(weight), arrange(place), parts)


class _Share(NamedTuple):
    """What one share of a layout has: arrays [parts, microbatch]."""

    members: np.ndarray  # the identities, each once
    index: np.ndarray  # which of the members
    weight: np.ndarray
    place: np.ndarray


def _share(layout: _Layout, n: int, shares: int, share: int) -> _Share:
    columns = np.split(np.arange(layout.index.shape[1]), shares)[share]
    index, weight, place = (x[:, columns] for x in layout[:3])
    members = np.arange(n) if shares == 1 else np.unique(index)
    return _Share(members, np.searchsorted(members, index).astype(np.int32), weight, place)
