"""One of several processes that read a folder together; started by test_prefetch.py:

    python prefetch_cases.py FOLDER OUT

Writes OUT.INDEX.npz: the names of the files that this process opened, and the targets.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from jaxinv import data
from jaxinv.data import images, prefetch
from jaxinv.runtime import cluster, distributed


def main(folder, out):
    distributed.initialize(cluster.process_from(None, None, None))
    prefetch.MAX_GATHERED_PICTURES = 2  # several rounds
    opened, lines, read = [], [], images.read

    def recording(path):
        opened.append(path.stem)
        return read(path)

    images.read = recording

    def reader(files, options, log):
        return prefetch.read_distributed(files, options, lambda text, **_: lines.append(text))

    options = data.AlignOptions(32, align='none', fit='pad')
    targets = data.load(data.find(folder), options, 'it', reader=reader)
    record = [targets.names, targets.sources, targets.skipped, lines]
    np.savez(
        pathlib.Path(f'{out}.{jax.process_index()}.npz'),
        opened=np.array(opened),
        images=targets.images_uint8,
        valid=targets.valid,
        record=json.dumps(record),
    )
    distributed.wait_for_all('read')


if __name__ == '__main__':
    main(*sys.argv[1:])
