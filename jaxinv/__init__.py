"""jaxinv: inversion and editing of real photographs with GANs, in JAX.

generator, weights = jaxinv.load_generator('mobile_stylegan_ffhq')
w = generator.map(weights, z)                               # [b, w_dim]
images, features = generator.synthesize(weights, w[:, None])  # [b, h, w, 3], about [-1, 1]
"""

import pathlib

__version__ = '0.1.0'

__all__ = ['load_generator']


# In a checkout that is not installed, jaxinv.converters and jaxinv.configs are beside the package.
_checkout = pathlib.Path(__file__).parent.parent
if not (_checkout / 'jaxinv' / 'converters').is_dir() and (_checkout / 'converters').is_dir():
    __path__.append(str(_checkout))


def __getattr__(name):
    # Lazily, so that `jaxinv.launch --help` does not wait for JAX.
    if name == 'load_generator':
        from jaxinv.weights.load import load_generator

        return load_generator
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
