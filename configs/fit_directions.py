r"""Directions in the generator's W for smile, age and yaw, found by rendering and measuring.

    python -m jaxinv.launch --config=fit_directions
    python -m jaxinv.launch --config=pti_multi_id \
        --config.edits="('runs/.../directions.npz:smile=2',)"

Samples w, renders, measures (jaxinv/faces/attributes.py), fits linear directions that leave the other
attributes and the identity alone, chooses between a few kinds by trying them, and validates the
choice on fresh faces. GANSpace's principal components come along. The result of the default
settings is what `smile=2` means elsewhere: jaxinv/directions/ffhq.npz, its figures in ffhq.json.
"""

import ml_collections

from jaxinv import defaults


def get_config(arg=''):
    config = ml_collections.ConfigDict()
    config.task = 'fit_directions'
    config.seed = 0
    config.generator = 'mobile_stylegan_ffhq'
    config.resolution = 512  # pixels of the pictures that are measured
    config.attributes = ('smile', 'age', 'yaw')  # of those that jaxinv/faces/attributes.py measures
    config.controls = ('gender', 'glasses')  # held fixed (jaxinv/faces/controls.py); () = none
    config.truncation_psi = 0.8  # of all samples; 1 = off

    config.samples = ml_collections.ConfigDict()
    config.samples.num = 2000  # faces to fit on
    config.samples.chunk = 32  # faces between two saves

    # Kinds of direction (direction_fit.COSTS), tried on a few faces.
    config.choose = ml_collections.ConfigDict()
    config.choose.kinds = ('plain', 'likely', 'identity', 'identity_likely', 'mild')
    config.choose.num = 12  # faces
    config.choose.deviations = (-1.5, 1.5)  # strengths, as predicted change in standard deviations

    config.validate = ml_collections.ConfigDict()
    config.validate.num = 32  # fresh faces
    config.validate.deviations = (-2.0, -1.0, 1.0, 2.0)
    config.validate.shown = 3  # faces in the pictures

    config.ganspace = ml_collections.ConfigDict()
    config.ganspace.num = 100_000  # samples of w, none rendered
    config.ganspace.components = 10  # 0 = none
    return defaults.variant(config, arg, {'quick': _quick})


def _quick(config):
    """A few small samples, to see that it runs; the directions are noise."""
    config.samples.num, config.samples.chunk = 24, 8
    config.choose.num = config.validate.num = 2
    config.validate.shown = 1
    config.ganspace.num = 2000
