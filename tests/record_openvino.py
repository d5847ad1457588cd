"""Records what the OpenVINO runtime computes with the package's own files, for test_generators.py.

    pip install openvino && PYTHONPATH=. python tests/record_openvino.py

Kept: four seeded z, their w, statistics of each 1024-pixel image and 4096 of its pixels.
"""

import pathlib

import numpy as np
import openvino

from jaxinv.weights import assets

OUTPUT = pathlib.Path(__file__).parent / 'data' / 'openvino_mobile_stylegan.npz'
IMAGES = 4
PIXELS = 4096


def main():
    mapping, synthesis = (compiled(name) for name in ('Mapping', 'Synthesis'))
    random = np.random.RandomState(0)
    z = random.randn(IMAGES, 512).astype(np.float32)
    w = np.concatenate([mapping(row[None])[0] for row in z])
    rows, columns = random.randint(0, 1024, (2, PIXELS))
    images = np.concatenate([synthesis(row[None])[0] for row in w]).transpose(0, 2, 3, 1)
    # float32 sums over a million pixels would be off by more than the figures are compared to.
    exact = images.astype(np.float64)
    np.savez_compressed(
        OUTPUT,
        z=z,
        w=w,
        rows=rows.astype(np.uint16),
        columns=columns.astype(np.uint16),
        pixels=images[:, rows, columns],
        statistics=np.stack([f(exact, axis=(1, 2)) for f in (np.mean, np.std, np.min, np.max)]),
        version=openvino.__version__,
    )
    print(f'{OUTPUT}: {OUTPUT.stat().st_size / 1000:.0f} kB')


def compiled(name):
    for kind in ('xml', 'bin'):  # the runtime expects both in one folder
        path = assets.get('random-face', f'random_face/data/{name}Network.{kind}')
    # Without this hint the runtime may compute in bfloat16 where the processor has it.
    options = {'INFERENCE_PRECISION_HINT': 'f32'}
    return openvino.Core().compile_model(path.with_suffix('.xml'), 'CPU', options)


if __name__ == '__main__':
    main()
