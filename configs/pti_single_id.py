r"""Pivotal tuning of one generator for each person (PTI, equation 2), all of them in one program.

    python -m jaxinv.launch --config=pti_single_id
    python -m jaxinv.launch --config=pti_single_id:paper
    python -m jaxinv.launch --config=pti_single_id:official
    python -m jaxinv.launch --config=pti_single_id --config.tune.stop_lpips=0.06  # an early stop

`:official` stops each identity at LPIPS 0.06, as PTI's code does; the paper mentions no threshold.
Generators are saved under generators/NAME/.
"""

from jaxinv import defaults
from jaxinv.configs import _pti, _tiny


def get_config(arg=''):
    config = defaults.get_config('invert')
    config.tune.shared = False
    _pti.quick(config)
    return defaults.variant(config, arg, VARIANTS)


def _official(config):
    _pti.official(config)
    config.tune.stop_lpips = 0.06


VARIANTS = {'paper': _pti.paper, 'official': _official, 'test': _tiny.generator}
