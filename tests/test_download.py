"""jaxinv.download against a server of this machine: resuming, caching, and everything refused."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import threading

import numpy as np
import pytest

from jaxinv.io import cache_dir
from jaxinv.weights import download

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
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
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
    with pytest.raises(download.DownloadError) as error:
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
    assert '0.1 MB are kept' in message and 'goes on from there' in message
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
    with pytest.raises(download.DownloadError) as error:
        download.parse(address)
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


def test_hub_addresses_name_the_file_of_a_revision(server, monkeypatch):
    base = 'https://huggingface.co/owner/na.me/resolve'
    assert download.parse('hf://owner/na.me/a b/net.pt').url == f'{base}/main/a%20b/net.pt'
    assert download.parse('hf://owner/na.me/net.pt@v1/x').url == f'{base}/v1%2Fx/net.pt'
    assert download.parse('hf://owner/na.me@v1/net.pt').url == f'{base}/v1/net.pt'
    assert download.parse(f'hf://owner/na.me/n.pt#sha256={SHA256}').sha256 == SHA256
    monkeypatch.setenv('HF_ENDPOINT', server.url)
    path, _ = fetch('hf://owner/name/net.pt')
    assert path.read_bytes() == DATA
    assert server.asked == [('/owner/name/resolve/main/net.pt', None)]


def test_unreachable_hosts_get_a_sentence(server, monkeypatch):
    monkeypatch.setattr(download, 'ATTEMPTS', 1)
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
        assert download.is_address(text)
    for other in ('ffhq', 'runs/a', '/tmp/a.pkl', 'a:b', pathlib.Path('a.pkl')):
        assert not download.is_address(other)
