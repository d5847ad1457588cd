"""The report: stable names, safe against what it is given, complete after a kill."""

import html
import html.parser
import json
import re
import struct

import numpy as np
import PIL.Image
import pytest

from jaxinv import report
from jaxinv.report import charts, schema, writer
from jaxinv.report import page as report_page
from jaxinv.report import text as report_text
from jaxinv.runtime import metrics_log

HOSTILE = '../../<script>alert("x")</script> & a \'very\' ' + 'long ' * 40
METRICS = ('lpips_alex', 'lpips_vgg', 'mse', 'psnr', 'ms_ssim', 'id_distance')


def pictures(n, seed, size=40):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def make_run(names=('Ann', HOSTILE), stages=('pivot', 'tuned')):
    """Two people; the second one's face is lost in the edited pictures."""
    n = len(names)
    lost = np.array([0.3] + [np.nan] * (n - 1))
    attributes = {'age': np.full(n, 30.0), 'smile': np.full(n, 0.1)}
    values = {name: np.arange(1, n + 1) / 10 for name in METRICS}
    edited = {'age': np.array([33.5] + [np.nan] * (n - 1)), 'smile': np.full(n, 0.05)}

    def edit(name, parts, seed, requested=True):
        return report.EditResult(name, parts, pictures(n, seed), lost, edited, requested)

    return report.Run(
        title='A title <b>',
        names=list(names),
        targets_uint8=pictures(n, 0),
        stages=[
            report.Stage(
                name, pictures(n, i + 1), {k: v / (i + 1) for k, v in values.items()}, attributes
            )
            for i, name in enumerate(stages)
        ],
        target_attributes=attributes,
        edits=[
            edit('age=4', (('age', 4.0),), 10),
            edit('age=-4', (('age', -4.0),), 11),
            edit('yaw=3', (('yaw', 3.0),), 12, requested=False),
            edit('yaw=3,smile=-2', (('yaw', 3.0), ('smile', -2.0)), 13),
        ],
        drift=report.Drift(
            {'lpips_alex': 0.02, 'mse': float('nan')},
            {'original': pictures(3, 20), 'tuned': pictures(3, 21)},
            {'tuned': {'lpips_alex': np.array([0.01, 0.02, np.nan])}},
        ),
        traces=[
            report.Trace('tune', 'lpips_alex', np.linspace(0.5, 0.1, 20)[:, None] * np.ones(n)),
            report.Trace('tune', 'locality', np.full(20, np.nan)),
        ],
        seconds={'project': 61.0, 'tune': np.float32(2.5)},
        config={'tune': {'num_steps': 5, 'stop': None}, 'path': HOSTILE},
        generator={'name': 'tiny', 'resolution': 40},
        versions={'jax': '1'},
        seeds={'seed': 0},
        sources=[{'file': HOSTILE, 'sha256': 'ab' * 32, 'face': 1}],
        skipped=[{'file': 'notes.png', 'reason': '<img src=x onerror=alert(1)>'}],
    )


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)
        self.text = ' '.join(' '.join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    report.write(folder, make_run())
    return folder


def test_metrics_json_has_the_stable_names(written):
    record = json.loads((written / 'metrics.json').read_text())
    for name in ('Ann', HOSTILE):
        assert record['identities'][name].keys() == {'pivot', 'tuned'}
        assert record['identities'][name]['tuned'].keys() == set(METRICS)
    assert record['identities']['Ann']['tuned']['mse'] == pytest.approx(0.05)
    assert record['mean']['pivot']['psnr'] == pytest.approx(0.15)
    assert record['drift'] == {'lpips_alex': 0.02, 'mse': None}
    assert record['seconds'] == {'project': 61.0, 'tune': 2.5}
    assert record['skipped'][0].keys() == {'file', 'reason'}


def test_edits_have_identity_distance_and_change_and_null_without_a_face(written):
    record = json.loads((written / 'metrics.json').read_text())['edits']
    assert record['Ann']['age=4']['id_distance'] == pytest.approx(0.3)
    assert record['Ann']['age=4']['change'] == pytest.approx({'age': 3.5, 'smile': -0.05})
    assert record[HOSTILE]['age=4']['id_distance'] is None
    assert record[HOSTILE]['age=4']['change']['age'] is None


def test_json_is_strict_though_values_are_not_finite(written):
    def refuse(constant):
        raise AssertionError(f'{constant} is not JSON')

    json.loads((written / 'metrics.json').read_text(), parse_constant=refuse)


def test_pictures_lie_inside_the_folder_whatever_the_names(written):
    folders = sorted((written / 'images').iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert {p.name for p in folder.iterdir()} == {
            'target.png', 'pivot.png', 'tuned.png', 'edit_age_4.png', 'edit_age_-4.png',
            'edit_yaw_3.png', 'edit_yaw_3_smile_-2.png',
        }  # fmt: skip
    with PIL.Image.open(written / 'images' / 'Ann' / 'tuned.png') as image:
        np.testing.assert_array_equal(np.asarray(image), make_run().stages[1].images_uint8[0])
    assert {p.name for p in written.iterdir()} == {
        'images', 'grid.png', 'metrics.json', 'report.html',
    }  # fmt: skip


def test_grid_has_a_row_per_person_and_no_column_for_steps_of_a_sequence():
    run = make_run()
    size = writer.grid(run).size
    assert size[0] > size[1]
    wider = make_run()
    wider.edits[2].requested = True
    assert writer.grid(wider).size[0] > size[0] and writer.grid(wider).size[1] == size[1]


def test_page_needs_nothing_from_outside(written):
    page = Page((written / 'report.html').read_text())
    for tag, name, value in page.attributes:
        if name in ('src', 'href', 'srcset', 'data', 'action', 'poster'):
            assert value is None or value.startswith(('data:image/jpeg;base64,', '#')), (tag, value)
    assert 'link' not in page.tags and 'url(' not in (written / 'report.html').read_text()
    links = {value[1:] for tag, name, value in page.attributes if name == 'href'}
    assert links <= {value for _, name, value in page.attributes if name == 'id'}


def test_page_shows_file_names_without_folders():
    run = make_run()
    run.sources = [{'file': '/home/ann/me.jpg', 'sha256': 'ab', 'face': {'index': 1, 'count': 2}}]
    text = Page(report_page.render(run)).text
    assert 'me.jpg' in text and '/home/ann' not in text and '1 of 2' in text


def test_hostile_names_stay_text(written):
    page = Page((written / 'report.html').read_text())
    assert page.tags.count('script') == 1
    assert not [a for a in page.attributes if a[1].startswith('on')]
    assert '<script>alert("x")</script>' in page.text
    assert '<img src=x onerror=alert(1)>' in page.text


def test_page_shows_no_face_and_never_nan(written):
    text = Page((written / 'report.html').read_text()).text
    visible = re.sub(r'[A-Za-z0-9+/=]{200,}', '', text)
    assert report_text.NO_FACE in visible
    assert not re.search(r'\bnan\b', visible, re.IGNORECASE)


def test_pictures_without_faces_say_nothing_of_identity(tmp_path):
    run = make_run()
    run.drift = None
    for stage in run.stages:
        del stage.metrics['id_distance']
        stage.attributes.clear()
    report.write(tmp_path, run)
    visible = re.sub(r'[A-Za-z0-9+/=]{200,}', '', (tmp_path / 'report.html').read_text())
    assert report_text.NO_FACE not in visible and '<dt>identity' not in visible
    assert 'id="edits"' not in visible and 'age +4' in visible


def test_terms_that_a_run_did_without_have_no_curve():
    run = make_run()
    run.traces = [report.Trace('project', 'noise_reg', np.zeros((20, 2)))]
    assert report_page._charts(run) == []


def test_stages_are_a_list_not_a_pair(tmp_path):
    for stages in (('inverted',), ('pivot', 'tuned', 'refined'), ()):
        run = make_run(names=('Ann',), stages=stages)
        if not stages:
            run.edits = ()
        report.write(tmp_path, run)
        record = json.loads((tmp_path / 'metrics.json').read_text())
        assert tuple(record['identities']['Ann']) == stages
        text = Page((tmp_path / 'report.html').read_text()).text
        assert all(stage in text for stage in stages)


def test_least_run_is_enough(tmp_path):
    report.write(tmp_path, report.Run('Least', ['a'], pictures(1, 0), []))
    assert (tmp_path / 'report.html').stat().st_size > 1000


def test_many_people_get_smaller_pictures():
    few, many = make_run(names=('a',)), make_run(names=tuple(f'p{i}' for i in range(150)))
    assert report_page._Encoder(few).size == 512
    assert report_page._Encoder(many).size < 512


def test_wrong_pictures_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'targets' are float64 \[1, 4, 4, 3\]"):
        report.Run('x', ['a'], np.zeros((1, 4, 4, 3)), [])
    with pytest.raises(ValueError, match='must differ'):
        report.Run('x', ['a', 'a'], pictures(2, 0), [])


def test_sweeps_sort_by_strength_and_lead_to_sequences():
    groups = report_page.sweeps(make_run().edits)
    named = [(title, [e and e.name for e in members]) for title, members in groups]
    assert named == [
        ('age', ['age=-4', None, 'age=4']),
        ('yaw, then smile', [None, 'yaw=3', 'yaw=3,smile=-2']),
    ]


def test_numbers_read_well():
    age = report_text.ATTRIBUTES['age']
    assert report_text.number(-2.34, age, signed=True) == '\N{MINUS SIGN}2.3 y'
    assert report_text.number(np.inf, report_text.METRICS['psnr']) == '∞'
    assert report_text.number(-0.04, age, signed=True) == '0.0 y'
    assert report_text.number(np.nan, age) == report_text.number(None, age) == 'no face'
    durations = [report_text.duration(s) for s in (8.21, 125, 3720)]
    assert durations == ['8.2 s', '2 min 05 s', '1 h 02 min']


def test_slugs_are_distinct_without_case_and_never_empty():
    assert report.slugs(['Ann', 'ann', '...', '', '../x', 'Zoë 1']) == [
        'Ann', 'ann_2', 'unnamed', 'unnamed_2', 'x', 'Zoë_1',
    ]  # fmt: skip


def test_mean_is_over_what_was_measured():
    assert schema.mean([1.0, np.nan, 3.0]) == 2.0
    assert schema.mean([np.nan]) is None


def test_chart_has_a_curve_per_person_with_gaps_where_nothing_was_evaluated():
    values = np.array([[1.0, 2.0], [np.nan, 1.0], [0.1, 0.5], [0.05, np.nan]])
    svg = str(charts.svg(values, ['<a>', 'b'], label='loss'))
    first, second = re.findall(r' d="([^"]*)"', svg)
    assert first.count('M') == 2 and second.count('M') == 1 and second.count('L') == 2
    assert '<title>&lt;a&gt;</title>' in svg
    assert charts.svg(np.full((3, 1), np.nan), ['a']) == ''
    flat = str(charts.svg(np.r_[1e-15, np.full(99, 0.1)], ['a']))
    assert flat.count('class="rule"') < 8  # one tiny value does not make fifteen decades
    assert [charts._short(t) for t in (0.05, 1e-5, 2e5, 3)] == ['0.05', '1e-5', '2e5', '3']
    for odd in ([[5.0]], [[0.0], [0.0]], [[-1.0], [1e9]]):
        assert 'nan' not in str(charts.svg(np.array(odd), ['a']))


# --- metrics.jsonl --------------------------------------------------------------------------------


def board(folder):
    """[(tag, step, value)] in a folder's event files, sorted."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in folder.glob('events*'):
        data = path.read_bytes()
        while data:  # TFRecord: length, its checksum, the event, its checksum
            (length,) = struct.unpack('<Q', data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, round(v.simple_value, 6)) for v in event.summary.value]
            data = data[16 + length :]
    return sorted(found)


def log_steps(log, steps):
    for step in steps:
        log.scalars(step, 'tune', {'loss': 1 / (step + 1), 'lpips': np.array([0.5, step])})


def test_resumed_log_equals_the_uninterrupted_one(tmp_path):
    with metrics_log.MetricsWriter(tmp_path / 'a', ('x', 'y')) as log:
        log_steps(log, range(6))
    with metrics_log.MetricsWriter(tmp_path / 'b', ('x', 'y')) as log:
        log_steps(log, range(4))
    with open(tmp_path / 'b' / 'metrics.jsonl', 'a') as file:
        file.write('{"stage": "tune", "step": 4, "lo')  # killed while writing
    with metrics_log.MetricsWriter(tmp_path / 'b', ('x', 'y')) as log:
        assert log.last_step('tune') == 3 and log.last_step('project') is None
        log_steps(log, range(2, 6))  # from an older checkpoint
    texts = [(tmp_path / name / 'metrics.jsonl').read_text() for name in 'ab']
    assert texts[0] == texts[1]
    boards = [board(tmp_path / name / 'tensorboard') for name in 'ab']
    assert boards[0] == boards[1]
    assert ('tune/lpips/y', 5, 5.0) in boards[0] and len(boards[0]) == 6 * 4


def test_whole_traces_may_be_given_after_every_chunk(tmp_path):
    trace = {'loss': np.arange(10.0).reshape(5, 2)}
    trace['loss'][3:, 1] = np.nan
    with metrics_log.MetricsWriter(tmp_path, ('x', 'y')) as log:
        log.traces('tune', {'loss': trace['loss'][:2]})
        log.traces('tune', trace)
    records = metrics_log.read(tmp_path)
    assert [r['step'] for r in records] == [0, 1, 2, 3, 4]
    assert records[1] == {'stage': 'tune', 'step': 1, 'loss': 2.5, 'loss/x': 2.0, 'loss/y': 3.0}
    assert records[3]['loss/y'] is None and records[3]['loss'] == 6.0


def test_rows_after_all_have_stopped_are_not_logged(tmp_path):
    with metrics_log.MetricsWriter(tmp_path) as log:
        log.traces('tune', {'loss': [1.0, np.nan]})
    assert len(metrics_log.read(tmp_path)) == 1


def test_edits_can_be_copied_and_the_studio_is_named():
    run = make_run()
    run.edits[1].text = '{"jaxinv_edit": 1, "name": "</pre><script>"}'
    page = report_page.render(run)
    parsed = Page(page)
    copied = re.findall(r'<pre class="copy" tabindex="0">(.*?)</pre>', page)
    assert [html.unescape(text) for text in copied] == [
        'age=4',
        run.edits[1].text,
        'yaw=3,smile=-2',
    ]
    assert 'jaxinv-studio RUN_FOLDER' in parsed.text
    run.edits = []
    assert 'Edits to copy' not in report_page.render(run)
