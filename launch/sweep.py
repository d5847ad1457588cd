"""A grid of settings: a run for each combination, and a table of their results.

  python launch/sweep.py --into=FOLDER --config.tune.learning_rate=1e-4,3e-4 --config.seed=0,1 \\
      -- --config=pti_multi_id --config.data.images=PHOTOS

Before `--` stands the grid, its values separated by commas (those within brackets or quotes do not
count); after it what all runs have in common. Runs go one after another, each into a folder of
FOLDER that is named after its settings. The same command goes on where it stopped and passes over
what has finished; a run that fails is noted, and the others go on. At the end FOLDER/table.md and
table.json hold the means over the identities, from each metrics.json.

  --local='--processes=2'           every run by launch/local.py with these options
  --slurm='--gpus-per-node=8'       instead, one array job with these options of launch/slurm.py
  --table                           only write the table, of what has finished so far

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
    parser.add_argument('--at-once', type=int, default=0, help='array jobs at a time; 0 = all')
    parser.add_argument('--table', action='store_true')
    return parser


def main(argv) -> int:
    own, rest = common.split(argv)
    axes = [arg for arg in own if arg.startswith('--config.')]
    own = [arg for arg in own if arg not in axes]
    parser = make_parser()
    options, rest = common.parse(parser, [*own, '--', *rest])
    if any(arg.startswith('--workdir') for arg in rest):
        parser.error('each run has a folder of its own; give --into and no --workdir')
    if options.local is not None and options.slurm is not None:
        parser.error('--local and --slurm exclude each other')
    try:
        runs = grid(axes)
    except ValueError as error:
        parser.error(str(error))
    folders = {options.into / folder_name(run): run for run in runs}
    waiting = {f: run for f, run in folders.items() if not (f / 'metrics.json').is_file()}
    if options.table:
        waiting = {}
    commands = [[*rest, *flags(run), f'--workdir={f}'] for f, run in waiting.items()]
    if options.slurm is not None:
        return by_slurm(options, commands)
    if options.dry_run:
        print('\n'.join(common.shell(launch(options, command)) for command in commands))
        return 0
    failed = {}
    for folder, command in zip(waiting, commands, strict=True):
        code = run_one(folder.name, launch(options, command))
        if code in (*STOPPED, common.MISTAKE):
            common.say(NAME, f'stopped with exit code {code}; the same command goes on.')
            return code
        if code:
            failed[folder] = code
    write_table(options.into, folders, failed)
    return 1 if failed else 0


def grid(axes) -> list[dict[str, str]]:
    """['--config.seed=0,1', ...] -> [{'seed': '0', ...}, ...], the last axis fastest."""
    if not axes:
        raise ValueError('there is no grid; give --config.KEY=VALUE,VALUE before --')
    values = {}
    for axis in axes:
        key, equals, text = axis.removeprefix('--config.').partition('=')
        if not equals or key in values:
            raise ValueError(f'{axis} is not --config.KEY=VALUE,VALUE, each key once')
        values[key] = split_values(text)
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def split_values(text: str) -> list[str]:
    """Split at commas, but not within brackets or quotes."""
    parts, depth, quote = [''], 0, ''
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
            parts.append('')
            continue
        parts[-1] += letter
    return parts


def flags(run) -> list[str]:
    return [f'--config.{key}={value}' for key, value in run.items()]


def folder_name(run) -> str:
    """'seed=0,tune.rank=4'; a hash follows where that says too little or is too long."""
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
    stopped, children = [], []

    def pass_on(number, frame):
        stopped.append(number)
        for child in children:
            child.send_signal(number)

    earlier = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        # In a session of its own, or the terminal's Ctrl-C would reach it twice.
        children.append(subprocess.Popen(command, start_new_session=True))
        for number in stopped:
            children[0].send_signal(number)
        code = common.exit_code(children[0].wait())
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if stopped and code not in STOPPED:
        code = 128 + stopped[0]
    if code:
        common.say(NAME, f'{name} ended with exit code {code}.')
    return code


def by_slurm(options, commands) -> int:
    made = slurm.make_parser().parse_args(shlex.split(options.slurm))
    if not commands:
        common.say(NAME, 'all runs have finished; --table writes the table.')
        return 0
    text = slurm.script(made, commands, options.at_once)
    if options.dry_run:
        print(text, end='')
        return 0
    return slurm.submit(text)


def write_table(into: pathlib.Path, folders, failed) -> None:
    """FOLDER/table.md and table.json; the first is printed too."""
    rows = [row(folder, run, failed.get(folder)) for folder, run in folders.items()]
    shown = [metric for metric in METRICS if any(metric in r['mean'] for r in rows)]
    keys = list(next(iter(folders.values())))
    lines = [[*keys, 'result', *shown, 'seconds']]
    for r in rows:
        numbers = [r['mean'].get(metric) for metric in shown]
        cells = ['' if x is None else f'{x:.4g}' for x in (*numbers, r['seconds'])]
        lines.append([*(r['settings'][key] for key in keys), r['result'], *cells])
    lines.insert(1, ['---'] * len(lines[0]))
    text = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'
    into.mkdir(parents=True, exist_ok=True)
    (into / 'table.md').write_text(text, encoding='utf-8')
    (into / 'table.json').write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    print(text, end='')


def row(folder, run, code) -> dict:
    """{'settings', 'folder', 'result', 'mean' of the last stage, 'seconds' in all}."""
    found = {'settings': run, 'folder': folder.name, 'mean': {}, 'seconds': None}
    try:
        metrics = json.loads((folder / 'metrics.json').read_text(encoding='utf-8'))
    except FileNotFoundError:
        return found | {'result': f'failed, {code}' if code else 'not run'}
    except ValueError:
        return found | {'result': 'metrics.json is damaged'}
    stages = list(metrics.get('mean') or {})
    mean = metrics['mean'][stages[-1]] if stages else {}
    seconds = sum((metrics.get('seconds') or {}).values()) or None
    return found | {
        'result': stages[-1] if stages else 'finished',
        'mean': mean,
        'seconds': seconds,
    }


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
