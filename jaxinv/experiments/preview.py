"""Pictures of a running inversion: preview/NAME.jpg of the first identities, after every chunk."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import PIL.Image

from jaxinv import rendering
from jaxinv.data import images
from jaxinv.optimize.runner import Runner
from jaxinv.pixels import to_uint8
from jaxinv.runtime import distributed

FOLDER = 'preview'
COUNT = 4  # identities: one forward pass of rendering.render
SIZE = 512  # pixels a side, at most


def watched(session, render: Callable) -> Runner:
    """The session's runner, which also writes pictures if config.preview is True.

    render: (rows [m] of the identities, the loop's result so far) -> images [m, h, w, 3]. Loops
    with a generator for each identity report no result before their end and have no pictures.
    """
    runner = session.runner
    if not session.config.get('preview') or distributed.is_multiprocess():
        return runner

    def write(rows, result):
        rows = np.asarray(rows)
        rows = rows[rows < COUNT]
        if len(rows):
            pictures = to_uint8(render(rows, result))
            for row, picture in zip(rows, pictures, strict=True):
                save(session.path, session.targets.names[row], picture)

    return dataclasses.replace(runner, watch=write)


def save(folder: pathlib.Path, name: str, picture) -> None:
    """Writes preview/NAME.jpg into a work folder."""
    picture = PIL.Image.fromarray(np.asarray(picture))
    picture.thumbnail((SIZE, SIZE))
    images.save(folder / FOLDER / f'{name}.jpg', picture)


def of_pivots(session) -> Runner:
    """Of a projection: its result is w [m, k, w_dim]."""

    def render(rows, w):
        return rendering.render(session.generator, session.weights, np.asarray(w)[: len(rows)])

    return watched(session, render)


def of_generator(session) -> Runner:
    """Of the tuning of one generator: its result is (weights, pivots)."""

    def render(rows, tuned):
        weights, pivots = tuned
        return rendering.render(session.generator, weights, pivots[rows])

    return watched(session, render)
