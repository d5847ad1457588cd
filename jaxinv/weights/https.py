"""Downloads over https that resume after a cut connection.

A partial file FILE.partial stays beside FILE.partial.json, which holds the server's validator (a
strong ETag or the modification date): the download resumes only if the server's file is the same.
The standard library rather than pooch, which checks hashes and caches but does not resume.
"""

import contextlib
import errno
import http.client
import json
import pathlib
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from jaxinv.io import cache_dir, write_atomically
from jaxinv.runtime.progress import duration
from jaxinv.weights.addresses import DownloadError, check_url

ATTEMPTS = 5  # in a row without a new byte; 2 before the first byte
TIMEOUT = 30.0  # seconds without an answer or a byte
_CHUNK = 2**20  # bytes


def fetch(url: str, partial: pathlib.Path, max_bytes: int, log=print) -> None:
    """Writes the file at `url` to `partial`, from where an earlier call stopped.

    max_bytes: size limit. log: called with a line and flush=True every few seconds.
    Raises DownloadError; what was received stays in `partial`.
    """
    failures, progress = 0, _Progress(partial.name.removesuffix('.partial'), log)
    while True:
        before = _size(partial)
        try:
            _attempt(url, partial, max_bytes, progress)
            return
        except (OSError, http.client.HTTPException) as error:
            reason = _final_reason(url, error)
            failures = 0 if _size(partial) > before else failures + 1
            if reason is not None or failures >= (ATTEMPTS if _size(partial) else 2):
                raise DownloadError(reason or _interrupted(url, partial, error)) from None
            time.sleep(min(0.1 * 2**failures, 5.0))


def validator_file(partial: pathlib.Path) -> pathlib.Path:
    """The file beside a partial download that identifies the server's file."""
    return partial.with_name(partial.name + '.json')


def _attempt(url, partial, max_bytes, progress):
    start, validator = _size(partial), _read_validator(partial)
    headers = {'User-Agent': 'jaxinv', 'Accept-Encoding': 'identity'}
    if start and validator:
        headers |= {'Range': f'bytes={start}-', 'If-Range': validator}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = _OPENER.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the partial file is longer than the server's
            partial.unlink()
        raise
    with response:
        if 'text/html' in response.headers.get('Content-Type', ''):
            raise DownloadError(f'{url} is a web page, not a file; copy the link of the file.')
        if response.status == 206:
            match = re.fullmatch(
                r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range', '')
            )
            if not match or int(match[1]) != start:
                partial.unlink()
                raise ConnectionError('the server sent another range than requested')
            total = None if match[2] == '*' else int(match[2])
        else:  # the whole file: the first attempt, a changed file, or a server without ranges
            start = 0
            length = response.headers.get('Content-Length', '')
            total = int(length) if length.isdigit() else None
        if (total or 0) > max_bytes:
            raise DownloadError(f'{url} has {total} bytes; at most {max_bytes} are fetched.')
        if total and total - start > shutil.disk_usage(partial.parent).free:
            raise DownloadError(f'{url} needs {_mb(total - start)}, more than the disk has free.')
        if not start:
            write_atomically(validator_file(partial), json.dumps(_validator(response.headers)))
        with open(partial, 'ab' if start else 'wb') as file:
            received = start
            while chunk := response.read1(_CHUNK):  # read() would drop the bytes before a cut
                received += len(chunk)
                if received > max_bytes:
                    raise DownloadError(f'{url} sends more than the {max_bytes} bytes allowed.')
                file.write(chunk)
                progress(received, total)
        if total is not None and received != total:
            raise ConnectionError(f'{received} of {total} bytes')


def _validator(headers):
    """A strong ETag, else the modification date, else None: identifies the server's file."""
    etag = headers.get('ETag', '')
    return etag if etag.startswith('"') else headers.get('Last-Modified')


def _read_validator(partial):
    try:
        return json.loads(validator_file(partial).read_text())
    except (OSError, ValueError):
        return None


def _size(path):
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _final_reason(url, error) -> str | None:
    """A sentence if another attempt cannot succeed, else None."""
    host = urllib.parse.urlsplit(url).hostname
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (401, 403):
            return (
                f'{host} refuses {url} (HTTP {error.code}); if it needs a login, download it in a '
                'browser and give the path of the file.'
            )
        if error.code in (404, 410):
            return f'{host} has no {url} (HTTP {error.code}); check the address.'
        if error.code == 416 or error.code >= 500 or error.code == 429:
            return None
        return f'{host} answers {url} with HTTP {error.code} {error.reason}.'
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return (
            f'{host} cannot be found; check the address and the network, or give the path of a '
            'file that was downloaded elsewhere.'
        )
    if isinstance(cause, ssl.SSLError):
        return f'{host} has no valid certificate ({cause.reason or cause}); nothing was fetched.'
    if getattr(cause, 'errno', None) in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return f'The download cannot be written to {cache_dir()} ({cause.strerror}).'
    return None


def _interrupted(url, partial, error) -> str:
    kept = _size(partial)
    hint = 'try again'
    if kept:
        hint = f'{_mb(kept)} are kept, and the same command continues from there'
    cause = error.reason if type(error) is urllib.error.URLError else error
    return f'{url} could not be fetched ({" ".join(str(cause).split())[:120]}); {hint}.'


class _Progress:
    """Logs `ffhq.pkl  120 of 364 MB  12.3 MB/s  20s left` every few seconds."""

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
    """Applies the rules for addresses to redirects, and refuses those from https to http."""

    def redirect_request(self, request, fp, code, message, headers, new_url):
        check_url(new_url)
        if request.full_url.startswith('https:') and not new_url.startswith('https:'):
            raise DownloadError(
                f'{request.full_url} redirects to {new_url[:200]}, which is not https.'
            )
        return super().redirect_request(request, fp, code, message, headers, new_url)


def _opener():
    # urllib's default opener would also open file:, ftp: and data: addresses.
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
