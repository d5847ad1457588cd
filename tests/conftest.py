"""Tests run on the CPU, with several virtual devices, and keep compiled programs between runs."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxinv.converters import checkpoint  # noqa: E402

from jaxinv.io import cache_dir  # noqa: E402
from jaxinv.weights.zoo import load_named  # noqa: E402

jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'programs'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


LONGEST_FIRST = (
    'test_experiment',
    'test_placement',
    'test_distributed',
    'test_stylegan2_end_to_end',
    'test_sam_experiment',
    'test_inversion',
    'test_pti_parity',
    'test_lpips',
    'test_generators',
)
# Parts of the ids of long tests that repeat others at another size, precision or setting; together
# they take as long as all the rest.
EXHAUSTIVE = (
    'test_search_in_float',
    'test_runs_in_float64',
    'test_everything_equals_the_official_float64',
    'ada256',
    'ada32orig',
    'ros32',
    '[tune]',
    '[early_stop]',
    '[proj]',
    '[multi]',
    'ada32clamp',
    'ada32res',
    'test_the_network_learns',
    'test_rerun_and_resumed_run',
    'test_single_identity_tuning_saves',
    'test_any_size',
    '[proj_wnoise]',
    '[multi_reg]',
    'test_rosinality_with_512_channels',
    'test_a_whole_1024_makes_an_image',
    'test_regularised_tuning_drifts_less',
    'test_projection_of_one_equals_its_place',
    'test_pivots_found_one_after_the_other',
    'test_random_weights_make_images_and_reach_every_gradient',
    'test_placement.py',
    'test_distributed.py',
    'test_slots.py::test_tuning_in_slots',
    'test_a_run_in_slots_writes_each',
    'test_another_file_under_the_same_name',
    'test_default_edits_are_left_out_where',
    'test_failures.py',
    'test_launchers.py',
    'test_deltas.py',
    'test_biggan_deep.py',
    'from_less_memory[biggan]',
    'test_biggan_converter.py',
    'test_pivotal_tuning_from_the_official',
    'test_baselines_and_ablations',
    'test_from_measuring_to_a_network',
    'test_groups_leave_the_codes',
    'test_groups_end_as_all_at_once',
    'test_an_interrupted_group',
    'test_two_processes_share_the_groups',
    'test_groups_on_two_devices',
    'test_a_generator_each_keeps_the_class_too[7]',
    'test_each_picture_of_a_group_keeps_its_class',
    'test_processes_share_what_one_would_read[3]',
    'test_groups.py',
    'test_gradients_equal_the_official_ones[ada32c]',
    'test_a_class_of_a_conditional_pickle_at_32_pixels',
    'test_measuring_moves_only_the_candidate_space',
    'test_sam_parts.py',
)


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    """Marks the exhaustive tests; files that take long start first, for both processes to end."""

    def rank(item):
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)
    for item in items:
        if item.get_closest_marker('long') and any(part in item.nodeid for part in EXHAUSTIVE):
            item.add_marker('exhaustive')


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
