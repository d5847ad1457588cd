"""The addresses of the studio, and its answers on photographs and inversions."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from jaxinv.errors import JaxinvError
from jaxinv.studio import guard, inversions, photographs, pictures
from jaxinv.studio.context import NotThere, Options, Studio, body_of, says, told
from jaxinv.studio.photographs import Photograph
from jaxinv.studio.sessions import MAX_FACES, Session

STATIC = pathlib.Path(__file__).parent / 'static'
TYPES = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript'}
UPLOADS = '/api/photographs'


def make_app(options: Options) -> guard.Guard:
    """The ASGI application, with its guard."""
    studio = Studio(options)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await run_in_threadpool(studio.close)

    def route(path: str, answer: Callable, *methods: str) -> Route:
        return Route(path, told(functools.partial(answer, studio)), methods=methods or ('GET',))

    routes = [
        route('/', page),
        route('/static/{name}', static),
        route('/api/state', state),
        route(UPLOADS, upload, 'POST'),
        route('/api/photographs/{photograph}', remove_photograph, 'DELETE'),
        route('/api/photographs/{photograph}/{name}', photograph_picture),
        route('/api/runs', new_run, 'POST'),
        route('/api/runs/{run}', delete_run, 'DELETE'),
        route('/api/runs/{run}/stop', stop_run, 'POST'),
        route('/api/runs/{run}/resume', resume_run, 'POST'),
        route('/api/runs/{run}/preview/{index:int}', preview),
        *pictures.routes(route),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.studio = studio
    limits = {UPLOADS: photographs.MAX_BYTES}
    guarded = guard.Guard(app, options.hosts, options.token, options.port, limits)
    guarded.studio = studio
    return guarded


# --- The page -------------------------------------------------------------------------------------


async def page(studio: Studio, request: Request) -> Response:
    return FileResponse(STATIC / 'index.html', media_type='text/html')


async def static(studio: Studio, request: Request) -> Response:
    name = request.path_params['name']
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}
    if name not in known:
        return says(404, 'There is no such file.')
    return FileResponse(known[name], media_type=TYPES[known[name].suffix])


async def state(studio: Studio, request: Request) -> Response:
    """All that a page needs to continue where another one was."""
    session = studio.session(request)
    given = studio.options.given
    return JSONResponse(
        {
            'photographs': [_public(own) for own in session.photographs.values()],
            'runs': [_run(studio, session, key) for key in session.runs],
            'given': None if given is None else given.name,
            'budgets': inversions.BUDGETS,
            'limits': {
                'bytes': photographs.MAX_BYTES,
                'photographs': photographs.MAX_COUNT,
                'faces': MAX_FACES,
            },
        }
    )


# --- Photographs ----------------------------------------------------------------------------------


def _public(photograph: Photograph) -> dict[str, Any]:
    found = dataclasses.asdict(photograph)
    for face in found['faces']:
        del face['quad']
    return found


async def upload(studio: Studio, request: Request) -> Response:
    """Body: the file; the header X-Name: its name, percent-encoded."""
    session = studio.session(request)
    record, file = session.new_photograph(unquote(request.headers.get('x-name', ''))[:400])
    partial = file.with_name(f'{file.name}.part')
    try:
        with open(partial, 'wb') as target:
            async for piece in request.stream():
                await run_in_threadpool(target.write, piece)
        partial.replace(file)
        record.save(file.parent)
    except BaseException:  # too large, or the browser went away
        session.remove_photograph(record.id)
        raise
    studio.begin(_look(studio, session, record))
    return JSONResponse(_public(record), 201)


async def _look(studio: Studio, session: Session, record: Photograph) -> None:
    folder = session.photograph_folder(record.id)
    try:
        found = await run_in_threadpool(studio.reader.look, folder, record.file, record.name)
        for name, value in found.items():
            setattr(record, name, value)
        record.state = 'ready'
    except Exception as error:
        record.state, record.error = 'unusable', str(error)
    if record.id in session.photographs and folder.is_dir():
        record.save(folder)


def _photograph(studio: Studio, request: Request) -> tuple[Session, Photograph]:
    session = studio.session(request)
    found = session.photographs.get(request.path_params['photograph'])
    if found is None:
        raise NotThere('This photograph is not there any more.')
    return session, found


async def remove_photograph(studio: Studio, request: Request) -> Response:
    session, found = _photograph(studio, request)
    session.remove_photograph(found.id)
    return Response(status_code=204)


async def photograph_picture(studio: Studio, request: Request) -> Response:
    session, found = _photograph(studio, request)
    names = {'shown': 'shown.jpg'} | {
        f'face_{face["index"]}': f'face_{face["index"]}.jpg' for face in found.faces
    }
    file = session.photograph_folder(found.id) / names.get(request.path_params['name'], '')
    if not file.is_file():
        raise NotThere('There is no such picture.')
    return FileResponse(file, media_type='image/jpeg')


# --- Inversions -----------------------------------------------------------------------------------


def _run(studio: Studio, session: Session, key: str) -> dict[str, Any]:
    run = session.runs[key]
    found = dataclasses.asdict(run)
    if run.state not in ('finished',):
        progress = studio.inversions.progress(session.run_folder(key), run)
        progress['pictures'] = len(progress['pictures'])
        found['progress'] = progress
    return found


async def new_run(studio: Studio, request: Request) -> Response:
    """Body: {'faces': {photograph's id: [indices]}, 'budget': of inversions.BUDGETS}."""
    asked = await body_of(request)
    session = studio.session(request)
    chosen = asked.get('faces')
    if not isinstance(chosen, dict):
        raise JaxinvError('Choose the faces to invert.')
    run, folder = session.new_run(chosen, str(asked.get('budget', 'quick')))
    studio.inversions.start(folder, run)
    return JSONResponse(_run(studio, session, run.id), 201)


def _own_run(studio: Studio, request: Request):
    session, key = studio.session(request), request.path_params['run']
    if key not in session.runs:
        raise NotThere('This inversion is not there any more.')
    return session, session.runs[key], session.run_folder(key)


async def stop_run(studio: Studio, request: Request) -> Response:
    session, run, folder = _own_run(studio, request)
    studio.inversions.stop(folder, run)
    return JSONResponse(_run(studio, session, run.id))


async def resume_run(studio: Studio, request: Request) -> Response:
    session, run, folder = _own_run(studio, request)
    if run.state in ('stopped', 'failed'):
        studio.inversions.start(folder, run)
    return JSONResponse(_run(studio, session, run.id))


async def delete_run(studio: Studio, request: Request) -> Response:
    session, run, folder = _own_run(studio, request)
    studio.inversions.remove(folder, run)
    del session.runs[run.id]
    return Response(status_code=204)


async def preview(studio: Studio, request: Request) -> Response:
    """An intermediate picture of a run, by its place among them."""
    session, run, folder = _own_run(studio, request)
    names = studio.inversions.progress(folder, run)['pictures']
    index = request.path_params['index']
    if not 0 <= index < len(names):
        raise NotThere('There is no picture yet.')
    return FileResponse(folder / 'run' / 'preview' / names[index], media_type='image/jpeg')
