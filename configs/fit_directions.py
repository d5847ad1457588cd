r"""Directions in the generator's W for smile, age and yaw, found by rendering and measuring.

    python -m jaxinv.launch --config=fit_directions
    python -m jaxinv.launch --config=fit_directions:quick     # to see that it runs
    python -m jaxinv.launch --config=pti_multi_id \
        --config.edits="('runs/.../directions.npz:smile=2',)"

Samples w, renders, measures (jaxinv/faces/attributes.py), and fits linear directions that leave the
other attributes and the identity unchanged. It tries a few kinds of direction, takes the best one
of each attribute, and validates it on fresh faces. GANSpace's principal components are added. A
result of the default settings is in jaxinv/directions/ffhq.npz, its figures in ffhq.json; it was
made before each stage had its own random stream, so a rerun samples other faces. `:quick` takes few
samples, and its directions are noise.
"""

from jaxinv import defaults


def get_config(arg=''):
    return defaults.variant(defaults.get_config('fit_directions'), arg, {'quick': _quick})


def _quick(config):
    """A few small samples, to see that it runs; the directions are noise."""
    config.samples.num, config.samples.chunk = 24, 8
    config.choose.num = config.validate.num = 2
    config.validate.shown = 1
    config.ganspace.num = 2000
