r"""Pivotal tuning of BigGAN-deep: a pivot in Z+ with the picture's class kept, then the generator.

    python -m jaxinv.launch --config=pti_biggan --config.data.images=FOLDER \
        --config.generator=biggan256                        # the converted weights (docs/biggan.md)
    python -m jaxinv.launch --config=pti_biggan ... --config.label=207       # a class for all
    python -m jaxinv.launch --config=pti_biggan ... --config.edits="('class:208=0.5','my.npy=2')"
    python -m jaxinv.launch --config=pti_biggan:paper ...                    # 450 + 350 steps

The locality regulariser keeps what the generator makes of other codes of the pictures' classes.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config()
    defaults.use_biggan(config)
    config.pivot.space = 'w_plus'
    config.pivot.num_steps = 100
    config.tune.num_steps = 80
    return defaults.variant(config, arg, {'paper': _paper, 'test': defaults.use_tiny_biggan})


def _paper(config):
    config.pivot.num_steps = 450
    config.tune.num_steps = 350
