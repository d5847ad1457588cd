"""Codes and tuned generators in the files that programs around PTI read.

Layout of PTI (its paths_config.py: input_data_id = 'jaxinv', run id 'JAXINV'):

embeddings/jaxinv/PTI/NAME/0.pt    tensor [1, num_ws, w_dim], the pivot of a picture
checkpoints/model_JAXINV_NAME.pt   state dict of its tuned generator, with NVIDIA's names;
                                   model_JAXINV_multi_id.pt where one serves several pictures
latents.pt                         tensor [n, num_ws, w_dim] of all, as of e4e, for StyleCLIP

PTI saves modules, with source text that is executed; a state dict holds the same numbers.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxinv.converters import export, torch_write
from jaxinv.inversion.invert_sam import Inverted
from jaxinv.inversion.project import Pivots
from jaxinv.io import atomic_path, json_text, safe_name, write_atomically
from jaxinv.types import Generator, GeneratorSpec

ID, RUN = 'jaxinv', 'JAXINV'
FOLDERS = ('embeddings', 'checkpoints')
LATENTS = 'latents'
NAMES = 'names.json'


def w_plus(spec: GeneratorSpec, codes: Pivots | Inverted) -> np.ndarray:
    """The codes as rows of W+: float32 [n, num_ws, w_dim]."""
    w = codes.codes.w_plus if isinstance(codes, Inverted) else codes.w
    w = np.asarray(w, np.float32)
    return np.array(np.broadcast_to(w, (len(w), spec.num_ws, spec.w_dim)))


def notes(codes: Pivots | Inverted) -> tuple[str, ...]:
    """Sentences for the user: what these files cannot hold."""
    if isinstance(codes, Inverted) and codes.codes.offsets:
        spaces = ', '.join(codes.codes.offsets)
        return (f'W+ alone: the offsets in {spaces} of SAM are not part of these files.',)
    return ()


def write_npy(folder: pathlib.Path, spec: GeneratorSpec, codes: Pivots | Inverted) -> None:
    """Writes latents.npy [n, num_ws, w_dim], NAME.npy [1, num_ws, w_dim] each, and names.json."""
    w = w_plus(spec, codes)
    arrays = {LATENTS: w} | {_file(name): w[i : i + 1] for i, name in enumerate(codes.names)}
    for name, array in arrays.items():
        with atomic_path(folder / f'{name}.npy') as path, open(path, 'wb') as file:
            np.save(file, array, allow_pickle=False)
    write_atomically(folder / NAMES, json_text(list(codes.names), indent=1))


def write_pti(
    folder: pathlib.Path, generator: Generator, weights, codes: Pivots | Inverted
) -> tuple[str, ...]:
    """Writes PTI's layout. weights: of the generator, or a list [n]. Returns notes, sentences."""
    w, names = w_plus(generator.spec, codes), [_file(name) for name in codes.names]
    for i, name in enumerate(names):
        torch_write.write(folder / FOLDERS[0] / ID / 'PTI' / name / '0.pt', w[i : i + 1])
    torch_write.write(folder / f'{LATENTS}.pt', w)
    if generator.spec.family != 'stylegan2':
        return (f'{generator.spec.name} is not a StyleGAN2: codes only, no generator.',)
    each = weights if isinstance(weights, Sequence) else [weights]
    owners = names if len(each) == len(names) else ['multi_id']
    for owner, own in zip(owners, each, strict=True):
        state = export.state_dict(generator.spec, own, 'ada')
        torch_write.write(folder / FOLDERS[1] / f'model_{RUN}_{owner}.pt', state)
    return export.notes(generator.spec, 'ada')


def _file(name):
    """The name of a picture as a file's, which is never that of all codes."""
    name = safe_name(name)
    return f'{name}_' if name.lower() == LATENTS else name
