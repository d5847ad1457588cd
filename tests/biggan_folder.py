"""BigGAN-deep of seeded weights in the layout of pytorch-pretrained-biggan."""

import json
import pathlib

import biggan_figures
import numpy as np
import official_files
import recipe

from jaxinv.converters import biggan

FIGURES = pathlib.Path(__file__).parent / 'data' / 'biggan.npz'
# 1000 classes and 32 pixels; F2 has 8 and F4 has 16, attention comes right after F4.
LAYERS = ((False, 16, 16), (True, 16, 8), (False, 8, 8), (True, 8, 4), (False, 4, 2), (True, 2, 1))
SIZES = {'channel_width': 8, 'num_classes': 1000, 'z_dim': 16, 'class_embed_dim': 16}
CONFIG = SIZES | {
    'output_dim': 32,
    'layers': LAYERS,
    'attention_layer_position': 4,
    'n_stats': 51,
    'eps': 1e-4,
}
ARGUMENTS = SIZES | {
    'resolution': 32,
    'layers': LAYERS,
    'attention_position': 4,
    'num_statistics': 51,
    'epsilon': 1e-4,
}


def weights():
    """{official name: array}, seeded: random kernels, and statistics near 0 and 1."""
    found = {}
    for name, shape in biggan.shapes(biggan.entries(ARGUMENTS)).items():
        values = recipe.normal(name, shape)
        if name.endswith('running_vars'):
            values = 1 + 0.1 * np.abs(values)
        elif name.endswith(('running_means', 'bias')):
            values = 0.1 * values
        elif name.endswith('_u'):
            values = recipe.unit(values)
        found[name] = np.asarray(values, np.float32)
    for name in [name for name in found if name.endswith('_v')]:
        layer = name.removesuffix('_v')  # v follows from u, as in the power iteration
        u = found[f'{layer}_u'].astype(np.float64)
        found[name] = recipe.unit(u @ found[f'{layer}_orig'].reshape(len(u), -1))
    return found


def write(folder):
    """The small one of 1000 classes."""
    return official_files.biggan_folder(folder, weights(), CONFIG)


def write_figures(folder):
    """The one of the parity figures: 10 classes, 128 pixels, an eighth of the official width."""
    with np.load(FIGURES) as file:
        entries = json.loads(str(file[f'{biggan_figures.NAME}/entries']))
    state = recipe.state_dict(entries)
    return official_files.biggan_folder(folder, state, biggan_figures.CONFIG)
