"""Edits: moves of a latent along directions, or of styles, alone or one after the other.

Symbols: w [b, k, w_dim] a latent with k = 1 (W) or num_ws (W+) rows; d [1 or num_ws, w_dim] a
direction. `=` adds strength * d, `:=` sets the coordinate of w along d:

    smile=2                  w + 2 * smile
    age=-4/4                 two edits, one for each strength
    yaw=10deg                the strength that turns the head by 10 degrees, found for each identity
    yaw=3,smile=-2           a sequence: turn the head, then smile less (PTI, figure 12)
    smile|age,yaw=1.2        without its part along age and yaw (InterFaceGAN's conditional edit)
    pc3[0:8]=2               only the rows 0..7 of W+ (GANSpace's layer range)
    pc3[0:8]:=2              the coordinate along pc3 becomes 2 (GANSpace as in PTI's code)
    my.npy=1.5               your own direction
    my.npz:beard=1.5         one array of several in a file
    ganspace.npz:lat_comp/3=2    component 3 of an array of several
    smile=2@mouth            only in a region, or a mask as @mask.png (segmentation/regions.py)
    ganspace:ffhq.pt/3=2     2 deviations of W along component 3 (ganspace.py)
    ganspace:table.csv:smile=1   the row 'smile' of a table of edits
    sefa3[0:8]=2             of the affine layers that read these rows, in closed form (sefa.py)
    style:b16_conv1/45=10    one channel of one layer's style (StyleSpace)
    mix:pivots.npz:anna[8:]=1    rows of another code (style mixing)
    edit.json                a sequence that `save` wrote (record.py)
    text:a face with a beard=3   as CLIP understands the text (jaxinv/prompts)
    mapper:beard.pt=1        the move of StyleCLIP's mapper, which depends on the code
    class:207=0.5            half the way from a picture's class embedding to that of class 207

Unit of strength: the directions that come with jaxinv have length 1 in every row, so a strength is
the length moved in W; `describe` has the typical strengths of each and what one unit changes. A
file of your own is used as it is: strength 1 adds it once. With a unit (10deg, 15y, 1u) the number
is a change of the picture as it is measured, and `solve` finds the strength.

Coordinates: that of w along d is <w_0 - mean, d_0> / <d_0, d_0>, with the first rows of w and d and
the mean of W, so strength 0 is the mean. With d = component * deviation, a coordinate counts
standard deviations, as in PTI's code.
"""

from jaxinv.edits.catalogue import available
from jaxinv.edits.directions import (
    EditError,
    EditWarning,
    describe,
    load_direction,
    packaged,
    save_direction,
    shares_w,
)
from jaxinv.edits.edit import (
    Direction,
    Edit,
    Wanted,
    apply,
    check,
    difference,
    join,
    moved,
    of_arrays,
    style_offsets,
    styles_direction,
)
from jaxinv.edits.keyframes import Curve, TimedEdit, parse_timed
from jaxinv.edits.morph import interpolate_weights, mix, morph
from jaxinv.edits.record import from_json, load, save, to_json
from jaxinv.edits.sefa import factorise
from jaxinv.edits.solve import Solution, solve
from jaxinv.edits.sources import held_fixed
from jaxinv.edits.spelling import parse, with_steps

__all__ = [
    'Curve', 'Direction', 'Edit', 'EditError', 'EditWarning', 'Solution', 'TimedEdit', 'Wanted',
    'apply', 'available', 'check', 'describe', 'difference', 'factorise', 'from_json', 'held_fixed',
    'interpolate_weights', 'join', 'load', 'load_direction', 'mix', 'morph', 'moved', 'of_arrays',
    'packaged', 'parse', 'parse_timed', 'save', 'save_direction', 'shares_w', 'solve',
    'style_offsets', 'styles_direction', 'to_json', 'with_steps',
]  # fmt: skip
