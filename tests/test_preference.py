"""A preference study: its page in a browser, its key, and what is read of raters' files."""

import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import scipy.stats

from jaxinv import defaults
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import preference, preference_results

NAMES = ('ada', 'bob', 'cyd', 'dot')


def write_pictures(folder, names=NAMES, shift=0):
    for i, name in enumerate(names):
        pixels = np.random.RandomState(i).randint(0, 200, (5, 5, 3)) + shift
        picture = PIL.Image.fromarray(np.uint8(pixels)).resize((80, 80), PIL.Image.BICUBIC)
        images.save(folder / f'{name}.png', picture)


def make(work, log=lambda *_, **__: None, **changes):
    config = defaults.get_config('preference')
    config.update(changes)
    preference.run(config, work, log=log)
    return json.loads((work / 'study.json').read_text())


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """(work folder, key) of a study of three methods and four pictures."""
    base = tmp_path_factory.mktemp('study')
    for name, shift in (('originals', 0), ('first', 10), ('second', 25), ('third', 50)):
        write_pictures(base / name, shift=shift)
    methods = f'Alpha Method={base / "first"},<b>Beta={base / "second"},=Gamma={base / "third"}'
    folder = base / 'work'
    return folder, make(folder, methods=methods, originals=str(base / 'originals'), checks=3)


def data_of(work):
    page = (work / 'preference.html').read_text()
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    return page, json.loads(text)


def test_the_page_shows_every_pair_of_every_picture_and_no_name_of_a_method(study):
    work, key = study
    pairs = [t for t in key['trials'] if t['kind'] == 'pair']
    checks = [t for t in key['trials'] if t['kind'] == 'check']
    assert len({(t['picture'], *t['methods']) for t in pairs}) == len(pairs) == 4 * 3
    assert len(checks) == 3 and len({t['id'] for t in key['trials']}) == 15
    page, data = data_of(work)
    for hidden in ('Alpha', 'Beta', 'Gamma', 'ada', 'second', str(work.parent)):
        assert hidden not in re.sub(r'base64,[\w+/=]+', '', page)
    assert "default-src 'none'" in page and '://' not in re.sub(r'base64,[\w+/=]+', '', page)
    assert len(data['pictures']) == 4 + 12 + 3 and data['study'] == key['study']
    order = [t['id'] for t in data['trials']]
    assert order == sorted(order) and set(data['always']) == {t['id'] for t in checks}
    for trial in checks:  # the first is the original itself
        assert trial['pair'][0] == trial['original'] and trial['methods'] is None


def test_a_question_cannot_leave_its_place(tmp_path):
    write_pictures(tmp_path / 'a')
    write_pictures(tmp_path / 'b')
    both = f'a={tmp_path / "a"},b={tmp_path / "b"}'
    question = 'A</script><script>alert(1)</script>?'
    make(tmp_path / 'w', methods=both, originals=str(tmp_path / 'a'), question=question)
    page, _ = data_of(tmp_path / 'w')
    assert page.count('<script') == 2 and '&lt;script&gt;alert(1)' in page


def test_stages_of_runs_and_what_is_missing(tmp_path):
    for run, names in (('one', NAMES), ('two', NAMES[:3])):
        (tmp_path / run).mkdir()
        (tmp_path / run / 'run.json').write_text('{}')
        for name in names:
            for stage in ('target', 'Pivot', 'tuned'):
                image = PIL.Image.new('RGB', (32, 32), (99, 0, 0))
                images.save(tmp_path / run / 'images' / name / f'{stage}.png', image)
    lines = []
    methods = f'{tmp_path / "one"},pivot={tmp_path / "two"}:pivot'
    key = make(tmp_path / 'w', lambda text, **_: lines.append(text), methods=methods, checks=0)
    assert key['methods'] == ['one', 'pivot'] and len(key['trials']) == 3
    assert any('dot is not there of every method' in line for line in lines)
    for methods, message in (
        ('a', 'two or more are compared'),
        (f'a={tmp_path / "one"},a={tmp_path / "two"}', 'two methods are called a'),
        (f'{tmp_path / "one"}:sam,{tmp_path / "two"}', "no stage 'sam'; it has Pivot, target, tu"),
        (f'{tmp_path / "gone"},{tmp_path / "two"}', 'there is no folder'),
    ):
        with pytest.raises(JaxinvError, match=message):
            make(tmp_path / 'v', methods=methods)
    with pytest.raises(JaxinvError, match="originals is '', and no method is a run"):
        write_pictures(tmp_path / 'plain')
        make(tmp_path / 'v', methods=f'{tmp_path / "plain"},b={tmp_path / "plain"}')


# --- Results ---


def answers(key, rater, choose, failed=0, **changes):
    """A rater's file; choose(trial) -> 0 or 1 for the pairs."""
    given = []
    for trial in key['trials']:
        right = trial['kind'] == 'pair'
        choice = choose(trial) if right else int(failed > 0)
        failed -= not right
        given.append({'trial': trial['id'], 'left': 0, 'choice': choice, 'ms': 900})
    return {'version': 1, 'study': key['study'], 'rater': rater, 'answers': given} | changes


def test_files_of_raters_to_preferences(study, tmp_path):
    work, key = study
    folder = tmp_path / 'answers'
    folder.mkdir()

    def write(name, content):
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f'{name}.json').write_bytes(text)

    for rater in range(5):  # the fifth prefers the second method everywhere
        write(f'r{rater}', answers(key, rater, lambda t, r=rater: int(r == 4)))
    write('twice', answers(key, 3, lambda t: 1))
    write('careless', answers(key, 10, lambda t: 1, failed=2))
    write('text', b'hello')
    write('deep', b'[' * 100_000)
    write('long', b' ' * (preference_results.MAX_FILE + 1))
    write('other', answers(key, 11, lambda t: 1, study='<script>'))
    write('list', [1, 2])
    write('bool', answers(key, True, lambda t: 1))
    write('strange', answers(key, 12, lambda t: 2))
    write('short', answers(key, 13, lambda t: 1) | {'answers': []})
    half = answers(key, 15, lambda t: 1)
    checks = {t['id'] for t in key['trials'] if t['kind'] == 'check'}
    half['answers'] = [a for a in half['answers'] if a['trial'] in checks] + half['answers'][:5]
    write('half', half)
    again = answers(key, 14, lambda t: 1)
    write('again', again | {'answers': again['answers'] + again['answers'][:1]})
    write('unknown', again | {'answers': [{'trial': 'x', 'choice': 0, 'ms': 1}]})
    config = defaults.get_config('preference_results')
    config.study, config.results = str(work), str(folder)
    lines = []
    preference_results.run(config, tmp_path / 'out', log=lambda text, **_: lines.append(text))
    found = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert found['raters'] == 5 and found['failed_checks'] == 1
    reasons = {entry['file']: entry['reason'] for entry in found['left_out']}
    assert reasons.pop('careless.json') == 'the rater failed 2 of 3 attention checks.'
    assert 'same rater as r3.json' in reasons.pop('twice.json')
    assert reasons.pop('half.json') == (
        'it is incomplete: 5 of 12 comparisons and 3 of 3 checks are answered.'
    )
    assert {name: reason.split(';')[0][:18] for name, reason in reasons.items()} == {
        'text.json': 'it is not JSON.', 'deep.json': 'it is not JSON.',
        'long.json': 'it has more than 2', 'other.json': 'it is of another s',
        'list.json': 'it is not a file o', 'bool.json': 'it has no rater or',
        'strange.json': 'an answer in it is', 'short.json': 'it is incomplete: ',
        'again.json': 'an answer in it is', 'unknown.json': 'an answer in it is',
    }  # fmt: skip
    assert [(p['first'], p['second']) for p in found['pairs']] == [
        ('Alpha Method', '<b>Beta'), ('Alpha Method', '=Gamma'), ('<b>Beta', '=Gamma'),
    ]  # fmt: skip
    pair = found['pairs'][0]
    assert (pair['first_preferred'], pair['choices'], pair['raters'], pair['pictures']) == (
        16, 20, 5, 4,
    )  # fmt: skip
    exact = scipy.stats.binomtest(16, 20)
    assert (pair['low'], pair['high']) == pytest.approx(exact.proportion_ci(0.95, 'exact'))
    assert pair['p_value'] == pytest.approx(exact.pvalue)
    assert any('Alpha Method over <b>Beta: 80.0 % (56.3 % to 94.3 %)' in x for x in lines)
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert '&lt;b&gt;Beta' in page and '<script' not in page and '<b>Beta' not in page
    assert "'=Gamma" in (tmp_path / 'out' / 'table.csv').read_text()
    for file in (*folder.glob('r*.json'), folder / 'twice.json'):
        file.unlink()
    with pytest.raises(JaxinvError, match='none of 12 files can be used; the first reason is'):
        preference_results.run(config, tmp_path / 'none', log=lambda *_, **__: None)
    shutil.rmtree(folder)
    with pytest.raises(JaxinvError, match='which has no files'):
        preference_results.run(config, tmp_path / 'none')


@pytest.mark.parametrize(('wins', 'total'), [(0, 7), (7, 7), (1, 2), (61, 100)])
def test_intervals_by_their_definition(wins, total):
    """The ends are the shares at which so many wins, or so few, have probability 0.025."""
    low, high = preference_results.clopper_pearson(wins, total, 0.95)
    if wins:
        assert scipy.stats.binom.sf(wins - 1, total, low) == pytest.approx(0.025)
    if wins < total:
        assert scipy.stats.binom.cdf(wins, total, high) == pytest.approx(0.025)
    assert (low == 0) == (wins == 0) and (high == 1) == (wins == total)


def test_how_many_answers_make_a_file_complete(study):
    _, key = study
    assert preference_results.answers_of_a_rater(key) == {'pair': 12, 'check': 3}
    for per_rater, expected in ((5, 5), (40, 12), (None, 1)):  # None: a key of an earlier version
        own = {k: v for k, v in key.items() if k != 'per_rater'}
        own |= {} if per_rater is None else {'per_rater': per_rater}
        assert preference_results.answers_of_a_rater(own) == {'pair': expected, 'check': 3}


# --- The page in a browser ---


@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api')
    path = shutil.which('chromium') or shutil.which('chromium-browser')
    if path is None:
        pytest.skip('there is no Chromium here; apt-get install chromium')
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield opened
        opened.close()


def shown(page):
    """(place, left picture, right picture)"""
    sources = [page.get_attribute(f'#{side}-image', 'src') for side in ('left', 'right')]
    return page.text_content('#place'), *sources


@pytest.mark.long
def test_a_rater_answers_by_keys_and_the_file_is_read(browser, study, tmp_path):
    work, key = study
    _, data = data_of(work)
    trials = {t['id']: t for t in key['trials']}
    downloads = []
    for rater in (7, 7, 8):
        context = browser.new_context(accept_downloads=True)
        context.set_default_timeout(120_000)
        page, errors = context.new_page(), []
        page.on('pageerror', lambda error, errors=errors: errors.append(str(error)))
        page.on('console', lambda line, errors=errors: errors.append(line.text))
        page.goto(f'{(work / "preference.html").as_uri()}?rater={rater}')
        assert page.text_content('#count') == '15'
        page.keyboard.press('Enter')  # the start button has the focus
        seen = []
        originals = [data['pictures'][t['original']] for t in data['trials']]
        for i in range(15):
            place, left, right = shown(page)
            assert place == f'{i + 1} of 15'
            seen.append((left, right))
            if i == 3 and rater == 8:
                page.keyboard.press('Backspace')
                assert shown(page) == ('3 of 15', *seen[2])
                page.keyboard.press('1')
                page.reload()  # goes on where it was
                assert page.text_content('#begin') == 'Go on'
                page.click('#begin')
                assert shown(page) == ('4 of 15', left, right)
            original = page.get_attribute('#original', 'src')
            assert original in originals
            # Answers the checks right, and of the others takes the left one.
            page.keyboard.press('ArrowRight' if right == original else 'ArrowLeft')
        assert page.is_visible('#end') and not page.is_visible('#trial')
        with page.expect_download() as waiting:
            page.keyboard.press('Enter')
        file = tmp_path / f'{len(downloads)}.json'
        waiting.value.save_as(file)
        assert waiting.value.suggested_filename == f'preference-{key["study"]}-{rater}.json'
        downloads.append((seen, json.loads(file.read_text())))
        assert not errors
        context.close()
    (first, a), (second, b), (third, c) = downloads
    assert first == second and a['answers'] != c['answers']  # seeded by the rater's number
    assert [x['trial'] for x in a['answers']] == [x['trial'] for x in b['answers']]
    assert [x['trial'] for x in a['answers']] != [x['trial'] for x in c['answers']]
    for _, result in downloads:
        lefts = [x['left'] for x in result['answers']]
        assert 0 < sum(lefts) < 15  # sides are swapped
        for answer in result['answers']:
            trial = trials[answer['trial']]
            expected = 0 if trial['kind'] == 'check' else answer['left']
            assert answer['choice'] == expected
    for i, (pictures, result) in enumerate(downloads):
        for (left, right), answer in zip(pictures, result['answers'], strict=True):
            pair = [data['pictures'][k] for k in trials[answer['trial']]['pair']]
            assert [left, right] == (pair if answer['left'] == 0 else pair[::-1]), i
    read = preference_results.read_rater(tmp_path / '2.json', key)
    kept, failed = preference_results.screen([read], key, 0)
    assert kept and not failed and read.number == 8


@pytest.mark.long
def test_a_rater_sees_some_comparisons_and_all_checks(browser, study, tmp_path):
    base = study[0].parent
    both = f'a={base / "first"},b={base / "second"},c={base / "third"}'
    key = make(tmp_path, methods=both, originals=str(base / 'originals'), checks=2, per_rater=5)
    checks = {t['id'] for t in key['trials'] if t['kind'] == 'check'}
    seen = []
    for rater in (1, 2):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f'{(tmp_path / "preference.html").as_uri()}?rater={rater}')
        assert page.text_content('#count') == '7'
        page.click('#begin')
        for side in ('left', 'right', 'left', 'right', 'left', 'right', 'left'):
            page.click(f'#{side}')
        saved = page.evaluate(f"localStorage.getItem('jaxinv-preference-{key['study']}')")
        trials = [answer['trial'] for answer in json.loads(saved)['answers']]
        assert len(set(trials)) == 7 and checks < set(trials)
        seen.append(set(trials))
        context.close()
    assert seen[0] != seen[1]


@pytest.mark.long
def test_the_next_rater_at_the_same_computer_starts_anew(browser, study):
    work, key = study
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(120_000)
    page = context.new_page()
    numbers = []
    for rater in range(2):
        if rater == 0:
            page.goto(f'{(work / "preference.html").as_uri()}?rater=7')
        assert page.is_visible('#start') and page.text_content('#begin') == 'Start'
        page.click('#begin')
        for _ in range(15):
            page.keyboard.press('ArrowLeft')
        assert page.is_visible('#end') and not page.is_visible('#again')
        page.reload()  # a finished session is not a new one's start
        assert page.is_visible('#end') and not page.is_visible('#start')
        with page.expect_download() as waiting:
            page.click('#download')
        numbers.append(waiting.value.suggested_filename.split('-')[-1])
        with page.expect_navigation():
            page.click('#again')
        assert '?' not in page.url
    assert numbers[0] == '7.json' and numbers[1] != '7.json'
    assert page.evaluate(f"localStorage.getItem('jaxinv-preference-{key['study']}')") is None
    context.close()
