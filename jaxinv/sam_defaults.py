"""The settings that the SAM configs start from, and the variants they share."""

import ml_collections

from jaxinv import defaults, invertibility
from jaxinv.inversion import sam, sam_prior


def get_config() -> ml_collections.ConfigDict:
    config = defaults.get_config()
    config.task = 'invert_sam'
    config.method = 'sam'  # or one of sam_settings.LABELS

    # Start of w_plus: the W pivot, by the steps below, or a file of codes (a run's pivots.npz).
    config.start = ''
    config.pivot.num_steps = 60
    config.pivot.learning_rate = 0.1
    # PTI, for the methods pti and pti_sam.
    config.tune.num_steps = 80
    config.locality.weight = 0.0

    # The joint search (SAM, equations 5 to 8); comments in jaxinv/inversion/sam.py.
    settings = sam.Settings(num_steps=100, chunk_steps=25)
    config.sam = ml_collections.ConfigDict(settings._asdict())
    # Pictures a device at a time, to measure and to search, which bounds its memory; 0 = all. When
    # measured each takes that of spaces_at_once, and in a sweep each threshold is a picture.
    config.sam.at_once = 8
    config.prior = ml_collections.ConfigDict(sam_prior.Settings()._asdict())
    config.gaussian_prior_weight = 1e-6  # prior_weight of the method gaussian_prior

    # Segments (3.1): 'auto', 'face', 'slic', a label map, or a folder of them; or a network,
    # 'torchvision' or 'transformers' (extras, see jaxinv/segmenters.py).
    config.segments = ml_collections.ConfigDict()
    config.segments.how = 'auto'
    config.segments.parts = 12  # of 'slic', and of what a network leaves unnamed

    # Invertibility (3.1) and the choice (3.2).
    config.invertibility = ml_collections.ConfigDict()
    config.invertibility.network = ''  # file of a trained network; '' = measure
    # Of the inversion into each space alone; with fewer, F8 and F10 are not yet better than F4.
    config.invertibility.num_steps = 30
    config.invertibility.learning_rate = 0.05
    config.invertibility.spaces = ()  # candidates, () = all the generator has
    config.invertibility.spaces_at_once = 1  # in one program; 0 = all, where memory allows
    # Threshold of the mean LPIPS-vgg of a segment. The released code's is 0.225, for 501 steps;
    # after 30 a space that will pass can still be above it.
    config.invertibility.tau = 0.26
    config.invertibility.refine = True  # False = every pixel by itself
    config.invertibility.resample = 'bilinear'  # of masks; SAM's code 'lanczos'
    # Instead of maps: ((beginning of a segment's name, space), ...), '*' for the others.
    config.invertibility.assign = ()

    # The curve of reconstruction against editability over the threshold.
    config.sweep = ml_collections.ConfigDict()
    config.sweep.taus = tuple(round(0.05 + 0.025 * i, 3) for i in range(19))
    config.sweep.num_steps = 0  # of a real inversion at every threshold; 0 = estimate from maps

    config.edit_mixing = 'with_offsets'  # of soft masks; SAM's code 'official'
    config.edit_table = True  # measure every edit in every space alone (table 3)
    return config


def finish(config: ml_collections.ConfigDict, arg: str, known: dict) -> ml_collections.ConfigDict:
    """The config with the variants of `arg`, joined by commas; see defaults.variant."""
    for part in filter(None, arg.split(',')):
        defaults.variant(config, part, known)
    del config.drift  # random latents are tuning's concern
    return config


def method(name: str):
    """The variant that chooses a method."""

    def choose(config):
        config.method = name

    return choose


def paper(config):
    """The paper gives no budget; this is its code's, with its projection's."""
    config.pivot.num_steps = 450
    config.pivot.learning_rate = 5e-3
    config.sam.num_steps = 1001
    config.invertibility.num_steps = 501
    config.invertibility.tau = invertibility.TAU
    config.tune.num_steps = 350


def _no_offset_penalty(config):
    config.sam.offsets_weight = 0.0


def _no_refinement(config):
    config.invertibility.refine = False


def _lpips_alex(config):
    config.sam.lpips_net = 'alex'


def _sweep(config):
    config.sweep.taus = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
    config.sweep.num_steps = 60


def few_steps(config):
    """For the tests only."""
    config.sam.num_steps = config.invertibility.num_steps = 4
    config.sam.chunk_steps = 2
    config.prior.num_samples = 200
    config.segments.how = 'slic'
    config.segments.parts = 4
    config.sweep.taus = (0.1, 0.3, 0.5)


VARIANTS = {
    'paper': paper,
    'no_offset_penalty': _no_offset_penalty,
    'no_refinement': _no_refinement,
    'lpips_alex': _lpips_alex,
    'sweep': _sweep,
}
