"""Size and loss of generators kept as deltas, from a finished run that kept them in full.

    python benchmarks/deltas.py WORKDIR [--ranks=4,16,64]

WORKDIR: of --config=pti_single_id. Prints a row for each way and identity: what a file takes, how
far the restored parameters are from the tuned ones, and how far its picture of the pivot is.
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

_RANKS = flags.DEFINE_list('ranks', ['4', '16', '64'], 'Of low_rank.')
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
    ways = [Saving(save='bfloat16')]
    ways += [Saving(save='low_rank', rank=int(rank)) for rank in _RANKS.value]
    print(COLUMNS + '\n' + '|---' * (COLUMNS.count('|') - 1) + '|')
    for name, w in zip(pivots['names'], pivots['w'], strict=True):
        _, tuned = load_generator(run / 'generators' / str(name))
        target = pixels.to_float(
            np.asarray(images.read(run / 'images' / str(name) / 'target.png'))[None]
        )
        full = rendering.render(generator, tuned, w[None])
        near = float(metrics.evaluate(target, full, nets)['lpips_alex'][0])
        for way in ways:
            label = way.save if way.save != 'low_rank' else f'rank {way.rank}'
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as scratch:
                facts, restored = deltas.write(pathlib.Path(scratch), base, tuned, way)
            seconds = time.perf_counter() - start
            again = rendering.render(generator, restored, w[None])
            loss = metrics.evaluate(full, again, nets)
            to_target = float(metrics.evaluate(target, again, nets)['lpips_alex'][0])
            errors = (facts[key] for key in ('largest_error', 'rms_error', 'rms_moved'))
            cells = [
                label,
                str(name),
                f'{facts["bytes"] / 1e6:.2f}',
                f'{100 * facts["share"]:.1f} %',
            ]
            cells += [f'{error:.1e}' for error in errors]
            cells += [f'{float(loss["psnr"][0]):.1f} dB', f'{float(loss["lpips_alex"][0]):.5f}']
            cells += [f'{near:.4f} → {to_target:.4f}', f'{seconds:.1f}']
            print('| ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    app.run(main)
