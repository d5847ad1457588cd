r"""Edits of several methods on the same photographs: PTI's table 2, and more (docs/evaluate.md).

    python -m jaxinv.launch --config=evaluate_edits                       # two portraits
    python -m jaxinv.launch --config=evaluate_edits --config.data.images=FOLDER \
        --config.methods="w,w_plus,pti,sam" --config.edits="('yaw=2/-2','yaw=2,smile=1.2')"

For each edit: the change that an independent judge measures, identity, change outside the edited
region; identity at the same measured change; curves; consistency when inverted again and edited
back, which doubles the inversions. Methods are spelt as in --config=evaluate.
"""

from jaxinv import defaults
from jaxinv.configs import _tiny


def get_config(arg=''):
    return defaults.variant(defaults.get_config('evaluate_edits'), arg, {'test': _test})


def _test(config):
    _tiny.comparison(config)
    config.edits = ()
    config.measure.equal = config.measure.curves = config.measure.consistency = ()
