"""Rows of a table for ablations: the lines of docs/evaluate.md, shared runs, starts, generators."""

import dataclasses
import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from test_experiment import load_config

from jaxinv import data, latents, settings
from jaxinv.configs import evaluate
from jaxinv.errors import JaxinvError
from jaxinv.experiments import comparison, comparison_targets, method_runs, pti
from jaxinv.inversion import code_files
from jaxinv.io import write_atomically
from jaxinv.runtime import manifest
from jaxinv.settings import method_list

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / 'docs' / 'evaluate.md'


# --- The page ---


def launcher_calls(folder: pathlib.Path, *command: str) -> list[dict[str, str]]:
    """Flags of each call of the launcher by a shell command, in which `python` only records."""
    recorder = folder / 'python'
    recorder.write_text(
        f'#!{sys.executable}\nimport json, sys\n'
        f'with open({str(folder / "calls")!r}, "a") as file:\n'
        '    print(json.dumps(sys.argv[1:]), file=file)\n'
    )
    recorder.chmod(recorder.stat().st_mode | stat.S_IEXEC)
    environment = os.environ | {'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}'}
    environment.pop('FOLDER', None)
    subprocess.run(command, env=environment, cwd=folder, check=True)
    found = []
    for line in (folder / 'calls').read_text().splitlines():
        module, name, *flags = json.loads(line)
        assert (module, name) == ('-m', 'jaxinv.launch')
        found.append(dict(flag.removeprefix('--').split('=', 1) for flag in flags))
    return found


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
    """{work folder: {flag: value}} of the launcher's calls, as a shell runs the page's lines."""
    section = PAGE.read_text(encoding='utf-8').partition('\n## Ablations\n')[2]
    blocks = re.findall(r'```bash\n(.*?)```', section.partition('\n## ')[0], re.S)
    assert blocks
    folder, found = tmp_path_factory.mktemp('shell'), {}
    for values in launcher_calls(folder, 'bash', '-eu', '-c', '\n'.join(blocks)):
        assert values.pop('config') == 'evaluate' and values['config.data.images'] == 'demo'
        found[values.pop('workdir')] = values
    return found


def quick(methods):
    """The same rows on the tiny generator, with the variant `test` and hardly any steps."""
    rows = []
    for text in filter(None, (t.strip() for t in method_list.split(methods, ','))):
        method = method_list.parse(text)[0]
        _, question, changes = method.spelling.partition('?')
        variants = ','.join(filter(None, ['test', method.variants])).replace(',', '+')
        changes = re.sub(r'num_steps=\d+', lambda m: m[0][:-1], changes)
        rows.append(f'{plain(method.name)}={method.config}:{variants}{question}{changes}')
    return ','.join(rows)


def plain(name):
    return name.replace(':', '_')


def test_every_list_of_the_page_is_one_of_methods(commands):
    assert len(commands) == 7
    names = []
    for values in commands.values():
        config = evaluate.get_config()
        config.update_from_flattened_dict({k.removeprefix('config.'): v for k, v in values.items()})
        settings.check(config)
        own = [row.name for row in method_runs.rows_of(config)]
        config = evaluate.get_config('test')
        config.methods = quick(values['config.methods'])
        assert [row.name for row in method_runs.rows_of(config)] == [plain(name) for name in own]
        names += own
    assert {'B', 'F', 'along', 'again', 'a60', 'with_12', 'f10', 't30', 's25'} <= set(names)


def photographs(folder, count=3):
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        blocks = np.random.RandomState(seed).randint(0, 255, (3, 4, 3)).astype(np.uint8)
        picture = PIL.Image.fromarray(blocks).resize((48, 48), PIL.Image.Resampling.BICUBIC)
        picture.save(folder / f'p{seed}.png')
    return folder


def config_of(folder, methods):
    config = evaluate.get_config('test')
    config.data.images, config.data.align, config.data.fit = str(folder), 'none', 'crop'
    config.methods = methods
    config.measure.images, config.measure.rank_by = ('mse_signed',), 'mse_signed'
    config.measure.identity = config.measure.sets = ()
    return config


def run(config, path):
    lines = []
    comparison.run(config, path, log=lambda text, **_: lines.append(text))
    return json.loads((path / 'metrics.json').read_text()), lines


@pytest.mark.long
@pytest.mark.parametrize(
    'name',
    [
        'again',
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in ('figure16', 'figure15', 'figure17', 'figure3', 'tau', 'figure7')
        ),
    ],
)
def test_the_lines_of_the_page_run(commands, tmp_path, name):
    methods = commands[f'runs/{name}']['config.methods']
    found, _ = run(config_of(photographs(tmp_path / 'in'), quick(methods)), tmp_path / 'work')
    found = found['methods']
    assert list(found) == [plain(method.name) for method in method_list.parse(methods)]
    errors = {n: own['metrics']['mse_signed']['mean'][0] for n, own in found.items()}
    if name == 'figure16':
        moved = {n for n, own in found.items() if 'moved_lpips_alex' in own['metrics']}
        assert moved == {'D', 'F', 'along'}
        assert len(set(errors.values())) == 7
        page = (tmp_path / 'work' / 'page.html').read_text()
        assert 'Pivot moved, LPIPS alex' in page
        for file in (tmp_path / 'work' / 'methods').glob('*/metrics.json'):
            stages = json.loads(file.read_text())['identities'].values()
            own = {m for stage in stages for values in stage.values() for m in values}
            assert own - {'moved_lpips_alex', 'moved_mse'} == {'mse', 'psnr'}
    if name == 'figure15':
        missing = {n: own['metrics']['mse_signed']['missing'] for n, own in found.items()}
        assert [missing[f'with_{n}'] for n in (1, 2, 4, 12)] == [2, 1, 0, 0]
        drifts = {n: own['drift']['lpips_alex'] for n, own in found.items()}
        assert drifts['with_4'] == drifts['with_12'] and drifts['with_1'] != drifts['with_2']
        assert len(list((tmp_path / 'work' / 'methods').iterdir())) == 6


# --- Runs that rows share, and generators of other rows ---


def pictures_of(path, count=3):
    names = [f'p{i}' for i in range(count)]
    return comparison_targets.Pictures(path, names, [], names, [], [], 'none', 32)


def rows_of(methods, **changes):
    config = evaluate.get_config('test')
    config.methods = methods
    config.update_from_flattened_dict(changes)
    return method_runs.rows_of(config)


def test_rows_with_the_same_settings_run_once(tmp_path, monkeypatch):
    rows = rows_of('w=w:test,again=w:test?seed=0,other=w:test?seed=1')
    rows = method_runs.placed(rows, tmp_path, pictures_of(tmp_path))
    first, second, third = (row.folder for row in rows)
    assert first == second != third and first.name.startswith('w-')
    calls, lines = [], []

    def one_run(row, pictures, log):
        calls.append(row.name)
        if row.name == 'other':
            raise JaxinvError('no room.')
        return method_runs.Outcome({}, {}, {})

    monkeypatch.setattr(method_runs, 'run', one_run)
    rows.append(rows[2]._replace(method=rows[2].method._replace(name='last')))
    outcomes, failures = comparison.run_methods(
        rows, pictures_of(tmp_path), lambda text, **_: lines.append(text)
    )
    assert calls == ['w', 'other']
    assert outcomes['again'] is outcomes['w'] and failures == dict.fromkeys(
        ('other', 'last'), 'no room.'
    )
    assert 'again has the settings of w, whose run it is.' in lines


def test_a_folder_that_was_made_under_another_name_is_found_again(tmp_path):
    (row,) = method_runs.placed(rows_of('w=w:test'), tmp_path, pictures_of(tmp_path))
    row.folder.mkdir(parents=True)
    (renamed,) = method_runs.placed(rows_of('mine=w:test'), tmp_path, pictures_of(tmp_path))
    assert renamed.folder == row.folder
    (other,) = method_runs.placed(rows_of('mine=w:test'), tmp_path, pictures_of(tmp_path, 2))
    assert other.folder.name.startswith('mine-')


def foreign(folder, rows, path, pictures, names=()):
    """The rows, as if another comparison in `path` had run them on `names` of its pictures."""
    rows = method_runs.placed(rows, path, pictures)
    for row in rows:
        lines = manifest.Manifest(row.folder / manifest.FILE)
        text = json.dumps({'config': settings.record_of(row.config)})
        write_atomically(row.folder / 'run.json', text)
        for name in names:
            lines.add({'name': name, 'file': 'f', 'sha256': name, 'skipped': 'not finite'})
    return rows


def test_runs_of_another_comparison_are_found_with_their_group(tmp_path):
    methods = 'w=w:test,pti=pti:test,all=pti_multi_id:test,again=w:test?generator=row:all'
    pictures = pictures_of(tmp_path / 'table')
    there = foreign(tmp_path, rows_of(methods, group=2), pictures.path, pictures, pictures.names)
    for group in (0, 2, 5):
        own = pictures_of(tmp_path / 'edits')
        found = method_runs.placed(rows_of(methods, group=group), pictures.path, own)
        assert [row.folder for row in found] == [row.folder for row in there]
        assert [row.config.group for row in found] == [2] * 4
        assert found[3].config.generator == there[3].config.generator
    # Some of the pictures are enough where each is by itself; the settings of SAM may tune for all.
    fewer = pictures_of(tmp_path / 'edits', 2)
    found = method_runs.placed(rows_of(methods), pictures.path, fewer)
    assert [a.folder == b.folder for a, b in zip(found, there, strict=True)][:3] == [
        False, True, False,
    ]  # fmt: skip
    # Other pictures, or a group of the row's own, are other runs.
    more = pictures_of(tmp_path / 'edits', 4)
    for group, spelling in (
        (0, methods),
        (2, methods),
        (0, methods.replace('test,', 'test?group=3,')),
    ):
        named = more if spelling == methods else pictures
        named = dataclasses.replace(named, path=tmp_path / 'edits')
        found = method_runs.placed(rows_of(spelling, group=group), pictures.path, named)
        assert not {row.folder for row in found[:3]} & {row.folder for row in there}
    # A new run there is found again, and the other comparison does not take it for its own.
    new = foreign(tmp_path, rows_of('w=w:test', group=2), pictures.path, more, more.names)
    assert method_runs.placed(rows_of('w=w:test', group=2), pictures.path, more)[0].folder == (
        new[0].folder
    )
    again = method_runs.placed(rows_of('w=w:test', group=2), pictures.path, pictures)
    assert again[0].folder == there[0].folder


def test_a_method_that_another_comparison_does_not_have_is_one_line(tmp_path, monkeypatch):
    pictures, lines = pictures_of(tmp_path / 'edits'), []
    outcome = method_runs.Outcome({}, {}, {})
    monkeypatch.setattr(method_runs, 'run', lambda *_: outcome)
    for place in (tmp_path / 'table', pictures.path):
        rows = method_runs.placed(rows_of('w=w:test'), place, pictures)
        comparison.run_methods(rows, pictures, lambda text, **_: lines.append(text))
    lost = [line for line in lines if 'not found' in line]
    assert len(lost) == 1 and lost[0].startswith(
        f'w was not found in {tmp_path / "table"} and runs'
    )


@pytest.mark.parametrize(('count', 'group', 'said'), [(64, 0, 0), (65, 0, 1), (65, 16, 0)])
def test_many_pictures_at_once_are_one_line(tmp_path, monkeypatch, count, group, said):
    pictures, lines = pictures_of(tmp_path, count), []
    outcome = method_runs.Outcome({}, {}, {})
    monkeypatch.setattr(method_runs, 'run', lambda *_: outcome)
    methods = 'w=w:test,pti=pti:test?group=4'
    rows = method_runs.placed(rows_of(methods, group=group), tmp_path, pictures)
    for _ in range(2):
        comparison.run_methods(rows, pictures, lambda text, **_: lines.append(text))
        assert sum(
            '65 pictures are in memory at once (w); --config.group=16' in x for x in lines
        ) == (said)
        write_atomically(rows[0].folder / 'metrics.json', '{}')  # a finished run is only read


def test_rows_of_the_first_pictures_are_rows_of_their_own(tmp_path):
    methods = ','.join(f'n{n}=pti_multi_id:test?data.limit={n}' for n in (0, 1, 2, 3, 4))
    rows = method_runs.placed(rows_of(methods), tmp_path, pictures_of(tmp_path))
    folders = {row.name: row.folder for row in rows}
    # Of three pictures, a limit of three or more is none.
    assert folders['n0'] == folders['n3'] == folders['n4']
    assert len(set(folders.values())) == 3
    assert [row.config.data.limit for row in rows] == [0, 1, 2, 0, 0]


def test_the_generator_of_another_row(tmp_path):
    methods = 'pti_multi_id:test,again=w:test?generator=row:pti_multi_id:test'
    first, again = method_runs.placed(rows_of(methods), tmp_path, pictures_of(tmp_path))
    assert again.config.generator == str(first.folder / 'generator')
    # Another generator is another run.
    other = methods.replace('test,', 'test?seed=5,').replace('row:', 'row:').split(',')
    other = f'base={other[0]},again=w:test?generator=row:base'
    assert method_runs.placed(rows_of(other), tmp_path, pictures_of(tmp_path))[1].folder != (
        again.folder
    )
    # The name of the other row is no part of it.
    same = 'base=pti_multi_id:test,again=w:test?generator=row:base'
    assert method_runs.placed(rows_of(same), tmp_path, pictures_of(tmp_path))[1].folder == (
        again.folder
    )


@pytest.mark.parametrize(
    ('methods', 'message'),
    [
        ('a=w:test?generator=row:b,b=pti_multi_id:test', 'a row before this one, of which .* none'),
        ('b=pti:test,a=w:test?generator=row:b', 'b does not tune one generator for all pictures'),
        ('b=w:test,a=w:test?generator=row:b', 'b does not tune one generator for all pictures'),
        ('b=pti_multi_id:test?tune.num_steps=0,a=w:test?generator=row:b', 'does not tune one'),
    ],
)
def test_a_row_without_one_generator_is_refused(methods, message):
    with pytest.raises(JaxinvError, match=message):
        rows_of(methods)


# --- Starts and the first pictures ---


def test_the_first_pictures_of_a_request(tmp_path):
    folder = photographs(tmp_path / 'in')
    config = load_config('pti_multi_id')
    config.data.images, config.data.align = str(folder), 'none'
    for limit, expected in ((0, 3), (2, 2), (9, 3)):
        config.data.limit = limit
        listing, _ = data.find_for(config.data)
        assert [stem for stem, _ in listing.files] == [f'p{i}' for i in range(expected)]
    config.data.limit = -1
    with pytest.raises(JaxinvError, match='data.limit is -1; it must be at least 0'):
        settings.check(config)
    # Runs that were recorded before there was such a setting go on.
    config.data.limit = 0
    record = settings.record_of(config)
    assert 'limit' not in record['data'] and 'pivot_learning_rate' not in record['tune']


@pytest.mark.parametrize('start', ['random:', 'random:-1', 'random:x', 'random:1.5'])
def test_a_random_start_has_a_seed(start):
    config = load_config('pti_multi_id')
    config.start = start
    with pytest.raises(JaxinvError, match='write random:SEED'):
        settings.check(config)


def start_of(folder, work, start, **changes):
    """{picture: code} of a run that only starts, also in groups."""
    config = load_config('pti_single_id')
    config.data.images, config.data.align = str(folder), 'none'
    config.start, config.tune.num_steps = start, 0
    config.update_from_flattened_dict(changes)
    pti.run(config, work, log=lambda *_, **__: None)
    files = [work / code_files.PIVOTS] if not config.group else sorted(work.glob('*/*/pivots.npz'))
    found = {}
    for file in files:
        found |= dict(zip(*code_files.load_pivots(file), strict=True))
    return found


@pytest.mark.long
def test_random_and_mean_pivots_need_no_file(tmp_path, tiny):
    folder = photographs(tmp_path / 'in')
    generator, weights = tiny
    first = start_of(folder, tmp_path / 'a', 'random:3')
    assert list(first) == ['p0', 'p1', 'p2']
    targets = data.load_images(folder, resolution=32, align='none')
    z = latents.identity_normals(
        latents.stream(3, 'start'), latents.identity_ids(targets.images_uint8), 0, (16,)
    )
    for code, one in zip(first.values(), z, strict=True):
        np.testing.assert_allclose(code, generator.map(weights, one[None]), atol=1e-5)
    grouped = start_of(folder, tmp_path / 'b', 'random:3', group=2)
    for name, code in first.items():
        np.testing.assert_allclose(grouped[name], code, atol=1e-6)
    mean = start_of(folder, tmp_path / 'c', 'mean')
    expected = latents.w_statistics(generator, weights, 100).mean
    for code in mean.values():
        np.testing.assert_allclose(code[0], expected, atol=1e-6)
