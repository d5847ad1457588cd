"""The command line: names, misspellings, help; and every config builds."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from jaxinv import launch, settings
from jaxinv.errors import JaxinvError

ROOT = pathlib.Path(__file__).parent.parent


def command(*args, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, '-m', 'jaxinv.launch', *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_config_names_become_paths_with_their_variant():
    path = launch.resolve_config('pti_multi_id:paper')
    assert path.endswith('pti_multi_id.py:paper') and pathlib.Path(path.split(':')[0]).is_file()


def test_unknown_config_says_what_exists():
    with pytest.raises(JaxinvError, match="Did you mean 'pti_multi_id'.*pti_single_id"):
        launch.resolve_config('pti_multi')


@pytest.mark.parametrize('name', launch.config_names())
def test_every_config_builds_and_names_a_known_task(name):
    spec = importlib.util.spec_from_file_location(name, launch.config_folder() / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config().task in settings.METHODS
    assert module.__doc__
    with pytest.raises(ValueError, match='nope'):
        module.get_config('nope')


def test_paper_variant_has_the_papers_budget():
    spec = importlib.util.spec_from_file_location('c', launch.config_folder() / 'pti_multi_id.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config('paper')
    assert (config.pivot.num_steps, config.pivot.learning_rate) == (450, 5e-3)
    assert (config.tune.num_steps, config.tune.learning_rate) == (350, 3e-4)
    assert (config.locality.weight, config.locality.alpha) == (0.1, 30.0)


@pytest.mark.parametrize(
    'args,code,expected',
    [
        (['--help'], 0, 'pti_single_id'),
        (['--config=pti_multi_id', '--help'], 0, 'initial_noise_factor'),
        ([], 2, '--config is missing'),
        (['--config=pti_multi'], 2, "Did you mean 'pti_multi_id'?"),
        (['--config=pti_multi_id:papr'], 2, "Unknown variant 'papr'"),
        (['--config=pti_multi_id', '--config.tune.num_step=3'], 2, 'num_steps'),
        (['--config=pti_multi_id', '--overwite'], 2, 'overwrite'),
        (['--config', 'pti_multi_id:test', '--config.data.images=/no/such'], 1, '/no/such'),
        (['--config=pti_multi_id:test', '--config.edits=("smyle=2",)'], 1, 'smyle'),
        (['--config=pti_multi_id:test', '--config.generator=nope'], 1, "'nope'"),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_mistakes_get_a_sentence_and_no_traceback(args, code, expected, tmp_path):
    returned, output = command(*args, *(['--workdir', str(tmp_path / 'w')] if args else []))
    assert expected in output and 'Traceback' not in output, output
    assert returned == code, output
