"""SLURM: a batch job on GPU nodes.

  python launch/slurm.py --nodes=2 --gpus-per-node=8 --time=04:00:00 --partition=NAME \\
      --setup='source venv/bin/activate' -- --config=pti_multi_id --workdir=SHARED_FOLDER

Submits the batch script with sbatch, or prints it with --dry-run. One process for each GPU (the
default of JAX under SLURM) or, with --per=node, for each node. --lead seconds before the time
limit, and when the job is preempted, all processes get SIGTERM, save, and end with exit code 75;
the job is then requeued and resumes. --workdir must be on a file system that all nodes share.
"""

import shlex
import subprocess
import sys

import common
import xla_flags


def make_parser():
    parser = common.parser(__doc__)
    add_options(parser)
    return parser


def add_options(parser) -> None:
    parser.add_argument('--nodes', type=common.positive, default=1)
    parser.add_argument('--gpus-per-node', type=common.positive, default=1)
    parser.add_argument(
        '--per', choices=('gpu', 'node'), default='gpu', help='one process for each'
    )
    parser.add_argument('--time', default='04:00:00', help='limit, hours:minutes:seconds')
    parser.add_argument(
        '--lead',
        type=common.positive,
        default=300,
        help='seconds between SIGTERM and the time limit',
    )
    parser.add_argument('--name', default='jaxinv')
    parser.add_argument('--partition')
    parser.add_argument('--account')
    parser.add_argument('--cpus-per-task', type=common.positive)
    parser.add_argument('--setup', action='append', default=[], help='a shell line to run before')
    parser.add_argument(
        '--sbatch', action='append', default=[], help='another option of sbatch, without --'
    )
    xla_flags.add_option(parser)


def main(argv) -> int:
    options, rest = common.parse(make_parser(), argv)
    text = script(options, [rest])
    if options.dry_run:
        print(text, end='')
        return 0
    return submit(text)


def submit(text: str) -> int:
    return subprocess.run(['sbatch'], input=text, text=True).returncode


def script(options, runs, at_once: int = 0) -> str:
    """The batch script. Several runs are an array job, `at_once` of them at a time (0 = all)."""
    tasks = options.gpus_per_node if options.per == 'gpu' else 1
    directives = {
        'job-name': options.name,
        'nodes': options.nodes,
        'ntasks-per-node': tasks,
        'gpus-per-node': options.gpus_per_node,
        'cpus-per-task': options.cpus_per_task,
        'time': options.time,
        'partition': options.partition,
        'account': options.account,
        # To the processes only: this shell must continue, because it requeues the job.
        'signal': f'TERM@{options.lead}',
        'open-mode': 'append',  # a requeued job continues the same file
        'output': '%x-%j.out' if len(runs) == 1 else '%x-%A_%a.out',
    }
    if len(runs) > 1:
        directives['array'] = f'0-{len(runs) - 1}' + (f'%{at_once}' if at_once else '')
    lines = ['#!/bin/bash']
    lines += [f'#SBATCH --{key}={value}' for key, value in directives.items() if value is not None]
    lines += ['#SBATCH --requeue'] + [f'#SBATCH --{option}' for option in options.sbatch]
    lines += ['', 'set -u', *options.setup]
    if options.xla_flags != 'none':
        flags = xla_flags.text(options.xla_flags)
        lines += [f'export XLA_FLAGS="${{XLA_FLAGS:-}} {flags}"']
    if options.per == 'node':
        # By default JAX under SLURM uses one GPU for each process, that of its local index.
        indices = ','.join(map(str, range(options.gpus_per_node)))
        lines += [f'export JAX_LOCAL_DEVICE_IDS={indices}']
    lines += ['', *_arguments(runs), '', *_BODY]
    return '\n'.join(lines) + '\n'


def _arguments(runs):
    """Shell lines that set the positional parameters to the arguments of this task."""
    if len(runs) == 1:
        return [f'set -- {shlex.join(runs[0])}']
    cases = [f'  {i}) set -- {shlex.join(run)} ;;' for i, run in enumerate(runs)]
    return ['case "$SLURM_ARRAY_TASK_ID" in', *cases, 'esac']


_BODY = (
    '# Preemption sends SIGTERM to this shell, too.',
    'trap : TERM',
    'code=0',
    # Without --kill-on-bad-exit: its SIGKILL could replace the exit code 75 of other processes.
    'srun --wait=120 python -m jaxinv.launch "$@" || code=$?',
    f'if [ "$code" -eq {common.PREEMPTED} ]; then',
    '  scontrol requeue "$SLURM_JOB_ID"',
    'fi',
    'exit "$code"',
)


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
