r"""Pivotal tuning of one generator on several people (PTI, equation 3), with real weights.

    python -m jaxinv.launch --config=pti_multi_id                                # two portraits
    python -m jaxinv.launch --config=pti_multi_id --config.data.images=FOLDER    # yours
    python -m jaxinv.launch --config=pti_multi_id:paper                          # 450 + 350 steps
    python -m jaxinv.launch --config=pti_multi_id:official                       # as PTI's code

The default budget is for two CPU cores. It differs from `:paper` in 100 + 80 steps and a learning
rate of the pivot of 0.1 (StyleGAN2's) instead of 0.005. `:official` differs from the paper where
PTI's code does (docs/pti.md).
"""

from jaxinv import defaults
from jaxinv.configs import _pti, _tiny

VARIANTS = {'paper': _pti.paper, 'official': _pti.official, 'test': _tiny.generator}


def get_config(arg=''):
    config = defaults.get_config('invert')
    _pti.quick(config)
    return defaults.variant(config, arg, VARIANTS)
