"""Addresses of files: https://, and hf:// for the Hugging Face hub.

https://HOST/PATH/FILE[#sha256=HASH]
hf://OWNER/NAME/PATH/FILE[@REVISION][#sha256=HASH]     REVISION defaults to 'main'
hf://OWNER/NAME[@REVISION]                             a run in a repository (weights/upload.py)
"""

import re
import urllib.parse
from typing import NamedTuple

from jaxinv.errors import JaxinvError

_LOCAL = ('localhost', '127.0.0.1', '::1')
_HUB = re.compile(
    r'hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<early>[^/@]+))?/(?P<path>[^@]+)(?:@(?P<late>[^@]+))?'
)
_REPOSITORY = re.compile(r'hf://(?P<repo>[\w.-]+/[\w.-]+?)/?(?:@(?P<revision>[^@#]+))?')


class DownloadError(JaxinvError):
    """A file cannot be fetched; the message names the address, the reason and a remedy."""


class HubFile(NamedTuple):
    """A file in a model repository of the Hugging Face hub."""

    repo: str  # OWNER/NAME
    path: str
    revision: str = 'main'  # a branch, a tag or a commit

    def __str__(self) -> str:
        return f'hf://{self.repo}/{self.path}@{self.revision}'


class Repository(NamedTuple):
    """A model repository of the Hugging Face hub."""

    repo: str  # OWNER/NAME
    revision: str = 'main'

    def __str__(self) -> str:
        return f'hf://{self.repo}@{self.revision}'


class Address(NamedTuple):
    location: str | HubFile  # a URL, or a file of the hub
    sha256: str | None  # required of the file, 64 lower-case digits; None = not checked


def is_address(text) -> bool:
    """True for SCHEME://..., with any scheme."""
    return isinstance(text, str) and re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text) is not None


def is_repository(text) -> bool:
    """True for the address of a whole repository."""
    return isinstance(text, str) and _REPOSITORY.fullmatch(text) is not None


def parse_repository(text: str) -> Repository:
    """hf://OWNER/NAME or hf://OWNER/NAME@REVISION. Raises DownloadError for other texts."""
    match = _REPOSITORY.fullmatch(text)
    if not match or '..' in match['repo']:
        raise DownloadError(
            f'{text[:200]!r} is not a repository on the hub; write hf://OWNER/NAME or '
            'hf://OWNER/NAME@REVISION.'
        )
    return Repository(match['repo'], match['revision'] or 'main')


def parse(text: str) -> Address:
    """Splits an address into its location and the required SHA-256.

    Raises DownloadError for all but https://, hf://, and http:// of this machine.
    """
    url, _, fragment = text.partition('#')
    digest = None
    if fragment:
        match = re.fullmatch(r'sha256=([0-9a-fA-F]{64})', fragment)
        if not match:
            raise DownloadError(
                f'{text!r} ends in #{fragment[:80]}; only #sha256= and 64 hexadecimal digits are '
                'allowed there.'
            )
        digest = match[1].lower()
    if url.startswith('hf://'):
        match = _HUB.fullmatch(url)
        if not match or '..' in match['path'].split('/'):
            raise DownloadError(
                f'{text!r} is not an address on the hub; write hf://OWNER/NAME/FILE or '
                'hf://OWNER/NAME/FILE@REVISION.'
            )
        revision = match['early'] or match['late'] or 'main'
        return Address(HubFile(match['repo'], match['path'], revision), digest)
    check_url(url)
    return Address(url, digest)


def check_url(url: str) -> None:
    """Raises DownloadError for all but https://, and http:// of this machine."""
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
