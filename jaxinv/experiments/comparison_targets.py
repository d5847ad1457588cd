"""The pictures that methods are compared on: read and aligned once, then files.

    targets.jsonl        a line for each photograph (runtime/manifest.py)
    targets/NAME/        its targets, one PNG each: aligned, without padding

Every method reads these files, so all invert the same pixels; a photograph without a target is one
line, for all methods alike.
"""

import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image

from jaxinv import data
from jaxinv.data import crop, discover, images
from jaxinv.runtime.manifest import Manifest

LINES, FOLDER = 'targets.jsonl', 'targets'


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The targets of a comparison, in files. Iterates over their names."""

    path: pathlib.Path  # the work folder
    names: list[str]
    files: list[str]  # PNG of each target in the work folder
    digests: list[str]  # SHA-256 of each PNG
    sources: list[dict]  # {'file', 'sha256', 'face', 'warning'} of each
    skipped: list[dict]  # {'file', 'reason'}
    align: str  # 'face' or 'none'
    resolution: int

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def data_settings(self) -> dict:
        """Settings of config.data by which a method reads exactly these pixels."""
        face = self.align == 'face'
        return {
            'images': str(self.path / FOLDER),
            'tfds': '',
            'faces': 'largest',
            'align': self.align,
            'aligned': face,
            'fit': 'crop' if face else 'pad',
        }

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(uint8 [r, r, 3], float32 [r, r, 1] that is 0 on padding) of target i."""
        with PIL.Image.open(self.path / self.files[i]) as picture:
            pixels, valid = crop.square(picture.convert('RGB'), self.resolution, 'pad')
        return pixels, valid[..., None].astype(np.float32)


def prepare(path: pathlib.Path, config, spec, log: Callable) -> Pictures:
    """Reads and aligns the photographs of config.data that targets.jsonl does not have yet.

    One photograph is held at a time. Process 0 alone calls it. Raises NoImages if none can be used.
    """
    listing, request = data.find_for(config.data)
    options = data.align_options(config.data, spec, log)
    manifest = Manifest(path / LINES, log)
    known = {record['file']: record for record in manifest.records.values()}
    taken = [name for record in known.values() for name in _names(record)]
    lines = []
    for count, (stem, file) in enumerate(listing.files, start=1):
        record = known.get(str(file))
        if record is None or record['sha256'] != _digest(file):
            own = [] if record is None else _names(record)
            taken = [name for name in taken if name not in own]
            record = _read(path, stem, file, options, taken)
            taken += _names(record)
            manifest.add(record)
            if 'skipped' in record:
                log(f'Skipped {record["file"]}: {record["skipped"]}')
            if count % 50 == 0:
                log(f'{count} of {len(listing.files)} photographs read.', flush=True)
        lines.append(record)
    skipped = [*listing.skipped]
    skipped += [{'file': r['file'], 'reason': r['skipped']} for r in lines if 'skipped' in r]
    skipped += [entry for record in lines for entry in record.get('skipped_faces', ())]
    targets = [target for record in lines for target in record.get('targets', ())]
    if not targets:
        raise data.NoImages(data.nothing_left(request, listing.files, skipped, 'picture'))
    _remove_others(path / FOLDER, {path / target['file'] for target in targets})
    log(f'{len(targets)} pictures: {", ".join(t["name"] for t in targets[:20])}'
        f'{", ..." if len(targets) > 20 else ""}', flush=True)  # fmt: skip
    return Pictures(
        path,
        [target['name'] for target in targets],
        [target['file'] for target in targets],
        [target['sha256'] for target in targets],
        [target['source'] for target in targets],
        skipped,
        'face' if options.aligned else options.align,
        options.resolution,
    )


def _remove_others(folder: pathlib.Path, kept: set[pathlib.Path]) -> None:
    """Removes targets of photographs that are not asked for any more."""
    for place in folder.iterdir():
        own = {file for file in place.iterdir() if file in kept} if place.is_dir() else set()
        if not own:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            continue
        for file in {*place.iterdir()} - own:
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def _names(record: dict) -> list[str]:
    return [target['name'] for target in record.get('targets', ())] or [record['name']]


def _digest(file) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        return type(error).__name__


def _read(path, stem: str, file, options: data.AlignOptions, taken: list[str]) -> dict:
    """The line of a photograph, after its targets are written."""
    reasons: list[dict] = []
    found = data.read(stem, file, options, reasons)
    (name,) = discover.unique_names([stem], taken=taken)
    record = {'name': name, 'file': str(file), 'sha256': _digest(file)}
    if not found:
        return record | {'skipped': ' '.join(entry['reason'] for entry in reasons)}
    names = discover.unique_names([target.stem for target in found], taken=taken)
    targets = []
    for own, target in zip(names, found, strict=True):
        rows, columns = target.mask.any(1), target.mask.any(0)
        picture = PIL.Image.fromarray(target.image_uint8[rows][:, columns])
        place = f'{FOLDER}/{name}/{own}.png'
        images.save(path / place, picture)
        digest = hashlib.sha256((path / place).read_bytes()).hexdigest()
        targets.append({'name': own, 'file': place, 'sha256': digest, 'source': target.source})
    record |= {'folder': f'{FOLDER}/{name}', 'targets': targets}
    return record | ({'skipped_faces': reasons} if reasons else {})
