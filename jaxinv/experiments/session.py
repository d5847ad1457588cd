"""A job: settings, photographs, generator and networks, opened, checked and in a work folder."""

import contextlib
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxinv import data, defaults, generators, latents
from jaxinv import edits as edits_lib
from jaxinv.data import prefetch
from jaxinv.errors import JaxinvError
from jaxinv.inversion import classes, project, pti
from jaxinv.optimize import sharding
from jaxinv.runtime import distributed
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.progress import Stopwatch
from jaxinv.weights import deltas
from jaxinv.weights import load as weights_load
from jaxinv.weights.networks import load_lpips


class Session(NamedTuple):
    """What every stage needs and none of them changes."""

    config: Any
    path: pathlib.Path
    generator: Any
    weights: Any
    targets: data.Targets
    nets: dict[str, Any]  # LPIPS weights
    watch: Stopwatch
    log: Any
    statistics: latents.WStatistics | None = None  # of W; None = computed where needed
    looks_for_faces: bool = True  # False = identity and attributes are not measured
    about: Any = None  # what is known of the generator's origin
    place: sharding.Sharding = sharding.Sharding()  # where things lie
    classes: Any = None  # classes.Classes of the targets, where w holds a class


@contextlib.contextmanager
def begin(config, path, opened, overwrite, start, log, nouns=('identity', 'identities')):
    """Reads the photographs and LPIPS, claims the work folder, and yields the Job of a run.

    opened: what `open_generator` returned; start: when loading began, in perf_counter's seconds.
    Yields None if the folder holds this very run, finished.
    """
    generator, weights, about = opened
    place = sharding.make(config.get('mesh', ''))
    reader = prefetch.together if distributed.is_multiprocess() else data.read_all
    targets = data.load_for(config.data, generator.spec, log, reader)
    for item in targets.skipped:
        log(f'Skipped {item["file"]}: {item["reason"]}')
    count = len(targets.names)
    log(f'{count} {nouns[count != 1]}: {", ".join(targets.names)}', flush=True)
    if place.shares > 1:
        log(f'On {place}.')
    generator, chosen = classes.choose(generator, weights, targets, config.label, log)
    nets = load_nets(config)

    record = {
        'config': workdirs.settings_of(config),
        'sources': [s['sha256'] for s in targets.sources],
    }
    if 'sha256' in about:
        record['generator'] = about['sha256']
    distributed.check_same(record)
    with distributed.entered_by_primary(workdirs.claim(path, record, overwrite)) as finished:
        if finished:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            yield None
            return
        watch = Stopwatch(path / 'state' / 'seconds.json' if distributed.is_primary() else None)
        watch.lap('load', start)
        opened = generator, weights, about
        yield make(config, path, opened, targets, nets, place, watch, log, chosen)


def make(config, path, opened, targets, nets, place, watch, log, chosen=None) -> Session:
    """The Job of a run whose folder is its own."""
    generator, weights, about = opened
    statistics = latents.w_statistics(generator, weights, **config.w_statistics)
    looks = config.data.aligned or config.data.align == 'face'
    looks = looks or generator.spec.domain in data.WITH_FACES
    return Session(
        config,
        path,
        generator,
        weights,
        targets,
        nets,
        watch,
        log,
        statistics,
        looks,
        about,
        place,
        chosen,
    )


def load_nets(config) -> dict[str, Any]:
    """LPIPS weights, by their nets."""
    return {net: load_lpips(net, config.lpips) for net in ('alex', 'vgg')}


def settings_of(config) -> tuple[project.Settings, pti.Settings]:
    """The settings of both steps, as the methods take them."""
    locality = pti.Locality(**config.locality.to_dict())
    others = (*deltas.Settings._fields, 'slots')
    given = {key: value for key, value in config.tune.to_dict().items() if key not in others}
    tuning = pti.Settings(**given, locality=locality)
    return project.Settings(**config.pivot.to_dict()), tuning


def open_generator(config, log=print):
    """config.generator as it is asked for: (generator, weights, what is known of its origin)."""
    generator, weights, about = weights_load.open_generator(
        config.generator, config.resolution, log=log
    )
    for note in about.get('notes', ()) if about.get('fresh') else ():
        log(f'{generator.spec.name}: {note}')
    if config.get('latent', generator.spec.latent) != generator.spec.latent:
        name = 'sam' if config.task == 'invert_sam' else 'pti_multi_id'
        raise JaxinvError(
            f'the settings of this config are for BigGAN-deep, and {generator.spec.name} is none; '
            f'use --config={name} for it.'
        )
    options = {key: config.get(key) for key in generators.OPTIONS}
    options = {key: value for key, value in options.items() if value is not None}
    generator = generators.with_options(generator, **options)
    how = config.compute_dtype, config.get('remat', False)
    generator = generators.with_computing(generator, *how)
    if not classes.in_w(generator.spec):  # else each picture has its own (begin)
        generator = generators.with_label(generator, config.label)
    return generator, weights, about


def parse_edits(asked, generator, weights, log=print):
    """The edits of config.edits that this generator can make, checked against its sizes."""
    spec = generator.spec
    if spec.domain != 'ffhq' and tuple(asked) == defaults.EDITS:
        log(
            f'No edits: smile, age and yaw are directions of FFHQ, which {spec.name} is not known '
            'to share; give your own, e.g. --config.edits="(\'my.npy=2\',)".'
        )
        return []
    known = classes.embeddings(generator, weights)
    edits = edits_lib.parse(asked, 'ffhq' if spec.domain == 'ffhq' else '', known)
    for edit in edits:
        edits_lib.apply(np.zeros([1, 1, spec.w_dim], np.float32), edit, spec.num_ws)
    return edits


def with_classes(job: Session, w, which=slice(None)):
    """Codes w, [w_dim] or [n, w_dim], of the targets `which`, with their classes in them."""
    return w if job.classes is None else latents.with_class(w, job.classes.embeddings[which])


def w_statistics(job: Session) -> latents.WStatistics:
    if job.statistics is not None:
        return job.statistics
    return latents.w_statistics(job.generator, job.weights, **job.config.w_statistics)
