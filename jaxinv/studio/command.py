"""Opens the studio: a page that inverts photographs, edits them and puts them back.

  jaxinv-studio                     # upload photographs on the page
  jaxinv-studio RUN_FOLDER          # edit a run of --config=pti_multi_id
  jaxinv-studio --host=0.0.0.0      # for other machines; prints the address with its token

The page is at http://127.0.0.1:7860 unless told otherwise. Needs pip install "jaxinv[studio]".
docs/studio.md.
"""

import argparse
import importlib.util
import os
import pathlib
import secrets
import socket
import sys
import threading
import webbrowser

import jaxinv
from jaxinv.errors import JaxinvError
from jaxinv.runtime import console, malloc, places

PORT = 7860
CONFIG = 'pti_multi_id'


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        'jaxinv-studio',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('run_folder', nargs='?', help='The work folder of a finished run, to edit.')
    made.add_argument('--host', default='127.0.0.1', help='Address to listen on.')
    made.add_argument('--port', type=int, default=PORT, help='Port; 0 = one that is free.')
    made.add_argument(
        '--token',
        help='What a browser must give; by default a new one where other machines can connect, and '
        'none on 127.0.0.1. Better in the variable JAXINV_STUDIO_TOKEN.',
    )
    made.add_argument(
        '--allow-host',
        action='append',
        default=[],
        metavar='NAME',
        help='A further name of this machine, as of a proxy; may be given several times.',
    )
    made.add_argument(
        '--folder', default='runs/studio', help='Where photographs and runs are kept.'
    )
    made.add_argument(
        '--config', default=CONFIG, help='Of the inversions: a config of pivotal tuning.'
    )
    made.add_argument('--generator', help='As --config.generator of the launcher.')
    made.add_argument(
        '--directions',
        action='append',
        default=[],
        metavar='FILE',
        help='Further sliders: directions as in --config.edits, FILE or FILE:KEY; may be given '
        'several times.',
    )
    made.add_argument(
        '--clip',
        default='',
        help="CLIP's weights, a file or an address as of jaxinv.load_clip; with them the page has "
        'a field for edits by text.',
    )
    made.add_argument('--open', action='store_true', help='Open the page in a browser.')
    return made


def run() -> None:
    """The command `jaxinv-studio`."""
    console.protect()
    arguments = parser().parse_args()
    malloc.restart_with_large_pages()
    try:
        serve(arguments)
    except JaxinvError as error:
        console.complain(f'jaxinv-studio: {error}')
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def serve(arguments: argparse.Namespace) -> None:
    """Runs the server until it is told to stop. Raises JaxinvError for what cannot be used."""
    for name in ('starlette', 'uvicorn'):
        if importlib.util.find_spec(name) is None:
            raise JaxinvError(f'{name} is not installed; pip install "jaxinv[studio]".')
    import uvicorn

    from jaxinv.studio import app

    options, listening = prepare(arguments)
    host, port = listening.getsockname()[:2]
    shown = f'[{host}]' if ':' in host else host
    address = f'http://{shown}:{port}/'
    if options.token is not None:
        address += f'?token={options.token}'
    made = app.make_app(options)
    config = uvicorn.Config(
        made,
        log_level='warning',
        access_log=False,  # the first address holds the token
        server_header=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=200,
        h11_max_incomplete_event_size=64 * 2**10,
    )
    console.say(f'jaxinv studio: {address}')
    console.say('Stop it with Ctrl-C; a running inversion saves its state first.', flush=True)
    if arguments.open:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:  # also after a second Ctrl-C
        made.studio.inversions.close(10)


def prepare(arguments: argparse.Namespace):
    """(Options, a bound socket). Raises JaxinvError."""
    from jaxinv import launch
    from jaxinv.studio import app, guard

    given = None
    if arguments.run_folder is not None:
        given = places.expand(arguments.run_folder, 'RUN_FOLDER')
        if not (given / 'metrics.json').is_file():
            raise JaxinvError(f'{given} is not the folder of a finished run: no metrics.json.')
    launch.resolve_config(arguments.config)
    for file in arguments.directions:
        from jaxinv import edits

        path = edits.directions.split_key(file)[0]
        if not path.is_file():
            raise JaxinvError(f'--directions={file}: there is no such file.')
    if arguments.clip and not hasattr(jaxinv, 'load_clip'):
        raise JaxinvError('--clip: this jaxinv has no edits by text; leave it out.')
    folder = places.expand(arguments.folder, '--folder')
    places.check_folder(folder, '--folder', 'choose another --folder')
    folder = pathlib.Path(os.path.abspath(folder))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = arguments.token or os.environ.get('JAXINV_STUDIO_TOKEN') or None
    if token is not None and (len(token) < guard.MIN_TOKEN or not token.isascii()):
        raise JaxinvError(f'A token has at least {guard.MIN_TOKEN} ASCII characters.')
    if token is None and not guard.is_loopback(arguments.host):
        token = secrets.token_urlsafe(24)
    listening = listen(arguments.host, arguments.port)
    names = [*arguments.allow_host, socket.gethostname()]
    hosts = guard.hosts_for(arguments.host, names if token else arguments.allow_host)
    command = [f'--config={arguments.config}']
    if arguments.generator:
        command.append(f'--config.generator={arguments.generator}')
    # Compiled programs are kept, as by the launcher.
    launch.setup_jax(os.environ)
    options = app.Options(
        folder,
        command,
        None if given is None else pathlib.Path(os.path.abspath(given)),
        tuple(arguments.directions),
        listening.getsockname()[1],
        hosts,
        token,
        arguments.clip,
    )
    return options, listening


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises JaxinvError."""
    if not 0 <= port < 2**16:
        raise JaxinvError(f'--port={port}; a port is 0 to 65535.')
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != 'win32':
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        raise JaxinvError(
            f'--host={host} --port={port} cannot be listened on ({reason}); give another port, or '
            '--port=0.'
        ) from None
    return made
