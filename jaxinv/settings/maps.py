"""Settings of the tasks `invertibility_data` and `train_invertibility` (SAM, equations 1 and 2)."""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting, subsection
from jaxinv.settings.pti import CHUNK, GENERATOR_KEY
from jaxinv.settings.sam import Prior, Search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated(Section):
    """Generated pictures."""

    section: ClassVar[str] = 'samples'

    num: int = setting(1000, 'Pictures; 0 = none.', least=0)
    truncation_psi: float = setting(0.9, 'Of w; 1 = off.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertibilityData(Section):
    """--config=invertibility_data: pictures with measured maps."""

    task: str = setting('invertibility_data', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of pictures, occluders and inversions.', least=0)
    generator: str = setting('mobile_stylegan_ffhq', 'A name, or a folder or file.')
    generator_key: str = setting(
        'G_ema',
        GENERATOR_KEY,
        later=True,
    )
    resolution: int | None = setting(512, 'Pixels; None = the only one there is.', least=1)
    lpips: str = setting('auto', "LPIPS weights: 'auto' or a path.")
    spaces: tuple = setting((), 'Latent spaces; () = all that the generator has.')
    images: str = setting('', "A folder of real pictures, 'demo', 'benchmark', or '' = none.")
    aligned: bool = setting(False, 'True = the real pictures are FFHQ crops already.')
    share: int = setting(0, 'Of the pictures, the share that this run measures: 0, 1, ...', least=0)
    shares: int = setting(1, 'Runs that the pictures are divided among.', least=1)
    batch_per_device: int = setting(
        2,
        'Pictures in a program, times the number of spaces.',
        least=1,
        changes_result=False,
    )

    samples: Generated = subsection(Generated)
    # Here batch_per_device is a key of the config itself.
    sam: Search = subsection(Search, without=('batch_per_device',), num_steps=300)
    prior: Prior = subsection(Prior)

    def check(self) -> None:
        super().check()
        if self.samples.num == 0 and not self.images:
            raise JaxinvError(
                f'samples.num is 0 and images is {self.images!r}; there is nothing to measure.'
            )
        if self.share >= self.shares:
            raise JaxinvError(
                f'share is {self.share} of {self.shares}; shares count from 0 to one less.'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainInvertibility(Section):
    """--config=train_invertibility: a network that predicts the maps."""

    task: str = setting('train_invertibility', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of split, start and steps.', least=0)
    data: str = setting(
        '', 'Work folder of --config=invertibility_data, or several separated by commas.'
    )
    lpips: str = setting('auto', "Weights of the trunk 'vgg16': 'auto' or a path.")
    size: str = setting(
        'vgg16',
        "Network: a frozen LPIPS trunk 'vgg16', or a ResNet DeepLab 'paper', 'official' as in "
        "SAM's code, 'small' (networks.invertibility.SIZES).",
        choices=('vgg16', 'official', 'paper', 'small'),
    )
    held_out: float = setting(0.2, 'Share of the pictures.', above=0, below=1)
    train_on_real: bool = setting(
        False, 'True = real photographs are split like the others; False = all held out.'
    )

    num_steps: int = setting(600, 'Steps.', least=1)
    chunk_steps: int = setting(50, CHUNK, least=1, changes_result=False)
    batch_size: int = setting(8, 'Pictures in a step.', least=1)
    optimizer: str = setting(
        'adam',
        "'adam' with decoupled weight decay, or 'sgd' with momentum 0.9.",
        choices=('adam', 'sgd'),
    )
    learning_rate: float = setting(1e-3, 'At the start; falls to 0 as (1 - t)^0.9.', least=0)
    trunk_rate: float = setting(1.0, 'Of the ResNet, in units of learning_rate.', least=0)
    weight_decay: float = setting(1e-4, 'Of all parameters; 0 = off.', least=0)
