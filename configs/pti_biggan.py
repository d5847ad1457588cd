r"""Pivotal tuning of BigGAN-deep: a pivot in Z+ of the picture's class, then the generator.

    python -m jaxinv.launch --config=pti_biggan --config.data.images=FOLDER \
        --config.generator=biggan256                        # the converted weights (docs/biggan.md)
    python -m jaxinv.launch --config=pti_biggan ... --config.label=207       # one class for all
    python -m jaxinv.launch --config=pti_biggan ... --config.edits="('class:208=0.5','my.npy=2')"
    python -m jaxinv.launch --config=pti_biggan:paper ...                    # 450 + 350 steps

The default budget is for two CPU cores, 100 + 80 steps. PTI's paper has no BigGAN; the pivot's
learning rate is 0.1, in `:paper` too. The locality regulariser keeps images of other codes of the
same classes.
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
