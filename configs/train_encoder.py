r"""An encoder to W for a generator, trained on the generator's own pictures.

    python -m jaxinv.launch --config=train_encoder --workdir=ENCODER
    E=ENCODER/encoder.safetensors
    python -m jaxinv.launch --config=pti_multi_id --config.pivot.start=encoder:$E

The default is a budget for two CPU cores: docs/encoders.md has its times and what it reached.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config('train_encoder')
    return defaults.variant(config, arg, {'quicktest': _quicktest})


def _quicktest(config):
    config.generator, config.resolution = 'tiny', 32
    config.samples.num, config.samples.held_out = 60, 4
    config.num_steps, config.chunk_steps, config.batch_size = 4, 2, 2
    config.image.num_steps, config.image.batch_size = 2, 2
    config.images = ''
