"""Settings of the task `train_sam_encoders` (SAM, appendix 6.2)."""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting, subsection
from jaxinv.settings.encoders import Augmentation, Samples
from jaxinv.settings.pti import CHUNK, GENERATOR_KEY, MESH
from jaxinv.settings.sam import Prior, Search

# Settings of a search that a training has otherwise, or not.
NOT_OF_TRAINING = (
    'num_steps', 'learning_rate', 'padding', 'clamp', 'noise', 'lr_rampdown', 'lr_rampup',
    'batch_per_device', 'chunk_steps',
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regions(Section):
    """The regions of training pictures, and the space that each is inverted in."""

    section: ClassVar[str] = 'regions'

    parts: int = setting(6, 'Largest number of random regions, besides occluders.', least=1)
    w_plus: float = setting(
        0.5, 'Share of these regions in W+; the others, and occluders, are in a random feature.',
        least=0, most=1,
    )  # fmt: skip
    whole: float = setting(
        0.3, 'Share of pictures that are in one space, random, W+ included.', least=0, most=1
    )
    network: str = setting(
        '',
        'Trained invertibility network that chooses the spaces of the regions of the other '
        "pictures; '' = they are random.",
    )
    tau: float = setting(0.26, "The network's threshold, see invertibility.tau.", above=0, below=10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSamEncoders(Section):
    """--config=train_sam_encoders: SAM's encoders for a generator."""

    task: str = setting('train_sam_encoders', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of samples, their changes, regions and order.', least=0)
    mesh: str = setting('', MESH, changes_result=False)
    generator: str = setting('mobile_stylegan_ffhq', 'A name, or a folder or file.')
    generator_key: str = setting('G_ema', GENERATOR_KEY)
    resolution: int | None = setting(512, 'Pixels; None = the only one there is.', least=1)
    lpips: str = setting('auto', "LPIPS weights: 'auto' or a path.")
    images: str = setting(
        'demo',
        "Photographs to judge by, never to train on: a folder, 'demo', 'benchmark', or '' = none.",
    )
    aligned: bool = setting(False, 'True = the photographs are FFHQ crops already.')

    spaces: tuple = setting((), "Features, as ('F4', 'F6'); () = all that the generator has.")
    sees_feature: bool = setting(
        True,
        'True = an offset also depends on the feature that w_plus gives; False = on the picture '
        'and the mask alone, as in the paper.',
    )
    start: str = setting(
        '',
        'Encoder to W, of --config=train_encoder, that the encoder to W+ starts from, in the place '
        "of e4e in the paper; '' = ImageNet's features and a linear fit.",
    )
    num_steps: int = setting(400, 'Steps.', least=1)
    chunk_steps: int = setting(25, CHUNK, least=1, changes_result=False)
    batch_size: int = setting(4, 'Pictures in a step.', least=1)
    learning_rate: float = setting(
        3e-4,
        "Highest, in units of the RMS of each array of weights, which Adam's steps are scaled by; "
        'rises for 100 steps and falls to 0 by a cosine.',
        least=0,
    )
    w_rate: float = setting(
        1.0, 'Rate of the encoder to W+, in units of learning_rate; 0 = it stays.', least=0
    )
    fit_pictures: int = setting(
        400, "Pictures whose features the offsets' last layer is fitted to at the start.", least=1
    )
    ridge: float = setting(
        1e-3, 'Of the linear fits at the start, in units of the variance.', above=0
    )
    w_weight: float = setting(
        0.1,
        "Weight of the squared error of the rows of w_plus, in units of W's variance; the samples' "
        'w is known. 0 = off, as in the paper.',
        least=0,
    )
    average: float = setting(
        0.999, 'Of the running mean of the weights, which is what is kept.', least=0, below=1
    )

    samples: Samples = subsection(Samples, num=1200, held_out=64)
    augment: Augmentation = subsection(
        Augmentation, crop=0.5, colour=0.5, grey=0.05, blur=0.2, noise=0.1, jpeg=0.2, occluders=0.7
    )
    regions: Regions = subsection(Regions)
    # The weights of equations 5 to 8.
    sam: Search = subsection(Search, without=NOT_OF_TRAINING, offsets_weight=0.1)
    prior: Prior = subsection(Prior)

    def check(self) -> None:
        super().check()
        if 'W+' in self.spaces:
            raise JaxinvError(
                f"spaces is {self.spaces}; it can have features, as ('F4', 'F6'), and W+ is always "
                'one of the spaces.'
            )
