"""jaxinv: inversion and editing of real photographs with GANs, in JAX.

generator, weights = jaxinv.load_generator('mobile_stylegan_ffhq')
w = generator.map(weights, z)                               # [b, w_dim]
images, features = generator.synthesize(weights, w[:, None])  # [b, h, w, 3], about [-1, 1]
"""

__version__ = '0.1.0'

__all__ = ['load_generator']


def __getattr__(name):
    # Lazily, so that `jaxinv.launch --help` does not wait for JAX.
    if name == 'load_generator':
        from jaxinv.checkpoints import load_generator

        return load_generator
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
