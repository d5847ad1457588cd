"""Runs on the Hugging Face hub: what is uploaded, and read back, through a stand-in for the hub."""

import base64
import hashlib
import http.server
import json
import threading

import huggingface_hub
import jax
import numpy as np
import pytest
import recipe
import yaml

import jaxinv
from jaxinv import api
from jaxinv.errors import JaxinvError
from jaxinv.inversion.project import Pivots
from jaxinv.weights import load, upload
from jaxinv.weights.addresses import DownloadError, parse_repository

# huggingface_hub passes files to its HTTP client in the way of earlier versions.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
COMMIT = '0123456789abcdef0123456789abcdef01234567'


class Hub(http.server.BaseHTTPRequestHandler):
    """The requests of a commit and of a snapshot, over repositories in memory.

    server.repos: {'owner/name': {'private': bool, 'files': {path: bytes}}}; files of 1 kB and more
    go by LFS, as to the real hub those of 10 MB do.
    """

    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        server, body = self.server, self.body()
        if self.headers.get('Authorization') != 'Bearer hf_write':
            return self.answer({'error': 'no token'}, 401)
        if self.path == '/api/validate-yaml':
            metadata = yaml.safe_load(json.loads(body)['content'].split('---')[1])
            known = metadata['library_name'] == 'jaxinv' and 'jaxinv' in metadata['tags']
            return self.answer({'warnings': [], 'errors': [] if known else [{'message': 'tags'}]})
        if self.path == '/api/repos/create':
            asked = json.loads(body)
            repo = f'{asked["organization"]}/{asked["name"]}'
            new = {'private': asked.get('visibility') == 'private' or asked.get('private', False)}
            if repo in server.repos:
                return self.answer({'url': f'{server.url}/{repo}'}, 409)
            server.repos[repo] = new | {'files': {}}
            return self.answer({'url': f'{server.url}/{repo}'})
        if '/preupload/' in self.path:
            files = json.loads(body)['files']
            modes = [('regular', 'lfs')[f['size'] >= 1000] for f in files]
            pairs = zip(files, modes, strict=True)
            return self.answer(
                {'files': [{'path': f['path'], 'uploadMode': mode, 'shouldIgnore': False}
                           for f, mode in pairs]}
            )  # fmt: skip
        if self.path.endswith('/objects/batch'):
            objects = json.loads(body)['objects']
            for entry in objects:
                entry['actions'] = {'upload': {'href': f'{server.url}/lfs/{entry["oid"]}'}}
            return self.answer({'transfer': 'basic', 'objects': objects})
        if '/commit/' in self.path:
            repo = '/'.join(self.path.split('/')[3:5])
            files = server.repos[repo]['files']
            for line in map(json.loads, body.splitlines()):
                value = line['value']
                if line['key'] == 'file':
                    files[value['path']] = base64.b64decode(value['content'])
                elif line['key'] == 'lfsFile':
                    files[value['path']] = server.objects[value['oid']]
            return self.answer(
                {'commitUrl': f'{server.url}/{repo}/commit/{COMMIT}', 'commitOid': COMMIT}
            )
        self.answer({}, 404)

    def do_PUT(self):
        data = self.body()
        assert hashlib.sha256(data).hexdigest() == self.path.rpartition('/')[2]
        self.server.objects[self.path.rpartition('/')[2]] = data
        self.answer({})

    def do_GET(self):
        parts = self.path.split('?')[0].strip('/').split('/')
        if parts[:2] == ['api', 'models']:
            repo = self.server.repos.get('/'.join(parts[2:4]))
            if repo is None:
                return self.answer({}, 401, {'X-Error-Code': 'RepoNotFound'})
            if parts[4:5] == ['tree']:
                return self.answer(
                    [{'type': 'file', 'path': name, 'size': len(data), 'oid': 'x'}
                     for name, data in repo['files'].items()]
                )  # fmt: skip
            siblings = [{'rfilename': n, 'size': len(d)} for n, d in repo['files'].items()]
            return self.answer(
                {'id': '/'.join(parts[2:4]), 'sha': COMMIT, 'private': repo['private'],
                 'siblings': siblings, 'tags': []}
            )  # fmt: skip
        if len(parts) > 3 and parts[2] == 'resolve':
            data = self.server.repos['/'.join(parts[:2])]['files'].get('/'.join(parts[4:]))
            if data is not None:
                self.server.fetched.add('/'.join(parts[4:]))
                headers = {'ETag': f'"{hashlib.sha256(data).hexdigest()}"', 'X-Repo-Commit': COMMIT}
                return self.answer(data, 200, headers)
        self.answer({}, 404, {'X-Error-Code': 'EntryNotFound'})

    do_HEAD = do_GET

    def body(self):
        return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def answer(self, content, status=200, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        server.repos, server.objects, server.fetched = {}, {}, set()
        server.url = f'http://127.0.0.1:{server.server_port}'
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(constants, 'ENDPOINT', server.url)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_PROGRESS_BARS', True)
        monkeypatch.setenv('HF_TOKEN', 'hf_write')
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    """A work folder with a generator, codes, and files that show the photographs."""
    generator, weights = tiny
    spec = generator.spec
    pivots = Pivots(('Grace',), recipe.normal('w', [1, spec.num_ws, spec.w_dim]), {})
    folder = api.save(tmp_path_factory.mktemp('runs') / 'run', generator, weights, pivots)
    config = {'generator': '/home/grace/net.pkl', 'task': 'pti', 'data': {'images': '/home/grace'}}
    (folder / 'run.json').write_text(json.dumps({'config': config}))
    for name in ('report.html', 'grid.png', 'metrics.json', 'images/Grace/target.png', '.lock',
                 'state/tune.npz', 'tensorboard/events', 'run.log'):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{}')
    (folder / 'generators').symlink_to(folder.parent)
    return folder


def test_a_run_goes_to_the_hub_and_back_without_photographs(hub, folder, tiny):
    lines = []
    address = jaxinv.push_to_hub(folder, 'me/run', log=lambda line, **_: lines.append(line))
    assert address == f'{hub.url}/me/run' and hub.repos['me/run']['private']
    files = hub.repos['me/run']['files']
    wanted = ['README.md', 'generator/generator.json', 'generator/generator.safetensors']
    assert sorted(files) == [*wanted, 'pivots.npz']
    assert [line.split()[0] for line in lines] == sorted(files)
    assert not any(b'/home/grace' in data for data in files.values())
    hub.repos['me/run']['files']['evil.py'] = b'import os'
    generator, weights, codes = jaxinv.load('hf://me/run')
    assert generator.spec == tiny[0].spec and codes.names == ('Grace',)
    np.testing.assert_array_equal(weights['buffers']['w_avg'], tiny[1]['buffers']['w_avg'])
    np.testing.assert_array_equal(codes.w, recipe.normal('w', codes.w.shape))
    assert hub.fetched == {*wanted[1:], 'pivots.npz'}  # nothing else was asked for
    opened = load.open_generator('hf://me/run@main')
    assert opened.generator.spec == tiny[0].spec and opened.about['address'] == 'hf://me/run@main'
    hub.repos['me/other'] = {'private': True, 'files': {'net.pkl': b''}}
    with pytest.raises(JaxinvError, match='hf://OWNER/NAME/FILE'):
        load.open_generator('hf://me/other')


def test_photographs_go_there_if_asked_for(hub, folder):
    jaxinv.push_to_hub(folder, 'me/open', private=False, photographs=True, log=lambda *a, **k: None)
    assert not hub.repos['me/open']['private']
    more = {'report.html', 'grid.png', 'metrics.json', 'images/Grace/target.png'}
    assert more < set(hub.repos['me/open']['files'])
    assert not {'.lock', 'run.log', 'run.json', 'state/tune.npz'} & set(
        hub.repos['me/open']['files']
    )
    with pytest.raises(JaxinvError, match='me/open is public'):
        jaxinv.push_to_hub(folder, 'me/open', log=lambda *a, **k: None)


@pytest.mark.long
def test_a_generator_for_each_picture_goes_there_and_back(hub, tiny, tmp_path):
    generator, weights = tiny
    pivots = Pivots(('Ann', 'Bo'), np.zeros([2, 1, generator.spec.w_dim], np.float32), {})
    moved = jax.tree.map(lambda x: x + 1, weights)
    api.save(tmp_path / 'run', generator, [weights, moved], pivots)
    jaxinv.push_to_hub(tmp_path / 'run', 'me/each', log=lambda *a, **k: None)
    found = jaxinv.load('hf://me/each')
    for own, expected in zip(found.weights, [weights, moved], strict=True):
        np.testing.assert_array_equal(own['buffers']['w_avg'], expected['buffers']['w_avg'])


def test_codes_without_a_generator_name_it(hub, tmp_path):
    (tmp_path / 'run').mkdir()
    np.savez(tmp_path / 'run' / 'pivots.npz', names=np.array(['a']), w=np.zeros([1, 1, 16]))
    record = {'config': {'generator': 'tiny', 'data': {'images': '/home/grace'}}}
    (tmp_path / 'run' / 'run.json').write_text(json.dumps(record))
    jaxinv.push_to_hub(tmp_path / 'run', 'me/codes', log=lambda *a, **k: None)
    kept = json.loads(hub.repos['me/codes']['files']['run.json'])
    assert kept == {'config': {'generator': 'tiny'}}
    assert jaxinv.load('hf://me/codes').generator.spec.name == 'tiny'
    # A repository that names a file of the reader's machine is refused.
    hostile = json.dumps({'config': {'generator': '/etc/passwd'}}).encode()
    files = hub.repos['me/codes']['files'] | {'run.json': hostile}
    hub.repos['me/hostile'] = {'private': True, 'files': files}
    with pytest.raises(JaxinvError, match="'/etc/passwd' as its generator"):
        jaxinv.load('hf://me/hostile')


def test_what_cannot_go_there_or_come_back_gets_a_sentence(hub, folder, monkeypatch):
    with pytest.raises(JaxinvError, match='OWNER/NAME'):
        jaxinv.push_to_hub(folder, 'me/a/b', log=lambda *a, **k: None)
    with pytest.raises(DownloadError, match='no repository me/none'):
        jaxinv.load('hf://me/none')
    with pytest.raises(DownloadError, match='hf://OWNER/NAME'):
        jaxinv.load('hf://me')
    monkeypatch.setenv('HF_TOKEN', 'hf_read')
    with pytest.raises(upload.UploadError, match='HF_TOKEN'):
        jaxinv.push_to_hub(folder, 'me/run', log=lambda *a, **k: None)
    assert parse_repository('hf://me/run@v1') == ('me/run', 'v1')
