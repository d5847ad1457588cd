"""Edits: straight moves of a latent along directions, alone or one after the other.

Symbols: w [b, k, w_dim] a latent with k = 1 (W) or num_ws (W+) rows; d [1 or num_ws, w_dim] a
direction. `=` adds strength * d, `:=` sets the coordinate of w along d:

    smile=2                  w + 2 * smile
    age=-4/4                 two edits, one for each strength
    yaw=3,smile=-2           a sequence: turn the head, then smile less (PTI, figure 12)
    pc3[0:8]=2               only the rows 0..7 of W+ (GANSpace's layer range)
    pc3[0:8]:=2              the coordinate along pc3 becomes 2 (GANSpace as in PTI's code)
    my.npy=1.5               your own direction
    my.npz:beard=1.5         one array of several in a file
    ganspace.npz:lat_comp/3=2    component 3 of an array of several
    class:207=0.5            half the way from a picture's class embedding to that of class 207

Unit of strength: the directions that come with jaxinv have length 1 in every row, so a strength is
the length moved in W; `describe` has the typical strengths of each and what one unit changes. A
file of your own is used as it is: strength 1 adds it once.

Coordinates: that of w along d is <w_0 - mean, d_0> / <d_0, d_0>, with the first rows of w and d and
the mean of W, so strength 0 is the mean. With d = component * deviation, a coordinate counts
standard deviations, as in PTI's code.
"""

from jaxinv.edits.directions import (
    EditError,
    available,
    describe,
    load_direction,
    shares_w,
)
from jaxinv.edits.edit import Direction, Edit, apply, difference
from jaxinv.edits.keyframes import Curve, TimedEdit, parse_timed
from jaxinv.edits.spelling import parse, with_steps

__all__ = [
    'Curve',
    'Direction',
    'Edit',
    'EditError',
    'TimedEdit',
    'apply',
    'available',
    'describe',
    'difference',
    'load_direction',
    'parse',
    'parse_timed',
    'shares_w',
    'with_steps',
]
