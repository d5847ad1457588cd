"""Latent optimisation towards texts (StyleCLIP, section 4), of all identities and texts at once.

    w = argmin D(G(w), t) + lambda_L2 |w - w_s|^2 + lambda_ID (1 - <R(G(w)), R(G(w_s))>)   (eq. 1)

D is 1 minus the cosine of CLIP's features, R a face network (faces/identity_loss.py). The paper
writes |w - w_s|, whose gradient at the start w = w_s is not defined; the weights it gives are those
of the square, which the official code takes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import latents, optimize
from jaxinv.errors import JaxinvError
from jaxinv.faces import identity_loss
from jaxinv.inversion import inputs
from jaxinv.inversion.project import Pivots
from jaxinv.networks import clip as clip_network
from jaxinv.optimize import schedules
from jaxinv.optimize.runner import LoopTask, Runner
from jaxinv.prompts import features
from jaxinv.settings import TextSearch, changed
from jaxinv.text import printable
from jaxinv.types import Generator, Weights

METRICS = ('loss', 'clip', 'l2')
AXES = optimize.BatchAxes(variables=True, args={'text': 0, 'pivots': 0, 'before': 0})


class TextEdited(NamedTuple):
    """The result of a search, on the host."""

    names: tuple[str, ...]  # of the identities, [n]
    prompts: tuple[str, ...]  # [p]
    w: np.ndarray  # [p, n, num_ws, w_dim]
    # {'loss': [steps, p, n], 'clip': D, 'l2': ..., 'identity': ... if there was a network}
    history: dict[str, np.ndarray]
    clip: str  # origin of its weights; 'random weights' of a network for tests


def edit_by_text(
    generator: Generator,
    weights: Weights | Sequence[Weights],
    codes: Any,
    prompts: str | Sequence[str],
    clip: clip_network.Clip,
    *,
    identity: Any = 'auto',
    settings: TextSearch | None = None,
    mesh: str = '',
    verbose: bool = True,
    callback: Callable | None = None,
    runner: Runner | None = None,
    **changes,
) -> TextEdited:
    """Moves codes until CLIP sees texts in their images (StyleCLIP, section 4).

    weights: of the generator, or a list [n], one for each code (`tune` with shared=False).
    codes: w [n, 1 or num_ws, w_dim], or what `project` returned; the search is in W+.
    prompts: a text or several; each is searched for each code, all in one program.
    clip: what `load_clip` returned. identity: the face network of the loss of identity: 'auto' =
      SFace for generators of faces, 'sface', the path of ArcFace's file, or None = without it.
    settings: settings.TextSearch; **changes: fields of it, as num_steps=100.
    mesh, verbose, callback, runner: as in `project`.

    Raises JaxinvError for codes, texts or settings that do not fit, and NotFinite.
    """
    s = changed(settings or TextSearch(), **changes)
    spec = generator.spec
    features.check_clip(clip, spec)
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    names, w = _codes_of(codes, spec)
    text = features.text_features(clip, prompts)
    several = isinstance(weights, (list, tuple))
    if several and len(weights) != len(w):
        raise JaxinvError(f'there are {len(weights)} generators and {len(w)} codes; give one each.')
    if several and runner is not None and runner.folder is not None:
        raise JaxinvError('a runner with a folder is for one generator; give its weights alone.')
    found_identity = identity_loss.load(identity, spec) if s.identity_weight else None
    kind = found_identity.kind if found_identity else None
    search = make_search(generator, clip.spec, s, kind)
    groups = [[i] for i in range(len(w))] if several else [list(range(len(w)))]
    found, histories = [], []
    for group in groups:
        own_weights = weights[group[0]] if several else weights
        pairs = [(p, i) for p in range(len(prompts)) for i in group]
        labels = tuple(f'{names[i]}: {printable(prompts[p], 40)}' for p, i in pairs)
        own = runner or inputs.make_runner(labels, mesh, verbose, callback)
        which_text, which_code = (np.array(x) for x in zip(*pairs, strict=True))

        def make_task(rows, own_weights=own_weights, texts=which_text, codes=which_code):
            def prepare(which, shard):
                chosen = rows[which]
                return search.prepare(
                    own_weights,
                    clip.weights,
                    found_identity.weights if found_identity else None,
                    text[texts[chosen]],
                    w[codes[chosen]],
                )

            return LoopTask(
                search.loop,
                prepare,
                latents.stream(0, 'text'),  # nothing is random
                s.num_steps,
                search.metrics,
                lambda variables: variables['w'],
            )

        result, history = own.run('text', make_task, batch_per_device=s.batch_per_device)
        found.append(np.asarray(result).reshape(len(prompts), len(group), *w.shape[1:]))
        histories.append(
            {k: v.reshape(len(v), len(prompts), len(group)) for k, v in history.items()}
        )
    history = {k: np.concatenate([own[k] for own in histories], 2) for k in histories[0]}
    return TextEdited(names, prompts, np.concatenate(found, 1), history, clip.origin)


class Search(NamedTuple):
    loop: optimize.Loop
    metrics: tuple[str, ...]
    prepare: Callable  # (weights, clip, faces, text [b, e], pivots [b, num_ws, w_dim])


@functools.lru_cache(maxsize=8)
def make_search(
    generator: Generator, clip_spec: clip_network.Spec, s: TextSearch, kind: str | None
) -> Search:
    """The compiled search, shared by all codes, texts and weights. kind: of identity_loss.KINDS."""
    metric_names = (*METRICS, 'identity') if kind else METRICS

    def objective(variables, args, step, key):
        del step, key
        w = variables['w']
        images = generator.synthesize(args['weights'], w)[0]
        seen = features.image_features(clip_spec, args['clip'], images, s.preparation)
        distance = 1 - jnp.sum(seen * args['text'], -1)
        l2 = jnp.sum((w - args['pivots']) ** 2, (1, 2))
        loss = distance + s.l2_weight * l2
        metrics = {'clip': distance, 'l2': l2}
        if kind:
            metrics['identity'] = identity_loss.distance(
                kind, args['faces'], images, args['before']
            )
            loss = loss + s.identity_weight * metrics['identity']
        return loss.sum(), {'loss': loss} | metrics  # a sum: the examples share nothing

    def learning_rate(count):
        t = schedules.fraction(count, s.num_steps)
        return s.learning_rate * schedules.learning_rate_ramp(t, s.lr_rampdown, s.lr_rampup)

    optimizer = optax.adam(learning_rate)
    update = optimize.gradient_update(objective, optimizer)
    loop = optimize.make_loop(update, optimizer, metric_names, axes=AXES, chunk_steps=s.chunk_steps)

    @jax.jit
    def before(weights, faces, w):
        return identity_loss.before(kind, faces, generator.synthesize(weights, w)[0])

    def prepare(weights, clip_weights, faces, text, pivots):
        pivots = jnp.asarray(pivots)
        args = {
            'weights': weights,
            'clip': clip_weights,
            'text': jnp.asarray(text),
            'pivots': pivots,
        }
        if kind:
            args |= {'faces': faces, 'before': before(weights, faces, pivots)}
        return loop.init({'w': pivots}, len(pivots)), args

    return Search(loop, metric_names, prepare)


def _codes_of(codes, spec):
    """(names, w [n, num_ws, w_dim])"""
    w = np.asarray(codes.w if isinstance(codes, Pivots) else codes, np.float32)
    if w.ndim != 3 or w.shape[1] not in (1, spec.num_ws) or w.shape[2] != spec.w_dim or not len(w):
        raise JaxinvError(
            f'codes are {list(w.shape)}; {spec.name} takes [n, 1, {spec.w_dim}] (W) or '
            f'[n, {spec.num_ws}, {spec.w_dim}] (W+).'
        )
    names = codes.names if isinstance(codes, Pivots) else [f'code_{i}' for i in range(len(w))]
    return tuple(names), np.broadcast_to(w, (len(w), spec.num_ws, spec.w_dim))
