"""Size and accuracy of generators saved as deltas, from a finished run that saved them in full.

    python benchmarks/deltas.py WORKDIR [--ranks=4,16,64]

WORKDIR: of --config=pti_single_id. Prints a row for each format and identity: the size of the file,
the error of the restored parameters, and the error of the image of the pivot.
"""

import json
import pathlib
import tempfile
import time

import numpy as np
from absl import app, flags

from jaxinv import metrics, pixels, rendering
from jaxinv.data import images
from jaxinv.settings import Saving
from jaxinv.weights import deltas
from jaxinv.weights.load import load_generator
from jaxinv.weights.networks import load_lpips

_RANKS = flags.DEFINE_list('ranks', ['4', '16', '64'], 'Ranks of low_rank.')
COLUMNS = (
    '| | identity | MB | share | largest error | RMS error | RMS moved | PSNR | LPIPS '
    '| LPIPS to photograph | s |'
)


def main(argv):
    run = pathlib.Path(argv[1])
    config = json.loads((run / 'run.json').read_text())['config']
    generator, weights = load_generator(config['generator'], config['resolution'])
    base = deltas.Base.of(config['generator'], config['resolution'], weights)
    nets = {'alex': load_lpips('alex')}
    pivots = np.load(run / 'pivots.npz')
    formats = [Saving(save='bfloat16')]
    formats += [Saving(save='low_rank', rank=int(rank)) for rank in _RANKS.value]
    print(COLUMNS + '\n' + '|---' * (COLUMNS.count('|') - 1) + '|')
    for name, w in zip(pivots['names'], pivots['w'], strict=True):
        _, tuned = load_generator(run / 'generators' / str(name))
        target = pixels.to_float(
            np.asarray(images.read(run / 'images' / str(name) / 'target.png'))[None]
        )
        full = rendering.render(generator, tuned, w[None])
        full_lpips = float(metrics.evaluate(target, full, nets)['lpips_alex'][0])
        for saving in formats:
            label = saving.save if saving.save != 'low_rank' else f'rank {saving.rank}'
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as scratch:
                facts, restored = deltas.write(pathlib.Path(scratch), base, tuned, saving)
            seconds = time.perf_counter() - start
            image = rendering.render(generator, restored, w[None])
            loss = metrics.evaluate(full, image, nets)
            to_target = float(metrics.evaluate(target, image, nets)['lpips_alex'][0])
            errors = (facts[key] for key in ('largest_error', 'rms_error', 'rms_moved'))
            cells = [
                label,
                str(name),
                f'{facts["bytes"] / 1e6:.2f}',
                f'{100 * facts["share"]:.1f} %',
            ]
            cells += [f'{error:.1e}' for error in errors]
            cells += [f'{float(loss["psnr"][0]):.1f} dB', f'{float(loss["lpips_alex"][0]):.5f}']
            cells += [f'{full_lpips:.4f} → {to_target:.4f}', f'{seconds:.1f}']
            print('| ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    app.run(main)
