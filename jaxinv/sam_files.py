"""What a SAM run leaves behind: codes.npz, regions.npz, prior.npz. Plain arrays, no pickles."""

import pathlib

import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam, sam_prior

CODES, REGIONS, PRIOR = 'codes.npz', 'regions.npz', 'prior.npz'


def save_codes(folder: pathlib.Path, names, codes: sam.Codes, masks) -> None:
    """names, w_plus [n, num_ws, w_dim], offsets/F4 [n, h, w, c] ..., masks/F4 [n, h, w, 1] ..."""
    arrays = {'names': np.array(list(names)), 'w_plus': np.asarray(codes.w_plus)}
    for space, offset in codes.offsets.items():
        arrays[f'offsets/{space}'] = np.asarray(offset)
        arrays[f'masks/{space}'] = np.asarray(masks[space])
    np.savez(folder / CODES, **arrays)


def load_codes(source) -> tuple[sam.Codes, dict]:
    """Codes and masks of a work folder or its codes.npz, as sam.synthesize takes them."""
    path = pathlib.Path(source)
    path = path / CODES if path.is_dir() else path
    if not path.is_file():
        raise JaxinvError(f'there is no {path}; give the work folder of a finished SAM run.')
    with np.load(path, allow_pickle=False) as arrays:
        groups = {'offsets': {}, 'masks': {}}
        for name in arrays.files:
            group, _, space = name.partition('/')
            if group in groups:
                groups[group][space] = jnp.asarray(arrays[name])
        return sam.Codes(jnp.asarray(arrays['w_plus']), groups['offsets']), groups['masks']


def prior_of(generator, weights, settings: sam_prior.Settings, source='') -> sam_prior.Prior:
    """The generator's prior: as kept with it in the folder `source`, or else computed."""
    kept = pathlib.Path(str(source)) / PRIOR
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as arrays:
            if str(arrays['settings']) == str(tuple(settings)):
                return sam_prior.Prior(*(jnp.asarray(arrays[f]) for f in sam_prior.Prior._fields))
    return sam_prior.statistics(generator, weights, settings)


def save_prior(folder: pathlib.Path, prior: sam_prior.Prior, settings: sam_prior.Settings) -> None:
    arrays = {name: np.asarray(value) for name, value in prior._asdict().items()}
    np.savez(folder / PRIOR, settings=np.array(str(tuple(settings))), **arrays)
