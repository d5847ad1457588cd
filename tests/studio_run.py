"""A finished run of the tiny generator for the tests of the studio, without inverting."""

import json
import pathlib

import matplotlib
import numpy as np
import PIL.Image
import skimage

import jaxinv
from jaxinv import api
from jaxinv.inversion.project import Pivots

HOPPER = pathlib.Path(matplotlib.get_data_path(), 'sample_data', 'grace_hopper.jpg')
COLLINS = pathlib.Path(skimage.__file__).parent / 'data' / 'astronaut.png'


def write(folder: pathlib.Path, tiny) -> pathlib.Path:
    """A work folder of Grace Hopper and a second identity whose photograph is not known."""
    generator, weights = tiny
    targets = jaxinv.load_images(HOPPER, generator, align='face')
    w = np.random.default_rng(0).normal(size=(2, 1, generator.spec.w_dim)).astype(np.float32)
    names = ['grace_hopper', 'other']
    api.save(folder, generator, weights, Pivots(tuple(names), w, {}))
    sources = [targets.sources[0], {'file': '/etc/passwd', 'sha256': '0', 'face': None}]
    (folder / 'metrics.json').write_text(json.dumps({'sources': sources}))
    (folder / 'report.html').write_text('<script>alert(1)</script>')
    for name in names:
        (folder / 'images' / name).mkdir(parents=True)
        PIL.Image.fromarray(targets.images_uint8[0]).save(folder / 'images' / name / 'target.png')
    return folder


def directions(file: pathlib.Path, spec) -> pathlib.Path:
    """Two directions of the tiny generator."""
    normal = np.random.default_rng(1).normal
    arrays = {name: normal(size=(1, spec.w_dim)).astype(np.float32) for name in ('warm', 'wide')}
    np.savez(file, **arrays)
    return file
