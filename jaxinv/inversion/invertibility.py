"""Which latent space can invert which part of a picture (SAM sections 3.1 and 3.2).

    maps = measure(...).maps                     # {'W+': [b, 256, 256], 'F4': ..., ...}
    selection = select(maps, labels, tau=0.225)  # for every segment, one space
    masks = soft_masks(selection.chosen, spec)   # {'F4': [b, 16, 16, 1], ...}, see masks.py

A map is the spatial LPIPS-vgg distance between a picture and its inversion into one space alone
(equation 1); 0 = equal. Spaces are ordered by editability: 'W+' first, then the generator's
features 'F4' to 'F10'.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import optimize
from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam
from jaxinv.inversion.masks import soft_masks
from jaxinv.networks import lpips
from jaxinv.optimize.runner import LoopTask
from jaxinv.pixels import area_resize
from jaxinv.rendering import full_precision
from jaxinv.settings import Invertibility, Search
from jaxinv.types import Generator, GeneratorSpec

SIZE = 256  # pixels of a map
TAU = Invertibility.tau


def check_spaces(spaces: Sequence[str], spec: GeneratorSpec) -> tuple[str, ...]:
    """`spaces` in the order of editability. Raises JaxinvError for an unknown one, or none."""
    known = sam.spaces(spec)
    wrong = [space for space in spaces if space not in known]
    if wrong or not spaces:
        raise JaxinvError(
            f'spaces {wrong} are not of {spec.name}; it has {", ".join(known)}.'
            if wrong
            else f'no latent space is named; {spec.name} has {", ".join(known)}.'
        )
    return tuple(space for space in known if space in spaces)


# --- Measured maps --------------------------------------------------------------------------------


class Candidates(NamedTuple):
    """Every image inverted into every space alone: rows for sam.make_inverter, space by space."""

    targets: Any  # [s * b, h, w, 3]
    masks: dict[str, Any]  # {feature: [s * b, h, w, 1]}: ones in the rows of that space
    w_plus: Any  # [s * b, k, w_dim], where the search starts
    ids: Any  # [s * b]
    valid: Any  # [s * b, h, w, 1] or None


def candidates(spec: GeneratorSpec, spaces, targets, w_plus, ids, valid=None) -> Candidates:
    """Rows for targets [b, h, w, 3] with starts w_plus [b or 1, k, w_dim] and ids [b]."""
    count, b = len(spaces), len(targets)

    def repeat(x):
        return jnp.tile(jnp.asarray(x), (count,) + (1,) * (np.ndim(x) - 1))

    rows = [space for space in spaces for _ in range(b)]
    masks = sam.full_masks(spec, rows)  # of all features: any choice of spaces is one program
    w_plus = jnp.broadcast_to(jnp.asarray(w_plus), (b, *np.shape(w_plus)[1:]))
    valid = None if valid is None else repeat(valid)
    return Candidates(repeat(targets), masks, repeat(w_plus), repeat(ids), valid)


class Measured(NamedTuple):
    maps: dict[str, Any]  # {space: [b, size, size]}
    images: dict[str, Any]  # {space: [b, h, w, 3]}: the inversions into that space alone
    codes: sam.Codes  # of the rows


def measure(
    generator: Generator,
    weights,
    nets: dict[str, Any],
    targets,
    w_plus,
    ids,
    prior,
    settings: Search,
    *,
    spaces=None,
    valid=None,
    key=None,
) -> Measured:
    """Inverts into each space alone and compares (equation 1); arguments of `measuring_task`."""
    task = measuring_task(
        generator,
        weights,
        nets,
        targets,
        w_plus,
        ids,
        prior,
        settings,
        spaces=spaces,
        valid=valid,
        key=key,
    )
    state, args = task.prepare(slice(None))
    state, _ = optimize.run(task.loop, state, args, task.key, task.num_steps)
    return task.result(state.variables)


def measuring_task(
    generator: Generator,
    weights,
    nets: dict[str, Any],  # LPIPS weights {'vgg': ..., settings.lpips_net: ...}
    targets,  # [b, h, w, 3]
    w_plus,  # [b or 1, k, w_dim], where the search starts
    ids,  # [b]
    prior,
    settings: Search,
    *,
    spaces=None,  # None = all that the generator has
    valid=None,  # [b, h, w, 1]
    key=None,
    result: Callable[[Measured], Any] = lambda measured: measured,
) -> LoopTask:
    """The inversions into each space alone, all images and spaces as one batch.

    As in the released code's single-space inversion, w_plus moves along with the offsets of a
    space. The task's result is that of `result`, on the maps (equation 1), images and codes.
    """
    spaces = check_spaces(spaces or sam.spaces(generator.spec), generator.spec)
    rows = candidates(generator.spec, spaces, targets, w_plus, ids, valid)
    inverter = sam.make_inverter(generator, settings)

    def prepare(which, shard=0):
        own = jax.tree.map(lambda x: x[which], rows)
        start = own.w_plus, own.ids, prior, own.valid
        return inverter.prepare(weights, nets[settings.lpips_net], own.targets, own.masks, *start)

    def compare(variables):
        codes, b = inverter.codes(variables), len(targets)
        maps, images = {}, {}
        for i, space in enumerate(spaces):
            part = slice(i * b, (i + 1) * b)
            own = jax.tree.map(lambda x, part=part: x[part], (codes, rows.masks))
            noise = 'none' if settings.noise == 'none' else 'const'
            # Maps are thresholded, so they are computed at full precision (jaxinv/rendering.py).
            with full_precision():
                images[space] = _synthesize(generator, noise)(weights, *own)
                maps[space] = error_map(nets['vgg'], images[space], targets, valid)
        return result(Measured(maps, images, codes))

    return LoopTask(
        inverter.loop,
        prepare,
        jax.random.key(0) if key is None else key,
        settings.num_steps,
        settings.metrics,
        compare,
        kinds=spaces if len(spaces) > 1 else ('',),
    )


@functools.cache
def _synthesize(generator, noise):
    return jax.jit(
        lambda weights, codes, masks: sam.synthesize(generator, weights, codes, masks, noise)
    )


@jax.jit
def error_map(lpips_weights, images, targets, valid=None):
    """Equation 1: the spatial LPIPS-vgg [b, size, size] of images, at SIZE pixels or fewer.

    Images are clipped to [-1, 1], as they are displayed; the search compares them unclipped unless
    Search.clamp. valid [b, h, w, 1]: where it is 0, the image is filled with the target.
    """
    size = min(SIZE, *images.shape[1:3])
    images, targets = (area_resize(jnp.asarray(x), size) for x in (images, targets))
    images = jnp.clip(images, -1, 1)
    if valid is not None:
        valid = area_resize(jnp.asarray(valid, images.dtype), size)
        images = valid * images + (1 - valid) * targets
    features = lpips.features(lpips_weights, images)
    return lpips.spatial(features, lpips.features(lpips_weights, targets), size)


# --- Refinement and selection ---------------------------------------------------------------------


class Selection(NamedTuple):
    chosen: Any  # int32 [b, h, w]: index into `spaces`
    choice: Any  # int32 [b, n]: the same for each segment
    means: Any  # [b, spaces, n]: a segment's mean of each map


def segment_means(values, labels, num_segments: int, valid=None):
    """Mean [b, n] of values [b, h, w] over each segment; 0 for a segment without a valid pixel.

    valid [b, h, w, 1]: 1 where the picture counts, 0 where it is padding; None = 1 everywhere.
    """
    # Row by row first: one long float32 sum would lose four digits.
    sums = jax.vmap(jax.vmap(lambda v, row: jax.ops.segment_sum(v, row, num_segments)))
    values = jnp.asarray(values)
    labels = jnp.broadcast_to(labels, values.shape)
    weight = _weight(values.shape, valid)
    total, area = sums(values * weight, labels).sum(1), sums(weight, labels).sum(1)
    return jnp.where(area > 0, total / jnp.where(area > 0, area, 1), 0.0)


def _weight(shape, valid):
    return jnp.ones(shape) if valid is None else jnp.broadcast_to(jnp.asarray(valid)[..., 0], shape)


def refine(values, labels, valid=None):
    """A map [b, h, w] with every pixel replaced by the mean of its segment (section 3.1)."""
    means = segment_means(values, labels, int(np.max(labels)) + 1, valid)
    return jax.vmap(lambda m, label: m[label])(means, jnp.broadcast_to(labels, np.shape(values)))


def select(maps: dict, labels, tau=TAU, valid=None, num_segments: int | None = None) -> Selection:
    """For every segment the most editable space whose mean is at most tau (section 3.2).

    maps: {space: [b, h, w]}, most editable first; labels [b, h, w] of the same size; tau a number
    (may be traced). num_segments: with it labels may be traced, too; None = as the labels say.

    A segment that no space passes gets the last one (the paper does not say; the released code
    takes F10). The released code tests from F10 to W+ and keeps the last that passes, which is the
    same: W+ is chosen even where F4 fails.
    """
    _check_sizes(maps, labels)
    count = int(np.max(labels)) + 1 if num_segments is None else num_segments
    return _select(_means(_stack(maps), labels, count, valid), labels, tau)


def _stack(maps):
    return jnp.stack([jnp.asarray(values) for values in maps.values()], axis=1)


def _means(stacked, labels, count: int, valid):
    """[b, spaces, n] of stacked maps [b, spaces, h, w]."""
    means = jax.vmap(lambda v: segment_means(v, labels, count, valid), in_axes=1, out_axes=1)
    return means(stacked)


def _select(means, labels, tau) -> Selection:
    passes = means <= tau
    choice = jnp.where(passes.any(1), passes.argmax(1), means.shape[1] - 1).astype(jnp.int32)
    chosen = jax.vmap(lambda c, label: c[label])(choice, jnp.asarray(labels))
    return Selection(chosen, choice, means)


def select_pixels(maps: dict, tau):
    """`chosen` of every pixel alone, without segments (the ablation of appendix 6.5)."""
    passes = _stack(maps) <= tau
    return jnp.where(passes.any(1), passes.argmax(1), passes.shape[1] - 1).astype(jnp.int32)


def assign(labels, names: Sequence[str], space_of: dict[str, str], default: str, spaces):
    """`chosen` [h, w] from the names of segments (class segmentation as the map, appendix 6.5).

    space_of: {beginning of a segment's name: space}; the longest match counts, `default` is for
    names without one. Raises JaxinvError for a space that is not in `spaces`.
    """
    spaces = tuple(spaces)
    for space in (*space_of.values(), default):
        if space not in spaces:
            raise JaxinvError(f'space {space!r} is not one of {", ".join(spaces)}.')
    places = []
    for name in names:
        fitting = [beginning for beginning in space_of if name.startswith(beginning)]
        places.append(spaces.index(space_of[max(fitting, key=len)] if fitting else default))
    return np.asarray(places, np.int32)[labels]


def areas(chosen, num_spaces: int, valid=None):
    """Share of the valid pixels in each space, [b, spaces]; sums to 1."""
    hot = jax.nn.one_hot(chosen, num_spaces, axis=-1)
    weight = _weight(chosen.shape, valid)
    return jnp.einsum('bhws,bhw->bs', hot, weight) / weight.sum((1, 2))[:, None]


# --- Many thresholds at once ----------------------------------------------------------------------


class Sweep(NamedTuple):
    chosen: Any  # int32 [t, b, h, w]
    masks: dict[str, Any]  # {feature space: [t, b, h, w, 1]}
    areas: Any  # [t, b, spaces]


def sweep(
    maps: dict,
    labels,
    taus,
    spec: GeneratorSpec,
    *,
    valid=None,
    resample: str = 'bilinear',
    batch_per_device: int = 0,  # pictures in the program, which bounds its memory; 0 = all
) -> Sweep:
    """Selections, masks and areas for all thresholds taus [t] in one program, on the host.

    As t * b rows (`rows_of`), one inversion gives the whole curve of reconstruction against
    editability.
    """
    found = sweep_batches(
        maps, labels, taus, spec, valid=valid, resample=resample, batch_per_device=batch_per_device
    )
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *(own for _, own in found))


def sweep_batches(
    maps: dict,
    labels,
    taus,
    spec: GeneratorSpec,
    *,
    valid=None,
    resample: str = 'bilinear',
    batch_per_device: int = 0,
) -> Iterator[tuple[slice, Sweep]]:
    """Yields the rows of each batch of `sweep`, and its result."""
    _check_sizes(maps, labels)
    spaces, count = tuple(maps), int(np.max(labels)) + 1

    @jax.jit
    def compute(stacked, labels, taus, valid):
        means = _means(stacked, labels, count, valid)

        def one(tau):
            chosen = _select(means, labels, tau).chosen
            masks = soft_masks(chosen, spec, spaces, resample)
            return Sweep(chosen, masks, areas(chosen, len(spaces), valid))

        return jax.vmap(one)(taus)

    valid = None if valid is None else np.broadcast_to(valid, (*np.shape(labels), 1))
    taus = jnp.asarray(taus, jnp.float32)
    for rows in batches(len(labels), batch_per_device):
        own = None if valid is None else valid[rows]
        own = compute(_stack({s: m[rows] for s, m in maps.items()}), labels[rows], taus, own)
        yield rows, jax.device_get(own)


def batches(count: int, size: int) -> list[slice]:
    """0 ... count - 1, `size` at a time; 0 = all."""
    size = size or count
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def rows_of(masks: dict) -> dict:
    """Masks [t, b, h, w, 1] of a sweep as rows [t * b, h, w, 1] of the inverter, by threshold."""
    return {space: mask.reshape(-1, *mask.shape[2:]) for space, mask in masks.items()}


def _check_sizes(maps, labels) -> None:
    for space, values in maps.items():
        if np.shape(values) != np.shape(labels):
            raise JaxinvError(
                f'the map of {space} is {np.shape(values)} and the labels are {np.shape(labels)}; '
                'bring the segments to the size of the map (label_maps.resize).'
            )
