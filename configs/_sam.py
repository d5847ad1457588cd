"""Budgets and variants that the configs of SAM share."""

from jaxinv import defaults


def get_config():
    """SAM with the quick budget."""
    config = defaults.get_config('invert_sam')
    _quick(config)
    return config


def _quick(config):
    """A budget for two CPU cores.

    Fewer steps of everything, StyleGAN2's learning rate for the pivot, and a higher threshold.
    """
    config.pivot.num_steps = 60
    config.pivot.learning_rate = 0.1
    config.tune.num_steps = 80
    config.sam.num_steps = 100
    config.invertibility.num_steps = 30  # with fewer, F8 and F10 are not yet better than F4
    config.invertibility.tau = 0.26  # after 30 steps a space that will pass can be above 0.225


def paper(config):
    """The budget of SAM's code, since the paper gives none; the settings have it by default."""
    defaults.reset(
        config,
        'pivot.num_steps',
        'pivot.learning_rate',
        'tune.num_steps',
        'sam.num_steps',
        'invertibility.num_steps',
        'invertibility.tau',
    )


def method(name: str):
    """The variant that chooses a method."""

    def choose(config):
        config.method = name

    return choose


def _no_offset_penalty(config):
    config.sam.offsets_weight = 0.0


def _no_refinement(config):
    config.invertibility.refine = False


def _lpips_alex(config):
    config.sam.lpips_net = 'alex'


def _sweep(config):
    config.sweep.taus = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
    config.sweep.num_steps = 60


VARIANTS = {
    'paper': paper,
    'no_offset_penalty': _no_offset_penalty,
    'no_refinement': _no_refinement,
    'lpips_alex': _lpips_alex,
    'sweep': _sweep,
}
