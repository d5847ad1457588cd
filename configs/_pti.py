"""Budgets and variants that the configs of pivotal tuning share."""

from jaxinv import defaults


def quick(config):
    """A budget for two CPU cores: fewer steps, and StyleGAN2's learning rate for the pivot."""
    config.pivot.num_steps = 100
    config.pivot.learning_rate = 0.1
    config.tune.num_steps = 80


def paper(config):
    """The paper's budget, which the settings have by default."""
    defaults.reset(config, 'pivot.num_steps', 'pivot.learning_rate', 'tune.num_steps')


def official(config):
    """What PTI's released code does where it departs from the paper (table in docs/pti.md)."""
    paper(config)
    config.pivot.learning_rate = 0.01  # an argument of its projector overrides the paper's 5e-3
    config.w_statistics.num_samples = 600
    config.tune.batch_size = 1  # one Adam step an image, in fixed order
    config.locality.weight = 0.0  # off by default
    config.locality.truncation_psi = 0.5
    config.locality.noise = 'none'
