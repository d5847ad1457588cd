r"""Global directions of a generator for edits by text (StyleCLIP, section 6).

    python -m jaxinv.launch --config=text_directions --config.clip=CLIP --workdir=TEXT
    python -m jaxinv.launch --config=pti_multi_id --config.text.clip=CLIP \
        --config.text.directions=TEXT --config.edits="('text:a face with a beard=3',)"

CLIP is a file or folder of yours, see docs/text_edits.md. Every style channel is moved in 100
pictures, hundreds of thousands of images in all; `:quick` takes few pictures, and its directions
are rough.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config('text_directions')
    return defaults.variant(config, arg, {'quick': _quick, 'quicktest': _quicktest})


def _quick(config):
    config.statistics, config.images = 10_000, 4


def _quicktest(config):
    """A random CLIP, a random generator: to see that it runs."""
    config.generator, config.resolution, config.clip = 'tiny', 32, 'random'
    config.statistics, config.images, config.images_per_pass = 50, 3, 2
    config.channels, config.chunk = 2, 8
