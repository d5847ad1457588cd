"""Files of the Hugging Face hub, by huggingface_hub and in its cache folder.

The library resumes downloads and keeps one copy for all programs. Its environment variables apply:
HF_TOKEN for gated and private files, HF_HOME for the folder, HF_ENDPOINT for a mirror,
HF_HUB_OFFLINE=1 for the cache alone.
"""

import fnmatch
import pathlib
import threading
from collections.abc import Sequence

import huggingface_hub
from huggingface_hub import constants, errors

from jaxinv.converters.file_view import MAX_BYTES
from jaxinv.weights.addresses import DownloadError, HubFile, Repository


def cached(file: HubFile) -> pathlib.Path | None:
    """Path of the file in the hub's cache folder, None if it is not there. Uses no network."""
    path = huggingface_hub.try_to_load_from_cache(file.repo, file.path, revision=file.revision)
    return pathlib.Path(path) if isinstance(path, str) else None


def answers(file: HubFile, seconds: float) -> bool:
    """True if the hub confirms within `seconds` that it has the file; not if HF_HUB_OFFLINE=1."""
    if constants.HF_HUB_OFFLINE:
        return False
    found = []

    def ask():
        try:
            url = huggingface_hub.hf_hub_url(file.repo, file.path, revision=file.revision)
            huggingface_hub.get_hf_file_metadata(url, timeout=seconds)
            found.append(True)
        except Exception:  # no network, a proxy, a login page ...
            pass

    # In a thread, since looking up a host name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found)


def fetch(file: HubFile, max_bytes: int = MAX_BYTES) -> pathlib.Path:
    """Downloads the file to the hub's cache folder. Raises DownloadError."""
    url = huggingface_hub.hf_hub_url(file.repo, file.path, revision=file.revision)
    try:
        size = huggingface_hub.get_hf_file_metadata(url).size or 0
        if size > max_bytes:
            raise DownloadError(f'{file} has {size} bytes; at most {max_bytes} are fetched.')
        path = huggingface_hub.hf_hub_download(file.repo, file.path, revision=file.revision)
    except DownloadError:
        raise
    except Exception as error:  # the library's, its HTTP client's, and the operating system's
        raise DownloadError(_sentence(file, error)) from error
    return pathlib.Path(path)


def fetch_folder(
    source: Repository, patterns: Sequence[str], max_bytes: int = MAX_BYTES
) -> pathlib.Path:
    """Downloads the files of a repository that match a pattern, and returns their folder.

    Other files are not fetched. Raises DownloadError, also if they have more than `max_bytes`.
    """
    try:
        if not constants.HF_HUB_OFFLINE:
            api = huggingface_hub.HfApi()
            info = api.model_info(source.repo, revision=source.revision, files_metadata=True)
            files = info.siblings or []
            wanted = [f for f in files if any(fnmatch.fnmatch(f.rfilename, p) for p in patterns)]
            if not wanted:
                raise DownloadError(
                    f'{source} holds no run of jaxinv; name a file of it: hf://OWNER/NAME/FILE.'
                )
            size = sum(file.size or 0 for file in wanted)
            if size > max_bytes:
                raise DownloadError(f'{source} has {size} bytes; at most {max_bytes} are fetched.')
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                source.repo, revision=source.revision, allow_patterns=list(patterns)
            )
        )
    except DownloadError:
        raise
    except Exception as error:  # the library's, its HTTP client's, and the operating system's
        raise DownloadError(_sentence(source, error)) from error


def _sentence(file: HubFile | Repository, error: Exception) -> str:
    match error:
        case errors.GatedRepoError():
            return (
                f'{file} is gated; accept its terms at https://huggingface.co/{file.repo} and set '
                'HF_TOKEN, or run `hf auth login`.'
            )
        case errors.RepositoryNotFoundError():
            return (
                f'The hub has no repository {file.repo}, or it is private; check the name, or set '
                'HF_TOKEN.'
            )
        case errors.RevisionNotFoundError():
            return f'{file.repo} on the hub has no revision {file.revision!r}; check its name.'
        case errors.LocalEntryNotFoundError():
            pass  # the hub did not answer; also an EntryNotFoundError
        case errors.EntryNotFoundError() if isinstance(file, HubFile):
            return f'{file.repo} on the hub has no file {file.path} at {file.revision!r}.'
        case errors.OfflineModeIsEnabled():
            return (
                f'HF_HUB_OFFLINE is set and {file} is not in the cache of the hub; unset it, or '
                'fetch the file where there is a network.'
            )
    reason = ' '.join(str(error).split())[:120] or type(error).__name__
    return (
        f'{file} could not be fetched ({reason}); check the network and run the same command '
        'again, which continues a cut download.'
    )
