"""What the launchers share: the command after `--`, how it is printed, exit codes, mistakes."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence

# Of jaxinv.launch, see README.md.
MISTAKE = 2  # in the command
PREEMPTED = 75  # after SIGTERM, with everything saved: the same command goes on


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str], optional: bool = False
) -> tuple[argparse.Namespace, list[str]]:
    """(the launcher's own options, the options of jaxinv.launch that follow `--`)."""
    own, rest = split(argv)
    options = parser.parse_args(own)
    if not optional and not any(arg.lstrip('-').startswith('config') for arg in rest):
        parser.error('what is to run is missing; end with: -- --config=NAME ...')
    return options, rest


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first `--`."""
    argv = list(argv)
    place = argv.index('--') if '--' in argv else len(argv)
    return argv[:place], argv[place + 1 :]


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser with --dry-run, whose help is the script's docstring."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument('--dry-run', action='store_true', help='print what would run, do nothing')
    return made


def positive(text: str) -> int:
    """The type of an option that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is not at least 1')
    return value


def shell(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """One line for a shell: VARIABLE=VALUE ... command."""
    settings = [f'{name}={shlex.quote(value)}' for name, value in (environment or {}).items()]
    return ' '.join([*settings, shlex.join(command)])


def exit_code(returncode: int) -> int:
    """Of a process as a shell reports it: 128 + number for one that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode


def say(script: str, message: str) -> None:
    print(f'{script}: {message}', file=sys.stderr, flush=True)
