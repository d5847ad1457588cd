r"""Pictures with measured invertibility maps, to train SAM's invertibility network on.

    python -m jaxinv.launch --config=invertibility_data --workdir=DATA
    python -m jaxinv.launch --config=train_invertibility --config.data=DATA

The pictures are generated, with occluders and crooked framing (jaxinv/data/occluders.py), and real
ones from config.images. The defaults differ from the paper: it measures 10 000 real pictures, by
inversions of 501 steps in its code. The inversions take most of the time. `:compact` is a budget
for two CPU cores: 30 generated pictures and the demo portraits, 30 steps, LPIPS at 128 pixels.

Several machines: the same command with --config.shares=N and --config.share=0 ... N-1, and one
--workdir for each; give all folders to the training, separated by commas.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config('invertibility_data')
    return defaults.variant(config, arg, {'compact': _compact, 'quicktest': _quicktest})


def _compact(config):
    config.images = 'demo'
    config.samples.num = 30
    config.batch_per_device = 1
    config.sam.num_steps = 30  # with 16 the later spaces are not yet better than F4
    config.sam.loss_size = 128


def _quicktest(config):
    config.generator, config.resolution = 'tiny', 32
    config.samples.num = 3
    config.sam.num_steps, config.sam.chunk_steps = 4, 2
    config.prior.num_samples = 100
