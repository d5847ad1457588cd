"""Settings of dragging points (DragGAN, Pan et al. 2023, arXiv:2305.10973)."""

import dataclasses
from typing import ClassVar

from jaxinv.settings.declare import Section, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drag(Section):
    """Motion supervision (equation 1) and point tracking (equation 2).

    Distances are pixels of a picture of 512, and grow with the resolution, as in the released code.
    """

    section: ClassVar[str] = 'drag'

    steps: int = setting(300, 'Steps at most.', least=0)
    learning_rate: float = setting(
        2e-3, "Adam's: the paper's for faces, cats and cars; 1e-3 for others.", above=0
    )
    feature: str = setting(
        '',
        'The feature map that is followed, a name of GeneratorSpec.feature_shapes; '
        "'' = that of 128 pixels in StyleGAN2, as in the released code, and of 64 in others.",
    )
    space: str = setting(
        'w_plus', "'w_plus': an offset for each row; 'w': one for all.", choices=('w_plus', 'w')
    )
    rows: int | None = setting(
        None,
        "The first rows of W+ that move; None = those of StyleGAN2's first 6 layers, up to 32 "
        'pixels.',
        least=1,
    )
    motion_radius: float = setting(3.0, 'r_1, of the patch that is moved.', above=0, most=32)
    tracking_radius: float = setting(12.0, 'r_2, of the search for a point.', above=0, most=64)
    mask_weight: float = setting(20.0, 'lambda, of the change outside the mask.', least=0)
    stop_distance: float | None = setting(
        None, 'All points this near end the search; None = 1, with more than 5 points 2.', above=0
    )
    rules: str = setting(
        'paper',
        "'paper': F(p + d) takes F(p), tracking by L1; 'official': F(p) takes F(p - d), tracking "
        'by L2 in a closed square.',
        choices=('paper', 'official'),
    )
    batch_per_device: int = setting(
        4, 'Identities in one program, which bounds its memory.', least=1, changes_result=False
    )
