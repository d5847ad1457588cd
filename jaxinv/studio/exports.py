"""The tuned generator of a run in files that other tools open, as jaxinv-convert writes them."""

import pathlib

from jaxinv.errors import JaxinvError
from jaxinv.studio.opened import Opened
from jaxinv.weights import export as export_lib

# {format of jaxinv-convert: (ending, in words)}
_KNOWN = {
    'safetensors': ('.safetensors', 'jaxinv (safetensors)'),
    'ada': ('.npz', "NVIDIA's PyTorch code (npz)"),
    'rosinality': ('.safetensors', "rosinality's PyTorch code (safetensors)"),
    'onnx': ('.onnx', 'ONNX'),
}
_STYLEGAN2 = ('ada', 'rosinality')


def formats(opened: Opened) -> list[dict[str, str]]:
    """{'name', 'title'} of the formats that this generator can be written in."""
    family = opened.generator.spec.family
    return [
        {'name': name, 'title': title}
        for name, (_, title) in _KNOWN.items()
        if name in export_lib.FORMATS and (family == 'stylegan2' or name not in _STYLEGAN2)
    ]


def write(opened: Opened, i: int, name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the generator of identity i into the folder and returns the file. Raises JaxinvError.

    name: of `formats`.
    """
    known = [entry['name'] for entry in formats(opened)]
    if name not in known:
        raise JaxinvError(f'This generator can be exported as {", ".join(known)}.')
    file = folder / f'generator_{name}{_KNOWN[name][0]}'
    export_lib.write(file, opened.generator, opened.weights(i), name)
    return file
