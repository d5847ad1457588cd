"""Shared by the launchers: the command after `--`, printing of commands, exit codes.

The launchers run where jaxinv need not be installed, so none of them imports it.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence

# Exit codes of jaxinv.launch, see README.md.
USAGE = 2  # a mistake in the command
PREEMPTED = 75  # SIGTERM, state saved: the same command resumes


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str], optional: bool = False
) -> tuple[argparse.Namespace, list[str]]:
    """(options of the launcher, arguments of jaxinv.launch, which follow `--`).

    Exits with USAGE without a --config after `--`, unless `optional`.
    """
    own, rest = split(argv)
    options = parser.parse_args(own)
    if not optional and not any(arg.lstrip('-').startswith('config') for arg in rest):
        parser.error('the config to run is missing; end with: -- --config=NAME ...')
    return options, rest


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before and after the first `--`."""
    argv = list(argv)
    index = argv.index('--') if '--' in argv else len(argv)
    return argv[:index], argv[index + 1 :]


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser with --dry-run; its help is the script's docstring."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    result.add_argument(
        '--dry-run', action='store_true', help='print the commands without running them'
    )
    return result


def positive(text: str) -> int:
    """argparse type of an integer that is at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is not at least 1')
    return value


def shell(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """One line for a shell: VARIABLE=VALUE ... command."""
    settings = [f'{name}={shlex.quote(value)}' for name, value in (environment or {}).items()]
    return ' '.join([*settings, shlex.join(command)])


def exit_code(returncode: int) -> int:
    """The exit code as a shell reports it: 128 + n for a process ended by signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def log(script: str, message: str) -> None:
    """One line on standard error."""
    print(f'{script}: {message}', file=sys.stderr, flush=True)
