"""Who may ask the studio for what, checked before any request reaches its code.

host      the Host header names this machine; another name is a page that had its name rebound here
origin    what changes something comes from the page itself: its Origin, and a header that other
          pages cannot send without asking
token     demanded where other machines can connect; compared in constant time
session   a random id in an HttpOnly cookie; its hash names the session's folder
size      bodies above the limit of their address are refused while they are read
"""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ('localhost', '127.0.0.1', '::1')
MIN_TOKEN = 16  # characters of a token that a user chooses
MAX_BODY = 2**20  # bytes of a request, unless an address allows more
HEADER = 'x-studio'  # sent by the page with all that changes something
_ID = re.compile(r'[A-Za-z0-9_-]{32}')
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'cache-control': 'no-store',
}
_ASK = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>jaxinv studio</title>
<h1>jaxinv studio</h1><p>{}</p>
<form action="/"><label>Token <input name="token" type="password" autocomplete="off"></label>
<button>Open</button></form></html>"""


class Hosts(NamedTuple):
    """Host names under which the studio may be asked."""

    names: frozenset[str]
    addresses: bool = False  # any address in numbers, which no page can have as its name

    def allow(self, header: str) -> bool:
        name = host_name(header)
        return name in self.names or (self.addresses and _is_address(name))


def hosts_for(host: str, more: Iterable[str] = ()) -> Hosts:
    """Of a studio that listens on `host`; more: further names, as of a proxy."""
    names = {*LOOPBACK, host.casefold(), *(name.casefold() for name in more)}
    return Hosts(frozenset(names), not is_loopback(host))


def host_name(header: str) -> str:
    """'localhost' of 'localhost:8000', '::1' of '[::1]:8000'; '' if it is none."""
    match = re.fullmatch(r'(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::\d{1,5})?', header.strip())
    return (match[1] or match[2]).casefold() if match else ''


def is_loopback(host: str) -> bool:
    if host.casefold() == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def folder_name(session: str) -> str:
    """The name of a session's folder, from which its id cannot be found."""
    return hashlib.sha256(session.encode()).hexdigest()[:24]


class Guard:
    """ASGI middleware. Sets scope['session'], the name of the session's folder."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        token: str | None,
        port: int,
        body_limits: dict[str, int] | None = None,
    ):
        """token: None = anyone who connects. body_limits: {path: bytes}."""
        self._app, self._hosts = app, hosts
        self._secret = None if token is None else _digest(token)
        # Browsers send cookies to all ports of a host.
        self._session_cookie = f'jaxinv_studio_{port}'
        self._token_cookie = f'jaxinv_studio_token_{port}'
        self._limits = body_limits or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] == 'lifespan':
            await self._app(scope, receive, send)
            return
        if scope['type'] != 'http':
            await send({'type': 'websocket.close', 'code': 1008})
            return
        headers, cookies, new = Headers(scope=scope), [], []
        given = _cookies(headers)
        answer = self._refusal(scope, headers, given, new)
        if answer is None:
            session = given.get(self._session_cookie, '')
            if not _ID.fullmatch(session):
                session = secrets.token_urlsafe(24)
                cookies.append((self._session_cookie, session))
            scope['session'] = folder_name(session)
            answer = self._app
            receive = _bounded(receive, self._limits.get(scope['path'], MAX_BODY))
        cookies += new

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if name not in out:
                        out[name] = value
                # Lax: a link to the page keeps the session; requests of other pages have none.
                for name, value in cookies:
                    out.append('set-cookie', f'{name}={value}; Path=/; HttpOnly; SameSite=Lax')
            await send(message)

        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope, headers, given, new):
        """The answer to a request that is not let in; None = it is. new: gets cookies to set."""
        if not self._hosts.allow(headers.get('host', '')):
            return _says(421, 'This studio is not called by that name; use the address it printed.')
        if scope['method'] not in ('GET', 'HEAD'):
            origin = headers.get('origin', '')
            own = origin.partition('://')[2] == headers.get('host', '')
            if (origin and not own) or headers.get(HEADER) != '1':
                return _says(403, 'This request does not come from the page of the studio.')
            # An upload of unknown length is refused while it is read.
            length = headers.get('content-length', '0')
            limit = self._limits.get(scope['path'], MAX_BODY)
            if not length.isdecimal() or int(length[:20]) > limit:
                return _says(413, str(TooLarge(limit)))
        if headers.get('sec-fetch-site') == 'cross-site' and scope['path'] != '/':
            return _says(403, 'This request does not come from the page of the studio.')
        if self._secret is None or self._matches(given.get(self._token_cookie, '')):
            return None
        bearer = headers.get('authorization', '').removeprefix('Bearer ')
        if bearer and secrets.compare_digest(_digest(bearer), self._secret):
            return None
        if scope['path'] == '/' and scope['method'] == 'GET':
            asked = parse_qs(scope['query_string'].decode('latin-1')).get('token', [''])[0]
            if secrets.compare_digest(_digest(asked), self._secret):
                new.append((self._token_cookie, self._secret))
                return RedirectResponse('/', 303)
            text = 'The token is wrong.' if asked else 'Give the token that the studio printed.'
            return HTMLResponse(_ASK.format(text), 401)
        return _says(401, 'The token is missing; open the address that the studio printed.')

    def _matches(self, cookie: str) -> bool:
        return secrets.compare_digest(cookie.encode(), self._secret.encode())


class TooLarge(Exception):
    """A body larger than allowed."""

    def __init__(self, limit: int):
        super().__init__(f'That is more than the {limit / 2**20:.0f} MB that are taken at a time.')


def _digest(token: str) -> str:
    return hashlib.sha256(b'jaxinv studio ' + token.encode('utf-8', 'replace')).hexdigest()


def _cookies(headers: Headers) -> dict[str, str]:
    pairs = (part.strip().partition('=') for part in headers.get('cookie', '').split(';'))
    return {name: value for name, _, value in pairs}


def _bounded(receive: Receive, limit: int) -> Receive:
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        if message['type'] == 'http.request':
            read += len(message.get('body', b''))
            if read > limit:
                raise TooLarge(limit)
        return message

    return bounded


def _says(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({'error': sentence}, status)
