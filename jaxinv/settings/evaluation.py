"""Settings of the tasks that compare methods: `evaluate` and `evaluate_edits`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings import method_list
from jaxinv.settings.declare import Section, setting, subsection
from jaxinv.settings.pti import GENERATOR_KEY, MESH
from jaxinv.settings.tasks import Data

IMAGE_METRICS = (
    'lpips_alex_256', 'lpips_alex_full', 'lpips_vgg_256', 'lpips_vgg_full', 'mse_signed',
    'mse_unit', 'mse_unit_256', 'psnr_unit', 'psnr_unit_256', 'ms_ssim_full', 'ms_ssim_256',
)  # fmt: skip
STANDARD = (
    'lpips_alex_256', 'lpips_alex_full', 'lpips_vgg_256', 'lpips_vgg_full', 'mse_signed',
    'psnr_unit', 'psnr_unit_256', 'ms_ssim_full',
)  # fmt: skip
FEATURES = ('efficientnet_lite0', 'fid_inception')
_NETWORKS_OF_FACES = {'arcface': 'arcface', 'curricularface': 'curricularface'}  # kind: its file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics(Section):
    """Intervals of the tables (jaxinv/metrics/statistics.py)."""

    section: ClassVar[str] = 'statistics'

    reference: str = setting(
        '', "Row that the others are compared with, picture by picture; '' = the first."
    )
    resamples: int = setting(2000, 'Of the bootstrap over pictures.', least=1)
    confidence: float = setting(0.95, 'Of the intervals.', above=0, below=1)
    seed: int = setting(0, 'Of the resamples.', least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures(Section):
    """What is measured (docs/evaluate.md says how)."""

    section: ClassVar[str] = 'measure'

    images: tuple = setting(
        (),
        f'Of each picture against its target; () = {", ".join(STANDARD)}.',
        choices=IMAGE_METRICS,
    )
    identity: tuple = setting(
        ('sface', 'dlib'), 'Networks that compare faces; () = none.', choices=method_list.JUDGES
    )
    sets: tuple = setting(
        ('efficientnet_lite0',),
        'Features for Fréchet and kernel distances between targets and pictures; () = none.',
        choices=FEATURES,
    )
    arcface: str = setting(
        '', "File of ArcFace's IR-SE50 (model_ir_se50.pth), for identity 'arcface'."
    )
    curricularface: str = setting(
        '', "File of CurricularFace (CurricularFace_Backbone.pth), for identity 'curricularface'."
    )
    inception: str = setting(
        '',
        "File of FID's Inception (pt_inception-2015-12-05-6726825d.pth), for sets 'fid_inception'.",
    )
    rank_by: str = setting(
        'lpips_alex_256', 'Of images or identity, by which pictures are best, median and worst.'
    )

    def check(self) -> None:
        super().check()
        _check_files(self, _NETWORKS_OF_FACES, 'identity')
        _check_files(self, {'fid_inception': 'inception'}, 'sets')
        known = (*self.image_metrics, *(f'id_{name}' for name in self.identity))
        if self.rank_by not in known:
            raise JaxinvError(
                f'measure.rank_by is {self.rank_by!r}; it can be {", ".join(known) or "nothing"}, '
                'which are measured.'
            )

    @property
    def image_metrics(self) -> tuple[str, ...]:
        return self.images or STANDARD


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Section):
    """What both tasks have in common."""

    task: str = setting('', 'Main path of this config; not to be changed.')
    methods: str = setting('w,w_plus,pti,sam', method_list.HELP)
    seed: int = setting(0, 'Of the methods, except for their own seeds.', least=0)
    mesh: str = setting('', MESH, changes_result=False)
    group: int = setting(
        0,
        'Bulk mode of the methods: so many pictures at a time, which bounds memory; 0 = off.',
        least=0,
    )
    runs: str = setting(
        '',
        'Work folder of another comparison of these pictures: what its methods made is used, and '
        "methods run there; '' = this one's.",
        changes_result=False,
    )
    generator: str = setting(
        'mobile_stylegan_ffhq', 'Of all methods; a name, folder, file or address, as elsewhere.'
    )
    generator_key: str = setting('G_ema', GENERATOR_KEY)
    resolution: int | None = setting(None, 'Pixels; None = as elsewhere.', least=1)
    label: int | None = setting(None, 'Class of a class-conditional generator.', least=0)
    lpips: str = setting('auto', "LPIPS weights, of the methods and metrics: 'auto' or a path.")

    data: Data = subsection(Data)
    statistics: Statistics = subsection(Statistics)

    def check(self) -> None:
        super().check()
        names = [method.name for method in method_list.parse(self.methods)]
        reference = self.statistics.reference
        if reference and reference not in names:
            raise JaxinvError(
                f'statistics.reference is {reference!r}; it can be {", ".join(names)}.'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Comparison):
    """--config=evaluate: methods on the same photographs, one table."""

    task: str = setting('evaluate', 'Main path of this config; not to be changed.')
    measure: Measures = subsection(Measures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditMeasures(Section):
    """What is measured of edits (docs/evaluate.md says how)."""

    section: ClassVar[str] = 'measure'

    identity: tuple = setting(
        ('sface', 'dlib'), 'Networks that compare faces.', choices=method_list.JUDGES
    )
    arcface: str = setting(
        '', "File of ArcFace's IR-SE50 (model_ir_se50.pth), for identity 'arcface'."
    )
    curricularface: str = setting(
        '', "File of CurricularFace (CurricularFace_Backbone.pth), for identity 'curricularface'."
    )
    equal: tuple = setting(
        ('yaw=-10/-5/5/10',),
        "Measured changes at which identity is compared, NAME=CHANGE/CHANGE, in the judge's unit; "
        'the strength is solved by bisection; () = none.',
    )
    curves: tuple = setting(
        ('yaw', 'age', 'smile'),
        'Directions whose curves of identity against measured change are drawn; () = none.',
    )
    curve_points: int = setting(
        7, 'Strengths of a curve, over the range of the direction.', least=2
    )
    consistency: tuple = setting(
        ('yaw=2',),
        'Edits whose pictures are inverted again and edited back, a second run of every method; '
        '() = none.',
    )

    def check(self) -> None:
        super().check()
        _check_files(self, _NETWORKS_OF_FACES, 'identity')
        for text in self.equal:
            parse_equal(text)


def _check_files(measures: Section, files: Mapping[str, str], where: str) -> None:
    """Raises JaxinvError if `where` holds a kind whose file is missing. files: {kind: setting}."""
    for kind, name in files.items():
        if kind in getattr(measures, where) and not getattr(measures, name):
            raise JaxinvError(
                f'measure.{where} holds {kind!r} and measure.{name} is empty; give its file.'
            )


def parse_equal(text: str) -> tuple[str, list[float]]:
    """('yaw', [-10.0, 10.0]) of 'yaw=-10/10'. Raises JaxinvError for another spelling."""
    name, _, values = str(text).partition('=')
    try:
        changes = [float(value) for value in values.split('/')]
    except ValueError:
        changes = []
    if not name.strip() or not changes or not all(math.isfinite(x) and x for x in changes):
        raise JaxinvError(
            f'measure.equal holds {text!r}; write NAME=CHANGE/CHANGE with numbers other than 0, '
            'e.g. yaw=-10/10.'
        )
    return name.strip(), changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateEdits(Comparison):
    """--config=evaluate_edits: edits of several methods on the same photographs."""

    task: str = setting('evaluate_edits', 'Main path of this config; not to be changed.')
    edits: tuple = setting(
        (
            'yaw=2/-2',
            'smile=1.2/-1.2',
            'age=2/-2',
            'mouth_open=1.2',
            'eyes_closed=1',
            'yaw=2,smile=1.2,age=2',
        ),
        'At fixed strengths: NAME=STRENGTH, strengths separated by /, sequences by commas.',
    )
    measure: EditMeasures = subsection(EditMeasures)
