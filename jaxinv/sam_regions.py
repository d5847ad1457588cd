"""Which region goes into which latent space: segments, invertibility maps, and the choice.

The first half of SAM (section 3.1 and 3.2), from pictures to the masks of the image formation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import images as pictures
from jaxinv import invertibility, label_maps, latents, loops, segments
from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam
from jaxinv.masks import RESAMPLERS, soft_masks
from jaxinv.networks import invertibility as learned


class Single(NamedTuple):
    """All images inverted into one space alone."""

    images: Any  # [n, h, w, 3]
    codes: sam.Codes
    masks: dict[str, Any]


class Regions(NamedTuple):
    segments: list[label_maps.Segments]  # of each image, at its full size
    labels: np.ndarray  # int [n, size, size]
    maps: dict[str, Any]  # {space: [n, size, size]}, the most editable first
    singles: dict[str, Single]  # {} if a network made the maps
    chosen: Any  # int [n, size, size]: place in maps
    masks: dict[str, Any]  # {feature: [n, h, w, 1]}
    traces: list  # [(stage, traces)]


def check(config, spec) -> None:
    """Raises JaxinvError for settings that cannot be used with a generator of this spec."""
    s = config.invertibility
    segments.check(config.segments.how)
    invertibility.check_spaces(s.spaces or sam.spaces(spec), spec)
    invertibility.check_spaces([space for _, space in s.assign] or sam.spaces(spec), spec)
    if s.network:
        learned.load(s.network)
    if s.resample not in RESAMPLERS:
        raise JaxinvError(
            f'invertibility.resample is {s.resample!r}; it can be {" or ".join(RESAMPLERS)}.'
        )
    if not 0 < s.tau < 10:
        raise JaxinvError(f'invertibility.tau is {s.tau}; it must lie between 0 and 10.')
    if s.spaces_at_once < 0:
        raise JaxinvError(
            f'invertibility.spaces_at_once is {s.spaces_at_once}; 0 = all, 1 = one by one, ...'
        )


def segment(job) -> list[label_maps.Segments]:
    """The segments of all targets."""
    settings = job.config.segments
    with job.watch.stage('segments'):
        return [
            segments.segment(image, settings.how, name=name, parts=settings.parts)
            for name, image in zip(job.targets.names, job.targets.images_uint8, strict=True)
        ]


def find(job, found, weights, w_plus, prior, settings: sam.Settings) -> Regions:
    """The regions of all targets from their segments.

    `settings` are those of the measuring inversions.
    """
    config, spec = job.config, job.generator.spec
    size = min(invertibility.SIZE, spec.resolution)
    small = [label_maps.resize(s, size) for s in found]
    labels = np.stack([s.labels for s in small])
    spaces = invertibility.check_spaces(config.invertibility.spaces or sam.spaces(spec), spec)
    singles, traces = {}, []
    if config.invertibility.network:
        with job.watch.stage('invertibility'):
            maps = predict(job, spaces)
    else:
        maps, singles, traces = measure(job, weights, w_plus, prior, settings, spaces)
    valid = job.targets.valid
    valid = None if valid is None else pictures.area_resize(jnp.asarray(valid), size)
    chosen = choose(config, maps, labels, [s.names for s in small], valid)
    masks = soft_masks(chosen, spec, tuple(maps), config.invertibility.resample)
    return Regions(found, labels, maps, singles, chosen, masks, traces)


def predict(job, spaces) -> dict[str, Any]:
    """Maps {space: [n, size, size]} of the learned network, as far as it knows the spaces."""
    network, variables = learned.load(job.config.invertibility.network)
    if job.generator.spec.resolution < learned.SIZE:
        raise JaxinvError(
            f'the invertibility network reads pictures of {learned.SIZE} pixels or more; '
            'without invertibility.network the maps are measured.'
        )
    targets = pictures.to_float(job.targets.images_uint8)
    maps = learned.predict(network, variables, targets, job.nets['vgg'])
    return {space: maps[space] for space in spaces if space in maps}


def measure(job, weights, w_plus, prior, settings, spaces):
    """Maps {space: [n, size, size]}, {space: Single} and traces, `spaces_at_once` in a program."""
    config, names = job.config, tuple(job.targets.names)
    targets = pictures.to_float(job.targets.images_uint8)
    ids = latents.identity_ids(job.targets.images_uint8)
    at_once = config.invertibility.spaces_at_once or len(spaces)
    maps, singles, traces = {}, {}, []
    for start in range(0, len(spaces), at_once):
        group = spaces[start : start + at_once]
        stage = f'measure_{"_".join(group)}'

        def run(loop, prepare, key, num_steps, group=group, stage=stage):
            rows = names if len(group) == 1 else [f'{n} {s}' for s in group for n in names]
            variables, rows = loops.with_checkpoints(
                job, stage, loop, prepare, key, num_steps, settings.metrics, tuple(rows)
            )
            traces.append((stage, rows))
            return variables, rows

        with job.watch.stage(stage):
            measured = invertibility.measure(
                job.generator,
                weights,
                job.nets,
                targets,
                w_plus,
                ids,
                prior,
                settings,
                spaces=group,
                valid=job.targets.valid,
                key=jax.random.key(config.seed + 2),
                run=run,
            )
        maps |= measured.maps
        for i, space in enumerate(group):
            part = slice(i * len(names), (i + 1) * len(names))
            codes = jax.tree.map(lambda x, part=part: x[part], measured.codes)
            offsets = {s: o for s, o in codes.offsets.items() if s == space}
            masks = {s: jnp.ones((*o.shape[:3], 1)) for s, o in offsets.items()}
            codes = sam.Codes(codes.w_plus, offsets)
            singles[space] = Single(measured.images[space], codes, masks)
    return maps, singles, traces


def choose(config, maps, labels, names, valid):
    """Place in `maps` [n, size, size] by the settings: refined, by the pixel, or by class names."""
    s = config.invertibility
    if s.assign:
        spaces = tuple(maps)
        space_of = dict(s.assign)
        default = space_of.pop('*', spaces[-1])
        rows = [
            invertibility.assign(label, own, space_of, default, spaces)
            for label, own in zip(labels, names, strict=True)
        ]
        return jnp.asarray(np.stack(rows))
    if not s.refine:
        return invertibility.select_pixels(maps, s.tau)
    return invertibility.select(maps, labels, s.tau, valid).chosen
