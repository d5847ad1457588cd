"""Tests run on the CPU, with several virtual devices, and keep compiled programs between runs."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxinv import assets, generators  # noqa: E402

jax.config.update('jax_compilation_cache_dir', str(assets.cache_dir() / 'programs'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


LONGEST_FIRST = ('test_experiment', 'test_inversion', 'test_lpips', 'test_generators')


def pytest_collection_modifyitems(items):
    """Files that take long start first, so that both processes end at about the same time."""

    def rank(item):
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope='session')
def tiny():
    """A random generator of 32 pixels and its weights."""
    return generators.load('tiny')
