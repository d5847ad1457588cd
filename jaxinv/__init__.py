"""jaxinv: inversion and editing of real photographs with GANs, in JAX.

generator, weights = jaxinv.load_generator('mobile_stylegan_ffhq')
targets = jaxinv.load_images('photos/', generator)
pivots = jaxinv.project(generator, weights, targets, num_steps=100, learning_rate=0.1)
tuned = jaxinv.tune(generator, weights, targets, pivots, num_steps=80)
images = jaxinv.render(generator, tuned.weights, pivots, edit='smile=1.2')
"""

import importlib
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxinv.api import evaluate, load, paste_back, push_to_hub, render, save, settings_for
    from jaxinv.data import load_images
    from jaxinv.inversion.drag import drag
    from jaxinv.inversion.invert_sam import invert_sam
    from jaxinv.inversion.project import project
    from jaxinv.inversion.tune import tune
    from jaxinv.prompts.search import edit_by_text
    from jaxinv.report.show import show
    from jaxinv.weights.clip import load_clip
    from jaxinv.weights.encoders import load_encoder
    from jaxinv.weights.load import load_generator

__version__ = '0.1.0'

__all__ = [
    'drag', 'edit_by_text', 'evaluate', 'invert_sam', 'load', 'load_clip', 'load_encoder',
    'load_generator', 'load_images', 'paste_back', 'project', 'push_to_hub', 'render', 'save',
    'settings_for', 'show', 'tune',
]  # fmt: skip

_MODULES = {
    'drag': 'jaxinv.inversion.drag',
    'evaluate': 'jaxinv.api',
    'load': 'jaxinv.api',
    'paste_back': 'jaxinv.api',
    'push_to_hub': 'jaxinv.api',
    'render': 'jaxinv.api',
    'save': 'jaxinv.api',
    'settings_for': 'jaxinv.api',
    'load_images': 'jaxinv.data',
    'invert_sam': 'jaxinv.inversion.invert_sam',
    'project': 'jaxinv.inversion.project',
    'tune': 'jaxinv.inversion.tune',
    'edit_by_text': 'jaxinv.prompts.search',
    'load_clip': 'jaxinv.weights.clip',
    'show': 'jaxinv.report.show',
    'load_encoder': 'jaxinv.weights.encoders',
    'load_generator': 'jaxinv.weights.load',
}

# In a checkout, the folders of jaxinv.converters and jaxinv.configs are beside the package.
_here = pathlib.Path(__file__).parent
if not (_here / 'converters' / '__init__.py').is_file():
    __path__.append(str(_here.parent))


def __getattr__(name: str):
    # Loaded when first used: `jaxinv --help` and the parent of several processes need no JAX.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
