"""The result of a run in files that other tools open, as jaxinv-convert writes them."""

import pathlib
import subprocess
import sys

from jaxinv.errors import JaxinvError
from jaxinv.io import read_json, safe_name
from jaxinv.studio.opened import Opened
from jaxinv.text import printable
from jaxinv.weights import export as export_lib
from jaxinv.weights.formats import STATE_DICTS

# {format of jaxinv-convert: (ending, '' = a folder, in words)}
_GENERATORS = {
    'safetensors': ('.safetensors', 'Generator for jaxinv (safetensors)'),
    'onnx': ('.onnx', 'Generator as ONNX'),
    'ada': ('.npz', "Generator for NVIDIA's PyTorch code (npz)"),
    'rosinality': ('.safetensors', "Generator for rosinality's PyTorch code (safetensors)"),
}
_OF_RUNS = {
    'pkl': (None, 'The checkpoint that was tuned, with the new weights'),  # its own ending
    'pti': ('', "PTI's folders"),
    'npy': ('', 'Codes as .npy'),
}
_STYLEGAN2 = ('ada', 'rosinality', 'pkl', 'pti')
SECONDS = 600  # for one export


def formats(opened: Opened) -> list[dict[str, str]]:
    """{'name', 'title'} of the formats that this run can be written in."""
    spec, found = opened.generator.spec, {**_GENERATORS, **_OF_RUNS}
    if spec.family != 'stylegan2':
        found = {name: own for name, own in found.items() if name not in _STYLEGAN2}
    if not _checkpoint_ending(opened.folder):
        found.pop('pkl', None)
    return [{'name': name, 'title': title} for name, (_, title) in found.items()]


def write(opened: Opened, i: int, name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes one of `formats` of identity i into the folder; returns the file, or a folder.

    Raises JaxinvError.
    """
    known = [entry['name'] for entry in formats(opened)]
    if name not in known:
        raise JaxinvError(f'This run can be exported as {", ".join(known)}.')
    if name in _GENERATORS:
        file = folder / f'generator_{name}{_GENERATORS[name][0]}'
        export_lib.write(file, opened.generator, opened.weights(i), name)
        return file
    ending = _OF_RUNS[name][0]
    file = folder / f'export_{name}{_checkpoint_ending(opened.folder) if ending is None else ""}'
    source = opened.folder
    own = source / 'generators' / safe_name(opened.names[i])
    if name == 'pkl' and own.is_dir():
        source = own
    _convert(source, file, name)
    return file


def _checkpoint_ending(folder: pathlib.Path) -> str:
    """'.pkl' of a run whose generator was a file of another project; '' of others."""
    try:
        source = read_json(folder / 'run.json')['config']['generator']
        ending = pathlib.PurePath(str(source).partition('#')[0].partition('@')[0]).suffix.lower()
    except (TypeError, KeyError):
        return ''
    return ending if ending in ('.pkl', '.pt', *STATE_DICTS) else ''


def _convert(source: pathlib.Path, file: pathlib.Path, name: str) -> None:
    command = [sys.executable, '-m', 'jaxinv.convert', str(source), str(file), f'--to={name}']
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors='replace', timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise JaxinvError(f'The export took more than {SECONDS} s.') from None
    if done.returncode != 0 or not file.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ['no reason']
        raise JaxinvError(f'The export failed: {printable(lines[-1].partition(": ")[2], 400)}')
