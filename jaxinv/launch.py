"""Runs an experiment:

  python -m jaxinv.launch --config=NAME[:VARIANT] [--config.KEY=VALUE ...] [--workdir=DIR]

Configs: {configs}.
For example

  python -m jaxinv.launch --config=pti_multi_id --config.data.images=FOLDER
  python -m jaxinv.launch --config=pti_multi_id:paper --config.tune.num_steps=100
  python -m jaxinv.launch --config=pti_multi_id --help     # all keys with their values

The same command resumes an interrupted run, and changes nothing after the run is finished. SIGTERM
saves the state and exits with code 75. Several processes, one on each host: docs/devices.md.
"""

import contextlib
import difflib
import importlib
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Mapping

from absl import app, flags, logging
from ml_collections import config_flags

from jaxinv import defaults, settings
from jaxinv.errors import JaxinvError
from jaxinv.io import cache_dir
from jaxinv.runtime import cluster, console, distributed, malloc, places, supervisor
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.progress import silent


def config_folder() -> pathlib.Path:
    """jaxinv/configs when installed, configs/ beside the package in a checkout."""
    here = pathlib.Path(__file__).parent
    return here / 'configs' if (here / 'configs').is_dir() else here.parent / 'configs'


def config_names() -> list[str]:
    return sorted(p.stem for p in config_folder().glob('*.py') if not p.stem.startswith('_'))


__doc__ = __doc__.format(configs=', '.join(config_names()))

_CONFIG = config_flags.DEFINE_config_file('config', None, 'NAME, NAME:VARIANT, or a path.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of results and checkpoints; by default a folder under runs/.'
)
_NAME = flags.DEFINE_string(
    'name', 'run', "Name of the folder under runs/; by default the config's name."
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Start anew in a folder that holds a run.')
_COORDINATOR = flags.DEFINE_string(
    'coordinator', None, "HOST:PORT of process 0 of several, or 'cluster' to detect it."
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Number of processes.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Index of this process: 0, 1, ...')
_TIMEOUT = flags.DEFINE_integer(
    'timeout', distributed.TIMEOUT, 'Seconds to wait for all processes at the start.'
)
_HEARTBEAT = flags.DEFINE_integer(
    'heartbeat', distributed.HEARTBEAT, 'Seconds without a heartbeat after which one is lost.'
)


def resolve_config(value: str) -> str:
    """'pti_multi_id:paper' -> the path of its file, with ':paper' kept. Paths pass unchanged."""
    name, colon, variant = value.partition(':')
    if os.sep in name or name.endswith('.py'):
        if not pathlib.Path(name).is_file():
            raise JaxinvError(f'--config={name}: there is no such file.')
        return value
    names = config_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f' Did you mean {close[0]!r}?' if close else ''
        raise JaxinvError(f'Unknown config {name!r}.{hint} Known configs: {", ".join(names)}.')
    return f'{config_folder() / name}.py{colon}{variant}'


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser after config names have become paths; also takes the form `--config NAME`."""
    # ml_collections reads the overrides of a config from sys.argv.
    argv = sys.argv[:] = [_current_key(arg) for arg in argv]
    for i, arg in enumerate(argv):
        match = re.fullmatch(r'--?config(?:=(.*))?', arg)
        if match and (match.group(1) is not None or i + 1 < len(argv)):
            value = match.group(1) if match.group(1) is not None else argv.pop(i + 1)
            argv[i] = f'--config={_or_exit(resolve_config, value)}'
            argv.insert(
                1, f'--name={pathlib.Path(value.replace(".py", "")).name}'
            )  # first: the user's own wins
            break
    is_help = re.compile(r'--?help(short|full)?').fullmatch
    rest = [arg for arg in argv if not is_help(arg)]
    try:
        rest = flags.FLAGS(rest)
    except (flags.Error, ValueError) as error:
        # For a variant the config does not have, absl's text ends with the config's own sentence.
        _exit(str(error).strip().splitlines()[-1].removeprefix('ValueError: '), 2)
    except (AttributeError, KeyError) as error:  # a key the config does not have
        hint = re.search(r'Did you mean[^?]*\? ?', f'{error} ') or ['']
        _exit(f'the config has no such key. {hint[0]}--config=NAME --help explains its keys.', 2)
    if len(rest) < len(argv) and any(map(is_help, argv)):
        print_help()
        raise SystemExit(0)
    return rest


def _current_key(arg: str) -> str:
    """An argument with the key's present name if it has an earlier one; says so."""
    match = re.fullmatch(r'--?config\.([\w.]+)(=.*)?', arg, re.DOTALL)
    key = settings.RENAMED.get(match[1]) if match else None
    if key is None:
        return arg
    console.complain(f'config.{match[1]} is now config.{key}; taken as that.')
    return f'--config.{key}{match[2] or ""}'


def print_help() -> None:
    print(__doc__)
    print(flags.FLAGS.module_help(sys.modules[__name__]))
    config = flags.FLAGS['config'].value
    if config is None:
        print('\n--config=NAME --help explains the keys of a config.')
    else:
        print(f'\nKeys of this config, with their values:\n\n{defaults.explain(config)}')


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        _exit(f'unexpected argument {argv[1]!r}; options start with --, see --help.', 2)
    config = _CONFIG.value
    if config is None:
        _exit(f'--config is missing; known configs: {", ".join(config_names())}. See --help.', 2)
    logging.set_verbosity(logging.FATAL)  # what Orbax logs it raises, too
    flags_given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    process = _or_exit(cluster.process_from, *flags_given)
    record = _or_exit(settings.record_of, config)
    path = _WORKDIR.value or workdirs.default_path(_NAME.value, record)
    path = _or_exit(places.expand, path, '--workdir')
    _or_exit(places.check_folder, path, 'The work folder', 'choose another --workdir')
    _or_exit(places.check_new_cache)
    if process is not None:
        if not settings.METHODS[config.task].several_processes:
            _exit(f'{config.task} runs in one process; leave --coordinator out.', 2)
        _or_exit(cluster.check_terminal, process)
        if told := cluster.announcement(process):
            console.complain(f'jaxinv: {told}')
        supervisor.supervise(process, _TIMEOUT.value, _HEARTBEAT.value)
    _or_exit(setup_jax, os.environ)
    if process is not None:
        _or_exit(distributed.initialize, process, _TIMEOUT.value, _HEARTBEAT.value)
    _or_exit(check_devices, os.environ)
    set_compile_effort(os.environ)
    distributed.handle_sigterm()
    task = importlib.import_module(settings.METHODS[config.task].module)
    log = console.say if distributed.is_primary() else silent
    log(f'Work folder: {path}', flush=True)
    try:
        task.run(config, path, overwrite=_OVERWRITE.value, log=log)
        distributed.wait_for_all('finished')
    except JaxinvError as error:
        _exit(str(error))
    except distributed.Preempted:
        message = f'stopped by SIGTERM; run the same command to go on from where it is, in {path}.'
        _exit(message, distributed.PREEMPTED)
    except KeyboardInterrupt:
        _exit(f'stopped; run the same command to go on from the last checkpoint in {path}.', 130)
    except Exception as error:
        if distributed.lost_peer(error):
            console.complain(' '.join(str(error).split())[:300])
            message = distributed.peer_lost(process.index, _HEARTBEAT.value)
            console.complain(f'jaxinv: {message}')
            os._exit(distributed.PEER_LOST)  # jax's own exit would wait for the peers and abort
        if workdirs.no_room(error):
            message = (
                f'nothing more can be written in {path}, whose disk, quota or limit of file size '
                'is reached; make room and run the same command, which goes on from the last '
                'checkpoint.'
            )
            with contextlib.suppress(SystemExit):
                _exit(message)
            os._exit(1)  # at a normal exit Orbax's writers would print their own tracebacks
        traceback.print_exc()
        distributed.exit_together(1)
        raise SystemExit(1) from None


def setup_jax(environment: Mapping[str, str]) -> None:
    """Keeps compiled programs in the cache folder between runs, unless the user set JAX's own.

    Raises JaxinvError if JAX cannot be imported, as with a variable that it cannot read.
    """
    try:
        import jax  # here, so that --help does not wait for it
    except Exception as error:
        given = ', '.join(sorted(name for name in environment if name.startswith(('JAX_', 'XLA_'))))
        reason = ' '.join(str(error).split())[:200].rstrip('.')
        raise JaxinvError(
            f'JAX could not be imported ({reason}); install it again, or correct its variables '
            f'({given or "none are set"}).'
        ) from None
    folder = cache_dir() / 'programs'
    if not os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK):
        return  # a cache that is read-only
    mine = {
        'jax_compilation_cache_dir': (None, str(folder)),
        'jax_persistent_cache_min_compile_time_secs': (1.0, 0.5),
    }
    for name, (default, value) in mine.items():
        if name.upper() not in environment and getattr(jax.config, name) == default:
            jax.config.update(name, value)


def check_devices(environment: Mapping[str, str]) -> None:
    """Raises JaxinvError if JAX has none of the devices that JAX_PLATFORMS asks for."""
    import jax

    try:
        jax.devices()
    except Exception as error:  # an AssertionError without words, or a RuntimeError, by platform
        asked = environment.get('JAX_PLATFORMS') or 'not set'
        reason = ' '.join(str(error).split())[:200].rstrip('.')
        names = 'cuda: pip install "jax[cuda12]"; tpu: pip install "jax[tpu]"'
        raise JaxinvError(
            f'JAX found no devices: JAX_PLATFORMS is {asked}'
            f'{f" ({reason})" if reason else ""}; this jax may lack that backend ({names}), or '
            'unset JAX_PLATFORMS to take what there is.'
        ) from None


def set_compile_effort(environment: Mapping[str, str], platform: str = '') -> None:
    """On TPUs asks XLA for the effort O1, a third of the compile time of its default (docs/tpu.md).

    Programs move about as many bytes and take up to a half more temporary memory. A level that the
    user has set, as JAX_OPTIMIZATION_LEVEL=UNKNOWN, XLA's own, stays. platform: '' = that of the
    default device.
    """
    import jax

    chosen = 'JAX_OPTIMIZATION_LEVEL' in environment
    if not chosen and (platform or jax.default_backend()) == 'tpu':
        jax.config.update('jax_optimization_level', 'O1')


def _or_exit(function, *args):
    try:
        return function(*args)
    except JaxinvError as error:
        _exit(str(error), 2)


def _exit(message: str, code: int = 1):
    console.complain(f'jaxinv: {message}')
    distributed.exit_together(code)
    raise SystemExit(code)


def run() -> None:
    """The command `jaxinv`."""
    malloc.restart_with_large_pages()
    console.protect()
    with console.without_reader():
        app.run(main, flags_parser=parse_flags)


if __name__ == '__main__':
    run()
