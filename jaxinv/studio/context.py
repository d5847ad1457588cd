"""What all answers of the studio share: options, sessions, processes, errors as sentences."""

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

import jaxinv
from jaxinv.errors import JaxinvError
from jaxinv.studio import guard
from jaxinv.studio.inversions import Inversions
from jaxinv.studio.opened import Kept, Opened
from jaxinv.studio.photographs import Reader
from jaxinv.studio.searching import Search
from jaxinv.studio.sessions import Session, Sessions
from jaxinv.studio.work import Busy, Superseded, Work

GIVEN = 'given'  # id of the run named on the command line, which every session sees


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    folder: pathlib.Path  # of the sessions
    command: list[str]  # of the launcher, without what differs between runs
    given: pathlib.Path | None = None  # a run's folder
    directions: tuple[str, ...] = ()  # files
    port: int = 0
    hosts: guard.Hosts = guard.hosts_for('127.0.0.1')
    token: str | None = None
    clip: str = ''  # CLIP's weights, for edits by text; '' = none


class NotThere(JaxinvError):
    """Nothing of this session has that id."""


class Studio:
    """What the answers share."""

    def __init__(self, options: Options):
        self.options = options
        self.sessions = Sessions(options.folder)
        self.reader = Reader()
        self.inversions = Inversions(options.command)
        self.work = Work()
        # Runs in memory, newest last, and what sessions made for them; for the thread of `work`.
        self.opened: dict[pathlib.Path, Opened] = {}
        self.kept: dict[tuple[str, pathlib.Path], Kept] = {}
        self.searches: dict[str, tuple[str, Search]] = {}  # {id: (session, search)}
        self._clip = None
        self._tasks: set[asyncio.Task] = set()  # that no request waits for

    def session(self, request: Request) -> Session:
        return self.sessions.get(request.scope['session'])

    def run_folder(self, request: Request) -> pathlib.Path:
        """The work folder of the run of an address. Raises NotThere."""
        run = request.path_params['run']
        if run == GIVEN and self.options.given is not None:
            return self.options.given
        session = self.session(request)
        if run not in session.runs:
            raise NotThere('This inversion is not there any more.')
        return session.run_folder(run) / 'run'

    def begin(self, coroutine) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def load_clip(self):
        """CLIP, read once. For the thread of `work`."""
        if self._clip is None:
            self._clip = jaxinv.load_clip(self.options.clip)
        return self._clip

    def close(self) -> None:
        """Stops what computes; a run saves its state."""
        self.reader.close()
        self.inversions.close()
        self.work.close()


def told(answer: Callable) -> Callable:
    """An answer whose errors are a sentence for the page."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except Superseded:
            return Response(status_code=204)
        except NotThere as error:
            return says(404, str(error))
        except Busy as error:
            return says(503, str(error))
        except JaxinvError as error:
            return says(400, str(error))
        except guard.TooLarge as error:
            return says(413, str(error))
        except ClientDisconnect:
            return Response(status_code=400)
        except MemoryError:
            return says(500, 'There is not enough memory for that.')
        except Exception as error:
            text = ' '.join(str(error).split())[:200] or type(error).__name__
            return says(500, f'That failed: {text}')

    return answered


def says(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({'error': sentence}, status)


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises JaxinvError."""
    try:
        found = await request.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise JaxinvError('The request is not a JSON object.')
    return found
