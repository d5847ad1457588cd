"""Cloud TPU: one process on each host of a slice of any size.

  python launch/tpu.py create --name=NAME --zone=ZONE --type=v5litepod-64 --spot
  python launch/tpu.py setup  --name=NAME --zone=ZONE           # copies this folder, installs it
  python launch/tpu.py run    --name=NAME --zone=ZONE -- --config=pti_multi_id --workdir=SHARED
  python launch/tpu.py delete --name=NAME --zone=ZONE

Each action is one or a few gcloud commands; --dry-run prints them. JAX finds the other hosts of
the slice (--coordinator=cluster). --workdir must be on a file system that all hosts mount
(--before='...' may mount it).
After a spot slice is reclaimed, repeat create, setup and run: the run resumes.
"""

import shlex
import subprocess
import sys

import common

VERSIONS = {  # runtime of each TPU generation, cloud.google.com/tpu/docs/runtimes
    'v4': 'tpu-ubuntu2204-base',
    'v5litepod': 'v2-alpha-tpuv5-lite',
    'v5p': 'v2-alpha-tpuv5',
    'v6e': 'v2-alpha-tpuv6e',
}
TPU = ['gcloud', 'compute', 'tpus', 'tpu-vm']


def make_parser():
    parser = common.parser(__doc__)
    parser.add_argument('action', choices=('create', 'setup', 'run', 'delete'))
    parser.add_argument('--name', required=True)
    parser.add_argument('--zone', required=True)
    parser.add_argument('--project')
    parser.add_argument('--type', help='create: accelerator type, e.g. v5litepod-64')
    parser.add_argument('--version', help='create: runtime; default: that of the type')
    parser.add_argument('--spot', action='store_true', help='create: a spot slice')
    parser.add_argument('--source', default='.', help='setup: folder to copy')
    parser.add_argument(
        '--python', default='python3.11', help='3.11 or newer; --before may install it'
    )
    parser.add_argument('--before', default='', help='a shell line to run before on every host')
    return parser


def main(argv) -> int:
    parser = make_parser()
    options, rest = common.parse(parser, argv, optional=True)
    if options.action == 'run' and not rest:
        parser.error('the config to run is missing; end with: -- --config=NAME ...')
    if options.action == 'create' and not options.type:
        parser.error('create needs --type, e.g. --type=v5litepod-64')
    commands = {'create': create, 'setup': setup, 'run': run, 'delete': delete}[options.action](
        options, rest
    )
    if options.dry_run:
        print('\n'.join(map(common.shell, commands)))
        return 0
    for command in commands:
        code = common.exit_code(subprocess.run(command).returncode)
        if code:
            return code
    return 0


def create(options, rest):
    version = options.version or VERSIONS.get(options.type.split('-')[0])
    if version is None:
        common.log('tpu.py', f'the runtime of {options.type} is unknown; give --version.')
        raise SystemExit(common.USAGE)
    command = [*TPU, 'create', options.name, *_where(options)]
    command += [f'--accelerator-type={options.type}', f'--version={version}']
    return [command + (['--spot'] if options.spot else [])]


def setup(options, rest):
    copy = [*TPU, 'scp', '--recurse', '--worker=all', *_where(options)]
    install = f'{options.python} -m pip install "jax[tpu]" -e jaxinv'
    return [
        # Copying into an existing folder would create a subfolder.
        _on_every_host(options, 'rm -rf jaxinv'),
        [*copy, options.source, f'{options.name}:jaxinv'],
        _on_every_host(options, _after(options.before, install)),
    ]


def run(options, rest):
    if not any(arg.startswith('--coordinator') for arg in rest):
        rest = [*rest, '--coordinator=cluster']
    command = f'cd jaxinv && {options.python} -m jaxinv.launch {shlex.join(rest)}'
    return [_on_every_host(options, _after(options.before, command))]


def delete(options, rest):
    return [[*TPU, 'delete', options.name, *_where(options), '--quiet']]


def _on_every_host(options, command):
    where = _where(options)
    return [*TPU, 'ssh', options.name, *where, '--worker=all', f'--command={command}']


def _where(options):
    project = [f'--project={options.project}'] if options.project else []
    return [f'--zone={options.zone}', *project]


def _after(before, command):
    return f'{before} && {command}' if before else command


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
