"""Fetches files from https:// and hf:// addresses, each once.

Files of https:// addresses stay under downloads/ in the cache folder, those of the hub in the
cache folder of huggingface_hub. A file that is there is not fetched again.
"""

import hashlib
import pathlib
import urllib.parse

from jaxinv.converters.file_view import MAX_BYTES
from jaxinv.io import cache_dir, commit, safe_name, sha256
from jaxinv.runtime import places
from jaxinv.runtime.locks import locked
from jaxinv.weights import https, hub
from jaxinv.weights.addresses import DownloadError, HubFile, parse


def get(text: str, *, max_bytes: int = MAX_BYTES, log=print) -> pathlib.Path:
    """Path of the file at an address (weights/addresses.py); downloads it unless it is there.

    log: called with a line and flush=True. Raises DownloadError, also if the SHA-256 that the
    address requires is not the file's.
    """
    location, required = parse(text)
    places.check_cache()
    if isinstance(location, HubFile):
        return _from_hub(location, required, max_bytes, log)
    return _from_https(location, required, max_bytes, log)


def _from_hub(file, required, max_bytes, log):
    path = hub.cached(file)
    if path is None:
        path = hub.fetch(file, max_bytes)
        log(f'{path.name}: SHA-256 {sha256(path)}', flush=True)
    if required not in (None, digest := sha256(path)):
        # Other programs may use the file, so it is not removed.
        raise DownloadError(
            f'{file} has the SHA-256 {digest} instead of {required}; delete {path.resolve()} to '
            'fetch it again, or name another revision.'
        )
    return path


def _from_https(url, required, max_bytes, log):
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition('/')[2]
    name = safe_name(pathlib.Path(name).stem) + pathlib.Path(name).suffix[:16]
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    path = cache_dir() / 'downloads' / key / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / '.lock'):  # a second process waits, then finds the file
        if not path.exists():
            partial = path.with_name(name + '.partial')
            https.fetch(url, partial, max_bytes, log)
            digest = sha256(partial)
            _check_hash(url, required, digest, partial)
            log(f'{name}: SHA-256 {digest}', flush=True)
            commit(partial, path)
            https.validator_file(partial).unlink(missing_ok=True)
        elif required:
            _check_hash(url, required, sha256(path), path)
    return path


def _check_hash(url, required, digest, path):
    if required not in (None, digest):
        path.unlink()
        raise DownloadError(
            f'{url} has the SHA-256 {digest} instead of {required}; the file was removed.'
        )
