"""The main job end to end: outputs, resume after a kill, and what happens to bad inputs."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import limits
import numpy as np
import pytest
import safetensors.numpy

import jaxinv
from jaxinv import data, launch
from jaxinv.experiments import pti

pytestmark = pytest.mark.first

ROOT = pathlib.Path(__file__).parent.parent
STAGE_METRICS = {'lpips_alex', 'lpips_vgg', 'mse', 'psnr', 'ms_ssim', 'id_distance'}


def load_config(name, variant='test'):
    spec = importlib.util.spec_from_file_location(name, launch.config_folder() / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A whole run on the demo portraits and three bad files, with the tiny random generator."""
    folder = tmp_path_factory.mktemp('inputs')
    (folder / 'letter.png').write_text('not a picture')
    (folder / 'empty.jpg').write_bytes(b'')
    demo = [str(p) for _, p in data.find('demo').files]
    config = load_config('pti_multi_id')
    config.data.images = ','.join([*demo, str(folder)])
    path = tmp_path_factory.mktemp('run') / 'work'
    lines = []
    pti.run(config, path, log=lambda text, **_: lines.append(text))
    return config, path, lines


def test_outputs_have_their_promised_names_and_shapes(finished):
    _, path, _ = finished
    for name in ('grid.png', 'report.html', 'metrics.json', 'metrics.jsonl', 'pivots.npz'):
        assert (path / name).stat().st_size > 0, name
    result = json.loads((path / 'metrics.json').read_text())
    assert len(result['identities']) == 2
    for identity in result['identities'].values():
        assert set(identity['pivot']) == set(identity['tuned']) == STAGE_METRICS
    assert set(result['mean']) == {'pivot', 'tuned'}
    assert {'lpips_alex', 'mse'} <= set(result['drift'])
    assert {'project', 'tune'} <= set(result['seconds'])
    reasons = {pathlib.Path(s['file']).name: s['reason'] for s in result['skipped']}
    assert set(reasons) == {'letter.png', 'empty.jpg'} and all(reasons.values())


def test_skipped_files_stand_in_the_page(finished):
    _, path, lines = finished
    page = (path / 'report.html').read_text()
    assert 'letter.png' in page and 'empty.jpg' in page
    assert any('letter.png' in line for line in lines)


def test_every_step_is_logged_once(finished):
    config, path, _ = finished
    rows = [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]
    for stage, steps in (('project', config.pivot.num_steps), ('tune', config.tune.num_steps)):
        assert [r['step'] for r in rows if r['stage'] == stage] == list(range(steps))


@pytest.mark.long
def test_tuned_generator_loads_from_each_of_its_forms(finished):
    _, path, _ = finished
    generator, weights = jaxinv.load_generator(path)
    pivots = np.load(path / 'pivots.npz')['w']
    images, _ = generator.synthesize(weights, pivots)
    assert images.shape == (2, 32, 32, 3)
    for form in ('generator', 'generator/generator.safetensors', 'generator/orbax'):
        _, again = jaxinv.load_generator(path / form)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), weights, again)), form
    assert safetensors.numpy.load_file(path / 'generator' / 'generator.safetensors')


def test_rerun_of_a_finished_run_changes_nothing(finished):
    config, path, _ = finished
    before = {p: p.stat().st_mtime_ns for p in path.rglob('*') if p.is_file() and p.name != '.lock'}
    lines = []
    pti.run(config, path, log=lambda text, **_: lines.append(text))
    assert any('Finished already' in line for line in lines)
    after = {p: p.stat().st_mtime_ns for p in path.rglob('*') if p.is_file() and p.name != '.lock'}
    assert before == after


@pytest.mark.long
def test_killed_run_goes_on_to_the_same_numbers(finished, tmp_path):
    config, path, _ = finished
    work = tmp_path / 'work'
    command = [sys.executable, '-m', 'jaxinv.launch', '--config=pti_multi_id:test']
    command += [f'--config.data.images={config.data.images}', f'--workdir={work}']
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.time() + limits.SECONDS
        while not any((work / 'state' / 'tune').glob('2/*')):  # two of four tuning steps are safe
            assert time.time() < deadline, 'no checkpoint appeared'
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (work / 'metrics.json').exists()
    lines = []
    pti.run(config, work, log=lambda text, **_: lines.append(text))
    assert any('going on after step' in line for line in lines), lines
    straight = safetensors.numpy.load_file(path / 'generator' / 'generator.safetensors')
    resumed = safetensors.numpy.load_file(work / 'generator' / 'generator.safetensors')
    for name, value in straight.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)
    np.testing.assert_array_equal(
        np.load(path / 'pivots.npz')['w'], np.load(work / 'pivots.npz')['w']
    )
    a, b = ((p / 'metrics.jsonl').read_text().splitlines() for p in (path, work))
    assert a == b


@pytest.mark.exhaustive
def test_a_run_resumes_with_other_settings_of_memory_and_time(finished, tmp_path):
    """The state on disk does not depend on the keys that are not in a run's record."""
    config, path, _ = finished
    config = config.copy_and_resolve_references()
    work = tmp_path / 'work'

    def stop(text, **_):
        if text.startswith('tune') and ' 4/4 ' in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pti.run(config, work, log=stop)
    config.pivot.chunk_steps, config.tune.chunk_steps = 1, 3
    config.tune.microbatch, config.tune.resident, config.remat = 0, 1, True
    lines = []
    pti.run(config, work, log=lambda text, **_: lines.append(text))
    assert 'tune: going on after step 2.' in lines, lines
    straight, resumed = (
        [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
        for folder in (path, work)
    )
    assert len(straight) == len(resumed)
    for a, b in zip(straight, resumed, strict=True):
        assert a.keys() == b.keys() and (a['stage'], a['step']) == (b['stage'], b['step'])
        for name in a.keys() - {'stage', 'step'}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3)


@pytest.mark.exhaustive
def test_pivots_found_one_after_the_other_are_the_same(finished, tmp_path):
    _, path, _ = finished
    config = load_config('pti_multi_id')
    config.pivot.batch_per_device, config.tune.num_steps = 1, 0
    pti.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    together, alone = (np.load(folder / 'pivots.npz')['w'] for folder in (path, tmp_path / 'work'))
    np.testing.assert_allclose(alone, together, atol=1e-4)
    lines = (tmp_path / 'work' / 'metrics.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = [(stage, i) for stage in ('project/0', 'project/1') for i in range(4)]
    assert [(r['stage'], r['step']) for r in records] == steps


@pytest.mark.exhaustive
def test_single_identity_tuning_saves_a_generator_each(tmp_path):
    config = load_config('pti_single_id')
    pti.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    for name in ('grace_hopper', 'eileen_collins'):
        generator, weights = jaxinv.load_generator(tmp_path / 'work' / 'generators' / name)
        assert generator.spec.name == 'tiny'
    with pytest.raises(jaxinv.errors.JaxinvError, match='one generator per identity'):
        jaxinv.load_generator(tmp_path / 'work')


@pytest.mark.long
def test_main_job_with_the_real_generator(tmp_path):
    """Few steps, all parts real: the portraits must already get closer."""
    config = load_config('pti_multi_id', '')
    config.pivot.num_steps, config.tune.num_steps = 6, 3
    config.pivot.chunk_steps = config.tune.chunk_steps = 3
    config.w_statistics.num_samples = 1000
    config.edits = ('smile=1.5',)
    config.drift.num_samples = 2
    pti.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    result = json.loads((tmp_path / 'work' / 'metrics.json').read_text())
    mean = result['mean']
    assert mean['tuned']['lpips_alex'] < mean['pivot']['lpips_alex'] < 0.75
    assert mean['tuned']['mse'] < mean['pivot']['mse']
    assert 0 < mean['tuned']['id_distance'] < 1.2
    for edits in result['edits'].values():
        assert edits['smile=1.5']['change']['smile'] is not None
