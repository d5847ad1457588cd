"""Bulk mode of shared tuning: the numbers of an ordinary run, interruptions, bad pictures."""

import html
import json
import re
import sys

import jax
import limits
import numpy as np
import PIL.Image
import pytest
from test_bulk import NAMES, records_of, stamps, write_picture
from test_distributed import launched, said
from test_experiment import load_config

import jaxinv
from jaxinv import data, latents, pixels
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti, pti_score
from jaxinv.inversion.project import project
from jaxinv.runtime import distributed

pytestmark = pytest.mark.long


def config_of(folder, **changes):
    config = load_config('pti_multi_id')
    config.data.images, config.data.align = str(folder), 'none'
    config.tune.resident, config.edits = 2, ()
    config.update_from_flattened_dict({'group': 2} | changes)
    return config


def run(config, work):
    """Runs a config and returns what it logged."""
    lines = []
    pti.run(config, work, log=lambda text, **_: lines.append(text))
    return lines


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Five pictures and a text file with the name of one."""
    folder = tmp_path_factory.mktemp('inputs')
    for seed, name in enumerate(NAMES):
        write_picture(folder, name, seed)
    (folder / 'bad.png').write_text('not a picture')
    return folder


@pytest.fixture(scope='module')
def finished(inputs, tmp_path_factory):
    """(config, work folder) of a finished run."""
    work = tmp_path_factory.mktemp('run') / 'work'
    config = config_of(inputs)
    run(config, work)
    return config, work


def test_each_picture_leaves_a_folder_and_a_line(finished):
    _, work = finished
    records = records_of(work)
    assert list(records) == ['ada', 'bad', 'bob', 'cyd', 'dot', 'eve']
    assert 'not an image' in records['bad']['skipped']
    generator, weights = jaxinv.load_generator(work)
    pivots = dict(zip(NAMES, np.load(work / 'pivots.npz')['w'], strict=True))
    for name in NAMES:
        record, own = records[name], work / 'identities' / name
        assert set(record['metrics']) == {'pivot', 'tuned'} and set(record['seconds']) == {'score'}
        assert [p['file'] for p in record['pictures']] == ['target.png', 'pivot.png', 'tuned.png']
        image = generator.synthesize(weights, pivots[name][None])[0][0]
        saved = np.asarray(PIL.Image.open(own / 'tuned.png'), np.float32)
        np.testing.assert_allclose(np.clip((image + 1) * 127.5, 0, 255), saved, atol=1)
        found = json.loads((own / 'metrics.json').read_text())
        assert found['identities'] == {name: record['metrics']}
    assert not (work / 'state' / 'targets.npy').exists()
    page = (work / 'report.html').read_text()
    assert 'identities/ada/' in page and 'not an image' in page
    result = json.loads((work / 'metrics.json').read_text())
    assert result['count'] == 5 and len(result['skipped']) == 1
    assert set(result['drift']) == {'lpips_alex', 'mse'}
    assert {'read', 'project', 'tune', 'score'} <= set(result['seconds'])
    exec(html.unescape(re.search(r'<pre>(.*?)</pre>', page, re.DOTALL)[1]), found := {})
    assert found['images'].shape == (5, 32, 32, 3)


def test_numbers_are_those_of_an_ordinary_run(finished, inputs, tmp_path):
    _, work = finished
    run(config_of(inputs, group=0), tmp_path / 'once')
    once = json.loads((tmp_path / 'once' / 'metrics.json').read_text())
    bulk = json.loads((work / 'metrics.json').read_text())
    for stage in ('pivot', 'tuned'):
        for name, value in once['mean'][stage].items():
            other = bulk['mean'][stage][name]
            assert value is other is None or abs(value - other) <= 1e-4 * abs(value), name
    np.testing.assert_allclose(once['drift']['mse'], bulk['drift']['mse'], rtol=1e-4)


def test_a_run_that_is_interrupted_while_it_scores_resumes(finished, tmp_path, monkeypatch):
    config, straight = finished
    work, calls = tmp_path / 'work', []
    normal = pti_score.score_batch

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise distributed.Preempted
        return normal(*arguments)

    monkeypatch.setattr('jaxinv.rendering.BATCH', 2)
    monkeypatch.setattr(pti_score, 'score_batch', stop)
    with pytest.raises(distributed.Preempted):
        run(config, work)
    monkeypatch.setattr(pti_score, 'score_batch', normal)
    first = [name for name, record in records_of(work).items() if 'metrics' in record]
    assert first == ['ada', 'bob'] and not (work / 'metrics.json').exists()
    before = {path: t for path, t in stamps(work).items() if path.parent.name in first}
    lines = run(config, work)
    # Nothing is read, projected or tuned again.
    assert not any(line.startswith(('project ', 'tune ')) for line in lines)
    assert not any('pictures read' in line for line in lines)
    assert {path: t for path, t in stamps(work).items() if path in before} == before
    one, two = records_of(straight), records_of(work)
    assert list(one) == list(two)
    for name in NAMES:
        for stage, values in one[name]['metrics'].items():
            for metric, value in values.items():
                other = two[name]['metrics'][stage][metric]
                assert value is other is None or abs(value - other) <= 1e-4 * abs(value), metric
    weights = [jaxinv.load_generator(folder)[1] for folder in (straight, work)]
    jax.tree.map(np.testing.assert_array_equal, *weights)
    assert any('Finished already' in line for line in run(config, work))


@pytest.mark.exhaustive
def test_reading_and_tuning_resume(finished, tmp_path, monkeypatch):
    config, straight = finished
    work, calls = tmp_path / 'work', []

    def stop():  # at the second call
        calls.append(1)
        if len(calls) == 2:
            raise distributed.Preempted

    # After the second batch of pictures; within the projection; within the tuning.
    for _ in range(3):
        calls.clear()
        monkeypatch.setattr(distributed, 'raise_if_preempted', stop)
        with pytest.raises(distributed.Preempted):
            run(config, work)
    monkeypatch.undo()
    assert any('going on' in line for line in run(config, work))
    for name, record in records_of(straight).items():
        assert record.get('metrics') == records_of(work)[name].get('metrics'), name


def test_other_pictures_are_another_run(finished, inputs, tmp_path):
    config, work = finished
    write_picture(inputs, 'zoe', 9)
    try:
        with pytest.raises(JaxinvError, match='zoe.png'):
            run(config, work)
    finally:
        (inputs / 'zoe.png').unlink()


@pytest.mark.exhaustive
def test_a_projection_that_is_not_finite_costs_a_line(inputs, tmp_path, monkeypatch):
    target = data.load_images(inputs / 'dot.png', resolution=32, align='none')
    bad, normal = latents.identity_ids(target.images_uint8)[0], pixels.to_float

    def to_float(images_uint8, *numpy):
        targets = np.array(normal(images_uint8, *numpy))
        targets[latents.identity_ids(images_uint8) == bad] = np.nan
        return targets

    monkeypatch.setattr(sys.modules[project.__module__], 'to_float', to_float)
    run(config_of(inputs), tmp_path / 'work')
    records = records_of(tmp_path / 'work')
    assert 'nan or infinite' in records['dot']['skipped']
    assert all('metrics' in records[name] for name in NAMES if name != 'dot')


def test_nothing_usable_is_a_sentence(tmp_path):
    (tmp_path / 'bad.png').write_text('not a picture')
    with pytest.raises(data.NoImages, match='No usable picture'):
        run(config_of(tmp_path / 'bad.png'), tmp_path / 'work')


@pytest.mark.exhaustive
def test_two_processes_tune_one_generator(finished, inputs, tmp_path):
    _, alone = finished
    work = tmp_path / 'work'
    options = [f'--config.data.images={inputs}', '--config.data.align=none', '--config.group=2']
    options += ['--config.tune.resident=2', '--config.edits=()']
    with launched(2, work, *options, config='pti_multi_id:test') as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(work)
    one, two = records_of(alone), records_of(work)
    assert list(one) == list(two)
    for name in NAMES:
        for stage, values in one[name]['metrics'].items():
            for metric, value in values.items():
                other = two[name]['metrics'][stage][metric]
                assert value is other is None or abs(value - other) <= 1e-2 * abs(value), metric
