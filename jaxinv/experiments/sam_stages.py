"""Which region goes into which latent space: segments, invertibility maps, and the choice.

The first half of SAM (section 3.1 and 3.2), from pictures to the masks of the image formation.
Computed for sam.batch_per_device pictures at a time; what is of all of them lies on the host.

The joint search of a SAM run: where it starts, and what there is when it has ended.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import latents, pixels
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti, sam_stages
from jaxinv.experiments.session import Session
from jaxinv.generators import checks
from jaxinv.inversion import invertibility, sam, sam_prior
from jaxinv.inversion.masks import RESAMPLERS, soft_masks, valid_of
from jaxinv.networks import invertibility as learned
from jaxinv.optimize import runner
from jaxinv.segmentation import label_maps
from jaxinv.segmentation import segment as segments
from jaxinv.settings import search_settings
from jaxinv.weights.networks import load_invertibility


class Single(NamedTuple):
    """All images inverted into one space alone."""

    images: np.ndarray  # [n, h, w, 3]
    codes: sam.Codes
    masks: dict[str, np.ndarray]


class Regions(NamedTuple):
    segments: list[label_maps.Segments]  # of each image, at its full size
    labels: np.ndarray  # int [n, size, size]
    maps: dict[str, np.ndarray]  # {space: [n, size, size]}, the most editable first
    singles: dict[str, Single]  # {} if a network made the maps
    chosen: np.ndarray  # int [n, size, size]: place in maps
    masks: dict[str, np.ndarray]  # {feature: [n, h, w, 1]}
    traces: list  # [(stage, traces)]


def check(config, spec) -> None:
    """Raises JaxinvError for settings that cannot be used with a generator of this spec."""
    s = config.invertibility
    segments.check(config.segments.how)
    invertibility.check_spaces(s.spaces or sam.spaces(spec), spec)
    invertibility.check_spaces([space for _, space in s.assign] or sam.spaces(spec), spec)
    if s.network:
        load_invertibility(s.network)
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
    valid, names = valid_of(job, (size, size)), [s.names for s in small]
    chosen, masks = [], []
    for rows in invertibility.batches(len(labels), settings.batch_per_device):
        own = {space: values[rows] for space, values in maps.items()}
        own_valid = None if valid is None else valid[rows]
        own = choose(config, own, labels[rows], names[rows], own_valid)
        chosen.append(np.asarray(own))
        masks.append(soft_masks(own, spec, tuple(maps), config.invertibility.resample))
    masks = {space: np.concatenate([own[space] for own in masks]) for space in masks[0]}
    return Regions(found, labels, maps, singles, np.concatenate(chosen), masks, traces)


def predict(job, spaces) -> dict[str, Any]:
    """Maps {space: [n, size, size]} of the learned network, as far as it knows the spaces."""
    network, variables = load_invertibility(job.config.invertibility.network)
    if job.generator.spec.resolution < learned.SIZE:
        raise JaxinvError(
            f'the invertibility network reads pictures of {learned.SIZE} pixels or more; '
            'without invertibility.network the maps are measured.'
        )
    parts, targets = [], job.targets.images_uint8
    for rows in invertibility.batches(len(targets), job.config.sam.batch_per_device):
        own = pixels.to_float(targets[rows])
        maps = learned.predict(network, variables, own, job.nets['vgg'])
        parts.append(jax.device_get(maps))
    known = [space for space in spaces if space in parts[0]]
    return {space: np.concatenate([maps[space] for maps in parts]) for space in known}


def measure(job, weights, w_plus, prior, settings, spaces):
    """Maps {space: [n, size, size]}, {space: Single} and traces, `spaces_at_once` in a program."""
    config, targets = job.config, job.targets
    ids = latents.identity_ids(targets.images_uint8)
    maps, singles, traces = {}, {}, []
    for places in invertibility.batches(len(spaces), config.invertibility.spaces_at_once):
        group = spaces[places]
        stage = f'measure_{"_".join(group)}'

        def find_maps(rows, run, group=group):
            kinds = group if len(group) > 1 else ('',)
            measured = invertibility.measure(
                job.generator,
                weights,
                job.nets,
                pixels.to_float(targets.images_uint8[rows]),
                w_plus[rows],
                ids[rows],
                prior,
                settings,
                spaces=group,
                valid=None if targets.valid is None else targets.valid[rows],
                key=jax.random.key(config.seed + 2),
                run=functools.partial(run, metric_names=settings.metrics, kinds=kinds),
            )
            return measured.maps, singles_of(measured)

        with job.watch.stage(stage):
            (found, alone), rows = runner.in_parts(job, stage, settings.batch_per_device, find_maps)
        # In the order of the spaces, which jax's trees do not keep.
        maps |= {space: found[space] for space in group}
        singles |= {space: alone[space] for space in group}
        traces.append((stage, rows))
    return maps, singles, traces


def singles_of(measured: invertibility.Measured) -> dict[str, Single]:
    singles = {}
    for i, (space, images) in enumerate(measured.images.items()):
        part = slice(i * len(images), (i + 1) * len(images))
        codes = measured.codes
        offsets = {s: offset[part] for s, offset in codes.offsets.items() if s == space}
        masks = {s: np.ones((*x.shape[:3], 1), np.float32) for s, x in offsets.items()}
        singles[space] = Single(images, sam.Codes(codes.w_plus[part], offsets), masks)
    return singles


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
        return np.stack(rows)
    if not s.refine:
        return invertibility.select_pixels(maps, s.tau)
    return invertibility.select(maps, labels, s.tau, valid).chosen


class Inverted(NamedTuple):
    """On the host, but for weights and prior."""

    pivots: np.ndarray  # [n, 1 or num_ws, w_dim]
    weights: Any  # of the generator, tuned or not
    codes: sam.Codes
    masks: dict[str, np.ndarray]
    prior: sam_prior.Prior
    regions: sam_stages.Regions | None  # of the methods that choose
    traces: list  # [(stage, traces)]


def find_start(job: Session):
    """Where w_plus starts, [n, 1 or num_ws, w_dim], and the traces of the search for it.

    By projection into W, or read from config.start: another run's pivots.npz, or what an encoder
    said, by the targets' names.
    """
    if not job.config.start:
        return pti.find_pivots(job)
    path = pathlib.Path(job.config.start)
    path = path / 'pivots.npz' if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as arrays:
            codes = dict(zip(arrays['names'].tolist(), arrays['w'], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise JaxinvError(
            f'start {path} is not an .npz file with arrays names [n] and w [n, 1 or num_ws, w_dim] '
            f'({error}).'
        ) from None
    missing = [name for name in job.targets.names if name not in codes]
    if missing:
        raise JaxinvError(f'start {path} has no code for {", ".join(missing)}.')
    w = np.stack([codes[name] for name in job.targets.names]).astype(np.float32)
    checks.check_w(w, job.generator.spec)
    if job.classes is not None:  # these are the run's, whatever the file's were
        w = latents.with_class(w, job.classes.embeddings[:, None])
    return w, {}


def search(job: Session, stage, weights, masks, w_plus, prior):
    """Codes of all targets, and the traces of the search."""
    config = job.config
    settings = search_settings(config)
    inverter = sam.make_inverter(job.generator, settings)
    with job.watch.stage(stage):
        net, valid = job.nets[settings.lpips_net], job.targets.valid
        targets, key = job.targets.images_uint8, jax.random.key(config.seed + 3)
        ids = latents.identity_ids(targets)

        def find(rows, run):
            def prepare(which, share):
                own = rows[which]
                return inverter.prepare(
                    weights,
                    net,
                    pixels.to_float(targets[own]),
                    {space: mask[own] for space, mask in masks.items()},
                    w_plus[own],
                    ids[own],
                    prior,
                    None if valid is None else valid[own],
                )

            variables = run(inverter.loop, prepare, key, settings.num_steps, settings.metrics)
            return inverter.codes(variables)

        return runner.in_parts(job, stage, settings.batch_per_device, find)
