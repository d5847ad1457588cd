"""Which region lies in which latent space: segments, invertibility maps, choice, masks.

The first half of SAM (sections 3.1 and 3.2), computed for Search.batch_per_device images per device
at a time; results for all of them lie on the host.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents, settings
from jaxinv.errors import JaxinvError
from jaxinv.inversion import invertibility, region_files, sam
from jaxinv.inversion.inputs import Examples
from jaxinv.inversion.masks import soft_masks
from jaxinv.networks import invertibility as network
from jaxinv.optimize.runner import Runner
from jaxinv.pixels import area_resize, to_float, to_uint8
from jaxinv.segmentation import label_maps, segment
from jaxinv.types import Generator, GeneratorSpec
from jaxinv.weights.networks import load_invertibility


class Problem(NamedTuple):
    """What the stages of an inversion read and none of them changes."""

    generator: Generator
    weights: Any  # of the generator: its own, or tuned ones
    examples: Examples
    nets: dict[str, Any]  # LPIPS weights {'alex': ..., 'vgg': ...}
    runner: Runner
    seed: int


class Single(NamedTuple):
    """All images inverted into one space alone."""

    images_uint8: np.ndarray  # [n, h, w, 3], what reports show of the inversion
    codes: sam.Codes
    masks: dict[str, np.ndarray]


class Regions(NamedTuple):
    """The choice of spaces and what it was made of."""

    segments: list[label_maps.Segments]  # of each image, at its full size
    labels: np.ndarray  # int [n, size, size]
    maps: dict[str, np.ndarray]  # {space: [n, size, size]}, the most editable first
    singles: dict[str, Single]  # {} if the maps were predicted or read
    chosen: np.ndarray  # int [n, size, size]: index into maps
    masks: dict[str, np.ndarray]  # {feature: [n, h, w, 1]}
    history: list  # [(stage, {metric: [steps, n]})]
    inputs: np.ndarray  # str [n], of region_files.inputs


def check(segments: settings.Segments, choice: settings.Invertibility, spec: GeneratorSpec) -> None:
    """Raises JaxinvError for settings that cannot be used with a generator of this spec."""
    segment.check(segments.how)
    invertibility.check_spaces(choice.spaces or sam.spaces(spec), spec)
    invertibility.check_spaces([space for _, space in choice.assign] or sam.spaces(spec), spec)
    if choice.network:
        load_invertibility(choice.network)
    if choice.maps:
        known = invertibility.check_spaces(choice.spaces or sam.spaces(spec), spec)
        region_files.check(choice.maps, known, min(invertibility.SIZE, spec.resolution))


def segment_images(
    examples: Examples, runner: Runner, options: settings.Segments
) -> list[label_maps.Segments]:
    """The segments of all images, at their full size."""
    with runner.stopwatch.stage('segments'):
        return [
            segment.segment(image, options.how, name=name, parts=options.parts, log=runner.log)
            for name, image in zip(examples.names, examples.images_uint8, strict=True)
        ]


def find_regions(
    problem: Problem,
    segments: list[label_maps.Segments],
    w_plus,  # [n, num_ws, w_dim], where the measuring inversions start
    prior,
    search: settings.Search,  # of the measuring inversions
    choice: settings.Invertibility,
) -> Regions:
    """The regions of all images: maps, measured, predicted or read, and the space of each segment.

    Raises JaxinvError for maps of other pictures or weights.
    """
    spec = problem.generator.spec
    size = min(invertibility.SIZE, spec.resolution)
    small = [label_maps.resize(s, size) for s in segments]
    labels, names = np.stack([s.labels for s in small]), [s.names for s in small]
    spaces = invertibility.check_spaces(choice.spaces or sam.spaces(spec), spec)
    singles, history = {}, []
    inputs = region_files.inputs(problem.weights, problem.examples.images_uint8)
    if choice.maps:
        found = region_files.maps_for(choice.maps, inputs, problem.examples.names)
        maps = {space: found[space] for space in spaces}
    elif choice.network:
        with problem.runner.stopwatch.stage('invertibility'):
            maps = predict(problem, choice.network, spaces, search.batch_per_device)
    else:
        maps, singles, history = measure(
            problem, w_plus, prior, search, spaces, choice.spaces_at_once
        )
    valid = valid_at(problem.examples.valid, (size, size))
    chosen, masks = [], []
    for rows in invertibility.batches(len(labels), search.batch_per_device):
        own = {space: values[rows] for space, values in maps.items()}
        own_valid = None if valid is None else valid[rows]
        own = choose(choice, own, labels[rows], names[rows], own_valid)
        chosen.append(np.asarray(own))
        masks.append(soft_masks(own, spec, tuple(maps), choice.resample))
    masks = {space: np.concatenate([own[space] for own in masks]) for space in masks[0]}
    chosen = np.concatenate(chosen)
    return Regions(segments, labels, maps, singles, chosen, masks, history, inputs)


def valid_at(valid, size: tuple[int, int]) -> np.ndarray | None:
    """A mask [n, h, w, 1] of valid pixels at another size by area averages; None stays None."""
    if valid is None:
        return None
    return np.concatenate([area_resize(jnp.asarray(v[None]), size) for v in valid])


def predict(problem: Problem, source, spaces, batch_size: int) -> dict[str, np.ndarray]:
    """Maps {space: [n, size, size]} of a trained network, for those spaces that it has."""
    trained, variables = load_invertibility(source)
    if problem.generator.spec.resolution < network.SIZE:
        raise JaxinvError(
            f'the invertibility network reads images of {network.SIZE} pixels or more; '
            'without invertibility.network the maps are measured.'
        )
    batches, images = [], problem.examples.images_uint8
    for rows in invertibility.batches(len(images), batch_size):
        with jax.default_matmul_precision('highest'):  # maps are thresholded
            maps = network.predict(trained, variables, to_float(images[rows]), problem.nets['vgg'])
        batches.append(jax.device_get(maps))
    known = [space for space in spaces if space in batches[0]]
    return {space: np.concatenate([maps[space] for maps in batches]) for space in known}


def measure(problem: Problem, w_plus, prior, search, spaces, spaces_at_once: int):
    """(maps {space: [n, size, size]}, {space: Single}, history), one inversion into each space.

    spaces_at_once: spaces in one program; 0 = all.
    """
    generator, weights, examples, nets, runner, seed = problem
    ids, images, valid = examples.ids, examples.images_uint8, examples.valid
    key = latents.stream(seed, 'measure')
    maps, singles, history = {}, {}, []
    for indices in invertibility.batches(len(spaces), spaces_at_once):
        group = spaces[indices]
        stage = f'measure_{"_".join(group)}'

        def make_task(rows, group=group):
            return invertibility.measuring_task(
                generator,
                weights,
                nets,
                to_float(images[rows]),
                w_plus[rows],
                ids[rows],
                prior,
                search,
                spaces=group,
                valid=None if valid is None else valid[rows],
                key=key,
                result=lambda measured: (measured.maps, singles_of(measured)),
            )

        (found, alone), traces = runner.run(
            stage, make_task, batch_per_device=search.batch_per_device
        )
        # In the order of the spaces, which JAX's trees do not keep.
        maps |= {space: found[space] for space in group}
        singles |= {space: alone[space] for space in group}
        history.append((stage, traces))
    return maps, singles, history


def singles_of(measured: invertibility.Measured) -> dict[str, Single]:
    """{space: Single} of a measuring inversion, whose rows are ordered by space."""
    singles = {}
    for i, (space, images) in enumerate(measured.images.items()):
        rows = slice(i * len(images), (i + 1) * len(images))
        codes = measured.codes
        offsets = {s: offset[rows] for s, offset in codes.offsets.items() if s == space}
        masks = {s: np.ones((*x.shape[:3], 1), np.float32) for s, x in offsets.items()}
        single_codes = sam.Codes(codes.w_plus[rows], offsets)
        singles[space] = Single(to_uint8(images), single_codes, masks)
    return singles


def choose(choice: settings.Invertibility, maps, labels, names, valid) -> np.ndarray:
    """Indices into `maps` [n, size, size]: by segment, by pixel, or by the names of segments."""
    if choice.assign:
        spaces = tuple(maps)
        space_of = dict(choice.assign)
        default = space_of.pop('*', spaces[-1])
        rows = [
            invertibility.assign(label, own, space_of, default, spaces)
            for label, own in zip(labels, names, strict=True)
        ]
        return np.stack(rows)
    if not choice.refine:
        return invertibility.select_pixels(maps, choice.tau)
    return invertibility.select(maps, labels, choice.tau, valid).chosen
