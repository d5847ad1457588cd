r"""Pivotal tuning of BigGAN-deep: a pivot in Z+ with the picture's class kept, then the generator.

    python -m jaxinv.launch --config=pti_biggan --config.data.images=FOLDER \
        --config.generator=biggan256                        # the converted weights (docs/biggan.md)
    python -m jaxinv.launch --config=pti_biggan ... --config.label=207       # a class for all
    python -m jaxinv.launch --config=pti_biggan ... --config.edits="('class:208=0.5','my.npy=2')"
    python -m jaxinv.launch --config=pti_biggan:paper ...                    # 450 + 350 steps

The locality regulariser keeps what the generator makes of other codes of the pictures' classes.
"""

from jaxinv import defaults
from jaxinv.configs import _biggan, _pti, _tiny


def get_config(arg=''):
    config = defaults.get_config('invert')
    _pti.quick(config)
    _biggan.biggan(config)
    config.pivot.space = 'w_plus'
    return defaults.variant(config, arg, {'paper': _paper, 'test': _tiny.biggan})


def _paper(config):
    defaults.reset(config, 'pivot.num_steps', 'tune.num_steps')
