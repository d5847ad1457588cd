"""--config=evaluate_edits: equal measured change, what is outside, edits taken back, whole runs."""

import json

import numpy as np
import pytest

from jaxinv import edits, launch, settings
from jaxinv.configs import evaluate, evaluate_edits
from jaxinv.errors import JaxinvError
from jaxinv.experiments import edit_comparison, edit_measures, edit_plan, edit_tables
from jaxinv.experiments import edited_pictures as edited
from jaxinv.faces import measures
from jaxinv.inversion import sam
from jaxinv.metrics.identity import Judge
from jaxinv.report import charts, text
from jaxinv.segmentation.label_maps import Segments
from jaxinv.settings.evaluation import parse_equal
from jaxinv.weights.zoo import load_named


def direction(name, size=4, **more):
    return edits.Direction(name, np.eye(size, dtype=np.float32)[:1], **more)


class Line:
    """A picture of one colour: grey 100 + 10 * strength, as a method would have left it."""

    class generator:
        class spec:
            w_dim, num_ws = 4, 2

    def __init__(self, slope=10.0):
        self.slope, self.rendered = slope, 0

    def render(self, wanted):
        strengths = [0.0, *(edit.steps[0][1] for edit in wanted)]
        self.rendered += len(strengths)
        grey = [np.clip(100 + self.slope * s, 0, 255) for s in strengths]
        return np.round(np.tile(np.reshape(grey, (-1, 1, 1, 1)), (1, 8, 8, 3))).astype(np.uint8)


def brightness(images, only=''):
    """Measures of every source: the mean grey; none above 200."""
    grey = np.asarray(images, float).mean((1, 2, 3))
    grey = np.where(grey > 200, np.nan, grey)
    names = {name for a in measures.ATTRIBUTES.values() for name in (a.steer, a.judge)}
    return dict.fromkeys(names, grey)


JUDGE = {'sface': Judge(lambda x: x.mean((1, 2)) / 255, lambda a, b: 1 - abs(a - b).mean(-1), 1)}


@pytest.fixture
def before(monkeypatch):
    monkeypatch.setattr(measures, 'measure', brightness)
    line = Line()
    (image,) = line.render([])
    values = {name: float(v[0]) for name, v in brightness(image[None]).items()}
    target = {'sface': JUDGE['sface'].embed(image[None])}
    return edit_measures.Original(target, image, values, Segments(np.zeros((8, 8)), ('face',)))


def test_identity_is_compared_at_the_change_that_the_judge_measures(before):
    for change in (-30.0, 55.0):
        wanted = edit_measures.Equal(direction('yaw', limits=(-8.0, 8.0)), change)
        found = edit_measures.at_equal_change(before, Line(), wanted, JUDGE)
        assert found['reached'] and found['closest'] == pytest.approx(change, rel=0.05)
        assert found['strength'] == pytest.approx(change / 10, rel=0.06)
        assert found['id_sface'] == pytest.approx(1 - abs(change) / 255, abs=0.02)
    steeper = edit_measures.at_equal_change(before, Line(40.0), wanted, JUDGE)
    assert steeper['strength'] == pytest.approx(55 / 40, rel=0.06)


def test_a_change_out_of_reach_has_no_numbers(before):
    wanted = edit_measures.Equal(direction('yaw', limits=(-2.0, 2.0)), 55.0)
    found = edit_measures.at_equal_change(before, Line(), wanted, JUDGE)
    assert not found['reached'] and found['id_sface'] is None
    assert found['closest'] == pytest.approx(20)
    lost = before._replace(values=dict.fromkeys(before.values, np.nan))
    bright = Line()
    bright.render = lambda wanted: np.full((1 + len(wanted), 8, 8, 3), 255, np.uint8)
    found = edit_measures.at_equal_change(lost, bright, wanted, JUDGE)
    assert (found['reached'], found['closest'], found['strength']) == (False, None, 0.0)


def test_change_is_judged_by_what_did_not_steer(before, monkeypatch):
    def measure(images):
        grey = np.asarray(images, float).mean((1, 2, 3))
        return brightness(images) | {'yaw/dlib': grey, 'yaw/head_pose': 2 * grey}

    monkeypatch.setattr(measures, 'measure', measure)
    own = before._replace(values={'yaw/dlib': 100.0, 'yaw/head_pose': 200.0})
    edit = edits.Edit('yaw=3', ((direction('yaw'), 3.0),))
    (found,) = edit_measures.of_edits(own, Line(), [edit], JUDGE)
    assert found['change'] == {'yaw': 60.0} and found['steered'] == {'yaw': 30.0}
    for attribute in measures.ATTRIBUTES.values():
        assert attribute.judge != attribute.steer


def test_what_is_outside_equals_the_slow_mean():
    random = np.random.RandomState(0)
    labels = np.zeros((64, 64), np.int32)
    labels[20:40, 20:44], labels[26:30, 28:36] = 1, 2
    segments = Segments(labels, ('background left', 'face', 'mouth'))
    first, second = random.randint(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    before = edit_measures.Original({}, first, {}, segments)
    found = edit_measures.outside(before, second, ['smile'])
    total = []
    for i in range(64):
        for j in range(64):  # grown by 2 pixels, in steps up, down and aside
            near = [(a, b) for a in range(64) for b in range(64)
                    if labels[a, b] and abs(a - i) + abs(b - j) <= 2] if (
                17 < i < 42 and 17 < j < 46) else []  # fmt: skip
            if not near:
                total.append(np.mean(((first[i, j].astype(float) - second[i, j]) / 255) ** 2))
    assert found == pytest.approx(np.mean(total))
    assert edit_measures.outside(before, second, ['light']) is None
    assert edit_measures.outside(before, second, []) is None
    faceless = before._replace(segments=Segments(labels * 0, ('segment 0',)))
    assert edit_measures.outside(faceless, second, ['smile']) is None


def test_an_edit_and_back_is_where_it_was():
    w = np.random.RandomState(1).randn(1, 2, 4).astype(np.float32)
    edit = edits.Edit(
        'e', ((direction('yaw'), 2.0), (direction('smile')._replace(rows=(1, 2)), -1.0))
    )
    there = edits.apply(w, edit, 2)
    assert abs(np.asarray(there) - w).max() > 1
    np.testing.assert_allclose(edits.apply(there, edited.negated(edit), 2), w, atol=1e-6)
    sets = edits.Edit('s', ((direction('yaw', mean=np.zeros(4)), 2.0),))
    with pytest.raises(JaxinvError, match='cannot be taken back'):
        edited.negated(sets)


def test_columns_of_a_record():
    record = {
        'reconstruction': {'id_sface': 0.9},
        'edits': {
            'yaw=2': {
                'change': {'yaw': 5.0}, 'steered': {'yaw': 4.0}, 'id_sface': 0.8, 'outside': None
            }
        },
        'equal': {
            'yaw+5': {'strength': -1.5, 'reached': True, 'id_sface': 0.7, 'outside': 0.1},
            'yaw+10': {'strength': 3.0, 'reached': False, 'id_sface': None, 'outside': None},
        },
        'consistency': {'yaw=2': {'lec_w': 3.0, 'lec_lpips_alex_256': 0.2, 'key': 'a b'}},
    }  # fmt: skip
    assert edit_tables.columns_of(record, ['sface']) == {
        'id_sface': 0.9,
        'change_yaw_head_pose @ yaw=2': 5.0, 'change_yaw_dlib @ yaw=2': 4.0,
        'id_sface @ yaw=2': 0.8, 'outside @ yaw=2': None,
        'id_sface @ measured yaw+5': 0.7, 'outside @ measured yaw+5': 0.1,
        'strength @ measured yaw+5': 1.5,
        'id_sface @ measured yaw+10': None, 'outside @ measured yaw+10': None,
        'strength @ measured yaw+10': None,
        'lec_w @ yaw=2 and back': 3.0, 'lec_lpips_alex_256 @ yaw=2 and back': 0.2,
    }  # fmt: skip
    points = [
        {'change': {'yaw': 2.0}, 'id_sface': 0.5},
        {'change': {'yaw': 4.0}, 'id_sface': 0.7},
        {'change': {'yaw': 9.0}, 'id_sface': None},
    ]
    assert edit_tables._point(points, 'yaw', 'id_sface') == (3.0, pytest.approx(0.6), 1)
    assert edit_tables._point(points[2:], 'yaw', 'id_sface') == (None, None, 1)


def test_why_numbers_are_missing_is_counted(before):
    nowhere = JUDGE['sface']._replace(embed=lambda images: np.full((len(images), 3), np.nan))
    edit = edits.Edit('yaw=3', ((direction('yaw'), 3.0),))
    target = before._replace(target={'sface': np.ones((1, 3))})
    (lost,) = edit_measures.of_edits(target, Line(), [edit], {'sface': nowhere})
    assert lost['no_face'] == {'sface': 'picture'} and lost['id_sface'] is None
    (seen,) = edit_measures.of_edits(before, Line(), [edit], JUDGE)
    assert seen['no_face'] == {}
    far = edit_measures.Equal(direction('yaw', limits=(-2.0, 2.0)), 55.0)
    near = edit_measures.Equal(direction('yaw', limits=(-8.0, 8.0)), 55.0)
    records = {
        name: {
            'reconstruction': {'id_sface': None, 'no_face': {'sface': 'both'}},
            'edits': {'yaw=3': found},
            'equal': {'yaw+55': edit_measures.at_equal_change(before, Line(), wanted, JUDGE)},
        }
        for name, found, wanted in (('a', lost, near), ('b', seen, far))
    }
    names = ('id_sface', 'id_sface @ yaw=3', 'id_sface @ measured yaw+55', 'outside @ yaw=3')
    summary = {name: {} for name in names}
    edit_tables.add_reasons(summary, records, ['sface'])
    assert summary == {
        'id_sface': {'no_face': {'target': 0, 'picture': 0, 'both': 2}},
        'id_sface @ yaw=3': {'no_face': {'target': 0, 'picture': 1, 'both': 0}},
        'id_sface @ measured yaw+55': {
            'no_face': {'target': 0, 'picture': 0, 'both': 0}, 'not_reached': 1
        },
        'outside @ yaw=3': {},
    }  # fmt: skip


def test_columns_of_changes_name_what_measured_them():
    for name, own in measures.ATTRIBUTES.items():
        for which, fitted in ((own.judge, 'not fitted'), (own.steer, 'was fitted')):
            source = which.partition('/')[2]
            column = text.protocol(f'change_{name}_{source} @ {name}=2')
            assert column.title == f'Change of {name}, {source}'.replace('_', ' ')
            assert fitted in column.help and which in column.help
    assert text.protocol('change_yaw_head_pose').help.endswith('unit: degree')
    assert text.protocol('change_smile_blendshapes').help.endswith('unit: log-odds')


def test_a_second_inversion_searches_what_was_given_for_each_picture(tmp_path):
    config = evaluate_edits.get_config('test')
    config.methods = (
        f'a=pti:test?start={tmp_path}/x.npz,b=pti:test?start=mean,c=pti:test?start=random:3,'
        f'd=sam:test?invertibility.maps={tmp_path}'
    )
    lines = []
    found = {
        row.name: edit_comparison.searching(row.config, row.name, lines.append)
        for row in edit_comparison.method_runs.rows_of(config)
    }
    assert [found[name].start for name in 'abcd'] == ['', 'mean', 'random:3', '']
    assert found['d'].invertibility.maps == '' and len(lines) == 2
    assert lines[0].startswith('a: start=') and lines[1].startswith('d: the maps')


def test_a_failed_second_inversion_is_one_line_and_the_next_ones_go_on(tmp_path, monkeypatch):
    config = evaluate_edits.get_config('test')
    config.methods = 'a=pti:test'
    (row,) = edit_comparison.method_runs.rows_of(config)
    row = row._replace(folder=tmp_path / 'methods' / 'a-12345678')
    pictures = edit_comparison.Pictures(tmp_path, [], [], [], [], [], 'none', 32)
    none = {'a': 'out of memory'}
    monkeypatch.setattr(edit_comparison, 'generator_of', lambda row, log: (None, None))
    monkeypatch.setattr(edit_comparison.edited_pictures, 'opener', lambda *_: None)
    monkeypatch.setattr(edit_comparison.method_runs, 'placed', lambda rows, *_: rows)
    monkeypatch.setattr(edit_comparison.comparison, 'run_methods', lambda *_: ({}, none))
    edit = edits.Edit('yaw=2', ((direction('yaw'), 2.0),))
    arguments = (row, tmp_path, pictures, None, edit, {}, lambda text, **_: None)
    assert edit_comparison.consistency(*arguments) is False


def test_curves_are_joined_points():
    svg = charts.xy({'<a>': [(0.0, 1.0), (10.0, 3.0)], 'b': []}, 'x & y')
    assert svg.count('<circle') == 2 and '&lt;a&gt;' in svg and 'x &amp; y' in svg
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    assert f'M{left:.1f} {charts.HEIGHT - charts.BOTTOM:.1f}L{right:.1f} {charts.TOP:.1f}' in svg
    assert charts.xy({'a': []}) == ''


@pytest.mark.parametrize('text', ['yaw', 'yaw=', 'yaw=5/x', '=5', 'yaw=0', 'yaw=inf'])
def test_a_wanted_change_that_is_none_is_refused(text):
    with pytest.raises(JaxinvError, match='write NAME=CHANGE'):
        parse_equal(text)


def test_what_cannot_be_judged_or_edited_is_refused(tmp_path):
    assert parse_equal(' yaw=-10/5') == ('yaw', [-10.0, 5.0])
    generator, weights = load_named('tiny')
    np.save(tmp_path / 'mine.npy', np.ones(generator.spec.w_dim, np.float32))
    config = evaluate_edits.get_config('test')
    config.measure.equal = (f'{tmp_path}/mine.npy=5',)
    wanted = settings.of(config, settings.EvaluateEdits)
    with pytest.raises(JaxinvError, match='no attribute with a judge; there are yaw'):
        edit_plan.plan_of(wanted, generator, weights, 'auto', print)
    config.measure.equal = ()
    config.methods = f'external:{tmp_path}'
    (tmp_path / 'a.png').write_bytes(b'')
    with pytest.raises(JaxinvError, match='has no codes to edit'):
        edit_comparison.run(config, tmp_path / 'work')
    assert 'evaluate_edits' in launch.config_names()


# --- Whole runs ---


@pytest.mark.parametrize(
    'methods',
    [
        pytest.param('f6=f6:test,grouped=pti:test?group=2', marks=pytest.mark.long),
        pytest.param(
            'f6=f6:test,grouped=pti:test?group=2,pti=pti:test', marks=pytest.mark.exhaustive
        ),
    ],
    ids=['grouped', 'both'],
)
def test_a_run_renders_what_the_methods_made_and_resumes(tmp_path, monkeypatch, methods):
    monkeypatch.setattr(measures, 'measure', brightness)  # its networks need faces and compile long
    generator, _ = load_named('tiny')
    np.save(tmp_path / 'yaw.npy', np.ones(generator.spec.w_dim, np.float32) / 8)
    config = evaluate_edits.get_config('test')
    config.methods = methods
    config.edits = (f'{tmp_path}/yaw.npy=2/-2',)
    config.measure.equal = (f'{tmp_path}/yaw.npy=1',)
    config.measure.curves = (f'{tmp_path}/yaw.npy',)
    config.measure.curve_points = 3
    config.measure.consistency = (f'{tmp_path}/yaw.npy=2',)
    config.measure.identity = ('dlib',)
    path, lines = tmp_path / 'work', []

    def log(text, **_):
        lines.append(text)

    edit_comparison.run(config, path, log=log)
    found = json.loads((path / 'metrics.json').read_text())
    assert list(found['methods']) == [m.partition('=')[0] for m in methods.split(',')]
    rows = edit_comparison.method_runs.rows_of(config)
    config_of_targets = edit_comparison.comparison.open_comparison(config, log)
    pictures = edit_comparison.comparison_targets.prepare(path, config, config_of_targets.spec, log)
    for row in edit_comparison.method_runs.placed(rows, path, pictures):
        folder = row.folder
        made = edit_comparison.method_runs.made_of(folder, pictures)
        read = edited.opener(row, folder, edit_comparison.generator_of(row, log))
        for name in pictures:
            own = edit_comparison.image_files.read(made[name].file)
            difference = np.asarray(own, int) - read(name).render([])[0]
            assert abs(difference).max() <= 1, (row.name, name)  # another program, rounded
        entry = found['methods'][row.name]['metrics']
        assert entry['lec_w @ yaw=2 and back']['mean'][0] > 0
        change = entry['change_yaw_head_pose @ yaw=2']
        assert change['count'] + change['missing'] == 2
    lec = {
        name: own['metrics']['lec_lpips_alex_256 @ yaw=2 and back']['mean'][0]
        for name, own in found['methods'].items()
    }
    assert lec['grouped'] > 0 and lec.get('pti', lec['grouped']) == pytest.approx(
        lec['grouped'], rel=0.05
    )
    written = [json.loads(p.read_text()) for p in (path / 'edited').glob('grouped-*/*.json')]
    assert len(written) == 2
    assert all(own['lec_w'] > 0 for r in written for own in r['consistency'].values())
    page = (path / 'page.html').read_text()
    assert 'against measured yaw' in page and 'yaw=-2' in page
    before = {p: p.stat().st_mtime_ns for p in (path / 'edited').rglob('*') if p.is_file()}
    edit_comparison.run(config, path, log=log)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())
    assert json.loads((path / 'metrics.json').read_text())['methods'] == found['methods']

    # A table of the same runs in another work folder, which runs nothing again.
    table = evaluate.get_config('test')
    table.methods, table.runs = 'f6=f6:test,grouped=pti:test?group=2', str(path)
    table.measure.images, table.measure.rank_by = ('mse_signed',), 'mse_signed'
    table.measure.identity = table.measure.sets = ()
    lines.clear()
    edit_comparison.comparison.run(table, tmp_path / 'table', log=log)
    assert sum('Finished already' in line for line in lines) == 2
    assert not (tmp_path / 'table' / 'methods').exists()
    found = json.loads((tmp_path / 'table' / 'metrics.json').read_text())['methods']
    assert all(own['metrics']['mse_signed']['count'] == 2 for own in found.values())
    # They are found from a table with another group, too.
    table.methods, table.group = 'f6=f6:test,grouped=pti:test', 3
    before = sorted(path.glob('methods/*'))
    lines.clear()
    edit_comparison.comparison.run(table, tmp_path / 'groups', log=log)
    assert sum('Finished already' in line for line in lines) == 2
    assert sorted(path.glob('methods/*')) == before
    again = json.loads((tmp_path / 'groups' / 'metrics.json').read_text())['methods']
    for name, own in again.items():
        assert own['metrics'] == found[name]['metrics']
    table.runs = str(tmp_path)
    with pytest.raises(JaxinvError, match='holds no methods/'):
        edit_comparison.comparison.run(table, tmp_path / 'other', log=log)


def test_codes_of_one_picture_are_its_own(tmp_path):
    from jaxinv.inversion import code_files

    spec = load_named('tiny')[0].spec
    w = np.random.RandomState(0).randn(2, 1, spec.w_dim).astype(np.float32)
    code_files.save_pivots(tmp_path, ['a', 'b'], w)
    codes, masks = edited._codes(tmp_path, 'b', spec)
    assert codes.w_plus.shape == (1, spec.num_ws, spec.w_dim) and masks == {}
    np.testing.assert_array_equal(codes.w_plus[0, 3], w[1, 0])
    offsets = {'F4': np.arange(2 * 8.0).reshape(2, 2, 2, 2)}
    own = sam.Codes(np.repeat(w, spec.num_ws, 1), offsets)
    code_files.save_codes(tmp_path, ['a', 'b'], own, {'F4': np.ones((2, 2, 2, 1))})
    codes, masks = edited._codes(tmp_path, 'b', spec)
    np.testing.assert_array_equal(codes.offsets['F4'], offsets['F4'][1:])
    assert masks['F4'].shape == (1, 2, 2, 1)
    with pytest.raises(JaxinvError, match='no code for c'):
        edited._codes(tmp_path, 'c', spec)
