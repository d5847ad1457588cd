"""Files from addresses: https://, or hf:// for the Hugging Face hub. Each is fetched once.

    https://HOST/PATH/FILE[#sha256=HASH]
    hf://OWNER/NAME/PATH/FILE[@REVISION][#sha256=HASH]     the revision is 'main' if left out

A download that was cut goes on where it stopped, if the server still has the same file. What is
kept in the cache folder under an address is never asked for again: delete it there to fetch it
anew. Written with the standard library because the packages for it stop short of this: pooch
checks hashes and caches but does not resume, huggingface_hub resumes but knows one server only.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

from jaxinv.converters.file_view import MAX_BYTES
from jaxinv.errors import JaxinvError
from jaxinv.io import cache_dir, safe_name, sha256
from jaxinv.runtime.progress import duration

ATTEMPTS = 5  # without a byte of progress; 2 if there has never been any
TIMEOUT = 30.0  # seconds without an answer or a byte
_LOCAL = ('localhost', '127.0.0.1', '::1')
_CHUNK = 2**20
_HUB = re.compile(
    r'hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<early>[^/@]+))?/(?P<path>[^@]+)(?:@(?P<late>[^@]+))?'
)


class DownloadError(JaxinvError):
    """A file could not be had from an address; the message says why and what to do."""


class Address(NamedTuple):
    url: str
    sha256: str | None  # required of the file


def is_address(text) -> bool:
    """Whether the text is meant as an address: SCHEME://... of any scheme."""
    return isinstance(text, str) and re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text) is not None


def parse(text: str) -> Address:
    """The address as a URL to ask for, and the hash it demands.

    Raises DownloadError for all but https:// and hf:// (and http:// of this machine).
    """
    url, _, fragment = text.partition('#')
    digest = None
    if fragment:
        match = re.fullmatch(r'sha256=([0-9a-fA-F]{64})', fragment)
        if not match:
            raise DownloadError(
                f'{text!r} ends in #{fragment[:80]}; all that can stand there is '
                '#sha256= and 64 hexadecimal digits.'
            )
        digest = match[1].lower()
    if url.startswith('hf://'):
        match = _HUB.fullmatch(url)
        if not match or '..' in match['path'].split('/'):
            raise DownloadError(
                f'{text!r} is not an address on the hub; write hf://OWNER/NAME/FILE or '
                'hf://OWNER/NAME/FILE@REVISION.'
            )
        revision = urllib.parse.quote(match['early'] or match['late'] or 'main', safe='')
        hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
        path = urllib.parse.quote(match['path'])
        url = f'{hub}/{match["repo"]}/resolve/{revision}/{path}'
    _check(url)
    return Address(url, digest)


def _check(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise DownloadError(f'{url[:200]!r} is not an address ({error}).') from None
    allowed = parts.scheme == 'https' or (parts.scheme == 'http' and host in _LOCAL)
    if not allowed or not host:
        raise DownloadError(
            f'{url[:200]!r} is refused: files are fetched from https:// and hf:// addresses only.'
        )
    if parts.username or parts.password:
        raise DownloadError(f'The address on {host} holds a password; fetch the file yourself.')


def get(text: str, *, max_bytes: int = MAX_BYTES, log=print) -> pathlib.Path:
    """Path of the file at an address, in the cache folder; downloads it unless it is there.

    Raises DownloadError.
    """
    address = parse(text)
    name = urllib.parse.unquote(urllib.parse.urlsplit(address.url).path).rpartition('/')[2]
    name = safe_name(pathlib.Path(name).stem) + pathlib.Path(name).suffix[:16]
    key = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    path = cache_dir() / 'downloads' / key / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then finds the file
        if not path.exists():
            partial = path.with_name(name + '.partial')
            _fetch(address.url, partial, max_bytes, log)
            digest = sha256(partial)
            _check_hash(address, digest, partial)
            log(f'{name}: SHA-256 {digest}', flush=True)
            os.replace(partial, path)
            _notes(partial).unlink(missing_ok=True)
        elif address.sha256:
            _check_hash(address, sha256(path), path)
    return path


def _check_hash(address, digest, path):
    if address.sha256 not in (None, digest):
        path.unlink()
        raise DownloadError(
            f'{address.url} has the SHA-256 {digest} instead of {address.sha256}; the file was '
            'removed.'
        )


def _fetch(url, partial, max_bytes, log):
    """Fills `partial`, going on as often as the connection is cut while there is progress."""
    failures, progress = 0, _Progress(partial.name.removesuffix('.partial'), log)
    while True:
        before = _size(partial)
        try:
            _attempt(url, partial, max_bytes, progress)
            return
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(url, error)
            failures = 0 if _size(partial) > before else failures + 1
            if reason is not None or failures >= (ATTEMPTS if _size(partial) else 2):
                raise DownloadError(reason or _interrupted(url, partial, error)) from None
            time.sleep(min(0.1 * 2**failures, 5.0))


def _attempt(url, partial, max_bytes, progress):
    start, validator = _size(partial), _read_notes(partial)
    headers = {'User-Agent': 'jaxinv', 'Accept-Encoding': 'identity'}
    if start and validator:
        headers |= {'Range': f'bytes={start}-', 'If-Range': validator}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = _OPENER.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # what we have is not a beginning of what it has
            partial.unlink()
        raise
    with response:
        if 'text/html' in response.headers.get('Content-Type', ''):
            raise DownloadError(f'{url} is a web page, not a file; look there for its own address.')
        if response.status == 206:
            match = re.fullmatch(
                r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range', '')
            )
            if not match or int(match[1]) != start:
                partial.unlink()
                raise ConnectionError('the server sent another part than was asked for')
            total = None if match[2] == '*' else int(match[2])
        else:  # the whole file: a first time, or because it changed or cannot be had in parts
            start = 0
            length = response.headers.get('Content-Length', '')
            total = int(length) if length.isdigit() else None
        if (total or 0) > max_bytes:
            raise DownloadError(f'{url} has {total} bytes; at most {max_bytes} are fetched.')
        if total and total - start > shutil.disk_usage(partial.parent).free:
            raise DownloadError(f'{url} needs {_mb(total - start)}, more than the disk has free.')
        if not start:
            _notes(partial).write_text(json.dumps(_validator(response.headers)))
        with open(partial, 'ab' if start else 'wb') as file:
            received = start
            while chunk := response.read1(_CHUNK):  # hands over what came before a cut, too
                received += len(chunk)
                if received > max_bytes:
                    raise DownloadError(f'{url} sends more than the {max_bytes} bytes allowed.')
                file.write(chunk)
                progress(received, total)
        if total is not None and received != total:
            raise ConnectionError(f'{received} of {total} bytes')


def _validator(headers):
    """What tells the server's file from another: a strong ETag or a date; None if neither."""
    etag = headers.get('ETag', '')
    return etag if etag.startswith('"') else headers.get('Last-Modified')


def _notes(partial):
    return partial.with_name(partial.name + '.json')


def _read_notes(partial):
    try:
        return json.loads(_notes(partial).read_text())
    except (OSError, ValueError):
        return None


def _size(path):
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _reason(url, error) -> str | None:
    """A sentence if asking again is of no use, else None."""
    host = urllib.parse.urlsplit(url).hostname
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (401, 403):
            return (
                f'{host} refuses {url} (HTTP {error.code}); if it needs a login, fetch it in a '
                'browser and give the file.'
            )
        if error.code in (404, 410):
            return f'{host} has no {url} (HTTP {error.code}); check the address.'
        if error.code == 416 or error.code >= 500 or error.code == 429:
            return None
        return f'{host} answers {url} with HTTP {error.code} {error.reason}.'
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return (
            f'{host} cannot be found; check the address and the network, or give a file that you '
            'fetched elsewhere.'
        )
    if isinstance(cause, ssl.SSLError):
        return f'{host} has no valid certificate ({cause.reason or cause}); nothing was fetched.'
    if getattr(cause, 'errno', None) in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return f'The download cannot be kept in {cache_dir()} ({cause.strerror}).'
    return None


def _interrupted(url, partial, error) -> str:
    kept = _size(partial)
    hope = f'{_mb(kept)} are kept and the same command goes on from there' if kept else 'try again'
    cause = error.reason if type(error) is urllib.error.URLError else error
    return f'{url} could not be fetched ({" ".join(str(cause).split())[:120]}); {hope}.'


class _Progress:
    """Prints `ffhq.pkl  120 of 364 MB  12.3 MB/s  20s left` every few seconds."""

    def __init__(self, name, log, every=3.0):
        self._name, self._log, self._every = name, log, every
        self._start = self._last = time.perf_counter()
        self._first = None

    def __call__(self, received, total):
        now = time.perf_counter()
        if self._first is None:
            self._first = received
            size = f' of {_mb(total)}' if total else ''
            self._log(f'{self._name}: fetching {_mb(received)}{size} ...', flush=True)
        done = received == total
        if now - self._last < self._every and not (done and self._last > self._start):
            return
        self._last = now
        pace = (received - self._first) / max(now - self._start, 1e-9)
        parts = [self._name, f'{_mb(received)} of {_mb(total)}' if total else _mb(received)]
        parts.append(f'{pace / 1e6:.1f} MB/s')
        if total and pace:
            parts.append(f'{duration((total - received) / pace)} left')
        self._log('  '.join(parts), flush=True)


def _mb(count) -> str:
    return f'{count / 1e6:.1f} MB'


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to addresses that could have been given, and never from https to http."""

    def redirect_request(self, request, fp, code, message, headers, new_url):
        _check(new_url)
        if request.full_url.startswith('https:') and not new_url.startswith('https:'):
            raise DownloadError(f'{request.full_url} leads to {new_url[:200]}, which is not https.')
        return super().redirect_request(request, fp, code, message, headers, new_url)


def _opener():
    # Put together by hand: the usual one would also open file:, ftp: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()
