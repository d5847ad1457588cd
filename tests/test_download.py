"""Downloads from a server of this machine: resuming, caching, the hub, and what is refused."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import threading

import huggingface_hub.constants
import numpy as np
import pytest

from jaxinv.io import cache_dir
from jaxinv.weights import download, https
from jaxinv.weights.addresses import DownloadError, HubFile, is_address, parse

DATA = np.random.RandomState(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
CUT = 100_000


class Handler(http.server.BaseHTTPRequestHandler):
    """The last part of the path says how to behave: /cut/file.bin is cut at first, and so on."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        server, mode = self.server, self.path.split('/')[1]
        ranges = self.headers.get('Range')
        server.asked.append((self.path, ranges))
        first = sum(path == self.path for path, _ in server.asked) == 1
        data, etag, status, start = DATA, '"v1"', 200, 0
        if mode == 'changed' and not first:
            data, etag = DATA[::-1], '"v2"'
        if mode == 'undated':
            etag = None
        if mode == 'missing':
            return self.send_error(404)
        if mode == 'private':
            return self.send_error(401)
        if mode == 'broken' or (mode == 'busy' and first):
            return self.send_error(503)
        if mode == 'away':
            return self.redirect(server.target)
        kept = ranges and mode != 'whole' and self.headers.get('If-Range') == etag
        if kept:
            status, start = 206, int(ranges.removeprefix('bytes=').removesuffix('-'))
        self.send_response(status)
        kind = 'text/html' if mode == 'page' else 'application/octet-stream'
        self.send_header('Content-Type', kind)
        if etag:
            self.send_header('ETag', etag)
        if status == 206:
            shown = start - 1 if mode == 'wrong' else start
            self.send_header('Content-Range', f'bytes {shown}-{len(data) - 1}/{len(data)}')
        if mode == 'endless':
            self.send_header('Connection', 'close')
        else:
            self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        cut = mode in ('cut', 'changed', 'whole', 'undated', 'wrong') and first
        end = CUT if cut or mode == 'hopeless' else len(data)
        with contextlib.suppress(OSError):
            self.wfile.write(data[start:end])
        if end < len(data) or mode == 'endless':
            self.close_connection = True

    def redirect(self, target):
        self.send_response(302)
        self.send_header('Location', target)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(https.time, 'sleep', lambda seconds: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.asked, server.target = [], ''
        server.url = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(address, **options):
    lines = []
    path = download.get(address, log=lambda text, **_: lines.append(text), **options)
    return path, lines


def refusal(address, **options):
    with pytest.raises(DownloadError) as error:
        fetch(address, **options)
    assert '\n' not in str(error.value)
    return str(error.value)


def leftovers():
    return [p.name for p in cache_dir().rglob('*') if p.is_file() and p.name != '.lock']


def test_a_file_is_fetched_once_and_its_hash_shown(server):
    path, lines = fetch(f'{server.url}/plain/my%20net.pkl')
    assert path.read_bytes() == DATA and path.name == 'my_net.pkl'
    assert any(SHA256 in line for line in lines) and any('0.3 MB' in line for line in lines)
    again, lines = fetch(f'{server.url}/plain/my%20net.pkl')
    assert again == path and not lines and len(server.asked) == 1
    assert leftovers() == ['my_net.pkl']
    other, _ = fetch(f'{server.url}/plain/other/my%20net.pkl')
    assert other != path  # kept by address, not by name


def test_a_cut_download_goes_on_where_it_stopped(server):
    path, _ = fetch(f'{server.url}/cut/net.pkl')
    assert path.read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, f'bytes={CUT}-']


def test_what_an_earlier_process_left_is_gone_on_with(server):
    message = refusal(f'{server.url}/hopeless/net.pkl')
    assert '0.1 MB are kept' in message and 'continues from there' in message
    before = len(server.asked)
    partial = next(cache_dir().rglob('*.partial'))
    assert partial.stat().st_size == CUT
    refusal(f'{server.url}/hopeless/net.pkl')
    assert server.asked[before][1] == f'bytes={CUT}-'


@pytest.mark.parametrize('mode', ['whole', 'undated', 'wrong'])
def test_servers_that_cannot_resume_start_over(server, mode):
    path, _ = fetch(f'{server.url}/{mode}/net.pkl')
    assert path.read_bytes() == DATA


def test_a_file_that_changed_in_between_is_fetched_whole(server):
    path, _ = fetch(f'{server.url}/changed/net.pkl')
    assert path.read_bytes() == DATA[::-1]  # and no mixture of both


def test_a_busy_server_is_asked_again(server):
    assert fetch(f'{server.url}/busy/net.pkl')[0].read_bytes() == DATA


def test_a_file_without_length_is_fetched_whole(server):
    assert fetch(f'{server.url}/endless/net.pkl')[0].read_bytes() == DATA


def test_the_hash_in_an_address_is_demanded(server):
    url = f'{server.url}/plain/net.pkl'
    assert '0' * 64 in refusal(f'{url}#sha256={"0" * 64}')
    assert leftovers() in ([], ['net.pkl.partial.json'])
    path, _ = fetch(f'{url}#sha256={SHA256.upper()}')
    path.write_bytes(b'something else')
    assert 'was removed' in refusal(f'{url}#sha256={SHA256}')
    assert '64 hexadecimal digits' in refusal(f'{url}#md5=1')


@pytest.mark.parametrize(
    'mode,words',
    [
        ('missing', 'HTTP 404'),
        ('private', 'login'),
        ('broken', '503'),
        ('page', 'a web page, not a file'),
    ],
)
def test_what_cannot_be_had_gets_a_sentence(server, mode, words):
    assert words in refusal(f'{server.url}/{mode}/net.pkl')
    assert not [name for name in leftovers() if not name.endswith('.json')]


def test_sizes_are_bounded_whatever_the_server_says(server):
    assert 'at most 1000' in refusal(f'{server.url}/plain/net.pkl', max_bytes=1000)
    assert '1000 bytes allowed' in refusal(f'{server.url}/endless/net.pkl', max_bytes=1000)


@pytest.mark.parametrize(
    'address',
    [
        'file:///etc/passwd',
        'ftp://example.com/net.pkl',
        'data://text/plain,net',
        'http://example.com/net.pkl',
        'http://localhost.example.com/net.pkl',
        'http://127.0.0.1@example.com/net.pkl',
        'https:///net.pkl',
        'https://user:password@example.com/net.pkl',
        'https://[/net.pkl',
        'hf://owner/net.pkl',
        'hf://owner/name/../../net.pkl',
    ],
)
def test_other_addresses_are_refused_before_anything_is_asked(address):
    with pytest.raises(DownloadError) as error:
        parse(address)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('target', ['file:///etc/passwd', 'http://example.com/x', 'ftp://a.com/x'])
def test_redirects_lead_nowhere_else(server, target):
    server.target = target
    message = refusal(f'{server.url}/away/net.pkl')
    assert 'is refused' in message or 'not allowed' in message


def test_redirects_within_the_rules_are_followed(server):
    server.target = f'{server.url}/cut/net.pkl'
    assert fetch(f'{server.url}/away/net.pkl')[0].read_bytes() == DATA
    assert server.asked[-1] == ('/cut/net.pkl', f'bytes={CUT}-')


def test_hub_addresses_name_the_file_of_a_revision():
    for text, file in (
        ('hf://owner/na.me/a b/net.pt', HubFile('owner/na.me', 'a b/net.pt', 'main')),
        ('hf://owner/na.me/net.pt@v1/x', HubFile('owner/na.me', 'net.pt', 'v1/x')),
        ('hf://owner/na.me@v1/net.pt', HubFile('owner/na.me', 'net.pt', 'v1')),
    ):
        assert parse(text).location == file
    assert parse(f'hf://owner/na.me/n.pt#sha256={SHA256}').sha256 == SHA256


def test_unreachable_hosts_get_a_sentence(server, monkeypatch):
    monkeypatch.setattr(https, 'ATTEMPTS', 1)
    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as closed:
        port = closed.server_port
    assert 'could not be fetched' in refusal(f'http://127.0.0.1:{port}/net.pkl')
    assert 'cannot be found' in refusal('https://no-such-host.invalid/net.pkl')


def test_damaged_notes_mean_a_fresh_start(server):
    refusal(f'{server.url}/hopeless/net.pkl')
    notes = next(cache_dir().rglob('*.json'))
    assert json.loads(notes.read_text()) == '"v1"'
    notes.write_text('{')
    asked = len(server.asked)
    refusal(f'{server.url}/hopeless/net.pkl')
    assert server.asked[asked][1] is None


def test_only_texts_with_a_scheme_are_addresses():
    for text in ('https://a.b/c', 'hf://a/b/c', 'FILE://x'):
        assert is_address(text)
    for other in ('ffhq', 'runs/a', '/tmp/a.pkl', 'a:b', pathlib.Path('a.pkl')):
        assert not is_address(other)


# --- The Hugging Face hub -------------------------------------------------------------------------

COMMIT = '0123456789abcdef0123456789abcdef01234567'


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub answers to HEAD and GET of /OWNER/NAME/resolve/REVISION/FILE."""

    protocol_version = 'HTTP/1.1'

    def do_HEAD(self):
        self.answer(b'')

    def do_GET(self):
        self.answer(DATA)

    def answer(self, body):
        token = self.headers.get('Authorization')
        self.server.asked.append((self.command, self.path, self.headers.get('Range'), token))
        _, owner, name, _, revision, file = self.path.split('/', 5)
        error = None
        if name == 'gated' and token != 'Bearer hf_secret':
            error = 401, 'GatedRepo'
        elif name == 'missing':
            error = 401, 'RepoNotFound'
        elif revision not in ('main', 'v1', COMMIT):
            error = 404, 'RevisionNotFound'
        elif file != 'net.pt':
            error = 404, 'EntryNotFound'
        if error:
            self.send_response(error[0])
            self.send_header('X-Error-Code', error[1])
            self.send_header('Content-Length', '0')
            return self.end_headers()
        cut = name == 'cut' and sum(command == 'GET' for command, *_ in self.server.asked) == 1
        start = int((self.headers.get('Range') or 'bytes=0-')[6:].split('-')[0])
        self.send_response(206 if start else 200)
        self.send_header('ETag', f'"{SHA256}"')
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('Content-Type', 'application/octet-stream')
        self.send_header('Accept-Ranges', 'bytes')
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(DATA) - 1}/{len(DATA)}')
        self.send_header('Content-Length', str(len(DATA) - start))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[start : CUT if cut else None])
        if cut:
            self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        server.asked = []
        url = f'http://127.0.0.1:{server.server_port}'
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(constants, 'ENDPOINT', url)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.delenv('HF_TOKEN', raising=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_of_the_hub_is_fetched_once_into_its_cache(hub, tmp_path):
    path, lines = fetch(f'hf://owner/name/net.pt#sha256={SHA256}')
    assert path.read_bytes() == DATA and (tmp_path / 'hub') in path.parents
    assert any(SHA256 in line for line in lines)
    count = len(hub.asked)
    assert fetch('hf://owner/name/net.pt') == (path, []) and len(hub.asked) == count
    assert fetch('hf://owner/name/net.pt@v1')[0].read_bytes() == DATA
    assert 'delete' in refusal(f'hf://owner/name/net.pt#sha256={"0" * 64}')
    assert 'at most 1000' in refusal('hf://owner/other/net.pt', max_bytes=1000)


def test_a_cut_download_of_the_hub_is_resumed(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'DOWNLOAD_CHUNK_SIZE', CUT // 2)
    assert fetch('hf://owner/cut/net.pt')[0].read_bytes() == DATA
    assert f'bytes={CUT}-' in [asked for _, _, asked, _ in hub.asked]


def test_a_token_opens_gated_files(hub, monkeypatch):
    message = refusal('hf://owner/gated/net.pt')
    assert 'HF_TOKEN' in message and 'accept its terms' in message
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    assert fetch('hf://owner/gated/net.pt')[0].read_bytes() == DATA


@pytest.mark.parametrize(
    'address,words',
    [
        ('hf://owner/missing/net.pt', 'no repository owner/missing'),
        ('hf://owner/name/net.pt@v9', "no revision 'v9'"),
        ('hf://owner/name/other.pt', 'no file other.pt'),
    ],
)
def test_what_the_hub_does_not_have_gets_a_sentence(hub, address, words):
    assert words in refusal(address)


def test_without_the_hub_only_its_cache_is_used(hub, monkeypatch):
    path, _ = fetch('hf://owner/name/net.pt')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert fetch('hf://owner/name/net.pt')[0] == path
    assert 'HF_HUB_OFFLINE is set' in refusal('hf://owner/other/net.pt')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
    with http.server.HTTPServer(('127.0.0.1', 0), Hub) as closed:
        port = closed.server_port
    monkeypatch.setattr(
        huggingface_hub.constants,
        'HUGGINGFACE_CO_URL_TEMPLATE',
        f'http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}',
    )
    assert 'check the network' in refusal('hf://owner/other/net.pt')
