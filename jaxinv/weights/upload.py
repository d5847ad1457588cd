"""Uploads a run to the Hugging Face hub: generator, codes and a model card, no photographs.

generator/ or generators/NAME/   .safetensors and .json, without Orbax's copies
pivots.npz, codes.npz            codes
README.md                        the model card (weights/card.py)
run.json                         the base generator, where no generator was tuned

With photographs=True also report.html, grid.png, metrics.json and images/, which show the
photographs, and name their files. Checkpoints, logs and TensorBoard files are never uploaded.
"""

import json
import pathlib
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import errors

from jaxinv import generators
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded
from jaxinv.types import GeneratorSpec
from jaxinv.weights import card, runs
from jaxinv.weights.addresses import is_address
from jaxinv.weights.deltas import DELTA_FILE
from jaxinv.weights.deltas import SIDECAR as DELTA_SIDECAR
from jaxinv.weights.store import GENERATOR_FILE, SIDECAR
from jaxinv.weights.well_known import WELL_KNOWN

_WEIGHTS = (GENERATOR_FILE, SIDECAR, DELTA_FILE, DELTA_SIDECAR)
RUN_FILES = (  # patterns of paths in a folder, for `upload` and for hub.fetch_run
    *_WEIGHTS,
    *(f'generator/{name}' for name in _WEIGHTS),
    *(f'generators/*/{name}' for name in _WEIGHTS),
    'pivots.npz',
    'codes.npz',
)
_PHOTOGRAPHS = ('report.html', 'grid.png', 'metrics.json', 'images/*/*')
MESSAGE = 'Upload by jaxinv'


class UploadError(JaxinvError):
    """A run cannot be uploaded; the message gives reason and remedy."""


class Item(NamedTuple):
    """A file in the repository: its path there, and its content or the file that holds it."""

    path: str
    content: bytes | pathlib.Path

    @property
    def size(self) -> int:
        own = self.content
        return own.stat().st_size if isinstance(own, pathlib.Path) else len(own)


def items(folder, spec: GeneratorSpec, photographs: bool, licence: str) -> list[Item]:
    """What `push` uploads, in order of the paths. Raises UploadError if there is nothing.

    Links in the folder are not followed.
    """
    folder = expanded(folder)
    patterns = RUN_FILES + (_PHOTOGRAPHS if photographs else ())
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    found = {
        path.relative_to(folder).as_posix(): path
        for path in files
        if path.is_file() and not _through_link(path, folder)
    }
    if not any(name.endswith(('.npz', '.safetensors')) for name in found):
        raise UploadError(
            f'{folder} holds no generator or codes; give the work folder of a finished run, or a '
            'folder of jaxinv.save.'
        )
    if not any(name.endswith(GENERATOR_FILE) for name in found):
        found[runs.RECORD] = _record(folder)
    found[card.FILE] = card.of_run(folder, spec, licence).encode()
    return [Item(name, found[name]) for name in sorted(found)]


def _through_link(path, folder):
    """True for a link, or a file in a linked folder."""
    return any(p.is_symlink() for p in (path, *path.parents) if folder in p.parents)


def _record(folder):
    """A run.json that names the generator only. Raises UploadError if it is a local file."""
    base = runs.base_of(folder, 0)
    known = base and (
        base.source in generators.GENERATORS or base.source in WELL_KNOWN or is_address(base.source)
    )
    if not known:
        raise UploadError(
            f'{folder} holds no whole generator, and that of its run was a file of this machine; '
            'write generator and codes by jaxinv.save, and push that folder.'
        )
    return json.dumps({'config': {'generator': base.source}}).encode()


def push(folder, repo_id: str, spec: GeneratorSpec, *, private, photographs, licence, log) -> str:
    """See jaxinv.push_to_hub."""
    found = items(folder, spec, photographs, licence)
    for item in found:
        log(f'  {item.path} ({item.size / 1e6:.2f} MB)', flush=True)
    api = huggingface_hub.HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # with its owner
        if private and not api.repo_info(repo_id).private:
            raise UploadError(
                f'{repo_id} is public; make it private there, name another, or say private=False.'
            )
        operations = [
            huggingface_hub.CommitOperationAdd(
                item.path,
                str(item.content) if isinstance(item.content, pathlib.Path) else item.content,
            )
            for item in found
        ]
        done = api.create_commit(repo_id, operations, commit_message=MESSAGE)
    except UploadError:
        raise
    except Exception as error:  # the library's, its HTTP client's, and the operating system's
        raise UploadError(_sentence(repo_id, error)) from error
    return str(done.repo_url)


def _sentence(repo_id, error):
    if isinstance(error, errors.HFValidationError):
        return f'{repo_id!r} is not the name of a repository; write OWNER/NAME.'
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return (
            f'The hub does not let you write to {repo_id}; set HF_TOKEN to a token with write '
            'access, or run `hf auth login`.'
        )
    reason = ' '.join(str(error).split())[:160] or type(error).__name__
    return f'{repo_id} could not be written ({reason}); run the same call again.'
