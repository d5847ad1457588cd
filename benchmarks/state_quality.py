"""What the state of a running inversion is worth: pictures of the state, their numbers, drift."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxinv
from jaxinv import data, faces, latents, metrics, pixels, rendering, settings
from jaxinv.inversion import sam
from jaxinv.optimize.runner import LoopTask
from jaxinv.types import Generator

IMAGE_METRICS = ('lpips_alex', 'lpips_vgg', 'mse', 'psnr')  # of jaxinv/metrics/images.py
IDENTITY = 'id_distance'  # of dlib's embeddings
DRIFT = ('lpips_alex', 'mse')


class State(NamedTuple):
    """What a stage has reached."""

    images: np.ndarray  # float32 [n, h, w, 3]
    tuned: Sequence[Any] | None  # weights of each tuned generator; None = as they were


def of_loop(
    generator: Generator, stage: str, task: LoopTask, args, variables, count: int
) -> State | None:
    """The state of a loop of `project`, `tune` or `invert_sam` over `count` pictures.

    None for loops that only measure for a later one, as SAM's into each space alone.
    """
    if stage == 'project':
        return State(rendering.render(generator, args['weights'], variables['w']), None)
    if stage == 'tune':
        made, pivots = task.result(variables)
        if not task.loop.axes.variables:
            return State(rendering.render(generator, made, pivots), [made])
        each = [
            made | {'params': jax.tree.map(lambda x, i=i: x[i], made['params'])}
            for i in range(count)
        ]
        return State(jaxinv.render(generator, each, pivots), each)
    if stage == 'invert':
        codes = task.result(variables)
        images = []
        for i in range(count):
            own = jax.tree.map(lambda x, i=i: x[i : i + 1], (codes, args['masks']))
            with rendering.full_precision():
                images.append(np.asarray(_synthesize(generator)(args['weights'], *own)))
        return State(np.concatenate(images), None)
    return None


@functools.cache
def _synthesize(generator):
    return jax.jit(functools.partial(sam.synthesize, generator))


class Judge:
    """Numbers of states against the targets, and against the generator before tuning."""

    def __init__(self, generator: Generator, weights, targets_uint8, nets, drift: settings.Drift):
        """targets_uint8 [n, h, w, 3]; nets {'alex': LPIPS weights, 'vgg': ...}."""
        self._generator, self._targets, self._nets = generator, targets_uint8, nets
        spec = generator.spec
        has_faces = spec.domain in data.ALIGNED_DOMAINS
        self._embeddings = faces.embed(targets_uint8) if has_faces else None
        # As experiments/evaluate.measure_drift, with the first images rendered once.
        z = latents.sample_z(drift.seed, drift.num_samples, spec.z_dim, spec.z_truncation)
        with rendering.full_precision():
            self._random = np.asarray(generator.map(weights, jnp.asarray(z)))[:, None]
        self._before = rendering.render(generator, weights, self._random)

    def values(self, images) -> dict[str, np.ndarray]:
        """{metric: [n]}; the identity distance is NaN without a face."""
        found = metrics.evaluate(self._targets, images, self._nets, names=IMAGE_METRICS)
        found[IDENTITY] = np.full(len(images), np.nan)
        if self._embeddings is not None:
            embedded = faces.embed(pixels.to_uint8(images))
            found[IDENTITY] = faces.identity_distance(self._embeddings, embedded)
        return found

    def drift(self, tuned: Sequence[Any]) -> dict[str, list[float]]:
        """{metric: one number for each generator}, means over the random codes."""
        found = {name: [] for name in DRIFT}
        for weights in tuned:
            after = rendering.render(self._generator, weights, self._random)
            own = metrics.evaluate(self._before, after, self._nets, names=DRIFT)
            for name, values in own.items():
                found[name].append(round(float(values.mean()), 6))
        return found
