"""Settings of the task `train_encoder`."""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting, subsection
from jaxinv.settings.pti import CHUNK, GENERATOR_KEY, MESH


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples(Section):
    """Generated pictures and their codes."""

    section: ClassVar[str] = 'samples'

    num: int = setting(6000, 'Pictures to train on.', least=1)
    held_out: int = setting(256, 'Pictures to judge by.', least=1)
    least_psi: float = setting(
        0.5,
        'Lower end, to 1, of the range that truncation_psi of each picture is drawn from.',
        least=0,
        most=1,
    )
    perturbation: float = setting(
        0.02,
        'Noise on the weights of the generator for a quarter of the pictures, in units of each '
        "array's RMS, as a stand-in for tuned generators; 0 = off.",
        least=0,
    )
    folder: str = setting(
        '',
        'Work folder of another training whose samples, made with the same generator, seed and '
        "settings, are used, and completed; '' = this run's.",
        later=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation(Section):
    """Changes of the pictures that a code should not follow (jaxinv/data/augment.py)."""

    section: ClassVar[str] = 'augment'

    crop: float = setting(
        0.7, 'Share of pictures turned, scaled and shifted a little.', least=0, most=1
    )
    colour: float = setting(
        0.8, 'Share with another brightness, contrast and tint.', least=0, most=1
    )
    grey: float = setting(0.1, 'Share without colour.', least=0, most=1)
    blur: float = setting(0.4, 'Share blurred.', least=0, most=1)
    noise: float = setting(0.3, 'Share with noise.', least=0, most=1)
    jpeg: float = setting(0.4, 'Share compressed.', least=0, most=1)
    occluders: float = setting(
        0.25, 'Share with pieces of other photographs over them.', least=0, most=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageLoss(Section):
    """Second stage: the image of the predicted code beside the picture."""

    section: ClassVar[str] = 'image'

    num_steps: int = setting(0, 'Steps after those on w; 0 = none.', least=0)
    batch_size: int = setting(4, 'Pictures in a step.', least=1)
    learning_rate: float = setting(
        5e-5, 'Highest; rises for 100 steps and falls to 0 by a cosine.', least=0
    )
    size: int = setting(256, 'Pixels at which images are compared.', least=1)
    lpips_weight: float = setting(1.0, 'Weight of LPIPS.', least=0)
    l2_weight: float = setting(1.0, 'Weight of the mean squared difference.', least=0)
    w_weight: float = setting(1.0, 'Weight of the loss on w.', least=0)
    identity_weight: float = setting(
        0.0,
        "Weight of 1 - cosine of SFace's embeddings, for generators of faces; 0 of a picture "
        'without a face. What it trains is then to be judged by dlib, not by SFace.',
        least=0,
        later=True,
    )
    deltas: bool = setting(
        False,
        'True = an encoder to W+: this stage also trains a difference for each later row (e4e).',
        later=True,
    )
    delta_weight: float = setting(
        2e-4, 'Of the squared lengths of these differences, as in e4e.', least=0, later=True
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Of a step of this stage."""
        further = {'identity': self.identity_weight > 0, 'deltas': self.deltas}
        return ('loss', 'w', 'l2', 'lpips_alex', *(name for name, used in further.items() if used))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainEncoder(Section):
    """--config=train_encoder: an encoder to W for a generator."""

    task: str = setting('train_encoder', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of samples, augmentation and order.', least=0)
    mesh: str = setting(
        '',
        MESH,
        changes_result=False,
    )
    generator: str = setting('mobile_stylegan_ffhq', 'A name, or a folder or file.')
    generator_key: str = setting(
        'G_ema',
        GENERATOR_KEY,
    )
    resolution: int | None = setting(512, 'Pixels; None = the only one there is.', least=1)
    lpips: str = setting('auto', "LPIPS weights: 'auto' or a path.")
    images: str = setting(
        'demo',
        "Photographs to judge by, never to train on: a folder, 'demo', 'benchmark', or '' = none.",
    )
    aligned: bool = setting(False, 'True = the photographs are FFHQ crops already.')

    num_steps: int = setting(3000, 'Steps on w.', least=1)
    chunk_steps: int = setting(100, CHUNK, least=1, changes_result=False)
    batch_size: int = setting(16, 'Pictures in a step.', least=1)
    learning_rate: float = setting(
        3e-4, 'Highest; rises for 100 steps and falls to 0 by a cosine.', least=0
    )
    ridge: float = setting(
        1e-3, 'Of the linear start on frozen features, in units of their variance.', above=0
    )
    visible_weight: float = setting(
        1.0, 'Of the change of the image that the error in w causes, by a linear model.', least=0
    )
    average: float = setting(
        0.999, 'Of the running mean of the weights, which is what is kept.', least=0, below=1
    )

    samples: Samples = subsection(Samples)
    augment: Augmentation = subsection(Augmentation)
    image: ImageLoss = subsection(ImageLoss)

    def check(self) -> None:
        super().check()
        for name in ('deltas', 'identity_weight'):
            if getattr(self.image, name) and not self.image.num_steps:
                raise JaxinvError(
                    f'image.{name} is {getattr(self.image, name)} and image.num_steps is 0; it is '
                    'of the steps on images: set image.num_steps, e.g. to 500.'
                )
