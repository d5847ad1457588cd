"""Answers of an opened run: pictures of edits, regions, drags, and what is saved."""

import asyncio
import hashlib
import json
import pathlib
import secrets
import tempfile
from collections.abc import Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.responses import StreamingResponse as Stream

from jaxinv.errors import JaxinvError
from jaxinv.io import safe_name
from jaxinv.studio import exports, regions, saving, searching
from jaxinv.studio.context import NotThere, Studio, body_of
from jaxinv.studio.opened import MAX_FOUND, EditState, Kept, Opened
from jaxinv.studio.work import LATER, NOW

MAX_OPEN = 2  # runs in memory
MAX_MASKS = 64  # of a run, of which the oldest is forgotten
DRAFT = 512  # pixels a side while a slider moves
PASTED = 1600  # pixels of the longer side of a photograph on the page
# The report is one page with its own style and script, and foreign names in it: it gets an origin
# of its own, from which nothing of the studio can be reached.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


def routes(route: Callable) -> list:
    """The routes of /api/runs/RUN/..."""
    run = '/api/runs/{run}'
    return [
        route(f'{run}/open', open_run, 'POST'),
        route(f'{run}/targets/{{index:int}}', target),
        route(f'{run}/render', render, 'POST'),
        route(f'{run}/mask', mask, 'POST'),
        route(f'{run}/search', search, 'POST'),
        route(f'{run}/searches/{{search}}', search_state),
        route(f'{run}/searches/{{search}}/picture', search_picture),
        route(f'{run}/searches/{{search}}/stop', search_stop, 'POST'),
        route(f'{run}/paste', paste, 'POST'),
        route(f'{run}/picture', save_picture, 'POST'),
        route(f'{run}/edit', save_edit, 'POST'),
        route(f'{run}/region', save_region, 'POST'),
        route(f'{run}/folder.zip', save_folder),
        route(f'{run}/export/{{format}}', export),
        route(f'{run}/report', report),
    ]


def _with_run(studio: Studio, request: Request) -> Callable[[], Opened]:
    """A function for the thread that opens the run of an address, or finds it open."""
    folder = studio.run_folder(request)
    # Masks and drags are kept with an opened run, so each session has its own.
    key = request.scope['session'], folder

    def opened() -> Opened:
        runs = studio.opened
        if key in runs:
            runs[key] = runs.pop(key)
            return runs[key]
        if not (folder / 'metrics.json').is_file():
            raise JaxinvError('This inversion is not finished.')
        while len(runs) >= MAX_OPEN:
            del runs[next(iter(runs))]
        kept = studio.kept.setdefault(key, Kept({}, {}))
        runs[key] = Opened(folder, list(studio.options.directions), kept)
        return runs[key]

    return opened


def _key(request: Request, asked: dict[str, Any], place: str) -> tuple:
    """What the newest request of is kept: a place on one page of one session."""
    return request.scope['session'], str(asked.get('tab', ''))[:64], place


async def open_run(studio: Studio, request: Request) -> Response:
    """The description of a run; its program is compiled meanwhile."""
    opened = _with_run(studio, request)

    def describe():
        run = opened()
        more = {'exports': exports.formats(run), 'text': bool(studio.options.clip)}
        return run.describe() | more

    def warm():
        opened().picture(0)

    found = await studio.work.do(describe)
    studio.begin(_quietly(studio.work.do(warm, key=_key(request, {}, 'warm'), urgency=LATER)))
    return JSONResponse(found)


async def _quietly(coroutine) -> None:
    """What fails here fails again, with its sentence, for who needs it."""
    await asyncio.gather(coroutine, return_exceptions=True)


async def target(studio: Studio, request: Request) -> Response:
    """The aligned photograph of an identity."""
    opened, index = _with_run(studio, request), request.path_params['index']

    def file():
        run = opened()
        return run.target(run.identity(index))

    found = await studio.work.do(file)
    if found is None:
        raise NotThere('The aligned photograph is not in the folder of the run.')
    return FileResponse(found, media_type='image/png')


async def render(studio: Studio, request: Request) -> Response:
    """Body: {'identity', 'edit', 'draft', 'size', 'tab', 'place'}. The newest of a place wins."""
    asked = await body_of(request)
    opened = _with_run(studio, request)
    place = str(asked.get('place', 'picture'))[:64]
    longest = asked.get('size')
    longest = max(64, longest) if type(longest) is int else None
    draft = asked.get('draft') is True

    def make():
        run = opened()
        picture = run.picture(run.identity(asked.get('identity')), run.edit(asked.get('edit')))
        if draft:
            return saving.encode(picture, 'jpeg', 80, longest or DRAFT)
        return saving.encode(picture, 'jpeg', 93, longest)

    urgency = NOW if place == 'picture' else LATER
    data = await studio.work.do(make, _key(request, asked, place), urgency)
    return Response(data, media_type='image/jpeg')


async def mask(studio: Studio, request: Request) -> Response:
    """Body: a painted mask of regions.GRID x regions.GRID bytes. Answers {'mask': id}."""
    data = await request.body()
    painted = regions.painted(data)
    opened = _with_run(studio, request)
    found = hashlib.sha256(data).hexdigest()[:16]

    def keep():
        masks = opened().masks
        masks.pop(found, None)
        masks[found] = painted
        while len(masks) > MAX_MASKS:
            del masks[next(iter(masks))]

    await studio.work.do(keep)
    return JSONResponse({'mask': found})


# --- Searches -------------------------------------------------------------------------------------


async def search(studio: Studio, request: Request) -> Response:
    """Body: {'kind', 'identity', 'edit', 'steps'}, and of a drag {'points', 'mask'}: points are
    [[x, y, to x, to y]] from 0 to 1; of a text {'text'}. Answers the search, which then runs.
    """
    asked = await body_of(request)
    opened, session = _with_run(studio, request), request.scope['session']
    kind, steps = asked.get('kind'), asked.get('steps', 60)
    if kind not in searching.KINDS:
        raise JaxinvError(f'A search is a {" or a ".join(searching.KINDS)}.')
    if type(steps) is not int or not 0 < steps <= searching.MAX_STEPS:
        raise JaxinvError(f'A search has 1 to {searching.MAX_STEPS} steps.')
    found = searching.Search(secrets.token_hex(6), request.path_params['run'], kind, 'Drag')
    found.steps = steps

    def prepare():
        run = opened()
        found.identity, edit = run.identity(asked.get('identity')), run.edit(asked.get('edit'))
        if kind == 'text':
            if not studio.options.clip:
                raise JaxinvError('Edits by text need CLIP: start the studio with --clip=FILE.')
            found.title = searching.text_of(asked.get('text'))
            return run, lambda: searching.towards_text(
                run, found, edit, found.title, studio.load_clip()
            )
        if not run.can_drag:
            raise JaxinvError('Points of this generator cannot be dragged.')
        given = asked.get('mask')
        if given and (not isinstance(given, str) or given not in run.masks):
            raise JaxinvError('The painted region is not there any more; paint it again.')
        pairs = searching.pairs_of(asked.get('points'), run.generator.spec.resolution)
        found.title = f'Drag {1 + sum(own.title.startswith("Drag ") for own in run.found.values())}'
        mask = run.masks[given] if given else None
        return run, lambda: searching.dragged(run, found, edit, pairs, mask)

    run, find = await studio.work.do(prepare)
    searches = studio.searches
    for own, other in searches.values():  # of a session one at a time
        if own == session:
            other.stop.set()
    for key in list(searches)[: max(0, len(searches) - MAX_FOUND)]:
        del searches[key]
    searches[found.id] = session, found
    studio.begin(_quietly(studio.work.do(lambda: searching.run(run, found, find))))
    return JSONResponse(found.public(), 201)


def _search(studio: Studio, request: Request) -> searching.Search:
    session, found = studio.searches.get(request.path_params['search'], ('', None))
    known = found is not None and session == request.scope['session']
    if not known or found.run != request.path_params['run']:
        raise NotThere('This search is not there any more.')
    return found


async def search_state(studio: Studio, request: Request) -> Response:
    return JSONResponse(_search(studio, request).public())


async def search_picture(studio: Studio, request: Request) -> Response:
    picture = _search(studio, request).picture
    if picture is None:
        return Response(status_code=204)
    return Response(saving.encode(picture, 'jpeg', 85), media_type='image/jpeg')


async def search_stop(studio: Studio, request: Request) -> Response:
    found = _search(studio, request)
    found.stop.set()
    return JSONResponse(found.public())


# --- What is saved --------------------------------------------------------------------------------


def _paste_in(run: Opened, asked: dict[str, Any]):
    """(identity, the photograph with edits {'0': edit, ...} of its faces put back)."""
    i, given = run.identity(asked.get('identity')), asked.get('edits')
    if not isinstance(given, dict) or asked.get('mask', 'face') not in ('face', 'crop'):
        raise JaxinvError('Give the edits of the faces, and "face" or "crop" as the mask.')
    edits: dict[int, EditState] = {}
    for j in range(len(run.names)):
        if str(j) in given:
            edits[j] = run.edit(given[str(j)])
    return i, run.paste(i, edits, asked.get('mask', 'face'))


async def paste(studio: Studio, request: Request) -> Response:
    """Body: {'identity', 'edits': {'0': edit}, 'mask': 'face' or 'crop'}: the photograph, small."""
    asked = await body_of(request)
    opened = _with_run(studio, request)

    def make():
        return saving.encode(_paste_in(opened(), asked)[1], 'jpeg', 90, PASTED)

    data = await studio.work.do(make, _key(request, asked, 'paste'))
    return Response(data, media_type='image/jpeg')


async def save_picture(studio: Studio, request: Request) -> Response:
    """The photograph at full size ('what': 'photograph', as `paste`), or the aligned face."""
    asked = await body_of(request)
    opened = _with_run(studio, request)
    kind = str(asked.get('kind', 'png'))

    def make():
        run = opened()
        if asked.get('what') == 'photograph':
            i, picture = _paste_in(run, asked)
            name = run.source_name(i)
        else:
            i = run.identity(asked.get('identity'))
            picture, name = run.picture(i, run.edit(asked.get('edit'))), run.names[i]
        return saving.encode(picture, kind), f'{safe_name(name)}_edited.{kind}'

    data, name = await studio.work.do(make)
    return _attachment(data, saving.PICTURES[kind], name)


async def save_edit(studio: Studio, request: Request) -> Response:
    """The edit of an identity as JSON; a painted region in it is the file of `save_region`."""
    asked = await body_of(request)
    opened = _with_run(studio, request)

    def make():
        run = opened()
        i = run.identity(asked.get('identity'))
        return run.as_json(i, run.edit(asked.get('edit'))), run.names[i]

    found, name = await studio.work.do(make)
    data = json.dumps(found, indent=1).encode()
    return _attachment(data, 'application/json', f'{safe_name(name)}_edit.json')


async def save_region(studio: Studio, request: Request) -> Response:
    """The painted region of an edit as PNG."""
    asked = await body_of(request)
    opened = _with_run(studio, request)

    def make():
        run = opened()
        i, edit = run.identity(asked.get('identity')), run.edit(asked.get('edit'))
        if not edit.mask:
            raise JaxinvError('No region is painted.')
        size = run.generator.spec.resolution
        return regions.to_png(run.masks[edit.mask], size), run.mask_name(i)

    data, name = await studio.work.do(make)
    return _attachment(data, 'image/png', name)


def _attachment(data: bytes, media_type: str, name: str) -> Response:
    headers = {'content-disposition': saving.disposition(name)}
    return Response(data, media_type=media_type, headers=headers)


async def save_folder(studio: Studio, request: Request) -> Response:
    """The run's folder as a ZIP file, made while it is sent."""
    folder = studio.run_folder(request)
    name = safe_name(folder.name if folder == studio.options.given else 'jaxinv_run')
    pieces = saving.zipped(saving.files_of(folder), name)
    headers = {'content-disposition': saving.disposition(f'{name}.zip')}
    return Stream(pieces, media_type='application/zip', headers=headers)


async def export(studio: Studio, request: Request) -> Response:
    """What jaxinv-convert writes, a folder as ZIP; /export/FORMAT?identity=0."""
    opened, name = _with_run(studio, request), request.path_params['format']
    index = request.query_params.get('identity', '0')
    scratch = tempfile.TemporaryDirectory(prefix='jaxinv_export_')

    def make():
        run = opened()
        i = run.identity(int(index) if index.isdecimal() and len(index) < 6 else -1)
        return exports.write(run, i, name, pathlib.Path(scratch.name))

    try:
        file = await studio.work.do(make)
    except BaseException:
        scratch.cleanup()
        raise
    if file.is_dir():
        headers = {'content-disposition': saving.disposition(f'{file.name}.zip')}
        return Stream(
            saving.zipped(saving.files_of(file), file.name),
            media_type='application/zip',
            headers=headers,
            background=BackgroundTask(scratch.cleanup),
        )
    headers = {'content-disposition': saving.disposition(file.name)}
    return FileResponse(
        file,
        media_type='application/octet-stream',
        headers=headers,
        background=BackgroundTask(scratch.cleanup),
    )


async def report(studio: Studio, request: Request) -> Response:
    """report.html of the run, in an origin of its own."""
    file = studio.run_folder(request) / 'report.html'
    if not file.is_file():
        raise NotThere('The run has no report.')
    headers = {'content-security-policy': REPORT_POLICY}
    return HTMLResponse(file.read_bytes(), headers=headers)
