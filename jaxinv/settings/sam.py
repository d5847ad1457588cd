"""Settings of SAM: search, prior, segments, invertibility, thresholds (Parmar et al. 2022).

The paper (arXiv:2206.08357) gives equations, and neither weights, rates nor budgets; those are its
released code's, unless the sentence says why not. Where the code departs from an equation, the
equation is the default and the code's choice is named.
"""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting
from jaxinv.settings.pti import CHUNK

LABELS = {
    'w': 'W',
    'w_plus': 'W+',
    'gaussian_prior': 'W+ prior',
    'f2': 'F2',
    'f4': 'F4',
    'f6': 'F6',
    'f8': 'F8',
    'f10': 'F10',
    'encoder': 'Encoder',
    'e4e': 'e4e',
    'restyle': 'ReStyle',
    'hybrid': 'Hybrid W+',
    'sam_encoder': 'SAM encoder',
    'sam': 'SAM',
    'pti': 'PTI',
    'pti_sam': 'PTI+SAM',
}  # config.method: its name in a report
ENCODED = ('encoder', 'e4e', 'restyle')  # methods whose result is the codes of pivot.start
WITH_ENCODER = (*ENCODED, 'hybrid')  # methods that need an encoder as pivot.start
SINGLE = {'gaussian_prior': 'W+', 'hybrid': 'W+'} | {
    name: LABELS[name] for name in ('w_plus', 'f2', 'f4', 'f6', 'f8', 'f10')
}  # methods with one space for all of a picture
CHOOSING = ('sam', 'pti_sam', 'sam_encoder')  # methods that choose a space for each region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Section):
    """The joint search over w_plus and offsets (equations 5 to 8)."""

    section: ClassVar[str] = 'sam'

    num_steps: int = setting(1001, 'Steps; 0 = keep the start.', least=0)
    learning_rate: float = setting(0.05, 'Peak of the ramp.', least=0)
    l2_weight: float = setting(1.0, 'Weight of L2.', least=0)
    lpips_weight: float = setting(1.0, 'lambda_LPIPS.', least=0)
    lpips_net: str = setting('vgg', "'vgg', or 'alex' (appendix 6.6).", choices=('vgg', 'alex'))
    loss_size: int = setting(256, 'Pixels at which images are compared.', least=1)
    prior_weight: float = setting(1e-8, 'lambda_W of the prior, first term of equation 6.', least=0)
    spread_weight: float = setting(
        1e-5,
        "lambda_W of the spread of w_plus, second term of equation 6; 1e-3 for spread='norm'.",
        least=0,
    )
    spread: str = setting(
        'squared',
        "Sum of squared distances, or of distances: 'norm', as in SAM's code.",
        choices=('squared', 'norm'),
    )
    offsets_weight: float = setting(
        5.0, "lambda_F of equation 7; 1e-6 for offsets='sum'; 0 = off.", least=0
    )
    offsets: str = setting(
        'mean',
        "Over the squared values of a space: 'mean' as in SAM's code, which gives each space its "
        "own lambda_F, 5 / its number of values; or 'sum' as in equation 7, with one for all.",
        choices=('mean', 'sum'),
    )
    padding: str = setting(
        'fill',
        "Padded pixels in the distances: 'fill' = they are the target's, or 'crop' = padded rows "
        "above and below are cut off, as in SAM's code for 4:3 pictures.",
        choices=('fill', 'crop'),
    )
    clamp: bool = setting(
        False, "True = images are cut to [-1, 1] before they are compared, as in SAM's code."
    )
    noise: str = setting(
        'const',
        "Noise maps: 'const' = the generator's, 'none', or 'random' = new ones in every step, as "
        "in SAM's code.",
        choices=('const', 'none', 'random'),
    )
    lr_rampdown: float = setting(0.25, 'Fraction of the run, at its end.', above=0, most=1)
    lr_rampup: float = setting(0.05, 'Fraction of the run, at its start.', above=0, most=1)
    batch_per_device: int = setting(
        8,
        'Pictures on a device in one program, to measure and to search, which bounds its memory; '
        '0 = all. A picture takes the memory of spaces_at_once when measured, and in a sweep each '
        'threshold counts as a picture.',
        least=0,
        changes_result=False,
    )
    chunk_steps: int = setting(25, CHUNK, least=1, changes_result=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ('loss', 'l2', f'lpips_{self.lpips_net}', 'prior', 'spread', 'offsets')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior(Section):
    """Statistics of the mapped code v (equation 6)."""

    section: ClassVar[str] = 'prior'

    num_samples: int = setting(10_000, "Samples of w; SAM's code 5000.", least=2)
    seed: int = setting(123, 'Of the samples.', least=0)
    order: str = setting(
        'mean_of_map',
        "Mean mu: 'mean_of_map' of v, or 'map_of_mean': LeakyReLU of w's mean, as in SAM's code.",
        choices=('mean_of_map', 'map_of_mean'),
    )
    matrix: str = setting(
        'inverse',
        "'inverse' of the covariance, or 'covariance' as equation 6 is printed.",
        choices=('inverse', 'covariance'),
    )
    # FFHQ's smallest eigenvalues are 1e-7: without a floor the prior is all about directions that
    # no sample has, and a search cannot move.
    epsilon: float = setting(
        1e-2, "Floor, added to the covariance's diagonal; SAM's code 1e-8; 0 = off.", least=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segments(Section):
    """The regions that share one latent space (section 3.1, refinement)."""

    section: ClassVar[str] = 'segments'

    how: str = setting(
        'auto',
        "'auto', 'face', 'slic', a label map, a folder of them, a network: 'torchvision' or "
        "'transformers' (extras, see docs/sam.md), or 'regions:NAME,...': face, hair, clothes, "
        'background, brows, eyes, mouth, nose, irises, lips, foreground, a class of PASCAL VOC as '
        'person or cat, or a mask.png; earlier ones cover later ones.',
    )
    parts: int = setting(12, "Regions of 'slic', and of what a network leaves unnamed.", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invertibility(Section):
    """Invertibility maps (section 3.1) and the choice of a space (section 3.2)."""

    section: ClassVar[str] = 'invertibility'

    network: str = setting('', "File of a trained network; '' = measure by inversions.")
    maps: str = setting(
        '',
        'Work folder of a SAM run of the same pictures and generator, without groups, whose maps '
        "are taken instead, e.g. for another tau; '' = none.",
        later=True,
    )
    num_steps: int = setting(501, 'Of the inversion into each space alone.', least=0)
    learning_rate: float = setting(0.05, 'Peak of the ramp of those inversions.', least=0)
    spaces: tuple = setting((), 'Candidate spaces; () = all that the generator has.')
    spaces_at_once: int = setting(
        1,
        'Spaces in one program; 0 = all, where memory allows.',
        least=0,
        changes_result=False,
    )
    tau: float = setting(
        0.225,
        'Threshold of the mean LPIPS-vgg of a segment. The paper chooses it by eye.',
        above=0,
        below=10,
    )
    refine: bool = setting(True, 'Choose by segment; False = by pixel (appendix 6.5).')
    resample: str = setting(
        'bilinear', "Of masks; SAM's code 'lanczos'.", choices=('bilinear', 'lanczos')
    )
    assign: tuple = setting(
        (),
        "Spaces by name instead of maps: ((beginning of a segment's name, space), ...), '*' for "
        'the others; () = by maps.',
    )

    def check(self) -> None:
        super().check()
        if self.maps and self.network:
            raise JaxinvError(
                'invertibility.maps and invertibility.network are both given; maps come from one '
                'of them.'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Section):
    """The curve of reconstruction against editability over the threshold."""

    section: ClassVar[str] = 'sweep'

    taus: tuple = setting(tuple(round(0.05 + 0.025 * i, 3) for i in range(19)), 'Thresholds.')
    num_steps: int = setting(
        0, 'Of a real inversion at every threshold; 0 = estimate from the maps.', least=0
    )


def named(label: str, spec) -> str:
    """A label or space as it is called for the generator: W and W+ of BigGAN are Z and Z+."""
    return label.replace('W', spec.latent)
