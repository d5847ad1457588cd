"""The meaning of the locality regulariser's alpha: PTI's figure 18 on the embedded generator.

    python benchmarks/locality_alpha.py docs/locality_alpha.jpg

Appendix A of the paper: at alpha = 8 the image is the pivot's, at 30 between the pivot's and the
random code's, at 60 the random code's, at 120 unrealistic. The images show this for the length over
all num_ws rows (norm='all_layers', the default), not for the length in W (norm='w').
"""

import sys

import jax
import numpy as np

from jaxinv import latents, pixels
from jaxinv.inversion import losses
from jaxinv.report import grid
from jaxinv.weights.zoo import load_named

COLUMNS = [
    (8, 'all_layers'),
    (30, 'all_layers'),
    (60, 'all_layers'),
    (120, 'all_layers'),
    (30, 'w'),
]


def main(path):
    generator, weights = load_named('mobile_stylegan_ffhq')
    num_ws = generator.spec.num_ws
    w = generator.map(weights, latents.sample_z(0, 6, generator.spec.z_dim))
    pivots, random = w[:3, None], w[3:, None]
    distance = np.linalg.norm(w[:3] - w[3:], axis=1)
    print('||w_z - w_p|| in W:', distance, ' over all layers:', distance * num_ws**0.5)
    codes = [losses.locality_codes(pivots, random, a, norm, num_ws) for a, norm in COLUMNS]
    render = jax.jit(lambda weights, w: generator.synthesize(weights, w)[0])
    columns = [pixels.to_uint8(render(weights, c)) for c in (pivots, *codes, random)]
    labels = ['pivot w_p', *(f'alpha {a}, {norm}' for a, norm in COLUMNS), 'random w_z']
    rows = [[column[i] for column in columns] for i in range(3)]
    grid.grid(rows, ['', '', ''], labels, cell=160).convert('RGB').save(path, quality=88)


if __name__ == '__main__':
    main(sys.argv[1])
