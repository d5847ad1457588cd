"""Settings of pivotal tuning: projection, tuning, locality regulariser (Roich et al. 2021).

Defaults are the paper's values (PTI, arXiv:2106.05744), and StyleGAN2's where PTI gives none.
"""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting, subsection

CHUNK = 'Steps between progress lines and checkpoints.'
GENERATOR_KEY = (
    "Of several generators in a checkpoint: 'G_ema' = the averaged weights, 'G' = the last step's, "
    'or a name in the file, which an error lists.'
)
MESH = "Devices: '' = all there are, 'D,F' or 'data=D,fsdp=F' (docs/devices.md)."


@dataclasses.dataclass(frozen=True, kw_only=True)
class WStatistics(Section):
    """Mean and spread of W, from samples of the mapping network."""

    section: ClassVar[str] = 'w_statistics'

    num_samples: int = setting(10_000, 'Samples of w; PTI takes 600 in its code.', least=2)
    seed: int = setting(123, 'Of the samples.', least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection(Section):
    """Step 1, the pivot: equation 1 with the schedules of StyleGAN2's projector (appendix D)."""

    section: ClassVar[str] = 'pivot'

    num_steps: int = setting(450, 'Steps; 0 = the codes of `start`, in W+.', least=0)
    start: str = setting(
        '',
        "'' = the mean of W; 'encoder:FILE' = the codes of an encoder, of which a search in W "
        "takes the mean row; 'encoder:mobile_stylegan_ffhq' comes along (docs/encoders.md).",
        later=True,
    )
    refinements: int = setting(5, 'Passes of a ReStyle encoder.', least=1, later=True)
    learning_rate: float = setting(
        5e-3, "Peak of the ramp. PTI's code has 0.01 in effect, StyleGAN2's projector 0.1.", least=0
    )
    space: str = setting('w', "'w', or 'w_plus': a code for each layer.", choices=('w', 'w_plus'))
    loss_size: int = setting(256, 'Pixels at which LPIPS compares.', least=1)
    alex_fraction: float = setting(
        0.0,
        'Fraction of the run, at its start, that compares by AlexNet, which costs less than VGG.',
        least=0,
        most=1,
        later=True,
    )
    noise_weight: float = setting(1e5, 'lambda_n of the noise regulariser; 0 = off.', least=0)
    initial_noise_factor: float = setting(
        0.05, 'Noise on w at the start, in units of its spread; 0 = off.', least=0
    )
    lr_rampdown: float = setting(0.25, 'Fraction of the run, at its end.', above=0, most=1)
    lr_rampup: float = setting(0.05, 'Fraction of the run, at its start.', above=0, most=1)
    noise_ramp: float = setting(
        0.75, 'Fraction of the run after which no noise is added to w.', above=0, most=1
    )
    batch_per_device: int = setting(
        8,
        'Identities on a device in one program, which bounds its memory; 0 = all.',
        least=0,
        changes_result=False,
    )
    chunk_steps: int = setting(10, CHUNK, least=1, changes_result=False)

    @property
    def nets(self) -> tuple[str, ...]:
        """The networks of LPIPS, in the order of the steps that use them."""
        used = {'alex': self.alex_fraction > 0, 'vgg': self.alex_fraction < 1}
        return tuple(net for net, is_used in used.items() if is_used)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of loss, LPIPS and noise regulariser."""
        name = f'lpips_{self.nets[0]}' if len(self.nets) == 1 else 'lpips'
        return ('loss', name, 'noise_reg')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locality(Section):
    """The locality regulariser (equations 4 to 7). PTI's code departs from it (docs/pti.md)."""

    section: ClassVar[str] = 'locality'

    weight: float = setting(0.1, "lambda_R; 0 = off, as in PTI's code.", least=0)
    l2_weight: float = setting(1.0, 'lambda_L2^R.', least=0)
    alpha: float = setting(30.0, 'Distance of the random codes from the pivot.')
    num_samples: int = setting(1, 'N_r, random codes for a pivot and step.', least=1)
    interval: int = setting(1, 'Regularises every so many steps.', least=1)
    norm: str = setting(
        'all_layers',
        "Length that alpha sets: of all layers' codes together, or 'w': of each layer's code.",
        choices=('all_layers', 'w'),
    )
    truncation_psi: float = setting(1.0, "Of the random codes; PTI's code 0.5; 1 = off.")
    noise: str = setting(
        'const',
        "Noise maps of both images: 'const' = the generator's, 'none' as in PTI's code.",
        choices=('const', 'none'),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saving(Section):
    """How tuned generators are written (jaxinv/weights/deltas.py)."""

    section: ClassVar[str] = 'tune'

    save: str = setting(
        'full',
        'Of generators for each identity: whole, or differences from config.generator as '
        "'bfloat16' or 'low_rank' (docs/deltas.md).",
        choices=('full', 'bfloat16', 'low_rank'),
    )
    rank: int = setting(64, "Of 'low_rank'.", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning(Saving):
    """Step 2, the generator: equation 2 for each identity, or equation 3 for all."""

    section: ClassVar[str] = 'tune'

    num_steps: int = setting(350, 'Passes over all identities; 0 = keep the generator.', least=0)
    learning_rate: float = setting(3e-4, "Adam's, constant.", least=0)
    pivot_learning_rate: float = setting(
        0.0,
        "Adam's, constant, of the pivots, which then move along with the generator (an ablation, "
        'docs/pti.md); 0 = they stay, as in the paper.',
        least=0,
        later=True,
    )
    shared: bool = setting(True, 'One generator for all; False = one for each identity.')
    l2_weight: float = setting(1.0, 'lambda_L2.', least=0)
    lpips_weight: float = setting(1.0, 'Weight of LPIPS.', least=0)
    lpips_net: str = setting('alex', "'alex' or 'vgg'.", choices=('alex', 'vgg'))
    batch_size: int = setting(
        0,
        "Shared only: identities in an Adam step; 0 = all (equation 3), 1 = PTI's code.",
        least=0,
    )
    microbatch: int = setting(
        1,
        'Shared only: identities in a forward pass, gradients accumulated; 0 = the whole batch.',
        least=0,
        changes_result=False,
    )
    resident: int = setting(
        64,
        'Shared only: identities whose targets and features may stay on a device (56 MB each at '
        '1024 pixels); with more, each microbatch comes from the host; 0 = all.',
        least=0,
        changes_result=False,
    )
    stop_lpips: float | None = setting(
        None, "LPIPS at which an identity stops, 0.06 in PTI's code; None = all steps.", least=0
    )
    slots: int = setting(
        0,
        'Of generators for each identity, how many are tuned at a time; 0 = all (docs/devices.md).',
        least=0,
        changes_result=False,
    )
    chunk_steps: int = setting(10, CHUNK, least=1, changes_result=False)
    locality: Locality = subsection(Locality)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ('loss', 'l2', f'lpips_{self.lpips_net}', 'locality')

    def check(self) -> None:
        super().check()
        for name, off in (('save', 'full'), ('slots', 0)):
            value = getattr(self, name)
            if self.shared and value != off:
                raise JaxinvError(
                    f'tune.{name} is {value!r} and tune.shared is True; {name} is for a generator '
                    f'for each identity, so use pti_single_id (tune.shared=False), or '
                    f'tune.{name}={off}.'
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift(Section):
    """How far tuning moves the images of random codes (figures 14 and 15)."""

    section: ClassVar[str] = 'drift'

    num_samples: int = setting(8, 'Random codes.', least=1)
    seed: int = setting(7, 'Of the codes.', least=0)
