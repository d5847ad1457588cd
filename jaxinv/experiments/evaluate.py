"""Numbers of a job's pictures: metrics of a stage, attributes, and how far random latents drift."""

import jax.numpy as jnp
import numpy as np

from jaxinv import faces, latents, metrics, pixels, report
from jaxinv.experiments.session import Session
from jaxinv.faces import attributes
from jaxinv.rendering import render


def measure_stage(job: Session, name: str, rendered) -> report.Stage:
    targets_uint8 = job.targets.images_uint8
    rendered_uint8 = pixels.to_uint8(rendered)
    targets = pixels.to_float(targets_uint8, np)
    values = dict(metrics.evaluate(targets, rendered, job.nets))
    if job.measures_faces:
        values['id_distance'] = faces.identity_distance(
            embed(job, targets_uint8), embed(job, rendered_uint8)
        )
    return report.Stage(name, rendered_uint8, values, measure_attributes(job, rendered_uint8))


def embed(job: Session, images_uint8) -> np.ndarray:
    """Identity embeddings [b, 128]; NaN where no face is, or none is looked for."""
    if job.measures_faces:
        return faces.embed(images_uint8)
    return np.full((len(images_uint8), 128), np.nan)


def measure_attributes(job: Session, images_uint8) -> dict[str, np.ndarray]:
    return attributes.measure(images_uint8) if job.measures_faces else {}


def measure_drift(job: Session, per_identity) -> report.Drift:
    """Images of random latents before and after tuning (PTI figures 14 and 15)."""
    settings, spec = job.config.drift, job.generator.spec
    z = latents.sample_z(settings.seed, settings.num_samples, spec.z_dim, spec.z_truncation)
    w = job.generator.map(job.weights, jnp.asarray(z))
    # Of the targets' classes in turn.
    w = _with_classes(job, w)[:, None]
    before = render(job.generator, job.weights, w)
    # With a generator for each identity: the first one's pictures, the mean of all numbers.
    distinct = per_identity[:1] if job.config.tune.shared else per_identity
    first, values = None, []
    for weights in distinct:
        after = render(job.generator, weights, w)
        values.append(metrics.evaluate(before, after, job.nets))
        first = after if first is None else first
    samples = {k: np.mean([v[k] for v in values], axis=0) for k in ('lpips_alex', 'mse')}
    normals = 'N(0, 1), no truncation'
    if spec.z_truncation is not None:
        normals = f'N(0, 1) cut at {latents.CUT:g}, times {spec.z_truncation:g}'
    return report.Drift(
        {k: float(v.mean()) for k, v in samples.items()},
        {'original': pixels.to_uint8(before), 'tuned': pixels.to_uint8(first)},
        {'tuned': samples},
        f'{settings.num_samples} latents z ~ {normals}, seed {settings.seed}',
    )


def _with_classes(session: Session, w):
    """Codes w [m, w_dim] with the classes of the targets, in turn."""
    if session.embeddings is None:
        return w
    rows = np.arange(len(w)) % len(session.embeddings)
    return latents.with_class(w, session.embeddings[rows])
