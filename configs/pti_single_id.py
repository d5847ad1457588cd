r"""Pivotal tuning of one generator for each person (PTI, equation 2), all of them in one program.

    python -m jaxinv.launch --config=pti_single_id
    python -m jaxinv.launch --config=pti_single_id:paper
    python -m jaxinv.launch --config=pti_single_id:official

Each identity stops by itself at LPIPS 0.06, the threshold of PTI's code; `:paper` runs all steps,
since the paper mentions no threshold. Generators are saved under generators/NAME/.
"""

from jaxinv import defaults
from jaxinv.configs import _pti, _tiny

STOP_LPIPS = 0.06  # of PTI's code


def get_config(arg=''):
    config = defaults.get_config('invert')
    config.tune.shared = False
    _pti.quick(config)
    config.tune.stop_lpips = STOP_LPIPS
    return defaults.variant(config, arg, VARIANTS)


def _paper(config):
    _pti.paper(config)
    config.tune.stop_lpips = None


def _official(config):
    _pti.official(config)
    config.tune.stop_lpips = STOP_LPIPS


VARIANTS = {'paper': _paper, 'official': _official, 'test': _tiny.generator}
