"""Quality against seconds: the clock, runs that equal the plain functions', tables, the figure."""

import hashlib
import json
import pathlib
import types

import jax
import numpy as np
import PIL.Image
import pytest

import jaxinv
from jaxinv import defaults, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import evaluate, method_runs, session

FOLDER = pathlib.Path(__file__).parent.parent / 'benchmarks'
QUICK = dict(num_steps=5, chunk_steps=2)
TINY = ['--generator=tiny', '--checkpoints=2']
OLD = 'old=pti_multi_id:test'
SHORT = 'short=w_plus:test'


@pytest.fixture(scope='module')
def modules():
    """The benchmark's modules, which import each other as those of a script do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import quality_figure
        import state_quality
        import time_to_quality
        import timed_runs

    found = quality_figure, state_quality, time_to_quality, timed_runs
    return types.SimpleNamespace(**{module.__name__: module for module in found})


@pytest.fixture(scope='module')
def targets(tiny):
    return jaxinv.load_images('demo', tiny[0])


@pytest.fixture(scope='module')
def nets():
    return session.load_nets(defaults.get_config('evaluate'))


def test_the_clock_stands_still_while_paused(modules, monkeypatch):
    now = [0.0]
    times = types.SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: 2 * now[0])
    monkeypatch.setattr(modules.timed_runs, 'time', times)
    clock = modules.timed_runs.Clock()
    with clock:
        now[0] += 1
        with clock.paused():
            now[0] += 10
            assert clock.read() == (1, 2)
        now[0] += 3
    now[0] += 100
    assert clock.read() == (4, 8)


def test_only_compilation_within_the_clock_is_counted(modules):
    def compile_one(n):
        jax.jit(lambda x: x * n)(np.float32(n))

    clock = modules.timed_runs.Clock()
    compile_one(3)
    with clock, clock.paused():
        compile_one(4)
    assert clock.compilation == 0
    with clock:
        compile_one(5)
    counted = clock.compilation
    compile_one(6)
    assert 0 < counted == clock.compilation


@pytest.mark.parametrize('num_steps,count', [(100, 8), (80, 8), (4, 8), (1, 3), (0, 8), (7, 1)])
def test_marks_end_at_the_last_step(modules, num_steps, count):
    marks = modules.timed_runs.marks(num_steps, count)
    assert marks == sorted(set(marks)) and len(marks) <= count
    assert marks[-1:] == [num_steps] * bool(num_steps) and all(mark > 0 for mark in marks)


@pytest.mark.long
@pytest.mark.parametrize('shared', [True, False])
def test_a_timed_run_has_the_numbers_of_the_plain_functions(modules, tiny, targets, nets, shared):
    generator, weights = tiny
    options = dict(lpips=nets, verbose=False)
    pivots = jaxinv.project(*tiny, targets, **QUICK, **options)
    tuned = jaxinv.tune(*tiny, targets, pivots, **QUICK, shared=shared, **options)
    judge = modules.state_quality.Judge(
        *tiny, targets.images_uint8, nets, settings.Drift(num_samples=3)
    )
    seen = []

    def observe(stage, task, args, variables, step):
        state = modules.state_quality.of_loop(generator, stage, task, args, variables, 2)
        seen.append((stage, step, judge.values(state.images), state.tuned, state.images))
        if state.tuned is not None:
            seen[-1] = (*seen[-1][:3], judge.drift(state.tuned), state.images)

    def invert(**own):
        runner = modules.timed_runs.TimedRunner(tuple(targets.names), checkpoints=2, **own)
        with runner.clock:
            w = jaxinv.project(*tiny, targets, **QUICK, lpips=nets, runner=runner)
            found = jaxinv.tune(
                *tiny, targets, w, **QUICK, shared=shared, lpips=nets, runner=runner
            )
        return runner, w, found

    rehearsal, *_ = invert()
    assert [stage['steps'] for stage in rehearsal.stages] == [1, 1]
    runner, w, found = invert(observe=observe)
    np.testing.assert_array_equal(w.w, pivots.w)
    jax.tree.map(np.testing.assert_array_equal, found, tuned)
    jax.tree.map(np.testing.assert_array_equal, w.history, pivots.history)
    assert runner.clock.compilation == 0
    assert [own[:2] for own in seen] == [
        ('project', 0), ('project', 2), ('project', 5), ('tune', 0), ('tune', 2), ('tune', 5),
    ]  # fmt: skip
    images = jaxinv.render(generator, found.weights, w)
    np.testing.assert_array_equal(seen[-1][4], images)
    np.testing.assert_array_equal(seen[2][4], seen[3][4])
    table = jaxinv.evaluate(targets, images, lpips=nets)
    for name in modules.state_quality.IMAGE_METRICS:
        np.testing.assert_allclose(seen[-1][2][name], table[name], rtol=1e-5)
    # Drift as the reports have it, over all generators.
    opened = types.SimpleNamespace(
        settings=types.SimpleNamespace(drift=settings.Drift(num_samples=3)),
        generator=generator,
        weights=weights,
        nets=nets,
        embeddings=None,
    )
    each = [found.weights] if shared else found.weights
    drift = evaluate.measure_drift(opened, each).metrics
    for name, values in seen[-1][3].items():
        assert len(values) == len(each)
        np.testing.assert_allclose(np.mean(values), drift[name], rtol=1e-5, atol=1e-6)
    assert drift['lpips_alex'] > 0 and seen[3][3]['lpips_alex'] == [0.0] * len(each)
    for stage in runner.stages:
        assert 0 < stage['step_seconds'] <= stage['end'] - stage['begin']


@pytest.fixture(scope='module')
def written(modules, tmp_path_factory):
    """(OUT, content of the JSON) of a run of two methods."""
    out = tmp_path_factory.mktemp('curves') / 'out'
    modules.time_to_quality.main(
        [*TINY, f'--out={out}', f'--methods={OLD},{SHORT}?sam.num_steps=2']
    )
    return out, json.loads(out.with_name('out.json').read_text())


@pytest.mark.long
def test_the_file_has_every_stage_picture_and_checkpoint(written):
    out, content = written
    assert content['pictures'] == ['grace_hopper', 'eileen_collins']
    assert list(content['methods']) == ['old', 'short']
    (run,) = content['methods']['old']['runs']
    assert [(s['stage'], s['steps']) for s in run['stages']] == [('project', 4), ('tune', 4)]
    assert [(p['stage'], p['step']) for p in run['points']] == [
        ('project', 0), ('project', 1), ('project', 4), ('tune', 1), ('tune', 4),
    ]  # fmt: skip
    seconds = [p['seconds'] for p in run['points']]
    assert seconds == sorted(seconds) and seconds[-1] <= run['stages'][-1]['end']
    assert run['stages'][0]['end'] <= run['stages'][1]['begin'] <= run['points'][3]['seconds']
    assert all(len(own) == 2 for p in run['points'] for own in p['values'].values())
    drift = [p['drift']['lpips_alex'] for p in run['points']]
    assert drift[:3] == [[0.0]] * 3 and drift[-1][0] > 0
    assert run['compilation'] == 0 and run['machine']['cores'] >= 1
    assert content['methods']['short']['settings']['sam']['num_steps'] == 2
    with PIL.Image.open(out.with_name('out.png')) as picture:
        assert min(picture.size) > 800
        assert picture.convert('RGB').getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.long
def test_a_rerun_computes_only_what_is_missing(modules, written, monkeypatch, capsys):
    out, before = written
    file = out.with_name('out.json')
    changed = f'{SHORT}?sam.num_steps=1'
    modules.time_to_quality.main([*TINY, f'--out={out}', f'--methods={changed},{OLD}'])
    after = json.loads(file.read_text())
    assert list(after['methods']) == ['short', 'old']
    assert after['methods']['old'] == before['methods']['old']
    assert after['methods']['short']['runs'][0]['stages'][-1]['steps'] == 1
    monkeypatch.setattr(modules.time_to_quality, 'run', None)  # any run would fail
    modules.time_to_quality.main([*TINY, f'--out={out}', f'--methods={OLD}'])
    assert 'old: finished before.' in capsys.readouterr().out
    modules.time_to_quality.main(['--draw', f'--out={out}'])
    assert '| short | invert | 1 |' in capsys.readouterr().out
    with pytest.raises(JaxinvError, match='was made with other pixels_sha256, generator;'):
        modules.time_to_quality.main(
            ['--generator=tiny', '--resolution=64', f'--out={out}', f'--methods={OLD}']
        )
    file.write_text(json.dumps(before))


@pytest.mark.long
@pytest.mark.parametrize(
    'method', ['encoder', pytest.param('sam', marks=pytest.mark.exhaustive), 'w']
)
def test_methods_of_sam(modules, tiny, targets, nets, compact, method):
    """Their last checkpoint is their result; SAM's measuring takes time and changes no number."""
    config = defaults.get_config('evaluate')
    config.generator, config.methods = 'tiny', 'a=w:test' if method == 'w' else 'a=sam:test'
    (row,) = method_runs.rows_of(config)
    with row.config.unlocked():
        row.config.method = method
        row.config.invertibility.spaces = ('W+', 'F4')
    opened = modules.time_to_quality.open_method(row, (*tiny, {}), nets)
    if method == 'encoder':
        opened = opened._replace(encoder=compact)
    modules.time_to_quality.rehearse(opened, targets)
    found = modules.time_to_quality.run(opened, targets, 0, 2)
    start = compact if method == 'encoder' else None
    plain = jaxinv.invert_sam(
        *tiny, targets, settings=opened.run, lpips=nets, verbose=False, start=start,
        statistics=opened.statistics,
    )  # fmt: skip
    table = jaxinv.evaluate(targets, jaxinv.render(*tiny, plain), lpips=nets)
    last = found['points'][-1]
    np.testing.assert_allclose(last['values']['lpips_vgg'], table['lpips_vgg'], rtol=1e-4)
    assert last['drift'] == {'lpips_alex': [0.0], 'mse': [0.0]}
    stages = [stage['stage'] for stage in found['stages']]
    expected = {
        'sam': ['project', 'measure_W+', 'measure_F4', 'invert'],
        'w': ['project'],
        'encoder': ['encode'],
    }
    assert stages == expected[method]
    shown = dict.fromkeys(point['stage'] for point in found['points'])
    assert list(shown) == [name for name in stages if not name.startswith('measure')]
    panel = modules.quality_figure.PANELS[0]
    points = modules.quality_figure.curve(found, panel)
    assert [x for x, *_ in points] == sorted(x for x, *_ in points)
    if method == 'sam':  # flat until the joint search begins
        (pivot,) = [i for i, (*_, ends) in enumerate(points[:-1]) if ends]
        assert points[pivot + 1][1] == points[pivot][1]
        assert points[pivot + 1][0] == found['stages'][-1]['begin'] > points[pivot][0]


def test_the_old_default_is_the_papers_but_for_three_numbers(modules):
    """Fails where the default budget gets a key that OLD does not set back."""
    config = defaults.get_config('evaluate')
    config.methods = modules.time_to_quality.METHODS
    old, *others = method_runs.rows_of(config)
    assert old.name == 'old default' and len(others) == 4
    found = settings.of(old.config, settings.Invert)
    expected = settings.Invert(
        pivot=settings.Projection(num_steps=100, learning_rate=0.1),
        tune=settings.Tuning(num_steps=80),
    )
    assert (found.pivot, found.tune) == (expected.pivot, expected.tune)
    assert found.w_statistics == expected.w_statistics


def test_the_record_of_a_method_names_no_folder(modules, tmp_path):
    network = tmp_path / 'network.safetensors'
    network.write_bytes(b'x')
    config = defaults.get_config('evaluate')
    config.generator = 'tiny'
    config.methods = f'e={OLD[4:]}?pivot.start=encoder:{network},s=sam:test?segments.how={tmp_path}'
    encoded, regions = method_runs.rows_of(config)
    facts = modules.time_to_quality.facts_of(encoded, 8)
    assert facts['settings']['pivot']['start'] == 'encoder:network.safetensors'
    assert facts['files']['encoder'] == hashlib.sha256(b'x').hexdigest()
    facts = [facts, modules.time_to_quality.facts_of(regions, 8)]
    assert str(tmp_path.parent) not in json.dumps(facts)
    network.write_bytes(b'y')
    assert modules.time_to_quality.facts_of(encoded, 8) != facts[0]


def test_methods_without_a_time_are_refused(modules, tmp_path):
    PIL.Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    for method in (f'external:{tmp_path}', f'{OLD}?start=run'):
        with pytest.raises(JaxinvError, match='results of another run'):
            modules.time_to_quality.main(
                [*TINY, f'--out={tmp_path / "out"}', f'--methods={method}']
            )


def point(stage, step, seconds, lpips, identity):
    values = {'lpips_alex': lpips, 'lpips_vgg': lpips, 'mse': lpips, 'psnr': lpips}
    return {
        'stage': stage, 'step': step, 'seconds': seconds, 'values': values
        | {'id_distance': identity}, 'drift': {'lpips_alex': [0.5], 'mse': [0.0]},
    }  # fmt: skip


def made_up(times, lpips):
    """A method of one stage of ten steps, with a checkpoint for each of the times."""
    points = [
        point('tune', i, t, [x, x], [x, None])
        for i, (t, x) in enumerate(zip(times, lpips, strict=True), start=1)
    ]
    stage = {
        'stage': 'tune', 'steps': 10, 'begin': 1.0, 'end': times[-1],
        'processor_end': 2 * times[-1], 'step_seconds': times[-1] - 1,
        'step_processor_seconds': times[-1],
    }  # fmt: skip
    return {'runs': [{'from_encoder': False, 'stages': [stage], 'points': points}]}


def test_tables_of_made_up_curves(modules):
    methods = {
        'first': made_up([10.0, 40.0, 80.0], [0.5, 0.3, 0.2]),
        'second': made_up([5.0, 15.0, 20.0], [0.4, 0.2, 0.1]),
        'third': made_up([5.0, 160.0], [0.4, 0.25]),
    }
    lines = modules.quality_figure.tables({'methods': methods}).splitlines()
    assert lines[2] == (
        '| first | tune | 10 | 80.0 | 79.0 | 160.0 | 0.2000 | 0.2000 | 0.2000 | 0.20 '
        '| 0.200 (1 without a face) | 0.5000 |'
    )
    start = lines.index('')
    assert lines[start + 1].endswith('| seconds to LPIPS alex 0.2 | seconds to identity 0.2 |')
    assert lines[start + 3 :] == [
        '| first | 80.0 | 1.00 | 160.0 | 1.00 | 80.0 | 80.0 |',
        '| second | 20.0 | 0.25 | 40.0 | 0.25 | 15.0 | 15.0 |',
        '| third | 160.0 | 2.00 | 320.0 | 2.00 | not reached | not reached |',
    ]
