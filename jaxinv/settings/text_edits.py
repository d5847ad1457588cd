"""Settings of edits by text (StyleCLIP, arXiv:2103.17249) and of the tasks that prepare them."""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting, subsection
from jaxinv.settings.pti import CHUNK, GENERATOR_KEY

CLIP = (
    "CLIP's weights: a file or folder of OpenAI's, open_clip's or Hugging Face's, or an address "
    "(docs/text_edits.md); 'random' = a small network that knows nothing, for tests"
)
ACTIVATION = "Of a CLIP whose files do not say it: 'quick_gelu' or 'gelu'; '' = as they say."
ACTIVATIONS = ('', 'quick_gelu', 'gelu')
PREPARATION = (
    "How CLIP sees images: 'clip' as its own preparation (bicubic, normalised), 'official' as "
    "StyleCLIP's code (area means, not normalised)."
)
PREPARATIONS = ('clip', 'official')
IDENTITY = (
    "Face network of the loss of identity: 'auto' = SFace for generators of faces, 'sface', the "
    "path of ArcFace's IR-SE50 (model_ir_se50.pth), or '' = without this loss."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEdits(Section):
    """Edits that are spelled text:PROMPT=STRENGTH."""

    section: ClassVar[str] = 'text'

    clip: str = setting('', CLIP + "; '' = no such edits.", later=True)
    activation: str = setting('', ACTIVATION, choices=ACTIVATIONS, later=True)
    directions: str = setting(
        '', 'What --config=text_directions wrote for this generator; a file or folder.', later=True
    )
    neutral: str = setting('a face', 'What a picture shows before an edit, in words.', later=True)
    threshold: float = setting(
        0.15,
        'Beta: channels move whose effect has at least this similarity to the text, 0 to 1; higher '
        'moves fewer channels.',
        least=0,
        below=1,
        later=True,
    )
    templates: bool = setting(
        True, 'Texts are averaged over the 79 phrases of the paper, "a photo of a {}" ...',
        later=True,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSearch(Section):
    """Latent optimisation towards a text (section 4)."""

    section: ClassVar[str] = 'text_search'

    num_steps: int = setting(300, 'Steps; the paper takes 200 to 300.', least=1)
    learning_rate: float = setting(0.1, "Adam's, with the ramps of StyleGAN2's projector.", least=0)
    l2_weight: float = setting(0.008, 'lambda_L2, of |w - pivot|^2 over all rows.', least=0)
    identity_weight: float = setting(0.005, "lambda_ID; the official code's default is 0.", least=0)
    lr_rampdown: float = setting(
        0.25, 'Last part of the steps, in which the rate falls.', above=0, most=1
    )
    lr_rampup: float = setting(
        0.05, 'First part of the steps, in which the rate rises.', above=0, most=1
    )
    preparation: str = setting('clip', PREPARATION, choices=PREPARATIONS)
    batch_per_device: int = setting(
        0,
        'Identities times texts searched at a time, which bounds memory; 0 = all.',
        least=0,
        changes_result=False,
    )
    chunk_steps: int = setting(20, CHUNK, least=1, changes_result=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDirections(Section):
    """--config=text_directions: what each style channel of a generator changes, in CLIP's space."""

    task: str = setting('text_directions', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of the samples.', least=0)
    generator: str = setting('mobile_stylegan_ffhq', 'A name, or a folder or file.')
    generator_key: str = setting('G_ema', GENERATOR_KEY)
    resolution: int | None = setting(None, 'Pixels; None = as the generator has it.', least=1)
    clip: str = setting('', CLIP + '.')
    activation: str = setting('', ACTIVATION, choices=ACTIVATIONS)
    truncation_psi: float = setting(0.7, 'Of all samples; 1 = off.')
    statistics: int = setting(100_000, 'Codes for the mean and deviation of channels.', least=2)
    images: int = setting(100, 'Pictures in which each channel is moved.', least=1)
    deviations: float = setting(
        5.0, 'Distance from the mean of a channel to which it is moved, both ways.', above=0
    )
    max_size: int = setting(
        0,
        'Layers of at most so many pixels are measured; 0 = all. The official code takes 128 or '
        '256 of 1024.',
        least=0,
    )
    channels: int = setting(
        0, 'First channels of each layer that are measured, for a trial; 0 = all.', least=0
    )
    images_per_pass: int = setting(
        4, 'Pictures on the device, each twice.', least=1, changes_result=False
    )
    chunk: int = setting(64, 'Channels between saves.', least=1, changes_result=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapperSamples(Section):
    """Codes that a mapper is trained on."""

    section: ClassVar[str] = 'samples'

    num: int = setting(5000, 'Codes to train on.', least=1)
    held_out: int = setting(100, 'Codes to judge by.', least=1)
    truncation_psi: float = setting(0.7, 'Of all of them; 1 = off.')
    codes: str = setting(
        '',
        "Codes of your own instead: an .npy or .npz file [n, 1 or num_ws, w_dim], such as a run's "
        "pivots.npz; '' = random ones.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainMapper(Section):
    """--config=train_mapper: StyleCLIP's latent mapper for one text (section 5)."""

    task: str = setting('train_mapper', 'Main path of this config; not to be changed.')
    seed: int = setting(0, 'Of samples, start and order.', least=0)
    generator: str = setting('mobile_stylegan_ffhq', 'A name, or a folder or file.')
    generator_key: str = setting('G_ema', GENERATOR_KEY)
    resolution: int | None = setting(None, 'Pixels; None = as the generator has it.', least=1)
    clip: str = setting('', CLIP + '.')
    activation: str = setting('', ACTIVATION, choices=ACTIVATIONS)
    identity: str = setting('auto', IDENTITY)
    prompt: str = setting('a face with a beard', 'The text.')

    num_steps: int = setting(50_000, 'Steps.', least=1)
    batch_size: int = setting(2, 'Codes in a step.', least=1)
    optimizer: str = setting(
        'ranger',
        "'ranger' (rectified Adam, lookahead, centred gradients) as in the official code, or "
        "'adam'.",
        choices=('ranger', 'adam'),
    )
    learning_rate: float = setting(0.5, 'Constant; the layers multiply it by 0.01.', least=0)
    clip_weight: float = setting(1.0, "Weight of CLIP's distance.", least=0)
    l2_weight: float = setting(0.8, 'lambda_L2, of the mean square of the move.', least=0)
    identity_weight: float = setting(0.1, 'lambda_ID.', least=0)
    groups: tuple = setting(
        ('coarse', 'medium', 'fine'),
        "Rows that move: 0 to 3, 4 to 7, the others; or ('all',) with one network for all.",
        choices=('coarse', 'medium', 'fine', 'all'),
    )
    norm: str = setting(
        'features',
        "First normalisation: 'features' as in the mapping network of StyleGAN, which the paper "
        "names, 'rows' as the official code does it.",
        choices=('features', 'rows'),
    )
    preparation: str = setting('clip', PREPARATION, choices=PREPARATIONS)
    chunk_steps: int = setting(50, CHUNK, least=1, changes_result=False)
    shown: int = setting(4, 'Held-out codes in mapper.png.', least=1)

    samples: MapperSamples = subsection(MapperSamples)

    def check(self) -> None:
        super().check()
        groups = tuple(self.groups)
        ordered = [g for g in ('coarse', 'medium', 'fine') if g in groups]
        if groups != ('all',) and (groups != tuple(ordered) or not groups):
            raise JaxinvError(
                f"groups is {groups!r}; it can be ('all',), or some of 'coarse', 'medium', 'fine' "
                'in this order.'
            )
