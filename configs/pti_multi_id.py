r"""Pivotal tuning of one generator on several people (PTI, equation 3), with real weights.

    python -m jaxinv.launch --config=pti_multi_id                                # two portraits
    python -m jaxinv.launch --config=pti_multi_id --config.data.images=FOLDER    # yours
    python -m jaxinv.launch --config=pti_multi_id:paper                          # 450 + 350 steps
    python -m jaxinv.launch --config=pti_multi_id:official                       # as PTI's code

The default budget is for two CPU cores; results and timings are in the README.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config()
    _quick(config)
    variants = {'paper': _paper, 'official': _official, 'test': defaults.use_tiny_generator}
    return defaults.variant(config, arg, variants)


def _quick(config):
    """StyleGAN2's learning rate finds the pivot in a fifth of PTI's steps."""
    config.pivot.num_steps = 100
    config.pivot.learning_rate = 0.1
    config.tune.num_steps = 80


def _paper(config):
    config.pivot.num_steps = 450
    config.pivot.learning_rate = 5e-3
    config.tune.num_steps = 350


def _official(config):
    _paper(config)
    defaults.use_official_code(config)
