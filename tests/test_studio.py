"""The studio's server: who may ask, what is refused, and that pictures are what jaxinv makes."""

import asyncio
import dataclasses
import io
import json
import pathlib
import re
import struct
import threading
import time
import zipfile
import zlib

import limits
import numpy as np
import PIL.Image
import pytest
import studio_run

pytest.importorskip('starlette', reason='the extra studio is not installed')

from starlette.testclient import TestClient  # noqa: E402

import jaxinv  # noqa: E402
from jaxinv import api, edits, faces  # noqa: E402
from jaxinv.data import images  # noqa: E402
from jaxinv.errors import JaxinvError  # noqa: E402
from jaxinv.pixels import to_uint8  # noqa: E402
from jaxinv.segmentation import regions as named_regions  # noqa: E402
from jaxinv.studio import app, context, guard, inversions, photographs, regions, work  # noqa: E402

ADDRESS = 'http://127.0.0.1:7860'
OURS = {'x-studio': '1'}
TOKEN = 'a token of the tests'


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny):
    return studio_run.write(tmp_path_factory.mktemp('run'), tiny)


@pytest.fixture(scope='module')
def own(tmp_path_factory, tiny):
    return studio_run.directions(tmp_path_factory.mktemp('own') / 'own.npz', tiny[0].spec)


@pytest.fixture(scope='module')
def server(tmp_path_factory, run, own):
    """The application, with its reader of photographs in this process."""
    folder = tmp_path_factory.mktemp('studio')
    options = context.Options(
        folder, ['--config=pti_multi_id:test'], run, (str(own),), 7860, guard.hosts_for('127.0.0.1')
    )
    made = app.make_app(options)
    made.studio.reader.look = lambda folder, file, name: photographs.look(folder, file)
    return made


@pytest.fixture(scope='module')
def browser(server):
    with TestClient(server, ADDRESS, headers=OURS, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def client(browser):
    """A browser without cookies but those of a new session, with the header of the page."""
    browser.cookies.clear()
    browser.get('/')
    return browser


@pytest.fixture
def edit():
    return {'steps': [['own:warm', 1.5]], 'part': '', 'mask': ''}


def upload(client, name, data):
    """The photograph as the studio describes it when it was read."""
    found = client.post('/api/photographs', content=data, headers={'x-name': name})
    assert found.status_code == 201, found.text
    for _ in range(limits.SECONDS * 20):
        state = client.get('/api/state').json()['photographs']
        own = next(p for p in state if p['id'] == found.json()['id'])
        if own['state'] != 'reading':
            return own
        time.sleep(0.05)
    raise AssertionError('the photograph was not read')


def picture(answer):
    assert answer.status_code == 200, answer.text
    return np.asarray(PIL.Image.open(io.BytesIO(answer.content)))


# --- Who may ask ---


def test_the_page_has_its_headers_and_a_cookie_that_scripts_cannot_read(server):
    found = TestClient(server, ADDRESS).get('/')
    assert found.status_code == 200 and '<script type="module"' in found.text
    policy = found.headers['content-security-policy']
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert 'unsafe' not in policy and "frame-ancestors 'none'" in policy
    assert found.headers['x-content-type-options'] == 'nosniff'
    cookie = found.headers['set-cookie']
    assert 'HttpOnly' in cookie and 'SameSite=Lax' in cookie
    assert not re.search(r'<script(?![^>]* src=)|\son\w+=|style=', found.text)
    assert not re.search(r'https?://', found.text), 'the page loads something from elsewhere'


@pytest.mark.parametrize(
    'host', ['evil.example', 'evil.example:7860', '', 'localhost.evil', '[::2]']
)
def test_names_of_other_hosts_are_refused(client, host):
    assert client.get('/api/state', headers={'host': host}).status_code == 421


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1:1234', '[::1]:80', 'LOCALHOST:7860'])
def test_names_of_this_machine_are_taken(client, host):
    assert client.get('/api/state', headers={'host': host}).status_code == 200


def test_other_pages_change_nothing(server):
    client = TestClient(server, ADDRESS)
    client.get('/')
    for headers in (
        {},
        {'x-studio': '0'},
        OURS | {'origin': 'http://evil.example'},
        OURS | {'origin': 'null'},
        OURS | {'origin': 'http://127.0.0.1:9999'},
    ):
        found = client.post('/api/runs', json={}, headers=headers)
        assert found.status_code == 403, headers
    found = client.post('/api/runs', json={}, headers=OURS | {'origin': ADDRESS})
    assert found.status_code == 400
    cross = {'sec-fetch-site': 'cross-site'}
    assert client.get('/api/state', headers=cross).status_code == 403


def test_a_token_is_demanded_and_compared_whole(server, tmp_path):
    options = context.Options(tmp_path, ['--config=x'], token=TOKEN, port=7860)
    made = app.make_app(options)
    client = TestClient(made, ADDRESS, follow_redirects=False)
    assert client.get('/api/state').status_code == 401
    assert client.get('/static/main.js').status_code == 401
    for wrong in ('', TOKEN[:-1], f'{TOKEN}x', 'ü'):
        found = client.get('/', params={'token': wrong})
        assert found.status_code == 401 and 'set-cookie' not in found.headers
    found = client.get('/', params={'token': TOKEN})
    assert found.status_code == 303 and 'HttpOnly' in found.headers['set-cookie']
    assert TOKEN not in found.headers['set-cookie']
    assert client.get('/api/state').status_code == 200
    bare = TestClient(made, ADDRESS)
    assert bare.get('/api/state', headers={'authorization': f'Bearer {TOKEN}'}).status_code == 200
    made.studio.close()


# --- Uploads ---


def png(*chunks):
    parts = [b'\x89PNG\r\n\x1a\n']
    for kind, data in chunks:
        parts += [
            struct.pack('>I', len(data)),
            kind,
            data,
            struct.pack('>I', zlib.crc32(kind + data)),
        ]
    return b''.join(parts)


BOMB = png(
    (b'IHDR', struct.pack('>IIBBBBB', 2**16, 2**16, 8, 0, 0, 0, 0)),
    (b'IDAT', zlib.compress(bytes(2**20))),
    (b'IEND', b''),
)
SMALL = png(
    (b'IHDR', struct.pack('>IIBBBBB', 40, 40, 8, 0, 0, 0, 0)),
    (b'IDAT', zlib.compress(bytes(41 * 40))),
    (b'IEND', b''),
)
HOSTILE = {
    'empty.jpg': b'',
    'text.png': b'hello',
    'page.html': b'<script>alert(1)</script>',
    'drawing.svg': b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    'bomb.png': BOMB,
    'cut.jpg': studio_run.HOPPER.read_bytes()[:3000],
    'postscript.eps': b'%!PS-Adobe-3.0\n(%pipe%touch ran) (w) file\n',
    'pickle.pkl': b'cos\nsystem\n(S"touch ran"\ntR.',
    'archive.zip': b'PK\x05\x06' + bytes(18),
    'faceless.png': SMALL,
}


@pytest.mark.parametrize('name', HOSTILE)
def test_uploads_that_are_no_photographs_are_one_sentence(client, name):
    found = upload(client, name, HOSTILE[name])
    assert found['state'] == 'unusable'
    assert found['error'].endswith('.') and '\n' not in found['error'] and len(found['error']) < 300
    picture = client.get(f'/api/photographs/{found["id"]}/shown')
    assert picture.status_code == 404


NAMES = [
    '../../../etc/cron.d/x.jpg',
    '..\\..\\windows\\x.jpg',
    '/etc/passwd',
    '%2e%2e%2fx.png',
    '<img src=x onerror=alert(1)>.png',
    'a\0b.jpg',
    'con.jpg',
    '.htaccess',
    '\u202egnp.exe',
    'x' * 5000,
    '',
]


@pytest.mark.parametrize('name', NAMES, ids=range(len(NAMES)))
def test_names_of_uploads_never_become_paths(client, server, name):
    from urllib.parse import quote

    root = server.studio.options.folder
    before = {p for p in root.parent.rglob('*') if root not in p.parents}
    found = upload(client, quote(name), b'no picture')
    assert {p for p in root.parent.rglob('*') if root not in p.parents} == before
    stored = next(root.glob(f'*/photographs/{found["id"]}'))
    assert len(list(stored.iterdir())) == 2  # the file and its record
    assert re.fullmatch(r'[\w.+-]{1,90}', found['file']) and found['file'][0] != '.'
    assert found['name'].isprintable() and len(found['name']) <= 120


@pytest.mark.parametrize('chunked', [False, True])
def test_uploads_that_are_too_large_are_refused_while_they_are_read(tmp_path, monkeypatch, chunked):
    monkeypatch.setattr(photographs, 'MAX_BYTES', 2**20)
    made = app.make_app(context.Options(tmp_path, ['--config=x']))
    client = TestClient(made, ADDRESS, headers=OURS)
    sent = []

    def pieces():
        for _ in range(64):
            sent.append(1)
            yield bytes(2**17)

    data = pieces() if chunked else bytes(2**21)
    found = client.post('/api/photographs', content=data, headers={'x-name': 'a.jpg'})
    assert found.status_code == 413 and 'MB' in found.json()['error']
    assert client.get('/api/state').json()['photographs'] == []
    assert not list(tmp_path.rglob('*.part'))
    # Other addresses take less.
    assert client.post('/api/runs', content=bytes(2**21)).status_code == 413
    made.studio.close()


def test_only_so_many_photographs_are_kept(client, monkeypatch):
    monkeypatch.setattr(photographs, 'MAX_COUNT', 1)
    upload(client, 'a.jpg', b'x')
    found = client.post('/api/photographs', content=b'x', headers={'x-name': 'b.jpg'})
    assert found.status_code == 400 and 'remove some' in found.json()['error']


def test_a_photograph_its_faces_and_two_sessions(client, server):
    found = upload(client, 'grace hopper.jpg', studio_run.HOPPER.read_bytes())
    assert found['state'] == 'ready' and [face['index'] for face in found['faces']] == [1]
    assert picture(client.get(f'/api/photographs/{found["id"]}/face_1')).shape == (160, 160, 3)
    other = TestClient(server, ADDRESS, headers=OURS)
    other.get('/')
    assert other.get('/api/state').json()['photographs'] == []
    for name in ('shown', 'face_1'):
        assert other.get(f'/api/photographs/{found["id"]}/{name}').status_code == 404
    assert other.delete(f'/api/photographs/{found["id"]}').status_code == 404
    asked = {'faces': {found['id']: [1]}, 'budget': 'quick'}
    assert other.post('/api/runs', json=asked).status_code == 400
    for wrong in ({found['id']: [2]}, {found['id']: [True]}, {found['id']: '1'}, {}, [], None):
        answer = client.post('/api/runs', json={'faces': wrong})
        assert answer.status_code == 400, wrong
    assert client.delete(f'/api/photographs/{found["id"]}').status_code == 204
    assert client.get(f'/api/photographs/{found["id"]}/shown').status_code == 404


PATHS = [
    '/static/../app.py',
    '/static/%2e%2e%2fapp.py',
    '/static/..%5capp.py',
    '/static/',
    '/api/photographs/../../etc/passwd',
    '/api/photographs/%2e%2e/shown',
    '/api/photographs/x/shown.jpg%00',
    '/api/runs/..%2f..%2f/report',
    '/api/runs/../report',
    '/api/runs/%2fetc/folder.zip',
    '/api/runs/x/preview/0',
    '/api/runs/given/preview/0',
    '/api/runs/given/targets/99',
    '/api/runs/given/targets/-1',
    '/api/runs/given/export/..%2fx',
    '/api/runs/given/searches/x',
    '/etc/passwd',
]


@pytest.mark.parametrize('path', PATHS)
def test_paths_lead_nowhere(client, path):
    found = client.get(path)
    assert found.status_code in (400, 404), found.text
    assert 'root:' not in found.text and 'Traceback' not in found.text


# --- Processes and the thread ---


def test_an_inversion_that_fails_is_one_sentence_and_the_page_stays(client, server, monkeypatch):
    monkeypatch.setattr(server.studio.inversions, '_command', ['--config=nope'])
    found = upload(client, 'hopper.jpg', studio_run.HOPPER.read_bytes())
    asked = {'faces': {found['id']: [1]}, 'budget': 'paper'}
    run = client.post('/api/runs', json=asked).json()
    for _ in range(limits.SECONDS * 20):
        state = client.get('/api/state').json()['runs'][0]
        if state['state'] not in ('waiting', 'running'):
            break
        time.sleep(0.05)
    assert state['state'] == 'failed' and "Unknown config 'nope'" in state['error']
    assert client.get(f'/api/runs/{run["id"]}/report').status_code == 404
    assert client.post(f'/api/runs/{run["id"]}/open').status_code == 400
    assert client.delete(f'/api/runs/{run["id"]}').status_code == 204
    assert client.get('/api/state').json()['runs'] == []


def test_the_command_is_the_launchers(tmp_path):
    run = inversions.Inversion('x', 'a title', 'paper', [], 1)
    command = inversions.command_of(
        ['--config=pti_multi_id:test', '--config.seed=1'], tmp_path, run
    )
    assert command[1:4] == ['-m', 'jaxinv.launch', '--config=pti_multi_id:paper,test']
    assert f'--workdir={tmp_path / "run"}' in command and '--config.preview=True' in command
    assert command[-1] == '--config.seed=1'


@pytest.mark.parametrize(
    ('log', 'code', 'words'),
    [
        (b'Work folder: x\njaxinv: no face was found.\n', 1, 'No face was found.'),
        (b'Traceback\n  File x\nValueError: \xff\x1b[2J\n', 1, 'code 1'),
        (b'', -11, 'code -11'),
        (b'', -9, 'memory'),
    ],
)
def test_reasons_of_failures(tmp_path, log, code, words):
    (tmp_path / 'log.txt').write_bytes(log)
    found = inversions.reason(tmp_path / 'log.txt', code)
    assert words in found and found.isprintable()


def test_the_newest_request_of_a_place_wins():
    async def ask():
        queue, begin, done = work.Work(), threading.Event(), []
        first = asyncio.create_task(queue.do(begin.wait, key='a'))
        await asyncio.sleep(0.05)
        waiting = [
            asyncio.create_task(queue.do(lambda i=i: done.append(i) or i, key='a', urgency=i % 2))
            for i in range(5)
        ]
        other = asyncio.create_task(queue.do(lambda: done.append('other'), key='b'))
        await asyncio.sleep(0.05)
        begin.set()
        found = await asyncio.gather(first, *waiting, other, return_exceptions=True)
        assert [type(x) for x in found[1:5]] == [work.Superseded] * 4
        assert found[5] == 4 and done == [4, 'other']
        with pytest.raises(ZeroDivisionError):
            await queue.do(lambda: 1 / 0)
        assert await queue.do(lambda: 'still there') == 'still there'
        queue.close()

    asyncio.run(ask())


@pytest.mark.long
def test_a_decoder_that_crashes_ends_its_process_and_not_the_page(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(studio_run.HOPPER.read_bytes())
    reader = photographs.Reader()
    reader._start()
    reader._process.kill()
    reader._process.join()
    reader._process.is_alive = lambda: True  # it dies after this was asked
    with pytest.raises(JaxinvError, match='cannot be used'):
        reader.look(tmp_path, 'a.jpg', 'a.jpg')
    assert len(reader.look(tmp_path, 'a.jpg', 'a.jpg')['faces']) == 1
    with pytest.raises(JaxinvError, match='empty'):
        (tmp_path / 'b.jpg').write_bytes(b'')
        reader.look(tmp_path, 'b.jpg', 'b.jpg')
    reader.close()


# --- Pictures of a run ---


def test_pictures_are_those_of_the_api(client, run, own, edit, tiny):
    found = client.post('/api/runs/given/open').json()
    assert [i['pastes'] for i in found['identities']] == [True, False]
    assert [c['name'] for c in found['controls']] == ['own:warm', 'own:wide']
    saved = api.load(run)
    asked = {'identity': 1, 'edit': edit, 'kind': 'png'}
    expected = to_uint8(
        api.render(saved.generator, saved.weights, saved.codes.w[1:], edit=f'{own}:warm=1.5')
    )[0]
    got = picture(client.post('/api/runs/given/picture', json=asked))
    assert np.abs(got.astype(int) - expected).max() <= 1
    unedited = picture(client.post('/api/runs/given/picture', json=asked | {'edit': {'steps': []}}))
    assert np.abs(got.astype(int) - unedited).mean() > 2
    # A sequence is applied in its order, and a draft is the same picture.
    drafted = {'identity': 1, 'edit': edit, 'draft': True}
    assert picture(client.post('/api/runs/given/render', json=drafted)).shape == got.shape


def test_an_edit_stays_in_its_painted_region(client, edit, run, tmp_path, monkeypatch):
    mask = np.zeros((regions.GRID, regions.GRID), np.uint8)
    mask[: regions.GRID // 2] = 255
    found = client.post('/api/runs/given/mask', content=mask.tobytes()).json()
    ask = {'identity': 0, 'kind': 'png'}
    pictures = {
        name: picture(client.post('/api/runs/given/picture', json=ask | {'edit': own})).astype(int)
        for name, own in {
            'before': {'steps': []},
            'after': edit,
            'inside': edit | {'mask': found['mask']},
        }.items()
    }
    assert np.array_equal(pictures['inside'][-8:], pictures['before'][-8:])
    assert np.array_equal(pictures['inside'][:8], pictures['after'][:8])
    # The saved edit and region are those of the launcher and the API.
    asked = ask | {'edit': edit | {'mask': found['mask']}}
    monkeypatch.chdir(tmp_path)
    for name, kind in (('edit', 'edit.json'), ('region', 'grace_hopper_region.png')):
        saved = client.post(f'/api/runs/given/{name}', json=asked)
        (tmp_path / kind).write_bytes(saved.content)
    own = api.load(run)
    again = api.render(own.generator, own.weights, own.codes.w[:1], edit='edit.json')
    assert np.abs(to_uint8(again)[0] - pictures['inside']).max() <= 1
    for wrong in (b'', mask.tobytes()[1:], bytes(mask.size)):
        assert client.post('/api/runs/given/mask', content=wrong).status_code == 400


def test_a_named_region_is_that_of_the_api(client, run, own, edit, monkeypatch):
    half = np.zeros((32, 32), bool)
    half[:, 16:] = True
    monkeypatch.setattr(named_regions, 'mask_of', lambda part, image, name: half)
    asked = {'identity': 1, 'kind': 'png', 'edit': edit | {'part': 'mouth'}}
    got = picture(client.post('/api/runs/given/picture', json=asked))
    saved = api.load(run)
    expected = api.render(*saved[:2], saved.codes.w[1:], edit=f'{own}:warm=1.5', region=half)
    assert np.abs(got.astype(int) - to_uint8(expected)[0]).max() <= 1
    assert client.post('/api/runs/given/edit', json=asked).json()['region'] == 'mouth'


def test_a_move_of_a_slider_costs_at_most_one_synthesis(client, monkeypatch):
    calls = []
    for name in ('plain', 'render'):
        real = getattr(regions, name)
        monkeypatch.setattr(
            regions, name, lambda *given, real=real: calls.append(1) or real(*given)
        )

    def cost(**edit):
        calls.clear()
        asked = {'identity': 0, 'edit': {'steps': [], **edit}, 'draft': True}
        assert client.post('/api/runs/given/render', json=asked).status_code == 200
        return len(calls)

    mask = client.post('/api/runs/given/mask', content=b'\xff' * regions.GRID**2).json()['mask']
    assert cost() <= 1
    assert cost(steps=[['own:warm', 0.37]]) == 1
    assert cost(steps=[['own:warm', 0.37]]) == 0  # undo and redo
    assert cost(steps=[['own:warm', 0.4]], mask=mask) == 1
    assert cost(steps=[['own:warm', 0.0]], mask=mask) == 0


def test_sessions_of_one_run_do_not_see_each_others_masks(client, edit):
    mask = b'\x80' * regions.GRID**2
    found = client.post('/api/runs/given/mask', content=mask).json()
    asked = {'identity': 0, 'edit': edit | {'mask': found['mask']}}
    assert client.post('/api/runs/given/render', json=asked).status_code == 200
    client.cookies.clear()
    client.get('/')
    assert client.post('/api/runs/given/render', json=asked).status_code == 400


@pytest.mark.parametrize(
    'wrong',
    [
        {'steps': [['/etc/passwd', 1]]},
        {'steps': [['smile.npy', 1]]},
        {'steps': [['own:warm', 99]]},
        {'steps': [['own:warm', None]]},
        {'steps': [['own:warm', True]]},
        {'steps': [['found:x', 1]]},
        {'steps': [['own:warm', 0.1]] * 40},
        {'steps': 'own:warm'},
        {'steps': [], 'mask': '../x'},
        {'steps': [], 'part': 'constructor'},
        [],
        None,
    ],
)
def test_edits_that_a_page_would_not_send_are_refused(client, wrong):
    found = client.post('/api/runs/given/render', json={'identity': 0, 'edit': wrong})
    assert found.status_code == 400 and found.json()['error'].endswith('.')
    for identity in (-1, 2, '0', None, True, 1e9):
        asked = {'identity': identity, 'edit': {'steps': []}}
        assert client.post('/api/runs/given/render', json=asked).status_code == 400


def test_not_a_number_and_no_json_are_refused(client):
    text = '{"identity": 0, "edit": {"steps": [["own:warm", NaN]]}}'
    assert client.post('/api/runs/given/render', content=text).status_code == 400
    for text in ('', '[', '[]', '"x"', '[' * 10**5):
        assert client.post('/api/runs/given/render', content=text).status_code == 400


def test_the_face_goes_back_into_its_photograph(client, run, own, edit):
    asked = {'identity': 0, 'edits': {'0': edit}, 'what': 'photograph', 'kind': 'png'}
    got = picture(client.post('/api/runs/given/picture', json=asked))
    saved = api.load(run)
    crop = api.render(saved.generator, saved.weights, saved.codes.w[:1], edit=f'{own}:warm=1.5')
    source = json.loads((run / 'metrics.json').read_text())['sources'][0]
    photograph = images.read(studio_run.HOPPER)
    expected = faces.paste(photograph, to_uint8(crop)[0], source['face']['quad'])
    assert np.abs(got.astype(int) - np.asarray(expected)).max() <= 2
    assert np.array_equal(got[:20], np.asarray(photograph)[:20])
    small = client.post('/api/runs/given/paste', json=asked)
    assert small.headers['content-type'] == 'image/jpeg'
    # Only a photograph whose bytes are those of the run is read.
    other = client.post('/api/runs/given/paste', json=asked | {'identity': 1})
    assert other.status_code == 400 and 'photograph' in other.json()['error']


def test_the_folder_is_zipped_without_links_and_checkpoints(client, run):
    (run / 'state').mkdir(exist_ok=True)
    (run / 'state' / 'big').write_bytes(bytes(1000))
    link = run / 'passwd'
    if not link.is_symlink():
        link.symlink_to('/etc/passwd')
    found = client.get('/api/runs/given/folder.zip')
    assert found.headers['content-disposition'].startswith('attachment')
    with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
        assert archive.testzip() is None
        names = {
            pathlib.PurePosixPath(name).relative_to(run.name).as_posix()
            for name in archive.namelist()
        }
        assert archive.read(f'{run.name}/pivots.npz') == (run / 'pivots.npz').read_bytes()
    assert {'metrics.json', 'pivots.npz', 'generator/generator.safetensors'} <= names
    assert not any(name.startswith(('state', 'passwd')) for name in names)


def test_exports_are_those_of_jaxinv_convert(client, run, tmp_path):
    names = [own['name'] for own in client.post('/api/runs/given/open').json()['exports']]
    assert names == ['safetensors', 'onnx', 'npy']
    found = client.get('/api/runs/given/export/safetensors?identity=0')
    assert found.status_code == 200
    (tmp_path / 'generator.safetensors').write_bytes(found.content)
    generator, weights = jaxinv.load_generator(tmp_path / 'generator.safetensors')
    saved = api.load(run)
    assert np.array_equal(
        api.render(generator, weights, saved.codes.w), api.render(*saved[:2], saved.codes.w)
    )
    assert client.get('/api/runs/given/export/pickle').status_code == 400


@pytest.mark.long
def test_searches_by_points_and_text_become_sliders(client, server, monkeypatch):
    options = dataclasses.replace(server.studio.options, clip='random')
    monkeypatch.setattr(server.studio, 'options', options)
    assert client.post('/api/runs/given/open').json()['text'] is True
    asked = {'identity': 0, 'edit': {'steps': []}, 'steps': 3}
    for more, steps in (
        ({'kind': 'text', 'text': 'a face with a beard'}, 3),
        ({'kind': 'drag', 'points': [[0.3, 0.5, 0.6, 0.5]]}, 3),
    ):
        found = client.post('/api/runs/given/search', json=asked | more).json()
        while found['state'] in ('waiting', 'searching'):
            time.sleep(0.1)
            found = client.get(f'/api/runs/given/searches/{found["id"]}').json()
        assert found['state'] == 'done', found['error']
        assert found['step'] <= steps and found['control']['high'] == 1.5
        name = found['control']['name']
        got = [
            picture(
                client.post('/api/runs/given/picture', json=asked | {'edit': own, 'kind': 'png'})
            )
            for own in ({'steps': []}, {'steps': [[name, 1.0]]}, {'steps': [[name, 0.0]]})
        ]
        assert np.array_equal(got[0], got[2]) and not np.array_equal(got[0], got[1])
        saved = client.post('/api/runs/given/edit', json=asked | {'edit': {'steps': [[name, 1]]}})
        assert saved.json()['steps'][0]['name'] == found['title']
    for wrong in (
        {'kind': 'text', 'text': ' '},
        {'kind': 'text', 'text': 'x' * 201},
        {'kind': 'drag', 'points': []},
        {'kind': 'drag', 'points': [[0, 0, 2, 2]]},
        {'kind': 'drag', 'points': [[0, 0, 0.5]]},
        {'kind': 'drag', 'points': [[0.1] * 4], 'mask': 'x'},
        {'kind': 'drag', 'points': [[0.1] * 4], 'steps': 10**6},
        {'kind': 'exec'},
    ):
        assert client.post('/api/runs/given/search', json=asked | wrong).status_code == 400, wrong


@pytest.mark.long
def test_codes_are_exported_as_a_folder(client, run):
    found = client.get('/api/runs/given/export/npy')
    assert found.status_code == 200, found.text
    with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
        assert sum(name.endswith('.npy') for name in archive.namelist()) >= 2


def test_the_report_gets_an_origin_of_its_own(client):
    found = client.get('/api/runs/given/report')
    assert found.headers['content-security-policy'].startswith('sandbox allow-scripts;')
    assert 'allow-same-origin' not in found.headers['content-security-policy']


def test_packaged_directions_have_their_ranges_and_units():
    from jaxinv import generators
    from jaxinv.studio import controls

    spec = generators.make('mobile_stylegan_ffhq').spec
    spec = dataclasses.replace(spec, domain='ffhq')
    found = controls.controls_of(spec, [])
    assert set(found) == set(edits.packaged('ffhq'))
    known = edits.describe('ffhq')['directions']
    yaw = found['yaw']
    assert [yaw.low, yaw.high] == known['yaw']['strengths'] and yaw.unit == '°'
    assert yaw.effect == known['yaw']['per_unit']['yaw']
    attributes = [own for own in found.values() if own.group == 'attribute']
    assert len(attributes) >= 14 and all(own.low < 0 < own.high for own in attributes)
    assert len({own.title for own in found.values()}) == len(found)
    assert controls.controls_of(dataclasses.replace(spec, domain=''), []) == {}
