"""One of several processes that read a folder together, for test_reading.py, which starts it:

    python reading_cases.py FOLDER OUT

Writes OUT.INDEX.npz: the names of the files that it opened, and the targets.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from jaxinv import data
from jaxinv.data import prefetch
from jaxinv.runtime import distributed


def main(folder, out):
    distributed.initialize(distributed.process_from(None, None, None))
    prefetch.READ_AT_ONCE = 2  # so that there are several rounds
    opened, read = [], data.read

    def noted(stem, *args):
        opened.append(stem)
        return read(stem, *args)

    data.read = noted
    way, lines = data.AlignOptions(32, align='none', fit='pad'), []

    def reader(members, way, log):
        return prefetch.together(members, way, lambda text, **_: lines.append(text))

    targets = data.load(data.find(folder), way, 'it', reader=reader)
    about = [targets.names, targets.sources, targets.skipped, lines]
    np.savez(
        pathlib.Path(f'{out}.{jax.process_index()}.npz'),
        opened=np.array(opened),
        images=targets.images_uint8,
        valid=targets.valid,
        about=json.dumps(about),
    )
    distributed.wait_for_all('read')


if __name__ == '__main__':
    main(*sys.argv[1:])
