"""Measures a run's images: metrics and attributes of stages and edits, drift, provenance.

Memory. Images are rendered in float32 for at most `rendering.BATCH` targets at a time, measured,
rounded to uint8 and written to PNG files; a report reads them one by one (report.Pictures). So the
host's memory for scoring does not depend on the number of targets.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import faces, latents, metrics, pixels, rendering, report
from jaxinv.experiments.session import Session
from jaxinv.faces import attributes, measures
from jaxinv.io import json_text
from jaxinv.report import provenance
from jaxinv.weights.networks import lpips_origin


class Reference(NamedTuple):
    """A few targets that images are measured against."""

    images_uint8: np.ndarray  # [b, h, w, 3]
    valid: np.ndarray | None  # [b, h, w, 1], 0 on padding
    embeddings: np.ndarray | None  # [b, 128] of faces, NaN without one; None = no faces
    nets: dict[str, Any]  # LPIPS weights
    names: tuple[str, ...]  # of the metrics


def batches(indices: Sequence[int]) -> list[np.ndarray]:
    """Indices of targets that are measured together, rendering.BATCH at a time."""
    indices, size = np.asarray(indices), rendering.BATCH
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def reference(
    session: Session, rows: np.ndarray, names=metrics.METRICS, valid: np.ndarray | None = None
) -> Reference:
    """The targets `rows` of a session, for the metrics `names`.

    valid [n, h, w, 1]: pixels of all targets that count; None = all, as in PTI's loss.
    """
    names = names if session.config.scores == 'all' else ('mse', 'psnr')
    images = session.targets.images_uint8[rows]
    embeddings = faces.embed(images) if session.measures_faces else None
    own = None if valid is None else valid[rows]
    return Reference(images, own, embeddings, session.nets, names)


def measure_stage(targets: Reference, name: str, images) -> report.Stage:
    """A stage of float images [b, h, w, 3], measured against their targets."""
    images_uint8 = pixels.to_uint8(images)
    values = metrics.evaluate(
        targets.images_uint8, images, targets.nets, targets.valid, names=targets.names
    )
    if targets.embeddings is not None:
        values['id_distance'] = identity_distance(targets, images_uint8)
    return report.Stage(name, images_uint8, values, measure_attributes(targets, images_uint8))


def measure_edit(targets: Reference, edit, images_uint8) -> report.EditResult:
    """An edit's images uint8 [b, h, w, 3], measured."""
    return report.EditResult(
        edit.name,
        edit.parts,
        images_uint8,
        identity_distance(targets, images_uint8),
        measure_attributes(targets, images_uint8),
        edit.requested,
    )


def solve_edits(edits: Sequence, images_of, w, spec, name: str, log=print) -> list:
    """The edits of one code w [1, k, w_dim], with a solution for each (jaxinv.edits.solve).

    Where the range of a direction does not reach a change, the log says so, and the strength is
    that which comes closest.
    """
    solutions = []
    for edit in edits:
        measure = measures.steering(edit.measured)
        found = edits_lib.solve(edit, images_of, measure, w, spec, strict=False)
        for step in found.steps if edit.requested else ():
            log(f'{name}: {step}', flush=True)
        solutions.append(found)
    return solutions


def with_strengths(results: Sequence, solutions: Sequence[Sequence]) -> list[report.EditResult]:
    """The edits' results [e] with the strengths of their solutions [n][e]."""
    strengths = [
        {
            step.name: np.array([own[j].steps[k].strength for own in solutions])
            for k, step in enumerate(solutions[0][j].steps)
        }
        for j in range(len(results))
    ]
    pairs = zip(results, strengths, strict=True)
    return [dataclasses.replace(result, strengths=found) for result, found in pairs]


def with_texts(session: Session, results: Sequence, edits: Sequence) -> list[report.EditResult]:
    """The edits' results [e] with the JSON by which jaxinv.render and the studio repeat them."""
    texts = [
        json_text(edits_lib.to_json(edit, session.generator, session.weights)).decode()
        if edit.requested
        else ''
        for edit in edits
    ]
    pairs = zip(results, texts, strict=True)
    return [dataclasses.replace(result, text=text) for result, text in pairs]


def measure_stage_and_edits(
    targets: Reference, name: str, edits: Sequence, columns: Iterable
) -> tuple[report.Stage, list[report.EditResult]]:
    """The stage and its edits, from columns: for each target float images [1 + e, h, w, 3].

    The first is the stage's, the others are those of the edits. One column is held at a time.
    """
    unedited, edited = [], []
    for column in columns:
        unedited.append(column[0])
        edited.append(pixels.to_uint8(column[1:]))
    stage = measure_stage(targets, name, np.stack(unedited))
    results = [
        measure_edit(targets, edit, np.stack([own[j] for own in edited]))
        for j, edit in enumerate(edits)
    ]
    return stage, results


def identity_distance(targets: Reference, images_uint8) -> np.ndarray:
    """Distance of face embeddings [b] to the targets'; NaN without a face."""
    if targets.embeddings is None:
        return np.full(len(images_uint8), np.nan)
    return faces.identity_distance(targets.embeddings, faces.embed(images_uint8))


def measure_attributes(targets: Reference, images_uint8) -> dict[str, np.ndarray]:
    """{'age', 'smile', 'yaw'}: [b]; {} where no faces are expected."""
    return {} if targets.embeddings is None else attributes.measure(images_uint8)


def results_of(session: Session, rows, targets: Reference, title: str, stages, edits) -> report.Run:
    """The part of a report that the targets `rows` have."""
    return report.Run(
        title=title,
        names=[session.targets.names[i] for i in rows],
        targets_uint8=targets.images_uint8,
        stages=stages,
        target_attributes=measure_attributes(targets, targets.images_uint8),
        edits=edits,
        paste=session.settings.paste,
    )


# --- Drift ----------------------------------------------------------------------------------------


def measure_drift(session: Session, generators: Iterable) -> report.Drift:
    """Change of images at random latents by the tuning (PTI figures 14 and 15).

    generators: the weights of each tuned generator, one at a time. The metrics are means over all
    of them, and the pictures those of the first.
    """
    return measure_drifts(session, generators)[0]


def measure_drifts(
    session: Session, generators: Iterable
) -> tuple[report.Drift, dict[str, np.ndarray]]:
    """(`measure_drift`, {metric: [g]} of each of the generators, means over the samples)."""
    settings, spec = session.settings.drift, session.generator.spec
    z = latents.sample_z(settings.seed, settings.num_samples, spec.z_dim, spec.z_truncation)
    with rendering.full_precision():
        w = session.generator.map(session.weights, jnp.asarray(z))
    w = np.asarray(_with_classes(session, w))[:, None]
    pictures, values = None, []
    for weights in generators:
        found, own = _compare(session, weights, w, keep=pictures is None)
        pictures = pictures or own
        values.append(found)
    samples = {name: np.mean([v[name] for v in values], axis=0) for name in values[0]}
    normals = 'N(0, 1), no truncation'
    if spec.z_truncation is not None:
        normals = f'N(0, 1) cut at {latents.CUT:g}, times {spec.z_truncation:g}'
    drift = report.Drift(
        {name: float(value.mean()) for name, value in samples.items()},
        pictures,
        {'tuned': samples},
        f'{settings.num_samples} latents z ~ {normals}, seed {settings.seed}',
    )
    return drift, {name: np.array([v[name].mean() for v in values]) for name in samples}


def _compare(session: Session, weights, w, keep: bool):
    """({metric: [m]}, {'original': uint8 [m, h, w, 3], 'tuned': ...}) of codes w [m, 1, w_dim].

    Without `keep` the second is None. rendering.BATCH float images of either are held at a time.
    """
    values, pictures = [], {'original': [], 'tuned': []}
    for rows in batches(range(len(w))):
        before = rendering.render(session.generator, session.weights, w[rows])
        after = rendering.render(session.generator, weights, w[rows])
        values.append(metrics.evaluate(before, after, session.nets, names=('lpips_alex', 'mse')))
        if keep:
            pictures['original'].append(pixels.to_uint8(before))
            pictures['tuned'].append(pixels.to_uint8(after))
    found = {name: np.concatenate([v[name] for v in values]) for name in values[0]}
    return found, {k: np.concatenate(v) for k, v in pictures.items()} if keep else None


def _with_classes(session: Session, w):
    """Codes w [m, w_dim] with the classes of the targets, in turn."""
    if session.embeddings is None:
        return w
    rows = np.arange(len(w)) % len(session.embeddings)
    return latents.with_class(w, session.embeddings[rows])


# --- Provenance -----------------------------------------------------------------------------------


def provenance_of(session: Session, **seeds: int) -> dict[str, Any]:
    """The fields of a report that say how a session's results were made.

    seeds: those that not every method has.
    """
    config, mesh = session.config, session.sharding.mesh
    return provenance.of_run(
        config=config.to_dict(),
        spec=session.generator.spec,
        about=session.about,
        lpips={net: lpips_origin(net, config.lpips) for net in session.nets},
        seeds={'seed': config.seed, 'w_statistics': config.w_statistics.seed} | seeds,
        used=jax.devices()[:1] if mesh is None else mesh.devices.flat,
    )
