"""The pivot: optimises w and the noise maps of all identities at once (PTI section 3.1).

    w_p, n = argmin LPIPS(x, G(w, n; theta)) + lambda_n L_n(n)               (equation 1)

The generator is frozen. LPIPS at 256 pixels is that of VGG, or of AlexNet in a first part of the
steps (alex_fraction). Adam moves w [b, k, w_dim] and the noise maps together, with the schedules of
StyleGAN2's projector (StyleGAN2, appendix D).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import latents, optimize
from jaxinv.errors import JaxinvError
from jaxinv.inversion import inputs, losses, notebook
from jaxinv.inversion.encode import start_codes
from jaxinv.networks import lpips as lpips_lib
from jaxinv.optimize import schedules
from jaxinv.optimize.runner import LoopTask, Runner
from jaxinv.pixels import area_resize, to_float
from jaxinv.settings import Projection, changed
from jaxinv.types import Generator, Weights

START = 2**32 - 1  # the step whose random numbers are the first noise maps; never reached
AXES = optimize.BatchAxes(variables=True, args={'target_features': 0, 'ids': 0})


class Pivots(NamedTuple):
    """The result of a projection, on the host."""

    names: tuple[str, ...]
    w: np.ndarray  # [n, 1 or num_ws, w_dim]
    history: dict[str, np.ndarray]  # {'loss': [steps, n], ...}: the settings' metrics

    def _repr_html_(self) -> str:
        title = f'Pivots, {list(self.w.shape)}'
        call = 'jaxinv.show(targets, jaxinv.render(generator, weights, pivots))'
        return notebook.table(title, self.names, self.history, call)


def project(
    generator: Generator,
    weights: Weights,
    targets: Any,
    *,
    settings: Projection | None = None,
    seed: int = 0,
    start: Any = None,
    statistics: latents.WStatistics | None = None,
    embeddings: np.ndarray | None = None,
    lpips: Any = 'auto',
    mesh: str = '',
    verbose: bool = True,
    callback: Callable | None = None,
    runner: Runner | None = None,
    **changes,
) -> Pivots:
    """Finds the pivot of every target (PTI, equation 1).

    targets: what `load_images` returned, or images [n, h, w, 3] of the generator's resolution,
      uint8 or float in [-1, 1].
    settings: the paper's where None; **changes: fields of settings.Projection, as num_steps=100.
    start: an Encoder (jaxinv.load_encoder) or codes [n, 1 or num_ws, w_dim] where the search
      starts, of which one in W takes the mean row; None = as the settings say, by default the mean
      of W. With num_steps=0 the codes are the pivots.
    statistics: of W, where the search starts; None = of 10 000 samples.
    embeddings [n, e]: of each target's class, for BigGAN-deep (`classes.choose`).
    lpips: 'auto', a path of weights, or {'vgg': weights, 'alex': weights}.
    mesh: devices, as --config.mesh; '' = all. Results are the same on any number.
    verbose: prints a status line after every chunk of steps.
    callback: (stage, step, num_steps, {metric: [n]}), after every chunk; an exception in it ends
      the search.
    runner: instead of mesh, verbose and callback; with a folder, an interrupted search resumes.

    Raises JaxinvError for settings or targets that do not fit, and NotFinite.
    """
    s = changed(settings or Projection(), **changes)
    examples = inputs.examples_of(targets, generator.spec)
    runner = runner or inputs.make_runner(examples.names, mesh, verbose, callback)
    nets = inputs.lpips_weights(lpips, s.nets)
    if statistics is None:
        statistics = latents.w_statistics(generator, weights)
    start = s.start or None if start is None else start
    if start is None and s.num_steps == 0:
        raise JaxinvError('pivot.num_steps is 0, so pivot.start must say where pivots come from.')
    if start is not None:
        if embeddings is not None:
            raise JaxinvError(f'start is for StyleGAN2; {generator.spec.name} has classes in w.')
        start = start_codes(
            start, generator, weights, targets, statistics, runner.log, s.refinements
        )
        if s.num_steps == 0:
            rows = np.broadcast_to(start, (len(start), generator.spec.num_ws, start.shape[2]))
            return Pivots(examples.names, np.array(rows), {})
        if s.space == 'w':
            start = start.mean(1, keepdims=True)
    projector = make_projector(generator, s)
    key, ids = latents.stream(seed, 'project'), examples.ids

    def make_task(rows):
        def prepare(which, shard):
            own = rows[which]
            mean = statistics.mean
            if embeddings is not None:
                mean = latents.with_class(mean, embeddings[own])
            images = to_float(examples.images_uint8[own])
            own_statistics = statistics._replace(mean=mean)
            codes = None if start is None else start[own]
            return projector.prepare(
                weights, nets, images, ids[own], own_statistics, key, start=codes
            )

        return LoopTask(
            projector.loop, prepare, key, s.num_steps, s.metrics, lambda variables: variables['w']
        )

    w, history = runner.run('project', make_task, batch_per_device=s.batch_per_device)
    return Pivots(examples.names, np.asarray(w), history)


class Projector(NamedTuple):
    settings: Projection
    loop: optimize.Loop
    prepare: Any  # (weights, nets, targets, ids, statistics, key) -> (state, args)


@functools.lru_cache(maxsize=8)
def make_projector(generator: Generator, settings: Projection) -> Projector:
    """The compiled projection for a generator and settings, shared by all images."""
    spec, s = generator.spec, settings
    s.check()
    rows = 1 if s.space == 'w' else spec.num_ws
    size = min(s.loss_size, spec.resolution)
    noise_shapes = dict(spec.noise_shapes)

    def objective(variables, args, step, key):
        w, noise = latents.freeze_class(variables['w'], spec), variables['noise']
        t = schedules.fraction(step, s.num_steps)
        if s.initial_noise_factor:
            scale = args['w_std'] * s.initial_noise_factor
            scale = scale * schedules.latent_noise_ramp(t, s.noise_ramp)
            shape = (rows, spec.moving_dims or spec.w_dim)
            normals = latents.identity_normals(key, args['ids'], step, shape)
            w = w + scale * jnp.pad(normals, ((0, 0), (0, 0), (0, spec.w_dim - shape[1])))
        images, _ = generator.synthesize(args['weights'], w, noise=noise or 'none')
        distance = distances(args, area_resize(images, size), step)
        regularization = losses.noise_regularization(noise) if noise else jnp.zeros_like(distance)
        loss = distance + s.noise_weight * regularization
        metrics = dict(zip(s.metrics, (loss, distance, regularization), strict=True))
        return loss.sum(), metrics  # a sum: the identities share nothing

    def distances(args, images, step):
        """LPIPS of images [b, size, size, 3], [b], by the net of this step."""

        def by(net):
            features = lpips_lib.features(args['lpips'][net], images, spec.compute_dtype)
            return lpips_lib.distance(features, args['target_features'][net])

        if len(s.nets) == 1:
            return by(s.nets[0])
        early = schedules.fraction(step, s.num_steps) < s.alex_fraction
        return jax.lax.cond(early, lambda: by('alex'), lambda: by('vgg'))

    def learning_rate(count):
        t = schedules.fraction(count, s.num_steps)
        return s.learning_rate * schedules.learning_rate_ramp(t, s.lr_rampdown, s.lr_rampup)

    def project(variables):
        return {'w': variables['w'], 'noise': losses.normalize_noise(variables['noise'])}

    optimizer = optax.adam(learning_rate, eps_root=0.0)
    update = optimize.gradient_update(objective, optimizer, project)
    loop = optimize.make_loop(update, optimizer, s.metrics, axes=AXES, chunk_steps=s.chunk_steps)

    @jax.jit
    def target_features(nets, targets):
        small = area_resize(targets, size)
        return {n: lpips_lib.features(x, small, spec.compute_dtype) for n, x in nets.items()}

    def prepare(weights, nets, targets, ids, statistics, key, *, noise=None, start=None):
        """Start state and arguments for targets [b, h, w, 3]; noise overrides the random start.

        nets: {net: LPIPS weights} of the settings' nets.
        start: codes [b, 1 or rows, w_dim] where w starts; None = the mean of the statistics,
        [w_dim] or [b, w_dim].
        """
        mean = jnp.atleast_2d(statistics.mean)[:, None] if start is None else jnp.asarray(start)
        w = jnp.broadcast_to(mean, (len(targets), rows, spec.w_dim))
        if noise is None:
            noise = {
                name: latents.identity_normals(jax.random.fold_in(key, i), ids, START, shape)
                for i, (name, shape) in enumerate(noise_shapes.items())
            }
        args = {
            'weights': weights,
            'lpips': nets,
            'target_features': target_features(nets, targets),
            'ids': jnp.asarray(ids),
            'w_std': statistics.std,
        }
        return loop.init({'w': w, 'noise': noise}, len(targets)), args

    return Projector(s, loop, prepare)
