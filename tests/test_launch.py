"""The command line: names, misspellings, help; and every config builds."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import limits
import pytest

from jaxinv import launch, settings
from jaxinv.errors import JaxinvError
from jaxinv.runtime import cluster, supervisor

ROOT = pathlib.Path(__file__).parent.parent


def command(*args, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, '-m', 'jaxinv.launch', *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=limits.SECONDS,
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


# --- JAX's settings, its parent process, standard output ---


@pytest.fixture
def jax_config():
    names = 'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs'
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    jax.config.update(names[1], 1.0)
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_in_the_cache_folder(jax_config, tmp_path, monkeypatch):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path))
    launch.setup_jax({})
    assert jax_config.jax_compilation_cache_dir == str(tmp_path / 'programs')
    assert jax_config.jax_persistent_cache_min_compile_time_secs == 0.5


@pytest.mark.parametrize('given', ['/a/folder', ''])
def test_a_users_own_compilation_cache_stays(given, jax_config):
    launch.setup_jax({'JAX_COMPILATION_CACHE_DIR': given})
    assert jax_config.jax_compilation_cache_dir is None  # jax reads its variable itself
    jax_config.update('jax_compilation_cache_dir', '/set/by/the/user')
    jax_config.update('jax_persistent_cache_min_compile_time_secs', 7.0)
    launch.setup_jax({})
    assert jax_config.jax_compilation_cache_dir == '/set/by/the/user'
    assert jax_config.jax_persistent_cache_min_compile_time_secs == 7.0


def test_xlas_effort_is_lowered_on_tpus_only_and_the_users_level_stays():
    before = jax.config.jax_optimization_level
    try:
        launch.set_compile_effort({})
        assert jax.config.jax_optimization_level == before
        launch.set_compile_effort({'JAX_OPTIMIZATION_LEVEL': 'O2'}, 'tpu')
        assert jax.config.jax_optimization_level == before
        launch.set_compile_effort({}, 'tpu')
        assert jax.config.jax_optimization_level == 'O1'
    finally:
        jax.config.update('jax_optimization_level', before)


PARENT = """
import sys
from jaxinv import launch
from jaxinv.runtime import supervisor

def fork():
    print('before the fork:', sorted({'jax', 'flax', 'orbax'} & set(sys.modules)))
    raise SystemExit(7)

supervisor.os.fork = fork
sys.argv[0] = 'launch'
launch.run()
"""


@pytest.mark.parametrize('config', ['sam:test', 'pti_multi_id:test', 'sam_biggan:test'])
def test_the_parent_of_several_processes_does_not_import_jax(config, tmp_path):
    flags = ['--coordinator=127.0.0.1:1', '--num_processes=2', '--process_id=0']
    done = subprocess.run(
        [sys.executable, '-c', PARENT, f'--config={config}', f'--workdir={tmp_path}', *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=limits.SECONDS,
    )
    assert (done.returncode, done.stdout) == (7, 'before the fork: []\n'), done.stderr


def test_supervise_refuses_to_fork_after_jax():
    with pytest.raises(RuntimeError, match='before jax is imported'):
        supervisor.supervise(cluster.Process('a:1', 2, 0))


@pytest.mark.parametrize('module', ['jaxinv.launch', 'jaxinv.convert'])
def test_a_closed_standard_output_prints_no_traceback(module):
    command = [sys.executable, '-m', module, '--help']
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b''
        assert process.wait(timeout=limits.SECONDS) == 0


SAYING = """
import sys, time
from jaxinv.runtime import console
console.protect()
with console.without_reader():
    for line in range(2000):
        console.say(f'line {line} of \\u2026 \\udc80 \\x1b[2J', flush=True)
    open(sys.argv[1], 'w').write('done')
"""


@pytest.mark.parametrize('encoding', ['utf-8:strict', 'ascii', 'ascii:strict', 'cp1252'])
def test_any_text_can_be_said_and_a_reader_may_go_away(encoding, tmp_path):
    done = tmp_path / 'done'
    environment = os.environ | {'PYTHONIOENCODING': encoding}
    command = [sys.executable, '-c', SAYING, str(done)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=ROOT, env=environment) as process:
        first = process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b''
        assert process.wait(timeout=limits.SECONDS) == 0
    assert first.startswith(b'line 0 of ') and b'\x1b' not in first
    assert done.read_text() == 'done'
