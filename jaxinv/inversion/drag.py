"""Dragging points of a picture to where they should be (DragGAN, Pan et al. 2023).

    L = sum_i mean_q |F(q + d_i) - sg F(q)| + lambda mean |(F - F_0) (1 - M)|       (equation 1)
    p_i = argmin_q |F'(q) - F_0(p_i^0)|, q within r_2 of p_i                        (equation 2)

F is a feature map of the generator, bilinearly enlarged to the image, q the pixels within r_1 of
the handle point p_i, d_i the unit vector from p_i to its target, sg = no gradient. Adam moves the
first rows of w. arXiv:2305.10973, section 3.2.

Nothing behind the feature map is computed, and F is enlarged only around the points: a separable
bilinear sample, which is exact. Two choices are those of the released code where the paper leaves
them open: norms are means over pixels and channels (with sums, lambda = 20 fixes the picture), and
a point within a pixel of its target is not pulled. The mask is averaged to the feature's size.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import edits as edits_lib
from jaxinv import latents
from jaxinv.errors import JaxinvError
from jaxinv.generators import checks
from jaxinv.inversion import drag_features as features
from jaxinv.io import atomic_path, expanded
from jaxinv.optimize.loop import NotFinite
from jaxinv.optimize.programs import CPU_OPTIONS
from jaxinv.pixels import area_resize
from jaxinv.runtime.progress import Progress, silent
from jaxinv.settings import Drag, changed
from jaxinv.types import Generator, GeneratorSpec

UNIT = 512  # pixels of the picture that the settings' distances refer to
# Pixels of the default feature: StyleGAN2's is block 5 of the released code, others' by the tracks
# of MobileStyleGAN (docs/drag.md).
FEATURE_SIZES = {'stylegan2': 128}
FEATURE_SIZE = 64
STEP_OF_POINTS = 4  # points are padded to a multiple, so that one more seldom compiles again
SHOWN_EVERY = 10  # steps between status lines


class Moment(NamedTuple):
    """What a callback gets: the state before the step's update."""

    step: int  # updates so far
    identities: tuple[int, ...]  # which of w's the rows are
    w: Any  # [b, num_ws, w_dim], on the device
    points: np.ndarray  # [b, k, 2] (x, y) in pixels; NaN where an identity has fewer points
    distances: np.ndarray  # [b, k] pixels to the target
    loss: np.ndarray  # [b]


class Dragged(NamedTuple):
    """The result, on the host. k: the largest number of points of an identity."""

    w: np.ndarray  # [n, num_ws, w_dim]
    offsets: np.ndarray  # [n, num_ws, w_dim]: what was added
    points: np.ndarray  # [n, steps + 1, k, 2] (x, y); NaN after the last step, and of no point
    distances: np.ndarray  # [n, steps + 1, k] pixels to the target
    steps: np.ndarray  # int [n]: updates
    arrived: np.ndarray  # bool [n]: all points are within the stop distance

    def edit(self, identity: int = 0, strength: float = 1.0, name: str = 'drag') -> edits_lib.Edit:
        """The drag of one identity as an edit, for any code of this generator."""
        ((direction, _),) = edits_lib.of_arrays(name, self.offsets[identity]).steps
        return edits_lib.Edit(f'{name}={strength:g}', ((direction, float(strength)),))

    def save(self, path, names: Sequence[str] | None = None) -> None:
        """Writes the offsets to an .npz file, from which --config.edits='FILE.npz:NAME=1' reads.

        names: of the identities; None = drag_0, drag_1, ...
        """
        names = [f'drag_{i}' for i in range(len(self.w))] if names is None else list(names)
        with atomic_path(expanded(path)) as temporary, open(temporary, 'wb') as file:
            np.savez(file, **dict(zip(names, self.offsets, strict=True)))


def drag(
    generator: Generator,
    weights,
    w,
    points,
    mask=None,
    steps: int | None = None,
    callback: Callable[[Moment], Any] | None = None,
    *,
    settings: Drag | None = None,
    verbose: bool = False,
    **changes,
) -> Dragged:
    """Moves points of pictures to targets by their codes.

    weights: of the generator, or a list [n], one for each code; then codes take their turns.
    w: codes [n, 1 or num_ws, w_dim], or what `project` returned.
    points: pairs ((x, y), (x, y)) of handle and target, in pixels from the top left corner: one
      list for all codes, or a list [n] of lists.
    mask: [h, w] or [n, h, w] from 0 to 1; 1 may move. None = all may.
    steps, settings, **changes: jaxinv.settings.Drag; steps=300, learning_rate=2e-3, feature='F10'.
    callback: gets a Moment each step; returns False to stop these codes.

    An identity stops when all of its points are within the stop distance. Raises JaxinvError for
    what does not fit, and NotFinite.
    """
    if steps is not None:
        changes['steps'] = steps
    s, spec = changed(settings or Drag(), **changes), generator.spec
    codes = jnp.asarray(getattr(w, 'w', w), jnp.float32)
    checks.check_w(codes, spec)
    n = len(codes)
    codes = jnp.broadcast_to(codes, (n, spec.num_ws, spec.w_dim))
    handles, targets, valid = _points(points, n, spec)
    masks = _masks(mask, n, spec, _feature(spec, s)[1][0])
    several = isinstance(weights, (list, tuple))
    if several and len(weights) != n:
        raise JaxinvError(f'there are {len(weights)} generators and {n} codes; give one each.')
    k = int(valid.sum(1).max())
    size = 1 if several else min(s.batch_per_device, n)
    dragger = _make_dragger(generator, s.replace(steps=0, batch_per_device=1), masks is not None)
    parts = []
    for start in range(0, n, size):
        identities = tuple(range(start, min(start + size, n)))
        rows = np.minimum(np.arange(start, start + size), n - 1)  # repeats fill the last batch
        args = {
            'weights': weights[start] if several else weights,
            'codes': codes[rows],
            'targets': jnp.asarray(targets[rows]),
            'valid': jnp.asarray(valid[rows]),
            'stop': jnp.asarray(_stop_distance(s, valid[rows], spec)),
            'mask': None if masks is None else masks[rows],
        }
        log = print if verbose else silent
        parts.append(_run(dragger, args, handles[rows], s.steps, identities, k, callback, log))
    return _join(parts)


def _join(parts: list[Dragged]) -> Dragged:
    """Batches as one, with tracks of the same length."""
    length = max(part.points.shape[1] for part in parts)

    def padded(x):
        ends = ((0, 0), (0, length - x.shape[1])) + ((0, 0),) * (x.ndim - 2)
        return np.pad(x, ends, constant_values=np.nan)

    parts = [p._replace(points=padded(p.points), distances=padded(p.distances)) for p in parts]
    return Dragged(*(np.concatenate(x) for x in zip(*parts, strict=True)))


# --- The compiled step ---


class _State(NamedTuple):
    """Of b identities with k points; the first step fills in reference and handles."""

    offset: Any  # [b, 1 or rows, w_dim]
    opt_state: Any
    points: Any  # int32 [b, k, 2]
    reference: Any  # [b, n, n, c]: F_0
    handles: Any  # [b, k, c]: F_0 at the first points
    active: Any  # bool [b]


class _Dragger(NamedTuple):
    start: Callable  # (points int32 [b, k, 2]) -> _State
    step: Callable  # (state, args, first, last) -> (state, found); compiled once per shapes


@functools.lru_cache(maxsize=8)
def _make_dragger(generator: Generator, s: Drag, masked: bool) -> _Dragger:
    spec = generator.spec
    name, shape = _feature(spec, s)
    rows = _rows(spec, s)
    scale = spec.resolution / UNIT
    r_1, r_2 = max(1, round(s.motion_radius * scale)), max(2, round(s.tracking_radius * scale))
    optimizer = optax.adam(s.learning_rate)

    def start(points):
        b, k, _ = points.shape
        offset = jnp.zeros([b, rows if s.space == 'w_plus' else 1, spec.w_dim])
        return _State(
            offset,
            optimizer.init(offset),
            jnp.asarray(points),
            jnp.zeros([b, *shape]),
            jnp.zeros([b, k, shape[-1]]),
            jnp.ones([b], bool),
        )

    def expand(offset):
        moved = jnp.broadcast_to(offset, (len(offset), rows, spec.w_dim))
        return jnp.pad(moved, ((0, 0), (0, spec.num_ws - rows), (0, 0)))

    def step(state: _State, args, first, last):
        def synthesize(offset):
            w = latents.freeze_class(args['codes'] + expand(offset), spec)
            return generator.synthesize(args['weights'], w)[1][name].astype(offset.dtype)

        f, pull = jax.vjp(synthesize, state.offset)
        at = functools.partial(features.at_points, resolution=spec.resolution)
        reference = jnp.where(first, f, state.reference)
        handles = jnp.where(first, jax.vmap(at)(f, state.points), state.handles)
        follow = functools.partial(
            features.track, resolution=spec.resolution, radius=r_2, rules=s.rules
        )
        tracked = jax.vmap(follow)(f, handles, state.points)
        points = jnp.where(state.active[:, None, None] & ~first, tracked, state.points)
        distances = jnp.linalg.norm(args['targets'] - points, axis=-1)
        arrived = jnp.all((distances <= args['stop'][:, None]) | (args['valid'] == 0), axis=1)
        active = state.active & ~arrived

        def objective(f):
            move = functools.partial(
                features.motion_loss, resolution=spec.resolution, radius=r_1, rules=s.rules
            )
            losses = jax.vmap(move)(f, points, args['targets'], args['valid'])
            if masked:
                kept = jax.vmap(features.mask_loss)(f, reference, args['mask'])
                losses = losses + s.mask_weight * kept
            return losses.sum(), losses  # a sum: the identities share nothing

        by_feature, losses = jax.grad(objective, has_aux=True)(f)
        (gradient,) = pull(by_feature)
        updates, opt_state = optimizer.update(gradient, state.opt_state)
        # Adam's step count is shared; a row that has stopped keeps its offset.
        keep = (active & ~last)[:, None, None]
        offset = jnp.where(keep, optax.apply_updates(state.offset, updates), state.offset)
        found = {'points': points, 'distances': distances, 'loss': losses, 'active': active}
        found['offset'] = expand(state.offset)
        return _State(offset, opt_state, points, reference, handles, active), found

    options = CPU_OPTIONS if jax.default_backend() == 'cpu' else None
    return _Dragger(start, jax.jit(step, donate_argnums=0, compiler_options=options))


def _run(dragger, args, handles, steps: int, identities, k, callback, log) -> Dragged:
    """The drag of a batch; rows behind those of `identities` and points from k on are padding."""
    count, codes = len(identities), args['codes']
    weight = np.asarray(args['valid'])[:count, :k]
    state, progress = dragger.start(jnp.asarray(handles)), Progress('drag', steps, log)
    track, distances, taken = [], [], np.zeros(count, int)
    active = np.ones(count, bool)
    for i in range(steps + 1):
        state, found = dragger.step(state, args, np.bool_(i == 0), np.bool_(i == steps))
        offset = found.pop('offset')
        own = {name: np.array(values)[:count] for name, values in found.items()}
        own |= {name: own[name][:, :k] for name in ('points', 'distances')}
        bad = np.flatnonzero(active & ~np.isfinite(own['loss']))
        if len(bad):
            which = [identities[j] for j in bad]
            raise NotFinite("the drag's loss", i, i + 1, which, [f'code {j}' for j in which])
        rows = np.where(active[:, None], own['distances'], np.nan)
        distances.append(np.where(weight > 0, rows, np.nan))
        track.append(np.where(np.isnan(distances[-1])[..., None], np.nan, own['points']))
        arrived, active = ~own['active'], own['active']
        ends = i == steps or not active.any()
        if i % SHOWN_EVERY == 0 or ends:
            mean = (weight * own['distances']).sum() / weight.sum()
            progress(i, {'distance': mean[None], 'loss': own['loss'].mean(keepdims=True)})
        if callback is not None:
            now = codes[:count] + offset[:count]
            moment = Moment(i, identities, now, track[-1], distances[-1], own['loss'])
            ends |= callback(moment) is False
        if ends:
            break
        taken += active
    offset = np.asarray(offset)[:count]
    w = np.asarray(codes)[:count] + offset
    return Dragged(w, offset, np.stack(track, 1), np.stack(distances, 1), taken, arrived)


# --- What is asked for ---


def _feature(spec: GeneratorSpec, s: Drag) -> tuple[str, tuple[int, ...]]:
    """(name, shape) of the feature map that is followed."""
    shapes = dict(spec.feature_shapes)
    if not shapes:
        raise JaxinvError(f'{spec.name} gives no feature maps, which a drag follows.')
    most = FEATURE_SIZES.get(spec.family, FEATURE_SIZE)
    default = ([name for name, shape in shapes.items() if shape[0] <= most] or list(shapes)[:1])[-1]
    name = s.feature or default
    if name not in shapes:
        raise JaxinvError(
            f"drag.feature is {name!r}; {spec.name} has {', '.join(shapes)}, or '' for {default}."
        )
    return name, shapes[name]


def _rows(spec: GeneratorSpec, s: Drag) -> int:
    """Leading rows of W+ that move."""
    if s.rows is not None:
        if s.rows > spec.num_ws:
            raise JaxinvError(f'drag.rows is {s.rows}; {spec.name} has {spec.num_ws} rows.')
        return s.rows
    if spec.latent == 'Z':
        return spec.num_ws
    # b4, both of b8 and b16, the first of b32. MobileStyleGAN counts three rows a block.
    return min(6 if spec.family == 'stylegan2' else 8, spec.num_ws)


def _points(points, n: int, spec: GeneratorSpec):
    """(handles int32 [n, k, 2], targets float32 [n, k, 2], valid float32 [n, k])."""
    words = 'points are pairs ((x, y), (x, y)) of handle and target, one list or one for each code'
    try:
        one = np.ndim(points[0][0][0]) == 0
        lists = [points] * n if one else list(points)
        lists = [np.asarray(own, np.float32) for own in lists]
    except (TypeError, ValueError, IndexError, KeyError):
        raise JaxinvError(f'{words}.') from None
    shapes = [list(own.shape) for own in lists]
    if len(lists) != n or any(x.ndim != 3 or x.shape[1:] != (2, 2) or not len(x) for x in lists):
        raise JaxinvError(f'{words}; got {shapes} for {n} codes.')
    flat = np.concatenate([own.reshape(-1, 2) for own in lists])
    bad = flat[~((flat >= 0) & (flat <= spec.resolution - 1)).all(1)]
    if len(bad):
        raise JaxinvError(
            f'the point ({bad[0][0]:g}, {bad[0][1]:g}) is outside the picture; x and y are from 0 '
            f'to {spec.resolution - 1}.'
        )
    size = -(-max(map(len, lists)) // STEP_OF_POINTS) * STEP_OF_POINTS
    found, valid = np.zeros([n, size, 2, 2], np.float32), np.zeros([n, size], np.float32)
    for i, own in enumerate(lists):
        found[i, : len(own)], valid[i, : len(own)] = own, 1
    return np.rint(found[:, :, 0]).astype(np.int32), found[:, :, 1], valid


def _masks(mask, n: int, spec: GeneratorSpec, size: int):
    """float32 [n, size, size, 1] of a mask at the image's size, or None."""
    if mask is None:
        return None
    mask = np.asarray(mask, np.float32)
    given = mask.shape
    mask = np.broadcast_to(mask, (n, *mask.shape)) if mask.ndim == 2 else mask
    r = spec.resolution
    if mask.shape != (n, r, r) or not ((mask >= 0) & (mask <= 1)).all():
        raise JaxinvError(
            f'mask is {list(given)}; it can be [{r}, {r}] or [{n}, {r}, {r}] from 0 to 1.'
        )
    empty = np.flatnonzero(mask.max((1, 2)) == 0)
    if len(empty):
        raise JaxinvError(f'the mask of code {empty[0]} is 0 everywhere; 1 is where it may move.')
    return area_resize(jnp.asarray(mask)[..., None], size)


def _stop_distance(s: Drag, valid, spec: GeneratorSpec) -> np.ndarray:
    """Pixels within which a point has arrived, [b]."""
    if s.stop_distance is not None:
        own = np.full(len(valid), s.stop_distance)
    else:
        own = np.where(valid.sum(1) > 5, 2.0, 1.0)
    return np.float32(own * max(spec.resolution / UNIT, 1))
