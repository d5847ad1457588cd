"""Bulk mode: the numbers of all at once, each picture once, with interruptions and bad pictures."""

import contextlib
import html
import json
import re
import signal
import sys
import threading

import jax
import limits
import numpy as np
import PIL.Image
import pytest
from test_distributed import launched, said, wait_for
from test_experiment import load_config

import jaxinv
from jaxinv import data, latents, pixels, settings
from jaxinv.data import discover, prefetch
from jaxinv.errors import JaxinvError
from jaxinv.experiments import bulk, bulk_group, pti
from jaxinv.inversion.project import make_projector, project
from jaxinv.report import bulk as bulk_report
from jaxinv.runtime import distributed, manifest
from jaxinv.weights.zoo import load_named as load_generator

NAMES = ('ada', 'bob', 'cyd', 'dot', 'eve')


def write_picture(folder, name, seed):
    blocks = np.random.RandomState(seed).randint(0, 255, (3, 4, 3)).astype(np.uint8)
    picture = PIL.Image.fromarray(blocks).resize((96, 96), PIL.Image.Resampling.BICUBIC)
    picture.save(folder / f'{name}.png')


@pytest.fixture
def folder(tmp_path):
    """Five pictures and a text file with the name of one."""
    folder = tmp_path / 'inputs'
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        write_picture(folder, name, seed)
    (folder / 'bad.png').write_text('not a picture')
    return folder


def config_of(folder, **settings):
    config = load_config('pti_single_id')
    config.data.images, config.data.align = str(folder), 'none'
    config.tune.stop_lpips = 0.0
    config.update_from_flattened_dict(settings)
    return config


def run(config, work):
    """Runs a config and returns what it logged."""
    lines = []
    pti.run(config, work, log=lambda text, **_: lines.append(text))
    return lines


def records_of(work):
    lines = (work / manifest.FILE).read_text().splitlines()
    return {record['name']: record for record in map(json.loads, lines)}


def stamps(work):
    files = [p for p in (work / 'identities').rglob('*') if p.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


# --- What is to be done ---


def plan(work, folder, size=2):
    found = discover.find(folder)
    claimed = bulk._claim_groups(
        work, {'config': {}}, False, found, str(folder), size, False, print
    )
    with claimed as numbers:
        return {
            number: [name for name, _ in bulk_group.read_members(work, number)]
            for number in numbers or ()
        }


def finish(work, number, names, folder, **more):
    lines = manifest.Manifest(work / manifest.FILE)
    for name in names:
        file = folder / f'{name}.png'
        facts = {'file': str(file), 'sha256': bulk.digest(file), 'folder': f'identities/{name}'}
        lines.add({'name': name} | facts | more)
    (bulk_group.folder_of(work, number) / bulk_group.MEMBERS).unlink()


def test_only_what_is_new_or_changed_is_done(folder, tmp_path):
    work = tmp_path / 'work'
    assert plan(work, folder) == {0: ['ada', 'bad'], 1: ['bob', 'cyd'], 2: ['dot', 'eve']}
    finish(work, 0, ['ada'], folder)
    finish_bad = {'skipped': 'no picture'}
    lines = manifest.Manifest(work / manifest.FILE)
    bad = folder / 'bad.png'
    lines.add({'name': 'bad', 'file': str(bad), 'sha256': bulk.digest(bad)} | finish_bad)
    # A group that was begun stays as it is; what comes later makes another.
    write_picture(folder, 'aaa', 9)
    assert plan(work, folder) == {1: ['bob', 'cyd'], 2: ['dot', 'eve'], 3: ['aaa']}
    finish(work, 1, ['bob', 'cyd'], folder)
    finish(work, 2, ['dot', 'eve'], folder)
    finish(work, 3, ['aaa'], folder)
    assert plan(work, folder) == {}
    write_picture(folder, 'bob', 7)
    write_picture(folder, 'bad', 8)
    assert plan(work, folder) == {4: ['bad', 'bob']}
    order = list(records_of(work))
    assert order == ['aaa', 'ada', 'bad', 'bob', 'cyd', 'dot', 'eve']


def test_names_of_finished_pictures_stay_when_their_like_come(folder, tmp_path):
    work = tmp_path / 'work'
    plan(work, folder, size=9)
    (folder / 'a').mkdir()
    write_picture(folder / 'a', 'ada', 5)
    assert plan(work, folder, size=9)[1] == ['ada_2']


def test_a_damaged_line_is_set_aside_and_its_picture_done_again(folder, tmp_path, capsys):
    work = tmp_path / 'work'
    plan(work, folder, size=9)
    finish(work, 0, ['ada', 'bad', 'bob', 'cyd', 'dot', 'eve'], folder)
    lines = (work / manifest.FILE).read_bytes().split(b'\n')
    lines[1] = lines[1][:20] + b'\0\xff' + lines[1][20:]  # of bad
    (work / manifest.FILE).write_bytes(b'\n'.join(lines))
    (work / 'manifest.1.jsonl').write_text('{"name": 3}\n')  # of another process
    assert plan(work, folder, size=9) == {1: ['bad']}
    assert 'damaged lines are set aside' in capsys.readouterr().out
    assert sorted(records_of(work)) == ['ada', 'bob', 'cyd', 'dot', 'eve']
    assert (work / 'manifest.jsonl.damaged').read_bytes() == lines[1] + b'\n'
    assert (work / 'manifest.1.jsonl.damaged').read_text() == '{"name": 3}\n'


def test_a_group_begun_before_its_lines_were_lost_starts_again(folder, tmp_path):
    work = tmp_path / 'work'
    plan(work, folder, size=3)
    state = bulk_group.folder_of(work, 1) / 'state'
    state.mkdir()
    plan(work, folder, size=3)
    assert state.is_dir()
    (work / manifest.FILE).write_text('[]\n')
    assert set(plan(work, folder, size=3)) == {0, 1}
    assert not state.exists()


def test_a_group_whose_members_are_damaged_is_formed_anew(folder, tmp_path, capsys):
    work = tmp_path / 'work'
    plan(work, folder)
    members = bulk_group.folder_of(work, 1) / bulk_group.MEMBERS
    for damage in ('[["bob", ', '{"bob": 1}', '[["bob"]]'):
        members.write_text(damage)
        assert list(plan(work, folder).values()) == [['ada', 'bad'], ['dot', 'eve'], ['bob', 'cyd']]
        assert 'is damaged; its pictures form a new group' in capsys.readouterr().out
        members = max((work / 'groups').glob(f'*/{bulk_group.MEMBERS}'))


def test_a_line_cut_off_by_a_kill_is_not_there(tmp_path):
    lines = manifest.Manifest(tmp_path / 'm.jsonl')
    line = {'name': 'ada', 'file': 'ada.png', 'sha256': 'ab', 'skipped': 'a reason'}
    lines.add(line)
    lines.add(line | {'skipped': 'another reason'})
    with open(tmp_path / 'm.jsonl', 'a') as file:
        file.write('{"name": "bob", "file"')
    records = manifest.Manifest(tmp_path / 'm.jsonl').records
    assert records == {'ada': line | {'skipped': 'another reason'}}


def test_one_is_read_ahead_and_no_more():
    begun, go_on = [], threading.Semaphore(0)

    def read(item, stopped):
        begun.append(item)
        if item > 1:
            go_on.acquire(timeout=5)
        if item == 4:
            raise JaxinvError('four')
        return item

    with contextlib.closing(prefetch.map_ahead(read, range(1, 9))) as items:
        assert next(items) == 1
        assert begun in ([1], [1, 2])
        go_on.release(9)
        assert next(items) == 2 and max(begun) <= 3 and next(items) == 3
        with pytest.raises(JaxinvError, match='four'):
            next(items)
    assert max(begun) <= 5


@pytest.mark.parametrize(
    'settings,expected',
    [
        ({'group': -1}, 'at least 0'),
        ({'group': 2, 'data.faces': 'all'}, 'largest'),
    ],
)
def test_groups_that_are_impossible_raise_a_sentence(settings, expected, folder, tmp_path):
    config = config_of(folder, **settings)
    with pytest.raises(JaxinvError, match=expected):
        run(config, tmp_path / 'work')


def test_the_page_of_thousands_shows_few_pictures_and_a_line_each(tmp_path):
    random, records = np.random.RandomState(0), []
    for i in range(3000):
        line = {'name': f'<b>{i}', 'file': f'{i}.png', 'sha256': ''}
        values = {'lpips_alex': random.rand(), 'psnr': 20 + random.rand(), 'id_distance': None}
        if i % 100 == 7:
            records.append(line | {'skipped': 'It is <i>bad</i>.'})
            continue
        found = {'folder': f'identities/{i}', 'seconds': {'tune': 2.0}, 'drift': {'mse': 0.5}}
        records.append(line | found | {'metrics': {'pivot': values, 'tuned': values}})
        if i < 3:
            (tmp_path / found['folder']).mkdir(parents=True)
            # Written in another order than they are shown in.
            for name in ('tuned', 'edit_age_4', 'target'):
                write_picture(tmp_path / found['folder'], name, i)
            records[-1]['pictures'] = [
                {'label': 'target', 'file': 'target.png'},
                {'label': 'tuned', 'file': 'tuned.png'},
                {'label': 'age +4', 'file': 'edit_age_4.png'},
            ]
    generator = {'name': 'tiny', 'resolution': 32}
    result = bulk_report.BulkRun(
        'Title', records, 3.0, {'read': 60.0}, generator=generator, lpips={'alex': 'a <file>'}
    )
    bulk_report.write(tmp_path, result)
    page = (tmp_path / 'report.html').read_text()
    assert page.count('data:image/jpeg') == 9 and len(page) < 2e6
    labels = re.findall(r'<figcaption><b>([^<]*)</b>', page)
    assert labels == ['target', 'tuned', 'age +4'] * 3
    assert 'LPIPS weights' in page and 'a &lt;file&gt;' in page
    assert page.count('<a href="identities/') >= 2970 and '<b>7' not in page
    assert 'It is &lt;i&gt;bad' in page and page.count('class="bars"') == 2
    found = json.loads((tmp_path / 'metrics.json').read_text())
    assert found['count'] == 2970 and len(found['skipped']) == 30
    assert found['seconds'] == {'read': 60.0, 'tune': 5940.0}
    assert found['mean']['tuned']['id_distance'] is None and found['drift'] == {'mse': 0.5}
    assert found['lpips'] == {'alex': 'a <file>'}
    assert 0.45 < found['percentiles']['tuned']['lpips_alex']['50'] < 0.55
    assert '2970 finished, 30 skipped' in bulk_report.summary(tmp_path, result)


# --- Whole runs ---


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """(pictures, work folder of a run in groups with one slot, its config, the number of programs
    that its projections compiled)."""
    inputs, work = tmp_path_factory.mktemp('inputs'), tmp_path_factory.mktemp('run') / 'work'
    for seed, name in enumerate(NAMES):
        write_picture(inputs, name, seed)
    (inputs / 'bad.png').write_text('not a picture')
    config = config_of(inputs, **{'group': 2, 'tune.slots': 1})
    projection = settings.of(config, settings.Projection)
    loop = make_projector(load_generator('tiny', 32)[0], projection).loop
    before = len(loop.compiled)
    run(config, work)
    return inputs, work, config, len(loop.compiled) - before


@pytest.mark.long
def test_each_picture_leaves_a_folder_and_a_line(finished):
    _, work, _, programs = finished
    records = records_of(work)
    assert list(records) == ['ada', 'bad', 'bob', 'cyd', 'dot', 'eve']
    assert 'not an image' in records['bad']['skipped']
    for name in NAMES:
        record, own = records[name], work / 'identities' / name
        assert set(record['seconds']) == {'project', 'tune', 'score'}
        generator, weights = jaxinv.load_generator(own)
        picture = generator.synthesize(weights, np.load(own / 'pivots.npz')['w'])[0][0]
        saved = np.asarray(PIL.Image.open(own / 'tuned.png'), np.float32)
        np.testing.assert_allclose(np.clip((picture + 1) * 127.5, 0, 255), saved, atol=1)
        stages = json.loads((own / 'metrics.json').read_text())['identities'][name]
        assert stages == record['metrics'] and set(stages) == {'pivot', 'tuned'}
        assert [p['file'] for p in record['pictures']] == ['target.png', 'pivot.png', 'tuned.png']
    assert programs <= 1  # also for a group with a bad picture
    assert not list((work / 'groups').glob('*/state'))
    page = (work / 'report.html').read_text()
    assert 'identities/ada/' in page and 'not an image' in page and 'lpips-' in page
    usage = html.unescape(re.search(r'<pre>(.*?)</pre>', page, re.DOTALL)[1])
    exec(usage, found := {})
    np.testing.assert_array_equal(found['w'], np.load(work / 'identities/ada/pivots.npz')['w'])
    assert found['images'].shape == (1, 32, 32, 3)
    result = json.loads((work / 'metrics.json').read_text())
    assert result['count'] == 5 and len(result['skipped']) == 1
    mean = np.mean([records[name]['metrics']['tuned']['psnr'] for name in NAMES])
    np.testing.assert_allclose(result['mean']['tuned']['psnr'], mean)


@pytest.mark.exhaustive
def test_groups_end_as_all_at_once(finished, tmp_path):
    inputs, work, _, _ = finished
    run(config_of(inputs), tmp_path / 'once')
    once = json.loads((tmp_path / 'once' / 'metrics.json').read_text())['identities']
    pivots = dict(zip(NAMES, np.load(tmp_path / 'once' / 'pivots.npz')['w'], strict=True))
    for name, record in records_of(work).items():
        if name == 'bad':
            continue
        for stage in ('pivot', 'tuned'):
            for metric, value in once[name][stage].items():
                other = record['metrics'][stage][metric]
                assert value is other is None or abs(value - other) < 1e-2 * abs(value), metric
        own = np.load(work / record['folder'] / 'pivots.npz')['w'][0]
        np.testing.assert_allclose(own, pivots[name], atol=1e-3)


@pytest.mark.long
def test_a_rerun_does_only_what_came_later(finished):
    inputs, work, config, _ = finished
    before = stamps(work)
    assert any('Finished already' in line for line in run(config, work))
    write_picture(inputs, 'abe', 11)
    lines = run(config, work)
    assert any('1 groups of 2 to do' in line for line in lines)
    after = stamps(work)
    assert {path: after[path] for path in before} == before
    new = {path.parent.name for path in set(after) - set(before)}
    assert new == {'abe'}
    assert json.loads((work / 'metrics.json').read_text())['count'] == 6
    (inputs / 'abe.png').unlink()


@pytest.mark.exhaustive
def test_an_interrupted_group_goes_on_to_the_same_numbers(finished, tmp_path, monkeypatch):
    inputs, work, config, _ = finished
    calls = []

    def stop(after):
        def stop_if_asked():
            calls.append(1)
            if len(calls) == after:
                raise distributed.Preempted

        return stop_if_asked

    again = tmp_path / 'again'
    # After a chunk of the projection; within the tuning of a group; between two identities.
    for after in (1, 6, 9):
        calls.clear()
        monkeypatch.setattr(distributed, 'raise_if_preempted', stop(after))
        with pytest.raises(distributed.Preempted):
            run(config, again)
    monkeypatch.undo()
    assert any('going on' in line for line in run(config, again))
    straight, resumed = records_of(work), records_of(again)
    for name in NAMES:
        assert straight[name]['metrics'] == resumed[name]['metrics'], name
        weights = [jaxinv.load_generator(w / 'identities' / name)[1] for w in (work, again)]
        jax.tree.map(np.testing.assert_array_equal, *weights)
    assert len((again / manifest.FILE).read_text().splitlines()) == 6


@pytest.mark.long
def test_an_identity_that_is_not_finite_costs_a_line(finished, tmp_path, monkeypatch):
    inputs, _, config, _ = finished
    ids = latents.identity_ids(
        data.load_images(inputs / 'dot.png', resolution=32, align='none').images_uint8
    )
    normal = pixels.to_float

    def to_float(images_uint8, *numpy):
        targets = np.array(normal(images_uint8, *numpy))
        found = latents.identity_ids(images_uint8)
        targets[found == ids[0]] = np.nan
        return targets

    monkeypatch.setattr(sys.modules[project.__module__], 'to_float', to_float)
    run(config, tmp_path / 'work')
    records = records_of(tmp_path / 'work')
    assert 'nan or infinite' in records['dot']['skipped']
    assert all('metrics' in records[name] for name in NAMES if name != 'dot')


@pytest.mark.long
def test_nothing_usable_is_a_sentence(tmp_path):
    (tmp_path / 'bad.png').write_text('not a picture')
    config = config_of(tmp_path / 'bad.png', group=2)
    with pytest.raises(data.NoImages, match='No usable picture'):
        run(config, tmp_path / 'work')


@pytest.mark.exhaustive
def test_two_processes_share_the_groups_and_go_on_after_sigterm(finished, tmp_path):
    inputs, alone, _, _ = finished
    work = tmp_path / 'work'
    options = [f'--config.data.images={inputs}', '--config.data.align=none', '--config.group=2']
    options += ['--config.tune.slots=1', '--config.tune.stop_lpips=0.0']
    with launched(2, work, *options, config='pti_single_id:test') as running:
        wait_for(work, 'project    2/4', running)
        running[1].send_signal(signal.SIGTERM)
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [distributed.PREEMPTED] * 2, (
            said(work)
        )
    with launched(2, work, *options, config='pti_single_id:test') as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(work)
    assert 'going on' in said(work)['log0'] and not list(work.glob('manifest.*.jsonl'))
    straight, shared = records_of(alone), records_of(work)
    assert list(shared) == ['ada', 'bad', 'bob', 'cyd', 'dot', 'eve']
    assert {record['group'] for record in shared.values() if 'group' in record} == {0, 1, 2}
    for name in NAMES:
        assert straight[name]['metrics'] == shared[name]['metrics'], name
