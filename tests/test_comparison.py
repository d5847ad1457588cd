"""--config=evaluate: tables, resumption, bad and missing pictures."""

import csv
import html
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import limits
import numpy as np
import PIL.Image
import pytest
from test_distributed import launched, said

from jaxinv.configs import evaluate
from jaxinv.errors import JaxinvError
from jaxinv.experiments import (
    comparison,
    comparison_measure,
    comparison_targets,
    method_runs,
    pti,
)
from jaxinv.metrics import identity
from jaxinv.report import comparison as report
from jaxinv.report import text as report_text
from jaxinv.runtime import manifest, memory
from jaxinv.settings import method_list
from jaxinv.weights import networks

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ('ada', 'bob', 'cyd', 'dot')


# --- Tables of other projects' pictures ---


def picture(seed, size=(40, 40)):
    blocks = np.random.RandomState(seed).randint(0, 255, (3, 4, 3)).astype(np.uint8)
    return PIL.Image.fromarray(blocks).resize(size, PIL.Image.Resampling.BICUBIC)


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Four photographs, one wide, and a file that is none; two folders of other projects."""
    folder = tmp_path_factory.mktemp('inputs')
    for name in ('photos', 'near', 'far'):
        (folder / name).mkdir()
    for seed, name in enumerate(NAMES):
        own = picture(seed, (64, 40) if name == 'cyd' else (64, 64))
        own.save(folder / 'photos' / f'{name}.png')
        square = PIL.Image.new('RGB', (64, 64), (255, 0, 0))  # its padding must not count
        square.paste(own, (0, 12) if name == 'cyd' else (0, 0))
        values = np.asarray(square, int) + np.random.RandomState(9).randint(-4, 5, (64, 64, 3))
        noisy = PIL.Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        noisy.save(folder / 'near' / f'{name.upper()}.png')
        if name != 'dot':
            picture(seed + 50).save(folder / 'far' / f'{name}.png')
    (folder / 'far' / 'bob.png').write_text('not a picture')
    (folder / 'photos' / 'bad.png').write_text('not a picture')
    return folder


def config_of(inputs, **changes):
    config = evaluate.get_config('test')
    config.data.images, config.data.align = str(inputs / 'photos'), 'none'
    config.data.fit = 'pad'
    config.methods = f'far=external:{inputs}/far,near=external:{inputs}/near'
    config.measure.images, config.measure.rank_by = ('mse_signed', 'psnr_unit'), 'mse_signed'
    config.measure.identity = config.measure.sets = ()
    config.update_from_flattened_dict(changes)
    return config


def run(config, path):
    lines = []
    comparison.run(config, path, log=lambda text, **_: lines.append(text))
    return lines


@pytest.fixture(scope='module', autouse=True)
def opened_once():
    """The tiny generator, whose start takes most of the time of a run without inversions."""
    original = comparison.open_generator
    opened = original('tiny', 32)
    comparison.open_generator = lambda *_, **__: opened
    yield
    comparison.open_generator = original


@pytest.fixture(scope='module')
def finished(inputs, tmp_path_factory):
    path = tmp_path_factory.mktemp('run') / 'work'
    config = config_of(inputs)
    return config, path, run(config, path)


def test_numbers_are_those_of_the_pixels(inputs, finished):
    _, path, _ = finished
    found = json.loads((path / 'metrics.json').read_text())
    assert found['pictures'] == ['ada', 'bob', 'cyd', 'dot'] and found['reference'] == 'far'
    near = []
    for name in NAMES:
        target = PIL.Image.open(inputs / 'photos' / f'{name}.png')
        other = PIL.Image.open(inputs / 'near' / f'{name.upper()}.png').resize(
            (32, 32), PIL.Image.Resampling.BOX
        )
        if name == 'cyd':  # 64 x 40 becomes 32 x 20 between bars of 6, which do not count
            target, other = target.resize((32, 20), PIL.Image.BOX), other.crop((0, 6, 32, 26))
        else:
            target = target.resize((32, 32), PIL.Image.BOX)
        pair = [np.asarray(p, float) / 127.5 for p in (target, other)]
        near.append(np.mean((pair[0] - pair[1]) ** 2))
        record = json.loads((path / f'measured/near-external/{name}.json').read_text())
        assert record['metrics']['mse_signed'] == pytest.approx(near[-1], rel=1e-4)
        assert record['resized_from'] == [64, 64]
    entry = found['methods']['near']['metrics']['mse_signed']
    assert entry['mean'][0] == pytest.approx(np.mean(near), rel=1e-4)
    assert entry['mean'][1] <= entry['mean'][0] <= entry['mean'][2]
    far = {n: json.loads((path / f'measured/far-external/{n}.json').read_text()) for n in NAMES}
    common = [near[i] - far[n]['metrics']['mse_signed'] for i, n in ((0, 'ada'), (2, 'cyd'))]
    assert entry['difference']['count'] == 2
    assert entry['difference']['mean'][0] == pytest.approx(np.mean(common), rel=1e-4)


def test_bad_and_missing_pictures_are_one_line_each_and_counted(finished):
    _, path, lines = finished
    found = json.loads((path / 'metrics.json').read_text())
    assert [pathlib.Path(s['file']).name for s in found['skipped']] == ['bad.png']
    assert len([line for line in lines if 'bad.png' in line]) == 1
    far = found['methods']['far']
    assert set(far['missing']) == {'bob', 'dot'} and "no picture 'dot'" in far['missing']['dot']
    assert far['metrics']['mse_signed']['count'] == far['metrics']['mse_signed']['missing'] == 2
    for name in ('bob', 'dot'):
        assert len([line for line in lines if f'{name} has no result' in line]) == 1


def test_tables_hold_every_method_and_metric(finished):
    _, path, _ = finished
    with open(path / 'table.csv', newline='') as file:
        rows = {(row['method'], row['metric']): row for row in csv.DictReader(file)}
    assert set(rows) == {(m, k) for m in ('far', 'near') for k in ('mse_signed', 'psnr_unit')}
    found = json.loads((path / 'metrics.json').read_text())['methods']['near']['metrics']
    own = rows['near', 'psnr_unit']
    assert float(own['mean']) == found['psnr_unit']['mean'][0]
    assert float(own['median_high']) == found['psnr_unit']['median'][2]
    assert float(own['difference_mean_low']) == found['psnr_unit']['difference']['mean'][1]
    assert own['better'] == 'higher' and rows['far', 'psnr_unit']['missing'] == '2'
    text = (path / 'table.tex').read_text()
    first, second = text.split('% Every number with its median and its difference to far.')
    assert first.count(r'\\') == 3 and r'\textbf' in first.splitlines()[-3] and '$^{2}$' in first
    assert second.count(r'\\') == 1 + 2 * (1 + 2)
    own = found['psnr_unit']['difference']['median']
    assert rf'${own[0]:.2f}$ {{\scriptsize [${own[1]:.2f}$, ${own[2]:.2f}$]}}' in second
    page = (path / 'page.html').read_text()
    assert 'best: ' in page and 'worst: ' in page and '2 missing' in page and 'bad.png' in page


def test_a_rerun_measures_nothing_again_and_a_new_method_is_added(inputs, finished, tmp_path):
    config, path, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (path / 'measured').rglob('*.json')}
    more = config.copy_and_resolve_references()
    more.methods = f'{config.methods},again=external:{inputs}/near'
    run(more, path)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())
    found = json.loads((path / 'metrics.json').read_text())['methods']
    assert (
        found['again']['metrics']['mse_signed']['mean']
        == (found['near']['metrics']['mse_signed']['mean'])
    )
    run(config, path)
    assert list(json.loads((path / 'metrics.json').read_text())['methods']) == ['far', 'near']


def test_an_interrupted_run_ends_in_the_same_files(inputs, finished, tmp_path, monkeypatch):
    config, path, _ = finished
    work, written = tmp_path / 'work', []
    write = comparison_measure.write_atomically

    def stop_at_the_third(file, data):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(file)
        write(file, data)

    monkeypatch.setattr(comparison_measure, 'write_atomically', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(config, work)
    monkeypatch.undo()
    assert not (work / 'metrics.json').exists()
    run(config, work)
    for name in ('table.csv', 'table.tex'):
        assert (work / name).read_bytes() == (path / name).read_bytes()
    first, second = (json.loads((p / 'metrics.json').read_text()) for p in (path, work))
    assert first['methods'] == second['methods']


def test_a_method_that_fails_has_its_reason_and_is_tried_again(inputs, tmp_path, monkeypatch):
    config, work, original = config_of(inputs), tmp_path / 'work', method_runs.run

    def fail(row, *arguments):
        if row.name == 'far':
            raise JaxinvError('the disk has <no> room.')
        return original(row, *arguments)

    monkeypatch.setattr(method_runs, 'run', fail)
    with pytest.raises(JaxinvError, match=r'1 of 2 methods failed \(far\)'):
        run(config, work)
    assert not (work / 'metrics.json').exists()
    assert 'the disk has &lt;no&gt; room' in (work / 'page.html').read_text()
    lines = (work / 'table.csv').read_text().splitlines()
    assert {line.split(',')[0] for line in lines[1:]} == {'near'}
    monkeypatch.undo()
    run(config, work)
    assert 'failure' not in json.loads((work / 'metrics.json').read_text())['methods']['far']


def test_a_changed_photograph_is_measured_again(inputs, finished, tmp_path):
    config, path, _ = finished
    own = tmp_path / 'inputs'
    shutil.copytree(inputs, own)
    config = config_of(own)
    work = tmp_path / 'work'
    run(config, work)
    picture(77, (64, 64)).save(own / 'photos' / 'ada.png')
    (own / 'photos' / 'bob.png').unlink()
    run(config, work)
    found = json.loads((work / 'metrics.json').read_text())
    assert found['pictures'] == ['ada', 'cyd', 'dot']
    assert not (work / 'targets' / 'bob').exists()
    worst = found['methods']['near']['examples'][-1]
    assert (worst['label'], worst['picture']) == ('worst', 'ada')


def test_the_best_mean_is_of_methods_with_the_fewest_missing():
    def method(name, value, missing):
        entry = {'count': 4 - missing, 'missing': missing, 'mean': [value, None, None]}
        return report.Method(name, name, {'mse_signed': entry})

    methods = [method('a', 3.0, 0), method('b', 1.0, 2), method('c', 2.0, 0), method('d', 2.0, 0)]
    run = report.Comparison('T', methods, ['mse_signed'], 'a', 'mse_signed', [], {})
    assert report._best(run, 'mse_signed', -1) == {'c', 'd'}
    assert report._best(run, 'mse_signed', 1) == {'a'} and not report._best(run, 'mse_signed', 0)


def test_text_from_outside_is_harmless_in_every_table():
    entry = {'count': 1, 'missing': 0, 'mean': [1.0, None, None], 'median': [1.0, None, None]}
    name = '=1+<script>&_$\x1b'
    run = report.Comparison(
        'T', [report.Method(name, name, {'mse_signed': entry})], ['mse_signed'], name,
        'mse_signed', ['<b>'], {'resamples': 2, 'confidence': 0.95, 'seed': 0},
    )  # fmt: skip
    line = report.csv_text(run).splitlines()[1]
    assert line.startswith("'=1+<script>&_$\\x1b,") and '\x1b' not in line
    assert r'=1+\textless{}script\textgreater{}\&\_\$\textbackslash{}x1b & 1.0000' in report.latex(
        run
    )
    page = report.page.fill('comparison.html.j2', report._view(run))
    assert '<script>' not in page and '&lt;script&gt;' in page


def test_tables_for_latex_say_in_their_head_what_they_are_of():
    entry = {'count': 1, 'missing': 0, 'mean': [1.0, None, None], 'median': [1.0, None, None]}
    name = 'id_dlib @ <a|"b">'
    run = report.Comparison(
        'T', [report.Method('m', 'm', {name: entry})], [name], 'm', 'id_dlib', ['p'],
        {'resamples': 2, 'confidence': 0.95, 'seed': 0}, groups={'<a|"b">': [name]},
    )  # fmt: skip
    lines = report.latex(run).splitlines()
    spelled = r'\textless{}a\textbar{}\textquotedblright{}b\textquotedblright{}\textgreater{}'
    assert rf'{spelled} & Identity dlib $\downarrow$ \\' in lines
    assert rf'{spelled} & $n$ & mean & median & mean minus m & median minus m \\' in lines
    assert 'm & 1 & $1.000$ & $1.000$ & -- & -- ' + 2 * '\\' in lines


def faked_runs(monkeypatch, inputs, own, memory_of=None):
    """Runs of methods leave the pictures of `near`; own: {row: (Made.more, Outcome.drift)}."""

    def one_run(row, pictures, log):
        more, drift = own[row.name]
        made = {
            name: method_runs.Made(
                inputs / 'near' / f'{name.upper()}.png', '', 2.0 + i, more[i] if more else {}
            )
            for i, name in enumerate(pictures)
        }
        return method_runs.Outcome(made, memory_of or {}, drift)

    monkeypatch.setattr(method_runs, 'run', one_run)


def csv_of(path):
    with open(path / 'table.csv', newline='') as file:
        return {(row['method'], row['metric']): row for row in csv.DictReader(file)}


def test_drift_and_memory_are_in_every_table(inputs, tmp_path, monkeypatch):
    each = [[{'drift_lpips_alex': x} for x in values] for values in ((1, 2, 3, 6), (2, 2, 2, 4))]
    own = {'a': (each[0], {'lpips_alex': 3.0}), 'b': (each[1], {'lpips_alex': 2.5})}
    own |= {'one': (None, {'lpips_alex': 0.125, 'mse': 0.1}), 'none': (None, {})}
    faked_runs(monkeypatch, inputs, own, {'host': 2_340_000_000})
    methods = ('pti:test', 'pti:test?seed=1', 'pti_multi_id:test', 'w:test')
    methods = ','.join(f'{name}={method}' for name, method in zip(own, methods, strict=True))
    run(config_of(inputs, methods=methods), tmp_path / 'work')
    found = json.loads((tmp_path / 'work' / 'metrics.json').read_text())['methods']
    entries = {name: m['metrics'].get('drift_lpips_alex') for name, m in found.items()}
    assert entries['a']['mean'][0] == 3.0 and entries['a']['mean'][1] < 3 < entries['a']['mean'][2]
    assert entries['b']['difference']['mean'][0] == -0.5 and entries['b']['count'] == 4
    # Of one generator it is one number, without an interval or a difference.
    assert entries['one'] == {'count': 1, 'missing': 0, 'mean': [0.125, None, None]}
    assert entries['none'] is None and found['one']['drift']['mse'] == 0.1
    rows = csv_of(tmp_path / 'work')
    assert rows['b', 'drift_lpips_alex']['difference_mean'] == '-0.5'
    assert rows['one', 'drift_lpips_alex']['mean'] == '0.125'
    assert rows['none', 'peak_memory_host']['mean'] == '2.34'
    assert ('none', 'drift_lpips_alex') not in rows
    text = (tmp_path / 'work' / 'table.tex').read_text()
    assert r'Drift, LPIPS alex $\downarrow$' in text and 'Peak memory of the host, GB' in text
    assert any(line.startswith('one &') and '0.125' in line for line in text.splitlines())
    page = (tmp_path / 'work' / 'page.html').read_text()
    assert 'Drift, LPIPS alex' in page and '<b>0.125</b>' in page and '<b>2.3</b>' in page


@pytest.mark.parametrize('task', ['pti', 'pti_multi_id'])
def test_drift_that_is_read_of_a_run(tmp_path, task, monkeypatch):
    pictures = comparison_targets.Pictures(tmp_path, ['a', 'b'], [], ['1', '2'], [], [], 'none', 32)
    config = evaluate.get_config('test')
    config.methods = f'{task}:test'
    (row,) = method_runs.placed(method_runs.rows_of(config), tmp_path, pictures)
    content = {'identities': {'a': {'tuned': {}}, 'b': {'tuned': {}}}, 'drift': {'lpips_alex': 2.0}}
    each = {'a': {'lpips_alex': 1.0, 'mse': 0.5}, 'b': {'lpips_alex': 3.0, 'mse': 0.5}}
    monkeypatch.setattr(pti, 'run', lambda *_, **__: None)
    (tmp_path / 'targets').mkdir()
    row.folder.mkdir(parents=True)

    def read(content):
        (row.folder / 'metrics.json').write_text(json.dumps(content))
        return method_runs.run(row, pictures, lambda *_, **__: None)

    def drifts(outcome):
        return [outcome.made[name].more.get('drift_lpips_alex') for name in ('a', 'b')]

    found = read(content | {'drift_of_each': each})
    assert found.drift == {'lpips_alex': 2.0}
    assert drifts(found) == ([1.0, 3.0] if task == 'pti' else [None, None])
    assert drifts(read(content)) == [None, None]  # of an earlier version
    single = {'identities': {'a': {'tuned': {}}}, 'drift': {'lpips_alex': 2.0}}
    assert drifts(read(single)) == ([2.0, None] if task == 'pti' else [None, None])
    lines = manifest.Manifest(row.folder / manifest.FILE)
    for name, drift in each.items():
        done = {'name': name, 'file': 'f', 'sha256': 's', 'folder': f'identities/{name}'}
        done |= {'metrics': {'tuned': {}}, 'pictures': [{'label': 'tuned', 'file': 'tuned.png'}]}
        (row.folder / 'identities' / name).mkdir(parents=True)
        lines.add(done | {'drift': drift})
    assert drifts(read({'drift': {}})) == ([1.0, 3.0] if task == 'pti' else [None, None])


def test_peak_memory_is_that_of_the_starts_that_did_work(tmp_path, monkeypatch):
    pictures = comparison_targets.Pictures(tmp_path, ['a'], [], ['1'], [], [], 'none', 32)
    config = evaluate.get_config('test')
    config.methods = 'pti:test'
    (row,) = method_runs.placed(method_runs.rows_of(config), tmp_path, pictures)
    (tmp_path / 'targets').mkdir()
    finished = row.folder / 'metrics.json'

    def start(host, error=None, work=True):
        def one_start(config, folder, log):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'run.json').write_text('{}')
            if error is not None:
                raise error
            if work:
                finished.unlink(missing_ok=True)
                finished.write_text(json.dumps({'host': host}))

        monkeypatch.setattr(pti, 'run', one_start)
        monkeypatch.setattr(memory, '_resident', lambda: host)
        return method_runs.run(row, pictures, lambda *_, **__: None).memory.get('host')

    for host, error in ((5, KeyboardInterrupt()), (90, JaxinvError('the folder is locked.'))):
        with pytest.raises(type(error)):
            start(host, error)
    assert start(3) == 5  # the interrupted start took more
    assert start(7, work=False) == 5 and start(8) == 8
    (row.folder / method_runs.PEAK).unlink()
    assert start(9, work=False) is None  # not known, of a run of an earlier version


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (MemoryError(), r'out of memory \(MemoryError\); with the setting group=8'),
        (
            jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory\nwhile trying\nto'),
            r'out of memory \(RESOURCE_EXHAUSTED: Out of memory\); with the setting group=8',
        ),
        (jax.errors.JaxRuntimeError('INTERNAL: a <bug>\nmore'), 'JaxRuntimeError: INTERNAL: a <b'),
    ],
)
def test_a_method_without_memory_does_not_end_the_others(
    inputs, tmp_path, monkeypatch, error, reason
):
    original = method_runs.run

    def fail(row, *arguments):
        if row.name == 'far':
            raise error
        return original(row, *arguments)

    monkeypatch.setattr(method_runs, 'run', fail)
    with pytest.raises(JaxinvError, match=r'1 of 2 methods failed \(far\)'):
        run(config_of(inputs), tmp_path / 'work')
    assert {method for method, _ in csv_of(tmp_path / 'work')} == {'near'}
    page = html.unescape((tmp_path / 'work' / 'page.html').read_text())
    assert re.search(reason, page)
    # Another process may wait in a collective, and would wait for ever.
    monkeypatch.setattr(comparison.distributed, 'is_multiprocess', lambda: True)
    with pytest.raises(type(error)):
        comparison.run_methods(
            [method_runs.Row(method_list.parse('far=external:x')[0], None)],
            ['a'],
            lambda *_, **__: 0,
        )


# --- Faces ---


def test_where_no_face_was_found_is_recorded_and_counted(inputs, tmp_path, monkeypatch):
    places = {'ada': (), 'bob': (0,), 'cyd': (1,), 'dot': (0, 1)}  # target 0, picture 1

    def embed(images, calls=[]):  # noqa: B006
        which = len(calls)
        calls.append(None)
        rows = [[np.nan if which in places[name] else 1.0] * 3 for name in NAMES]
        return np.array(rows)

    judge = identity.Judge(embed, identity.cosine, 1)
    monkeypatch.setattr(comparison.identity, 'judges', lambda *_: {'sface': judge})
    config = config_of(inputs, methods=f'near=external:{inputs}/near')
    config.measure.identity = ('sface',)
    work = tmp_path / 'work'
    run(config, work)
    own = {n: json.loads((work / f'measured/near-external/{n}.json').read_text()) for n in NAMES}
    assert {n: record.get('no_face') for n, record in own.items()} == {
        'ada': None, 'bob': {'sface': 'target'}, 'cyd': {'sface': 'picture'},
        'dot': {'sface': 'both'},
    }  # fmt: skip
    rows = csv_of(work)
    lost = [rows['near', 'id_sface'][f'no_face_{where}'] for where in report.NO_FACE]
    assert lost == ['1', '1', '1'] and rows['near', 'mse_signed']['no_face_both'] == ''
    page = (work / 'page.html').read_text()
    assert '3 missing: no face in the target 1, in the picture 1, in both 1' in page
    # What is there is not measured again, but for a file of an earlier version.
    for record in own.values():
        record.pop('no_face', None)
    judge.embed.__defaults__[0].clear()
    run(config, work)
    assert not judge.embed.__defaults__[0]
    (work / 'measured/near-external/bob.json').write_text(json.dumps(own['bob']))
    run(config, work)
    again = json.loads((work / 'measured/near-external/bob.json').read_text())
    assert again['no_face'] == {'sface': 'target'}


def test_nothing_is_said_of_faces_where_all_are_found():
    why = report._why_missing
    assert why({'no_face': {'target': 0, 'picture': 0, 'both': 0}}) == why({}) == ''
    lost = {'no_face': {'target': 2, 'picture': 0, 'both': 1}}
    assert why(lost) == 'no face in the target 2, in both 1'
    assert why(lost | {'not_reached': 3}).startswith('change not reached 3, no face in the target')


def test_a_turned_and_scaled_face_comes_upright_into_the_template():
    size, angle, scale, centre = 300, 0.4, 1.7, np.array([150.0, 160.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (identity.TEMPLATE - 56) @ turn.T + centre
    image = np.zeros((size, size, 3), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for x, y in points:
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
        image = np.maximum(image, (255 * spot[..., None]).astype(np.uint8))
    chip = identity.crop_to_template(image, points).astype(float)[..., 0]
    for x, y in identity.TEMPLATE:
        left, top = int(x) - 5, int(y) - 5
        window = chip[top : top + 11, left : left + 11]
        rows, columns = np.mgrid[top : top + 11, left : left + 11]
        found = (window * columns).sum() / window.sum(), (window * rows).sum() / window.sum()
        np.testing.assert_allclose(found, (x, y), atol=0.15)


def test_files_of_networks_are_named_when_they_are_missing_or_others(tmp_path):
    other = tmp_path / 'other.pth'
    np.save(tmp_path / 'other.npy', np.zeros(3))
    other.write_bytes((tmp_path / 'other.npy').read_bytes())
    for file, message in ((tmp_path / 'none.pth', 'there is no file'), (other, 'other.pth')):
        with pytest.raises(JaxinvError, match=message):
            identity.judges(('arcface',), str(file))
        with pytest.raises(JaxinvError, match=message):
            networks.load_inception(file)
    with pytest.raises(JaxinvError, match="no identity network 'other'; there are ") as error:
        identity.judges(('other',))
    listed = str(error.value).partition('there are ')[2].removesuffix('.').split(', ')
    assert set(listed) == set(method_list.JUDGES)
    assert {f'id_{name}' for name in listed} <= set(report_text.PROTOCOLS)


def test_cosine_of_a_missing_face_is_missing():
    a, b = np.array([[3.0, 4.0], [np.nan, np.nan]]), np.array([[4.0, 3.0], [1.0, 0.0]])
    np.testing.assert_allclose(identity.cosine(a, b), [0.96, np.nan])


def test_peak_memory_of_a_block():
    with memory.Peak(0.01) as peak:
        block = np.ones(40_000_000 // 8)
        time.sleep(0.05)
    with memory.Peak(0.01) as after:
        del block
        time.sleep(0.05)
    assert peak.found['host'] >= 40_000_000
    if sys.platform == 'linux':
        assert after.found['host'] <= memory.peak_bytes()['host'] + 2**20


def test_what_runs_of_every_kind_made(tmp_path):
    """Bulk with a generator each or one for all, and a run with a manifest of generators."""
    pictures = comparison_targets.Pictures(tmp_path, ['a', 'b'], [], ['1', '2'], [], [], 'none', 32)
    line = {'file': 'f', 'sha256': 's'}
    done = {'metrics': {'pivot': {}, 'tuned': {}}, 'folder': 'identities/a'}
    done['pictures'] = [{'label': n, 'file': f'{n}.png'} for n in ('target', 'pivot', 'tuned')]
    each = manifest.Manifest(tmp_path / 'each' / manifest.FILE)
    seconds = {'project': 1.0, 'tune': 2.0, 'score': 9.0}
    each.add(line | done | {'name': 'a', 'seconds': seconds})
    each.add(line | {'name': 'b', 'skipped': 'not finite'})
    found = method_runs.made_of(tmp_path / 'each', pictures)
    file = tmp_path / 'each' / 'identities' / 'a' / 'tuned.png'
    assert found == {'a': (file, '', 3.0, {}), 'b': (None, 'not finite', None, {})}

    shared = manifest.Manifest(tmp_path / 'shared' / manifest.FILE)
    for name in ('a', 'b'):
        shared.add(line | done | {'name': name, 'seconds': {'score': 9.0}})
    text = json.dumps({'seconds': {'read': 5.0, 'project': 4.0, 'tune': 6.0, 'score': 18.0}})
    (tmp_path / 'shared' / 'metrics.json').write_text(text)
    found = method_runs.made_of(tmp_path / 'shared', pictures)
    assert [made.seconds for made in found.values()] == [5.0, 5.0]

    single = manifest.Manifest(tmp_path / 'single' / manifest.FILE)
    single.add(line | {'name': 'a', 'folder': 'generators/a', 'steps': 4})
    stages = {'pivot': {}, 'tuned': {}}
    content = {'identities': {'a': stages}, 'seconds': {'load': 5, 'tune': 4.0}, 'drift': {'m': 1}}
    (tmp_path / 'single' / 'metrics.json').write_text(json.dumps(content))
    found = method_runs.made_of(tmp_path / 'single', pictures)
    assert found['a'] == (tmp_path / 'single' / 'images' / 'a' / 'tuned.png', '', 4.0, {})
    assert found['b'] == (None, 'the run has no such picture', None, {})
    assert method_runs.drift_of(tmp_path / 'single') == {'m': 1}


# --- Whole runs ---


@pytest.mark.long
def test_two_processes_invert_and_measure_their_shares(inputs, tmp_path):
    work, alone = tmp_path / 'work', tmp_path / 'alone'
    flags = ['--config.methods=w=w:test', '--config.data.align=none', '--config.data.fit=crop']
    flags += [f'--config.data.images={inputs / "photos"}', '--config.measure.identity=()']
    flags += ["--config.measure.images=('lpips_alex_256','mse_signed')"]
    with launched(2, work, *flags, config='evaluate:test') as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(work)
    config = evaluate.get_config('test')
    config.methods, config.measure.identity = 'w=w:test', ()
    config.data.images, config.data.align = str(inputs / 'photos'), 'none'
    config.data.fit, config.measure.images = 'crop', ('lpips_alex_256', 'mse_signed')
    run(config, alone)
    one, two = (json.loads((p / 'metrics.json').read_text())['methods']['w'] for p in (alone, work))
    for metric in ('lpips_alex_256', 'mse_signed', 'frechet_efficientnet_lite0'):
        np.testing.assert_allclose(
            one['metrics'][metric]['mean'][0], two['metrics'][metric]['mean'][0], rtol=1e-3
        )


def test_shares_of_processes_are_all_pictures_once(inputs, finished, tmp_path, monkeypatch):
    measured, batch, tables = [], comparison_measure._batch, comparison.tables

    def one_batch(measurer, method, rows, *more):
        measured.append((method, *rows))
        return batch(measurer, method, rows, *more)

    def shared_out(config, wanted, opened, measurer, outcomes, failures, path, log):
        monkeypatch.setattr(jax, 'process_count', lambda: 3)
        for index in range(3):
            monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
            comparison.measure_own_share(opened.rows, measurer, outcomes, path, log)
        monkeypatch.undo()
        return tables(config, wanted, opened, measurer, outcomes, failures, path, log)

    monkeypatch.setattr(comparison_measure, '_batch', one_batch)
    monkeypatch.setattr(comparison_measure.rendering, 'BATCH', 1)
    monkeypatch.setattr(comparison, 'tables', shared_out)
    _, path, _ = finished
    run(config_of(inputs), tmp_path / 'work')
    assert sorted(measured) == [(name, i) for name in ('far', 'near') for i in range(4)]
    one, two = csv_of(path), csv_of(tmp_path / 'work')
    assert set(one) == set(two)
    for row, own in one.items():  # numbers of a picture differ by rounding with its batch
        assert float(own['mean']) == pytest.approx(float(two[row]['mean']), rel=1e-5)


def command_of(work, *more):
    command = [sys.executable, '-m', 'jaxinv.launch', '--config=evaluate:test', f'--workdir={work}']
    return [*command, *more]


@pytest.mark.parametrize(
    'way',
    [
        pytest.param('exception', marks=pytest.mark.long),
        pytest.param('SIGKILL', marks=pytest.mark.exhaustive),
    ],
)
def test_a_stopped_comparison_of_inversions_ends_in_the_same_numbers(inputs, tmp_path, way):
    methods = 'w=w:test,pti=pti:test'
    flags = [f'--config.methods={methods}', '--config.group=2', '--config.data.align=none']
    flags += [f'--config.data.images={inputs / "photos"}', '--config.data.fit=crop']
    flags += ["--config.measure.images=('lpips_alex_256','lpips_vgg_full','ms_ssim_full')"]
    config = evaluate.get_config('test')
    config.methods, config.group = methods, 2
    config.data.images, config.data.align = str(inputs / 'photos'), 'none'
    config.data.fit = 'crop'
    config.measure.images = ('lpips_alex_256', 'lpips_vgg_full', 'ms_ssim_full')
    config.measure.identity = ()
    flags += ['--config.measure.identity=()']
    run(config, tmp_path / 'whole')
    work = tmp_path / 'stopped'

    def begun():
        return any((work / 'methods').glob('pti-*/identities/*/metrics.json'))

    def stop(text, **_):
        if begun():
            raise KeyboardInterrupt

    if way == 'exception':
        with pytest.raises(KeyboardInterrupt):
            comparison.run(config, work, log=stop)
    else:
        process = subprocess.Popen(command_of(work, *flags), cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            deadline = time.time() + limits.SECONDS
            while not begun():
                assert time.time() < deadline and process.poll() is None
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert not (work / 'metrics.json').exists()
    run(config, work)
    first, second = (
        json.loads((p / 'metrics.json').read_text())['methods'] for p in (tmp_path / 'whole', work)
    )
    for name in ('w', 'pti'):
        assert first[name]['missing'] == second[name]['missing'] == {}
        for metric in {*first[name]['metrics']} - {'seconds', 'peak_memory_host'}:
            one, other = (found[name]['metrics'][metric] for found in (first, second))
            assert (one['count'], one['missing']) == (other['count'], other['missing']) == (4, 0)
            # An identity that is tuned again after a kill has other neighbours: rounding.
            np.testing.assert_allclose(one['mean'], other['mean'], rtol=1e-3, atol=2e-5)
    assert first['pti']['metrics']['frechet_efficientnet_lite0']['count'] == 4
    assert first['pti']['drift']['lpips_alex'] > 0
    assert first['pti']['metrics']['drift_lpips_alex']['count'] == 4
    assert set(second['pti']['peak_memory']) == set(memory.peak_bytes())
