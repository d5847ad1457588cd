r"""Pivotal tuning of one generator for each person (PTI, equation 2), all of them in one program.

    python -m jaxinv.launch --config=pti_single_id
    python -m jaxinv.launch --config=pti_single_id:paper
    python -m jaxinv.launch --config=pti_single_id:official

Each identity stops by itself at LPIPS 0.06, the threshold of PTI's code; `:paper` runs all steps,
since the paper mentions no threshold. Generators are saved under generators/NAME/.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config()
    config.tune.shared = False
    config.tune.stop_lpips = 0.06
    config.pivot.num_steps = 100
    config.pivot.learning_rate = 0.1
    config.tune.num_steps = 80
    variants = {'paper': _paper, 'official': _official, 'test': defaults.use_tiny_generator}
    return defaults.variant(config, arg, variants)


def _paper(config):
    config.pivot.num_steps = 450
    config.pivot.learning_rate = 5e-3
    config.tune.num_steps = 350
    config.tune.stop_lpips = None


def _official(config):
    defaults.use_official_code(config)
    config.tune.stop_lpips = 0.06
