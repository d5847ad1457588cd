r"""A latent mapper for one text (StyleCLIP, section 5).

    python -m jaxinv.launch --config=train_mapper --config.clip=CLIP --workdir=BEARD \
        --config.prompt='a face with a beard'
    python -m jaxinv.launch --config=pti_multi_id \
        --config.edits="('mapper:BEARD/mapper.safetensors=1',)"

CLIP is a file or folder of yours, see docs/text_edits.md. The default is the official budget, of
50 000 steps; `:official` also takes its normalisation and its preparation of images.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config('train_mapper')
    return defaults.variant(config, arg, {'official': _official, 'quicktest': _quicktest})


def _official(config):
    config.norm, config.preparation = 'rows', 'official'


def _quicktest(config):
    """A random CLIP, a random generator: to see that it runs."""
    config.generator, config.resolution, config.clip = 'tiny', 32, 'random'
    config.num_steps, config.chunk_steps, config.shown, config.identity = 4, 2, 1, ''
    config.samples.num, config.samples.held_out = 8, 4
