r"""Directions in the generator's W for twenty attributes, found by rendering and measuring.

    python -m jaxinv.launch --config=fit_directions
    python -m jaxinv.launch --config=fit_directions:quick     # to see that it runs
    python -m jaxinv.launch --config=pti_multi_id \
        --config.edits="('runs/.../directions.npz:smile=2',)"

Samples w, renders, measures (jaxinv/faces/measures.py), and fits linear directions that leave the
other attributes and the identity unchanged. It tries a few kinds of direction, takes the best one
of each attribute, and validates it on fresh faces: another network, or another statistic of other
regions, than the one it was fitted to must see the attribute change. What is not confirmed is left
out, with the reason. The calibrated range ends where dlib's identity distance reaches 0.45.
GANSpace's principal components are added. A result is in jaxinv/directions/ffhq.npz, its figures
and its settings in ffhq.json. `:quick` takes few samples, and its directions are noise.

The judges of pose, age and gender are in a package of npm, which is needed to fetch them.
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
