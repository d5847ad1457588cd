"""A run for each combination of settings, and a table of the results.

  python launch/sweep.py --into=FOLDER --config.tune.learning_rate=1e-4,3e-4 --config.seed=0,1 \\
      -- --config=pti_multi_id --config.data.images=PHOTOS

The grid is given before `--`, with values separated by commas (commas within brackets or quotes do
not separate); arguments of all runs follow `--`. Runs are sequential, each in a subfolder of FOLDER
named after its settings. The same command resumes: it skips finished runs and continues an
interrupted one. A failed run does not stop the sweep. At the end FOLDER/table.md and table.json
contain the means over the identities from each metrics.json.

  --local='--processes=2'           each run by launch/local.py with these options
  --slurm='--gpus-per-node=8'       one array job with these options of launch/slurm.py
  --table                           only write the table of the runs finished so far

Exit codes: 0 all finished, 1 some failed, 2 a mistake in the command, 75, 130 or 143 stopped.
"""

import hashlib
import itertools
import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import common
import slurm

NAME = 'sweep.py'
METRICS = ('lpips_alex', 'lpips_vgg', 'mse', 'psnr', 'ms_ssim', 'id_distance')
STOPPED = (common.PREEMPTED, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def make_parser():
    parser = common.parser(__doc__)
    parser.add_argument('--into', type=pathlib.Path, required=True, help='folder of the sweep')
    parser.add_argument('--local', metavar='OPTIONS', help='of launch/local.py')
    parser.add_argument('--slurm', metavar='OPTIONS', help='of launch/slurm.py')
    parser.add_argument('--at-once', type=int, default=0, help='--slurm: runs at a time; 0 = all')
    parser.add_argument('--table', action='store_true', help='only write the table')
    return parser


def main(argv) -> int:
    own, rest = common.split(argv)
    axes = [arg for arg in own if arg.startswith('--config.')]
    own = [arg for arg in own if arg not in axes]
    parser = make_parser()
    options, rest = common.parse(parser, [*own, '--', *rest])
    if any(arg.startswith('--workdir') for arg in rest):
        parser.error('--workdir is chosen for each run; give --into')
    if options.local is not None and options.slurm is not None:
        parser.error('--local and --slurm exclude each other')
    try:
        runs = grid(axes)
    except ValueError as error:
        parser.error(str(error))
    folders = {options.into / folder_name(run): run for run in runs}
    unfinished = {f: run for f, run in folders.items() if not (f / 'metrics.json').is_file()}
    if options.table:
        unfinished = {}
    commands = [[*rest, *flags(run), f'--workdir={f}'] for f, run in unfinished.items()]
    if options.slurm is not None:
        return by_slurm(options, commands)
    if options.dry_run:
        print('\n'.join(common.shell(launch(options, command)) for command in commands))
        return 0
    failed = {}
    for folder, command in zip(unfinished, commands, strict=True):
        code = run_one(folder.name, launch(options, command))
        if code in (*STOPPED, common.USAGE):
            common.log(NAME, f'stopped with exit code {code}; the same command resumes.')
            return code
        if code:
            failed[folder] = code
    write_table(options.into, folders, failed)
    return 1 if failed else 0


def grid(axes) -> list[dict[str, str]]:
    """['--config.seed=0,1', ...] -> [{'seed': '0', ...}, ...]; the last axis varies fastest."""
    if not axes:
        raise ValueError('there is no grid; give --config.KEY=VALUE,VALUE before --')
    values = {}
    for axis in axes:
        key, equals, text = axis.removeprefix('--config.').partition('=')
        if not equals or key in values:
            raise ValueError(f'{axis} is not --config.KEY=VALUE,VALUE, each key once')
        values[key] = split_values(text)
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def split_values(text: str) -> list[str]:
    """Splits at commas outside brackets and quotes."""
    pieces, depth, quote = [''], 0, ''
    for letter in text:
        if quote:
            quote = '' if letter == quote else quote
        elif letter in '"\'':
            quote = letter
        elif letter in '([{':
            depth += 1
        elif letter in ')]}':
            depth -= 1
        elif letter == ',' and not depth:
            pieces.append('')
            continue
        pieces[-1] += letter
    return pieces


def flags(run) -> list[str]:
    return [f'--config.{key}={value}' for key, value in run.items()]


def folder_name(run) -> str:
    """'seed=0,tune.rank=4'; followed by a hash if characters were replaced or cut off."""
    text = ','.join(f'{key}={value}' for key, value in run.items())
    name = re.sub(r'[^\w.=,+-]+', '_', text)[:100]
    return name if name == text else f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def launch(options, command) -> list[str]:
    if options.local is None:
        return [sys.executable, '-m', 'jaxinv.launch', *command]
    script = pathlib.Path(__file__).with_name('local.py')
    return [sys.executable, str(script), *shlex.split(options.local), '--', *command]


def run_one(name, command) -> int:
    print(f'--- {name}', flush=True)
    signals, children = [], []

    def forward(number, frame):
        signals.append(number)
        for child in children:
            child.send_signal(number)

    earlier = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        # A new session: else the terminal's Ctrl-C would reach the child twice.
        children.append(subprocess.Popen(command, start_new_session=True))
        for number in signals:
            children[0].send_signal(number)
        code = common.exit_code(children[0].wait())
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if signals and code not in STOPPED:
        code = 128 + signals[0]
    if code:
        common.log(NAME, f'{name} ended with exit code {code}.')
    return code


def by_slurm(options, commands) -> int:
    job = slurm.make_parser().parse_args(shlex.split(options.slurm))
    if not commands:
        common.log(NAME, 'all runs have finished; --table writes the table.')
        return 0
    text = slurm.script(job, commands, options.at_once)
    if options.dry_run:
        print(text, end='')
        return 0
    return slurm.submit(text)


def write_table(into: pathlib.Path, folders, failed) -> None:
    """Writes FOLDER/table.md and table.json, and prints the former."""
    results = [result_of(folder, run, failed.get(folder)) for folder, run in folders.items()]
    shown = [metric for metric in METRICS if any(metric in r['mean'] for r in results)]
    keys = list(next(iter(folders.values())))
    lines = [[*keys, 'result', *shown, 'seconds']]
    for r in results:
        numbers = [r['mean'].get(metric) for metric in shown]
        cells = ['' if x is None else f'{x:.4g}' for x in (*numbers, r['seconds'])]
        lines.append([*(r['settings'][key] for key in keys), r['result'], *cells])
    lines.insert(1, ['---'] * len(lines[0]))
    text = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'
    into.mkdir(parents=True, exist_ok=True)
    (into / 'table.md').write_text(text, encoding='utf-8')
    (into / 'table.json').write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    print(text, end='')


def result_of(folder, run, code) -> dict:
    """{'settings', 'folder', 'result', 'mean' of the last stage, 'seconds' of all stages}.

    code: the exit code if the run failed, else None.
    """
    record = {'settings': run, 'folder': folder.name, 'mean': {}, 'seconds': None}
    try:
        metrics = json.loads((folder / 'metrics.json').read_text(encoding='utf-8'))
    except FileNotFoundError:
        return record | {'result': f'failed, {code}' if code else 'not run'}
    except ValueError:
        return record | {'result': 'metrics.json is damaged'}
    stages = list(metrics.get('mean') or {})
    mean = metrics['mean'][stages[-1]] if stages else {}
    seconds = sum((metrics.get('seconds') or {}).values()) or None
    return record | {
        'result': stages[-1] if stages else 'finished',
        'mean': mean,
        'seconds': seconds,
    }


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
