"""The benchmark set: photographs that packages carry with a clear licence, and generated faces.

    --config.data.images=benchmark            everything; also benchmark:portraits, :animals and
                                              :generated

benchmark.json is the register of the photographs: the package and its SHA-256, the file in it and
its SHA-256, the subject, the licence, the author and where the licence is stated. A photograph is
taken from the installed package or fetched into the cache folder (jaxinv/weights/assets.py); one
that cannot be had is skipped, with the reason. Generated faces: benchmark_faces.py. The set
as a folder: benchmark_folder.py.
"""

import bz2
import functools
import hashlib
import json
import pathlib
from typing import NamedTuple

from jaxinv.converters import qt_resources
from jaxinv.data import benchmark_faces, discover
from jaxinv.data.targets import DataError
from jaxinv.errors import JaxinvError
from jaxinv.io import cache_dir, write_atomically
from jaxinv.weights import assets
from jaxinv.weights.registries import Package

NAME = 'benchmark'
KINDS = {'portraits': 'portrait', 'animals': 'animal', 'generated': 'generated'}
REGISTER = pathlib.Path(__file__).with_name('benchmark.json')


class Picture(NamedTuple):
    """A photograph of the register."""

    name: str  # of the target, for ever
    kind: str  # 'portrait' or 'animal'
    subject: str
    package: str
    member: str  # path in the package
    sha256: str  # of the picture's file
    size: tuple[int, int]  # width, height in pixels
    licence: str  # of the picture: an SPDX identifier, or 'public domain'
    author: str
    source: str  # address where the package took it from
    statement: str  # where the package states the licence
    # How it is packed in the member: '' = not, 'rcc:PATH' = in Qt's resources,
    # 'bz2:1024x768' = RGB bytes of this width and height, compressed.
    unpack: str = ''


@functools.cache
def register() -> tuple[dict[str, dict], tuple[Picture, ...]]:
    """(packages by name, photographs in the order of the set)."""
    content = json.loads(REGISTER.read_text(encoding='utf-8'))
    pictures = (Picture(**{**entry, 'size': tuple(entry['size'])}) for entry in content['pictures'])
    return content['packages'], tuple(pictures)


def is_request(source) -> bool:
    """True for 'benchmark' and 'benchmark:...'."""
    return isinstance(source, str) and source.partition(':')[0] == NAME


def find(request: str) -> discover.Listing:
    """The pictures of 'benchmark' or 'benchmark:KIND', in the order of the register.

    What is missing in the cache folder is fetched or generated. A package that cannot be had is one
    entry of `skipped`. Raises DataError for another KIND.
    """
    kind = request.partition(':')[2]
    if request != NAME and kind not in KINDS:
        raise DataError(
            f'data.images is {request!r}; it can be {NAME!r} or, for a part of it, '
            f'{", ".join(repr(f"{NAME}:{known}") for known in KINDS)}.'
        )
    listing = discover.Listing([], [])
    wanted = [p for p in register()[1] if not kind or p.kind == KINDS[kind]]
    for package in dict.fromkeys(picture.package for picture in wanted):
        own = [picture for picture in wanted if picture.package == package]
        try:
            listing.files.extend(zip((p.name for p in own), files(own), strict=True))
        except (JaxinvError, OSError) as error:
            listing.skipped.append({'file': f'{NAME}:{package}', 'reason': _reason(own, error)})
    order = {picture.name: i for i, picture in enumerate(wanted)}
    listing.files.sort(key=lambda entry: order[entry[0]])
    if kind in ('', 'generated'):
        try:
            listing.files.extend(benchmark_faces.find())
        except (JaxinvError, OSError) as error:
            reason = f'The generated faces cannot be made: {error}'
            listing.skipped.append({'file': f'{NAME}:generated', 'reason': reason})
    return listing


def _reason(pictures: list[Picture], error: Exception) -> str:
    what = f'picture {pictures[0].name}' if len(pictures) == 1 else f'{len(pictures)} pictures'
    return f'The {what} of the package {pictures[0].package} cannot be had: {error}'


# --- Files ----------------------------------------------------------------------------------------


def files(pictures: list[Picture]) -> list[pathlib.Path]:
    """The files of photographs of one package, with the SHA-256 of the register.

    Raises assets.AssetError if the package cannot be had, or has other files.
    """
    unpacked: dict[str, dict[str, bytes]] = {}
    return [_file(picture, unpacked) for picture in pictures]


def _file(picture: Picture, unpacked: dict) -> pathlib.Path:
    entry = package(picture.package)
    if not picture.unpack:
        return assets.fetch(picture.package, entry, picture.member)
    how, _, place = picture.unpack.partition(':')
    suffix = pathlib.PurePosixPath(place).suffix if how == 'rcc' else '.ppm'
    path = cache_dir() / NAME / 'photographs' / (picture.name + suffix)
    if path.is_file() and assets.digest(path) == picture.sha256:
        return path
    if picture.member not in unpacked:
        unpacked[picture.member] = _unpack(assets.fetch(picture.package, entry, picture.member))
    data = unpacked[picture.member][place if how == 'rcc' else '']
    if how == 'bz2':
        data = b'P6\n%d %d\n255\n' % tuple(map(int, place.split('x'))) + data  # a PPM file
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise assets.AssetError(
            f'{picture.name} in {picture.member} has another SHA-256 than the listed '
            f'{picture.sha256[:12]}...; it was not kept.'
        )
    write_atomically(path, data)
    return path


def _unpack(container: pathlib.Path) -> dict[str, bytes]:
    data = container.read_bytes()
    return qt_resources.read(data) if container.suffix == '.rcc' else {'': bz2.decompress(data)}


@functools.cache
def package(name: str) -> Package:
    """A package of the register, as jaxinv/weights/assets.py takes it."""
    facts, pictures = register()[0][name], register()[1]
    members = {p.member: p.sha256 for p in pictures if p.package == name and not p.unpack}
    members |= facts.get('containers', {})
    return Package(
        facts['version'], facts['sha256'], facts['licence'], members, facts['index'], facts['file']
    )
