"""Records what LiteRT computes with the package's own files, for test_graph_files.py.

    pip install ai-edge-litert && PYTHONPATH=. python tests/record_tflite.py

Kept: the outputs for one seeded input of each network, of large ones 2000 values.
"""

import pathlib
import zipfile

import numpy as np

from jaxinv.weights import assets, graphs

OUTPUT = pathlib.Path(__file__).parent / 'data' / 'tflite_outputs.npz'
NAMES = ('landmarks478', 'blendshapes', 'deeplab', 'mobilefacenet')


def inputs_of(name, shape):
    """The input of both runtimes: noise from 0 to 1, or points in pixels."""
    values = np.random.RandomState(NAMES.index(name)).uniform(0, 1, shape).astype(np.float32)
    return values * 256 if name == 'blendshapes' else values


def kept(array):
    """All values, or 2000 evenly spaced ones."""
    values = np.asarray(array).ravel()
    return values[np.linspace(0, values.size - 1, min(values.size, 2000)).astype(int)]


def main():
    import ai_edge_litert  # here, because test_graph_files.py imports this file without it
    from ai_edge_litert.interpreter import Interpreter

    arrays = {}
    for name in NAMES:
        source = graphs.GRAPHS[name]
        content = assets.get(source.package, source.member).read_bytes()
        if source.inner:
            with zipfile.ZipFile(assets.get(source.package, source.member)) as file:
                content = file.read(source.inner)
        network = Interpreter(model_content=content, num_threads=1)
        network.allocate_tensors()
        (given,) = network.get_input_details()
        network.set_tensor(given['index'], inputs_of(name, given['shape']))
        network.invoke()
        for i, one in enumerate(network.get_output_details()):
            arrays[f'{name}/{i}'] = kept(network.get_tensor(one['index']))
    np.savez_compressed(OUTPUT, version=ai_edge_litert.__version__, **arrays)
    print(f'{OUTPUT}: {OUTPUT.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
