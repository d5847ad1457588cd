"""Tests run on the CPU, and keep compiled programs between runs.

--minutes=N    tests that would start later than that are skipped, and named at the end
--order=TEXT   files in an order that this text makes: with --minutes, others are skipped next time
"""

import hashlib
import os
import pathlib
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compilation is most of the time of these tests. At level 1 it is a fifth to a half shorter than at
# 3, the default; long runs are not for it, their steps take up to a tenth longer. Processes started
# by tests inherit this.
if 'optimization_level' not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = (
        os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=1'
    ).strip()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import recipe  # noqa: E402

from jaxinv.converters import checkpoint  # noqa: E402
from jaxinv.io import cache_dir  # noqa: E402
from jaxinv.networks import encoders  # noqa: E402
from jaxinv.weights.zoo import load_named  # noqa: E402

MAPPINGS = 20_000

jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'programs'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
# A missing axis is an error: broadcasts are written out.
jax.config.update('jax_numpy_rank_promotion', 'raise')


NO_TIME = 'the --minutes are over'
END = 'JAXINV_TESTS_END'  # seconds since the epoch


def pytest_addoption(parser):
    parser.addoption('--minutes', type=float, help='Tests that start later are skipped.')
    parser.addoption('--order', help='A text that makes the order of the files, e.g. a commit.')


def pytest_configure(config):
    minutes = config.getoption('--minutes')
    if minutes is not None:  # xdist's processes inherit it, also those that replace a crashed one
        os.environ.setdefault(END, str(time.time() + 60 * minutes))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Files marked `first` start first, so that both processes end at about the same time."""
    order = config.getoption('--order')

    def place(item):
        by_text = hashlib.sha256(f'{order}{item.path.name}'.encode()).digest() if order else b''
        return item.get_closest_marker('first') is None, by_text

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if time.time() > float(os.environ.get(END, 'inf')):
        pytest.skip(NO_TIME)


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get('skipped', ())
    names = [report.nodeid for report in skipped if NO_TIME in str(report.longrepr)]
    if names:
        terminalreporter.section(f'{len(names)} tests were not run: {NO_TIME}')
        terminalreporter.write_line('\n'.join(names))


@pytest.fixture(scope='module', autouse=True)
def few_mappings():
    """Compiled programs are dropped before they reach Linux's limit of mappings for a process.

    Each takes some of 65530; at the limit XLA's compiler crashes.
    """
    yield
    maps = pathlib.Path('/proc/self/maps')
    if maps.exists() and maps.read_bytes().count(b'\n') > MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def read(tmp_path):
    """converters.checkpoint.read of a file with the given bytes."""

    def read_bytes(data, **options):
        path = tmp_path / 'file'
        path.write_bytes(data)
        return checkpoint.read(path, **options)

    return read_bytes


@pytest.fixture(scope='session')
def tiny():
    """A random generator of 32 pixels and its weights."""
    return load_named('tiny')


@pytest.fixture(scope='session')
def compact(tiny):
    """A compact encoder for the tiny generator: seeded weights, codes near the mean of W."""
    spec = tiny[0].spec
    made = encoders.Spec(encoders.COMPACT, spec.num_ws, True, spec.w_dim)
    weights = {}
    for name, shape in encoders.shapes(made).items():
        weights[name] = jnp.asarray(recipe.normal(name, shape) / np.sqrt(np.prod(shape[:-1])))
    weights['w/kernel'] *= 1e-3
    average = jnp.broadcast_to(tiny[1]['buffers']['w_avg'], (spec.num_ws, spec.w_dim))
    return encoders.Encoder(made, weights, average)
