r"""SAM's encoders for a generator: codes of its regions in one pass (appendix 6.2).

    python -m jaxinv.launch --config=train_sam_encoders --workdir=ENCODERS
    python -m jaxinv.launch --config=train_sam_encoders --workdir=ENCODERS \
        --config.start=ENCODER/encoder.safetensors --config.samples.folder=ENCODER
    python -m jaxinv.launch --config=sam:encoder \
        --config.sam_encoders=ENCODERS/sam_encoders.safetensors

ENCODER: the work folder of --config=train_encoder, whose encoder the one to W+ starts from. The
default is a budget for two CPU cores; docs/sam.md says where it differs from the paper.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config('train_sam_encoders')
    return defaults.variant(config, arg, {'paper': _paper, 'quicktest': _quicktest})


def _paper(config):
    """What the paper says: offsets from picture and mask alone, no loss on w, learned maps."""
    config.sees_feature = False
    config.w_weight = 0.0


def _quicktest(config):
    config.generator, config.resolution = 'tiny', 32
    config.samples.num, config.samples.held_out = 60, 4
    config.num_steps, config.chunk_steps, config.batch_size = 4, 2, 2
    config.fit_pictures = 40
    config.prior.num_samples = 200
    config.images = ''
