"""What an encoder's codes reach, and projections from them, beside those from the mean of W.

    python benchmarks/encoder.py ENCODER [--images=demo] [--steps=0,5,10,20,30,50,100] [--seeds=1]

For each start and number of steps: mean figures of the pivots' images over pictures and seeds, and
the seconds of the steps of this run, without compilation. 0 steps from the mean is the mean face.
"""

import time

import numpy as np
from absl import app, flags

import jaxinv

_IMAGES = flags.DEFINE_string('images', 'demo', 'Photographs: a folder, or files.')
_STEPS = flags.DEFINE_string('steps', '0,5,10,20,30,50,100', 'Numbers of steps.')
_SEEDS = flags.DEFINE_integer('seeds', 1, 'Runs with different noise.')
_RATE = flags.DEFINE_float('rate', 0.1, 'Learning rate of the projection.')
COLUMNS = ('lpips_alex', 'lpips_vgg', 'mse', 'id_distance')


def main(argv):
    if len(argv) != 2:
        raise app.UsageError('name the file of an encoder.')
    generator, weights = jaxinv.load_generator('mobile_stylegan_ffhq')
    targets = jaxinv.load_images(_IMAGES.value, generator)
    starts = {'mean': None, 'encoder': jaxinv.load_encoder(argv[1])}
    count, num_ws = len(targets), generator.spec.num_ws
    mean = np.asarray(weights['buffers']['w_avg'])
    print(f'{count} pictures: {", ".join(targets.names)}')
    print(f'{"start":<8} {"steps":>5} {"seconds":>8}  ' + '  '.join(f'{c:>10}' for c in COLUMNS))
    for name, start in starts.items():
        for steps in map(int, _STEPS.value.split(',')):
            rows, seconds = [], []
            for seed in range(_SEEDS.value if steps else 1):
                if steps == 0 and start is None:
                    w = np.broadcast_to(mean, (count, num_ws, len(mean)))
                else:
                    marks = []
                    options = dict(num_steps=steps, learning_rate=_RATE.value, chunk_steps=5)
                    options |= dict(start=start, seed=seed, verbose=False)
                    w = jaxinv.project(
                        generator,
                        weights,
                        targets,
                        callback=lambda *_, marks=marks: marks.append(time.perf_counter()),
                        **options,
                    ).w
                    if len(marks) > 1:  # the first chunk compiles
                        seconds.append((marks[-1] - marks[0]) * steps / (steps - 5))
                made = jaxinv.render(generator, weights, w)
                table = jaxinv.evaluate(targets, made, identity=True)
                rows.append([np.mean(table[c]) for c in COLUMNS])
            shown = f'{np.mean(seconds):8.1f}' if seconds else ' ' * 8
            figures = '  '.join(f'{x:10.4f}' for x in np.mean(rows, 0))
            print(f'{name:<8} {steps:>5} {shown}  {figures}', flush=True)


if __name__ == '__main__':
    app.run(main)
