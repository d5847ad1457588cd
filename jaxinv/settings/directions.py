"""Settings of the task `fit_directions`: editing directions from rendered and measured samples."""

import dataclasses
from typing import ClassVar

from jaxinv.settings.declare import Section, setting, subsection

KINDS = ('plain', 'likely', 'identity', 'identity_likely', 'mild')  # direction_regression.COSTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples(Section):
    """The faces that directions are fitted on."""

    section: ClassVar[str] = 'samples'

    num: int = setting(1200, 'Faces.', least=1)
    chunk: int = setting(32, 'Faces between two saves.', least=1, changes_result=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choose(Section):
    """Kinds of direction, each tried on a few faces; the cheapest is taken."""

    section: ClassVar[str] = 'choose'

    kinds: tuple = setting(
        ('likely', 'mild'),
        'Kinds to try (jaxinv/experiments/direction_regression.py).',
        choices=KINDS,
    )
    num: int = setting(4, 'Faces.', least=1)
    deviations: tuple = setting(
        (-1.5, 1.5), 'Strengths, as predicted change in standard deviations.'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validate(Section):
    """Measurements of the chosen directions on fresh faces."""

    section: ClassVar[str] = 'validate'

    num: int = setting(32, 'Faces.', least=1)
    deviations: tuple = setting(
        (-2.0, -1.0, 1.0, 2.0), 'Strengths, as predicted change in standard deviations.'
    )
    shown: int = setting(3, 'Faces in the pictures.', least=1)
    identity: float = setting(
        0.45, 'Largest mean identity distance of the calibrated range.', above=0
    )
    correlation: float = setting(
        0.5, "Least correlation of strength and the judge's change of a confirmed direction."
    )
    effect: float = setting(
        0.5, 'Least change by the judge over the range, in its standard deviations.'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ganspace(Section):
    """Principal components of W (Härkönen et al. 2020)."""

    section: ClassVar[str] = 'ganspace'

    num: int = setting(100_000, 'Samples of w; none is rendered.', least=2)
    components: int = setting(10, 'Components; 0 = none.', least=0)
    keep: bool = setting(True, 'Takes the packaged components of the same W as they are.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitDirections(Section):
    """--config=fit_directions."""

    task: str = setting('fit_directions', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of all samples.', least=0)
    generator: str = setting('mobile_stylegan_ffhq', 'A name, or a folder or file.')
    generator_key: str = setting(
        'G_ema',
        "Of several generators in a checkpoint: 'G_ema' = the averaged weights, 'G' = the last "
        "step's, or a name in the file, which an error lists.",
        later=True,
    )
    resolution: int | None = setting(
        512, 'Pixels of the pictures that are measured; None = the only one there is.', least=1
    )
    attributes: tuple = setting(
        (), 'Of those that jaxinv/faces/measures.py lists, with what steers and judges; () = all.'
    )
    controls: tuple = setting((), 'Further attributes that are only held fixed; () = none.')
    keep: tuple = setting(
        ('smile', 'age', 'yaw'),
        'Attributes whose packaged direction, of the same W, is validated as it is.',
    )
    truncation_psi: float = setting(0.9, 'Of all samples; 1 = off.')

    samples: Samples = subsection(Samples)
    choose: Choose = subsection(Choose)
    validate: Validate = subsection(Validate)
    ganspace: Ganspace = subsection(Ganspace)
