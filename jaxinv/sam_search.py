"""The joint search of a SAM run: where it starts, and what there is when it has ended."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import experiment, images, latents, loops, sam_regions
from jaxinv.errors import JaxinvError
from jaxinv.generators import arguments
from jaxinv.inversion import sam, sam_prior
from jaxinv.jobs import Job
from jaxinv.sam_settings import search_settings


class Inverted(NamedTuple):
    """On the host, but for weights and prior."""

    pivots: np.ndarray  # [n, 1 or num_ws, w_dim]
    weights: Any  # of the generator, tuned or not
    codes: sam.Codes
    masks: dict[str, np.ndarray]
    prior: sam_prior.Prior
    regions: sam_regions.Regions | None  # of the methods that choose
    traces: list  # [(stage, traces)]


def find_start(job: Job):
    """Where w_plus starts, [n, 1 or num_ws, w_dim], and the traces of the search for it.

    By projection into W, or read from config.start: another run's pivots.npz, or what an encoder
    said, by the targets' names.
    """
    if not job.config.start:
        return experiment.find_pivots(job)
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
    arguments.check_w(w, job.generator.spec)
    if job.classes is not None:  # these are the run's, whatever the file's were
        w = latents.with_rest(w, job.classes.embeddings[:, None])
    return w, {}


def search(job: Job, stage, weights, masks, w_plus, prior):
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
                    images.to_float(targets[own]),
                    {space: mask[own] for space, mask in masks.items()},
                    w_plus[own],
                    ids[own],
                    prior,
                    None if valid is None else valid[own],
                )

            variables = run(inverter.loop, prepare, key, settings.num_steps, settings.metrics)
            return inverter.codes(variables)

        return loops.in_parts(job, stage, settings.at_once, find)
