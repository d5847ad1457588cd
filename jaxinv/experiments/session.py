"""The context of a run: settings, photographs, generator and networks, opened and checked."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxinv import data, generators, latents, settings
from jaxinv import edits as edits_lib
from jaxinv.data import prefetch
from jaxinv.errors import JaxinvError
from jaxinv.faces import measures
from jaxinv.inversion import classes, encode, region_files
from jaxinv.inversion.classes import Classes
from jaxinv.io import sha256
from jaxinv.optimize.runner import Runner
from jaxinv.optimize.sharding import Sharding
from jaxinv.optimize.sharding import make as make_sharding
from jaxinv.prompts import sources as text_sources
from jaxinv.runtime import distributed
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.progress import Stopwatch
from jaxinv.segmentation import regions
from jaxinv.text import printable
from jaxinv.types import Generator, Weights
from jaxinv.weights import load as weights_load
from jaxinv.weights import sam_encoders
from jaxinv.weights.addresses import is_address
from jaxinv.weights.encoders import local_file
from jaxinv.weights.networks import load_lpips

MANY = 64  # pictures that are better inverted in groups


class Session(NamedTuple):
    """Read-only context of a run of the launcher."""

    config: Any  # ConfigDict
    settings: settings.Inversion  # the same, checked
    path: pathlib.Path  # the work folder
    generator: Generator
    weights: Weights
    targets: data.Targets
    nets: dict[str, Any]  # LPIPS weights {'alex': ..., 'vgg': ...}
    stopwatch: Stopwatch
    log: Callable  # as print
    statistics: latents.WStatistics
    measures_faces: bool  # whether identity and attributes are measured
    about: dict  # the generator's origin: {'kind', 'file', 'sha256', ...}
    sharding: Sharding = Sharding()
    classes: Classes | None = None  # of the targets, where w holds a class

    @property
    def runner(self) -> Runner:
        """Runs loops of the targets, with checkpoints and curves in the work folder."""
        return Runner(
            tuple(self.targets.names),
            self.sharding,
            self.path,
            self.log,
            stopwatch=self.stopwatch,
        )

    @property
    def embeddings(self) -> np.ndarray | None:
        """Class embeddings [n, e] of the targets; None where w holds no class."""
        return None if self.classes is None else self.classes.embeddings

    @property
    def shared_arguments(self) -> dict[str, Any]:
        """Keyword arguments that all methods take."""
        return {
            'seed': self.settings.seed,
            'statistics': self.statistics,
            'lpips': self.nets,
            'runner': self.runner,
        }


@contextlib.contextmanager
def begin(config, path, opened, overwrite, start, log, nouns=('identity', 'identities')):
    """Reads the photographs and LPIPS weights, claims the work folder, and yields the Session.

    opened: what `open_generator` returned; start: when loading began, in perf_counter's seconds.
    Yields None if the folder holds this very run, finished.
    """
    generator, weights, about = opened
    sharding = make_sharding(config.get('mesh', ''))
    reader = prefetch.read_distributed if distributed.is_multiprocess() else data.read_all
    targets = data.load_for(config.data, generator.spec, log, reader)
    for item in targets.skipped:
        log(f'Skipped {item["file"]}: {item["reason"]}')
    count = len(targets.names)
    log(f'{count} {nouns[count != 1]}: {", ".join(targets.names)}', flush=True)
    if sharding.num_shards > 1:
        log(f'On {sharding}.')
    generator, chosen = classes.choose(generator, weights, targets, config.label, log)
    nets = load_nets(config)

    record = {
        'config': settings.record_of(config),
        'sources': [s['sha256'] for s in targets.sources],
    }
    record |= files_of(config, about)
    distributed.check_same(record)
    with distributed.entered_by_primary(workdirs.claim(path, record, overwrite)) as finished:
        if finished:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            yield None
            return
        file = path / 'state' / 'seconds.json' if distributed.is_primary() else None
        stopwatch = Stopwatch(file)
        stopwatch.lap('load', start)
        if hint := memory_hint(config, count):
            log(hint)
        opened = generator, weights, about
        yield make(config, path, opened, targets, nets, sharding, stopwatch, log, chosen)


def memory_hint(config, count: int) -> str:
    """A sentence for a run that holds many pictures at once, else ''.

    A comparison, whose methods have scores='psnr', says it once itself.
    """
    return '' if config.get('group', 1) or config.scores != 'all' else too_many(count)


def too_many(count: int, whose: str = '') -> str:
    """The sentence for `count` pictures of a run, or of the methods `whose`, in one group."""
    if count <= MANY:
        return ''
    whose = f' ({printable(whose, 200)})' if whose else ''
    return f'{count} pictures are in memory at once{whose}; --config.group=16 inverts 16 at a time.'


def files_of(config, about) -> dict[str, str]:
    """{'generator', 'encoder', ...: SHA-256} of the files that a run reads, for its record."""
    found = {'generator': about['sha256']} if 'sha256' in about else {}
    if (own := config.get('sam_encoders', '')) and not is_address(own):
        found['sam_encoders'] = sha256(sam_encoders.local_file(own))
    if maps := config.get('invertibility', {}).get('maps', ''):
        found['maps'] = sha256(region_files.local_file(maps))
    start = config.get('pivot', {}).get('start', '')
    if start.startswith(encode.START):
        path = start.removeprefix(encode.START)
        if not is_address(path):
            found['encoder'] = sha256(local_file(path))
    return found


def make(config, path, opened, targets, nets, sharding, stopwatch, log, chosen=None) -> Session:
    """The Session of a work folder that this process owns. targets: None in bulk mode."""
    generator, weights, about = opened
    run = settings.of(config, settings.METHODS[config.task].settings)
    faces_expected = run.data.aligned or run.data.align == 'face'
    return Session(
        config=config,
        settings=run,
        path=path,
        generator=generator,
        weights=weights,
        targets=targets,
        nets=nets,
        stopwatch=stopwatch,
        log=log,
        statistics=latents.w_statistics(
            generator, weights, run.w_statistics.num_samples, run.w_statistics.seed
        ),
        measures_faces=run.scores == 'all'
        and (faces_expected or generator.spec.domain in data.ALIGNED_DOMAINS),
        about=about,
        sharding=sharding,
        classes=chosen,
    )


def load_nets(config) -> dict[str, Any]:
    """LPIPS weights, by their nets."""
    return {net: load_lpips(net, config.lpips) for net in ('alex', 'vgg')}


def open_run(config, log=print):
    """(what `open_generator` returns, the edits with the steps that lead to them).

    Everything that a config names is looked up before anything is computed.
    """
    settings.check(config)
    generator, weights, about = open_generator(config, log)
    text = settings.of(config, settings.TextEdits)
    edits = edits_lib.with_steps(parse_edits(config.edits, generator, weights, log, text))
    return (generator, weights, about), edits


def open_generator(config, log=print):
    """config.generator as it is asked for: (generator, weights, what is known of its origin)."""
    generator, weights, about = weights_load.open_generator(
        config.generator, config.resolution, which=config.generator_key, log=log
    )
    for note in about.get('notes', ()) if about.get('fresh') else ():
        log(f'{generator.spec.name}: {note}')
    if config.latent not in (None, generator.spec.latent):
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


def parse_edits(asked, generator, weights, log=print, text=None):
    """The edits of config.edits that this generator can make, checked against its sizes.

    text: settings.TextEdits; None = the defaults.
    """
    spec = generator.spec
    if spec.domain != 'ffhq' and tuple(asked) == settings.EDITS:
        log(
            f'No edits: smile, age and yaw are directions of FFHQ, which {spec.name} is not known '
            'to share; give your own, e.g. --config.edits="(\'my.npy=2\',)".'
        )
        return []
    known = classes.embeddings(generator, weights)
    space, mean = 'ffhq' if spec.domain == 'ffhq' else '', weights['buffers']['w_avg']
    edits = edits_lib.parse(
        asked,
        space,
        known,
        mean,
        generator=generator,
        weights=weights,
        sources=text_sources.make(text or settings.TextEdits(), generator, weights, log),
    )
    for edit in edits:
        if edit.region:
            regions.check(edit.region)
        edits_lib.check(edit, spec, measures.ATTRIBUTES)
    return edits
