"""The main path of a video: frames -> tracked face -> pivots -> one generator -> edited videos."""

import dataclasses
import pathlib

import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import settings
from jaxinv.data import align_options, video, video_writer
from jaxinv.errors import JaxinvError
from jaxinv.experiments import evaluate, video_frames, video_render
from jaxinv.experiments import session as sessions
from jaxinv.experiments.pti import given_pivots
from jaxinv.experiments.session import Session
from jaxinv.faces import track
from jaxinv.inversion import code_files
from jaxinv.inversion import tune as inversion_tune
from jaxinv.inversion.project import project
from jaxinv.optimize import sharding
from jaxinv.report import provenance
from jaxinv.report import video as video_report
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.progress import Stopwatch
from jaxinv.types import Weights
from jaxinv.weights import store
from jaxinv.weights.load import save_generator


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=pti_video in the folder `path`, or resumes it.

    Raises JaxinvError for settings or a video that cannot be used.
    """
    settings.check(config)
    options = settings.of(config, settings.METHODS[config.task].settings)
    video_writer.check()
    clip = video.open_clip(options.data.video, options.data.fps, options.data.max_frames)
    opened = sessions.open_generator(config, log)
    generator, _, about = opened
    if generator.spec.moving_dims is not None:
        raise JaxinvError(f'{generator.spec.name} has classes in its codes; videos need W.')
    edits = parse_edits(options.edits, *opened[:2], log)
    aligning = align_options(options.data, generator.spec, log)
    record = {'config': settings.record_of(config), 'sources': [video.fingerprint(clip)]}
    record |= sessions.files_of(config, about)
    with workdirs.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            return
        stopwatch = Stopwatch(path / 'state' / 'seconds.json')
        with stopwatch.stage('track'):
            frames = video_frames.find(clip, path, options.track, aligning.align, log)
        facts = video_frames.track_facts(frames)
        log(describe(facts, clip), flush=True)
        with stopwatch.stage('align'):
            targets = video_frames.read_targets(clip, path, frames, generator.spec.resolution, log)
        nets, mesh = sessions.load_nets(config), sharding.make(config.mesh)
        session = sessions.make(config, path, opened, targets, nets, mesh, stopwatch, log)
        pivots = find_pivots(session, frames)
        weights = tune(session, pivots)
        with stopwatch.stage('render'):
            job = video_render.Job(session, clip, frames, pivots, weights, edits)
            numbers = video_render.render(job)
        result = video_report.VideoRun(
            title='Pivotal tuning of a video',
            names=dict(zip(job.names, ['tuned', *(edit.name for edit in edits)], strict=True)),
            track=facts,
            clip={
                'file': clip.path.name,
                'width': clip.size[0],
                'height': clip.size[1],
                'frames_per_second': float(clip.rate),
                'seconds': clip.seconds(int(frames.pts[-1] - frames.pts[0])),
            },
            frames=frames.track.used.tolist(),
            numbers=numbers,
            shown=job.shown,
            seconds=stopwatch.seconds,
            usage=provenance.usage_of_pivots(path, path),
            **evaluate.provenance_of(session),
        )
        video_report.write(path, result)
    log(video_report.summary(path, result))


def parse_edits(asked, generator, weights, log) -> list[edits_lib.TimedEdit]:
    """The edits of config.edits, checked against the generator's sizes."""
    spec = generator.spec
    if spec.domain != 'ffhq' and tuple(asked) == settings.METHODS['invert_video'].settings().edits:
        log(f'No edits: smile is a direction of FFHQ, which {spec.name} is not known to share.')
        return []
    space = 'ffhq' if spec.domain == 'ffhq' else ''
    own = {'generator': generator, 'weights': weights}
    edits = edits_lib.parse_timed(asked, space, weights['buffers']['w_avg'], **own)
    for edit in edits:
        edits_lib.check(edit.at(0.0), spec)
    return edits


def describe(facts: dict, clip: video.Clip) -> str:
    """A sentence on the frames that were found."""
    text = f'{facts["frames"]} frames of {clip.size[0]} x {clip.size[1]} pixels'
    if facts['with_face'] < facts['frames']:
        text += (
            f'; {facts["frames"] - facts["with_face"]} without a face, of which '
            f'{facts["interpolated"]} are interpolated and {facts["left_out"]} stay as they are'
        )
    return text + (f'; {facts["shots"]} shots.' if facts['shots'] > 1 else '.')


def find_pivots(session: Session, frames: video_frames.Frames) -> np.ndarray:
    """Pivots [m, 1 or num_ws, w_dim] of the used frames, smooth in time; pivots.npz.

    Two searches from the mean of W end in different minima, even for frames that hardly differ. So
    one frame of each shot is searched, the others start there, and what is left of the noise is
    smoothed.
    """
    file, targets = session.path / code_files.PIVOTS, session.targets
    if file.is_file():  # written when they were found
        return code_files.pivots_for(file, targets.names)
    options, run = session.settings.temporal, session.settings
    shot = frames.track.shot[frames.track.used]
    pivots = given_pivots(session)
    if pivots is None:
        rows = video_frames.anchors(shot, options.anchor_every)
        session.log(f'{len(rows)} of {len(targets)} frames are anchors.', flush=True)
        pivots = _project(session, rows, run.pivot, 'anchors')
        if options.anchor_every != 1:
            pivots = video_frames.between(rows, pivots, shot)
            if options.refine_steps:
                changes = {
                    'num_steps': options.refine_steps,
                    'learning_rate': options.refine_rate,
                    'initial_noise_factor': 0.0,
                    'start': '',
                }
                every = np.arange(len(targets))
                pivots = _project(session, every, run.pivot.replace(**changes), 'frames', pivots)
        pivots = track.smooth(pivots, shot, options.pivot_sigma).astype(np.float32)
    code_files.save_pivots(session.path, targets.names, pivots)
    return pivots


def _project(session: Session, rows, projection, name: str, start=None) -> np.ndarray:
    """Pivots of the targets `rows`, with checkpoints in state/NAME."""
    targets = video_frames.select(session.targets, rows)
    arguments = session.shared_arguments
    arguments['runner'] = dataclasses.replace(
        session.runner, names=tuple(targets.names), folder=session.path / 'state' / name
    )
    found = project(
        session.generator, session.weights, targets, settings=projection, start=start, **arguments
    )
    return found.w


def tune(session: Session, pivots: np.ndarray) -> Weights:
    """The one generator for all frames (PTI, equation 3); generator/."""
    run, file = session.settings.tune, session.path / 'generator' / store.GENERATOR_FILE
    if run.num_steps == 0:
        return session.weights
    if file.is_file():
        return store.read(file)[1]
    order = video_frames.spread(len(session.targets), run.batch_size)
    targets = video_frames.select(session.targets, order)
    arguments = session.shared_arguments
    arguments['runner'] = dataclasses.replace(arguments['runner'], names=tuple(targets.names))
    tuned = inversion_tune.tune(
        session.generator, session.weights, targets, pivots[order], settings=run, **arguments
    )
    save_generator(session.path / 'generator', session.generator, tuned.weights)
    return tuned.weights
