"""Launchers: dry runs print what the schedulers accept; local.py and sweep.py are run."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import limits
import pytest
import yaml

from jaxinv import launch
from jaxinv.runtime import distributed

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / 'launch'
sys.path.insert(0, str(LAUNCH))  # as python does for a script

import common  # noqa: E402
import local  # noqa: E402
import sweep  # noqa: E402
import xla_flags  # noqa: E402

AWKWARD = ['--config.edits=(\'smile=1.2/-1.2\', "a b")', '--name=$(x) `y`; "z"']
RUN = ['--config=pti_multi_id:test', *AWKWARD]
SCRIPTS = ('local', 'slurm', 'tpu', 'gke', 'sweep')


def start(script, *args, **options):
    return subprocess.Popen(
        [sys.executable, str(LAUNCH / f'{script}.py'), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def call(script, *args, code=0):
    process = start(script, *args)
    try:
        out, err = process.communicate(timeout=limits.SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # with what it started
        raise
    assert process.returncode == code, (out, err)
    assert 'Traceback' not in err
    return out if code == 0 else out + err


def bash(text, *args, env=None):
    """(exit code, output) of a script run by bash."""
    done = subprocess.run(
        ['bash', '-c', text, 'bash', *args],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
    )
    return done.returncode, done.stdout


# --- Dry runs ---


def test_local_prints_a_line_for_each_process():
    given = ['--processes=2', '--devices=3', '--port=1234', '--dry-run', '--', *RUN]
    lines = call('local', *given).splitlines()
    assert len(lines) == 2
    for i, line in enumerate(lines):
        words = shlex.split(line)
        assert words[0] == 'JAX_PLATFORMS=cpu'
        assert words[1].endswith('--xla_force_host_platform_device_count=3')
        at = words.index('jaxinv.launch') + 1
        assert words[at:-3] == RUN
        ends = ['--coordinator=127.0.0.1:1234', '--num_processes=2', f'--process_id={i}']
        assert words[-3:] == ends


def test_local_gives_each_process_gpus_of_its_own():
    given = ['--processes=2', '--devices=2', '--kind=gpu', '--xla-flags=overlap', '--dry-run']
    first, second = call('local', *given, '--', *RUN).splitlines()
    assert 'CUDA_VISIBLE_DEVICES=0,1 ' in first and 'CUDA_VISIBLE_DEVICES=2,3 ' in second
    assert '--xla_gpu_enable_latency_hiding_scheduler=true' in first
    assert 'JAX_PLATFORMS' not in first


def test_one_process_needs_no_coordinator():
    assert '--coordinator' not in call('local', '--dry-run', '--', *RUN)


# The commands of the scheduler as shell functions that print their arguments.
SUBSTITUTES = """
srun() { for word in "$@"; do printf 'srun<%s>\\n' "$word"; done; return "$SRUN_CODE"; }
scontrol() { printf 'scontrol<%s>\\n' "$@"; }
"""


@pytest.mark.parametrize('code', [0, 1, common.PREEMPTED])
def test_slurm_script_runs_the_command_and_requeues_after_preemption(code):
    text = call('slurm', '--nodes=2', '--gpus-per-node=8', '--dry-run', '--', *RUN)
    assert subprocess.run(['bash', '-n'], input=text, text=True).returncode == 0
    returned, printed = bash(SUBSTITUTES + text, env={'SRUN_CODE': str(code), 'SLURM_JOB_ID': '17'})
    assert returned == code
    words = re.findall(r'srun<(.*)>', printed)
    assert words[-len(RUN) - 3 :] == ['python', '-m', 'jaxinv.launch', *RUN]
    assert ('scontrol<requeue>' in printed and 'scontrol<17>' in printed) == (code == 75)


def test_slurm_options_become_directives():
    given = [
        '--nodes=2',
        '--gpus-per-node=4',
        '--lead=90',
        '--partition=p',
        '--setup=module load x',
    ]
    text = call('slurm', *given, '--sbatch=constraint=a', '--dry-run', '--', *RUN)
    directives = dict(re.findall(r'^#SBATCH --([\w-]+)=?(.*)$', text, re.MULTILINE))
    assert (
        directives['nodes'] == '2'
        and directives['ntasks-per-node'] == directives['gpus-per-node'] == '4'
    )
    assert (
        directives['signal'] == 'TERM@90'
        and 'requeue' in directives
        and directives['open-mode'] == 'append'
    )
    assert (
        directives['partition'] == 'p'
        and directives['constraint'] == 'a'
        and 'account' not in directives
    )
    assert text.startswith('#!/bin/bash\n#SBATCH ') and '\nmodule load x\n' in text
    by_node = call('slurm', *given, '--per=node', '--dry-run', '--', *RUN)
    assert '#SBATCH --ntasks-per-node=1\n' in by_node
    assert 'export JAX_LOCAL_DEVICE_IDS=0,1,2,3\n' in by_node


def test_tpu_prints_the_commands_of_each_action():
    where = ['--name=n', '--zone=z', '--dry-run']
    create = shlex.split(call('tpu', 'create', '--type=v5litepod-64', '--spot', *where))
    assert create[:6] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'create', 'n']
    assert {'--zone=z', '--accelerator-type=v5litepod-64', '--spot'} <= set(create)
    assert '--version=v2-alpha-tpuv5-lite' in create
    run = shlex.split(call('tpu', 'run', *where, '--before=mount -a', '--', *RUN))
    assert '--worker=all' in run and run[4:6] == ['ssh', 'n']
    (command,) = [word.removeprefix('--command=') for word in run if '--command=' in word]
    assert command.startswith('mount -a && cd jaxinv && ')
    assert shlex.split(command.split(' -m jaxinv.launch ')[1]) == [*RUN, '--coordinator=cluster']
    assert len(call('tpu', 'setup', *where).splitlines()) == 3
    delete = shlex.split(call('tpu', 'delete', *where))
    assert delete[4:] == ['delete', 'n', '--zone=z', '--quiet']


def pod_of(text):
    jobset = yaml.safe_load(text)
    assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    (job,) = jobset['spec']['replicatedJobs']
    spec = job['template']['spec']
    assert spec['parallelism'] == spec['completions'] and spec['backoffLimit'] == 0
    assert spec['podFailurePolicy']['rules'][0]['onExitCodes']['values'] == [common.PREEMPTED]
    pod = spec['template']['spec']
    assert pod['restartPolicy'] == 'Never'  # required by podFailurePolicy
    (container,) = pod['containers']
    return jobset, spec['parallelism'], pod, container


def test_gke_manifest_for_tpu_slices():
    given = ['--name=n', '--image=i', '--tpu=tpu-v5-lite-podslice', '--topology=8x8']
    given += ['--slices=2', '--claim=c', '--lead=99', '--dry-run']
    jobset, nodes, pod, container = pod_of(call('gke', *given, '--', *RUN))
    assert nodes == 16 and jobset['spec']['replicatedJobs'][0]['replicas'] == 2
    assert pod['nodeSelector']['cloud.google.com/gke-tpu-topology'] == '8x8'
    assert container['resources']['limits'] == {'google.com/tpu': 4}
    assert container['volumeMounts'] == [{'name': 'work', 'mountPath': '/runs'}]
    assert pod['volumes'][0]['persistentVolumeClaim'] == {'claimName': 'c'}
    assert pod['terminationGracePeriodSeconds'] == 99 and 'env' not in container
    assert container['command'][:2] == ['bash', '-c']
    words = shlex.split(container['command'][2])
    assert words == ['exec', 'python', '-m', 'jaxinv.launch', *RUN]


def test_gke_manifest_for_gpu_nodes_gives_each_process_its_index():
    given = ['--name=n', '--image=i', '--gpu=nvidia-h100-80gb', '--nodes=4', '--chips-per-node=8']
    text = call('gke', *given, '--xla-flags=overlap', '--dry-run', '--', *RUN)
    jobset, nodes, pod, container = pod_of(text)
    assert nodes == 4 and 'volumes' not in pod and 'annotations' not in jobset['metadata']
    assert container['resources']['limits'] == {'nvidia.com/gpu': 8}
    assert container['env'] == [{'name': 'XLA_FLAGS', 'value': xla_flags.text('overlap')}]
    line = container['command'][2].replace('exec python', "printf '%s\\n'")
    _, printed = bash(line, env={'JOB_COMPLETION_INDEX': '3'})
    ends = ['--coordinator=n-workers-0-0.n:8476', '--num_processes=4', '--process_id=3']
    assert printed.splitlines() == ['-m', 'jaxinv.launch', *RUN, *ends]


def test_sweep_prints_the_unfinished_runs(tmp_path):
    given = [f'--into={tmp_path}', '--config.seed=0,1', "--config.edits=('a=1', 'b=2'),()"]
    lines = call('sweep', *given, '--dry-run', '--', *RUN).splitlines()
    assert len(lines) == 4
    settings = [[w for w in shlex.split(line) if '.seed' in w or '.edits' in w] for line in lines]
    assert settings[0][1:] == ['--config.seed=0', "--config.edits=('a=1', 'b=2')"]
    assert settings[3][1:] == ['--config.seed=1', '--config.edits=()']
    folders = [re.search(r'--workdir=(\S+)', line)[1].strip("'") for line in lines]
    assert len(set(folders)) == 4
    pathlib.Path(folders[0]).mkdir()
    pathlib.Path(folders[0], 'metrics.json').write_text('{}')
    assert call('sweep', *given, '--dry-run', '--', *RUN).splitlines() == lines[1:]


def test_sweep_as_an_array_job_gives_each_task_its_run(tmp_path):
    given = [
        f'--into={tmp_path}',
        '--config.seed=0,1,2',
        '--at-once=2',
        '--slurm=--gpus-per-node=2',
    ]
    text = call('sweep', *given, '--dry-run', '--', *RUN)
    assert '#SBATCH --array=0-2%2\n' in text and '#SBATCH --gpus-per-node=2\n' in text
    _, printed = bash(SUBSTITUTES + text, env={'SRUN_CODE': '0', 'SLURM_ARRAY_TASK_ID': '1'})
    words = re.findall(r'srun<(.*)>', printed)[-len(RUN) - 2 :]
    assert words == [*RUN, '--config.seed=1', f'--workdir={tmp_path}/seed=1']


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_missing_config_and_misspelt_options_are_refused(script):
    given = {
        'tpu': ['run', '--name=n', '--zone=z'],
        'gke': ['--name=n', '--image=i', '--gpu=g'],
        'sweep': ['--into=x', '--config.seed=0'],
    }.get(script, [])
    assert 'missing' in call(script, *given, code=common.USAGE)
    assert '--dry-rum' in call(script, *given, '--dry-rum', '--', *RUN, code=common.USAGE)


def test_no_launcher_contains_paths_of_a_machine():
    for file in LAUNCH.iterdir():
        if file.is_file():
            paths = re.findall(r'/(?:home|root|tmp|work/|usr|mnt|data)\b\S*', file.read_text())
            assert not paths, (file, paths)


# --- XLA's flags ---


def test_xla_has_the_flags_and_the_page_explains_them():
    page = (LAUNCH / 'README.md').read_text()
    for flag in xla_flags.OVERLAP:
        assert flag.name in page and flag.why and flag.source
    done = subprocess.run(  # XLA aborts at a flag that it does not have
        [sys.executable, '-c', 'import jax; jax.devices()'],
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': xla_flags.text('overlap')},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- Runs ---


def plans_of(*programs):
    """The argument of local.run for small Python programs."""
    return [({'NUMBER': str(i)}, [sys.executable, '-c', p]) for i, p in enumerate(programs)]


def test_output_is_prefixed_and_variables_are_set(capfd):
    program = 'import os; print("I am", os.environ["NUMBER"])'
    assert local.run(plans_of(program, program), grace=5) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ['[0] I am 0', '[1] I am 1']


def test_when_one_fails_the_others_end_and_its_code_is_returned(capfd):
    waits = 'import time; time.sleep(60)'
    began = time.monotonic()
    assert local.run(plans_of(waits, 'raise SystemExit(7)', waits), grace=5) == 7
    stubborn = 'import signal; signal.signal(15, signal.SIG_IGN); print("x", flush=True); ' + waits
    fails_later = 'import time; time.sleep(0.5); raise SystemExit(8)'
    assert local.run(plans_of(stubborn, fails_later), grace=0.5) == 8
    killed = 'import os; os.kill(os.getpid(), 9)'
    assert local.run(plans_of(waits, killed), grace=5) == 128 + 9
    assert time.monotonic() - began < 30
    assert 'process 1 ended with exit code 7' in capfd.readouterr().err


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_to_every_process(tmp_path, number):
    program = f"""
import os, signal, sys, time
def save(number, frame):
    print('saved after', number, flush=True)
    sys.exit({common.PREEMPTED})
signal.signal({int(number)}, save)
print('ready', flush=True)
time.sleep(60)
"""
    script = f"""
import sys; sys.path.insert(0, {str(LAUNCH)!r})
import local
plans = [({{}}, [sys.executable, '-c', {program!r}])] * 2
raise SystemExit(local.run(plans, grace=10))
"""
    process = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True)
    ready = [process.stdout.readline() for _ in range(2)]
    assert sorted(ready) == ['[0] ready\n', '[1] ready\n']
    process.send_signal(number)
    out, _ = process.communicate(timeout=limits.SECONDS)
    assert sorted(out.splitlines()) == [f'[{i}] saved after {int(number)}' for i in range(2)]
    assert process.returncode == common.PREEMPTED


def test_exit_code_and_message_of_the_run_are_passed_on(tmp_path):
    out = call('local', '--', '--config=pti_multi', code=2)
    assert "[0] jaxinv: Unknown config 'pti_multi'" in out


def test_sweep_records_failures_continues_and_resumes(tmp_path, monkeypatch, capsys):
    """The runs are a substitute that writes metrics.json."""
    fake = """
import json, pathlib, sys
given = dict(a.split('=', 1) for a in sys.argv[1:] if '=' in a)
if given['--config.seed'] == '1' and not pathlib.Path(sys.argv[1]).exists(): sys.exit(3)
folder = pathlib.Path(given['--workdir']); folder.mkdir(parents=True)
mean = {'pivot': {'psnr': 1}, 'tuned': {'psnr': 20.0 + int(given['--config.seed'])}}
(folder / 'metrics.json').write_text(json.dumps({'mean': mean, 'seconds': {'tune': 1.5}}))
"""
    mended = tmp_path / 'mended'
    command = [sys.executable, '-c', fake, str(mended)]
    monkeypatch.setattr(sweep, 'launch', lambda options, given: [*command, *given])
    given = [f'--into={tmp_path / "s"}', '--config.seed=0,1,2', '--', '--config=x']
    assert sweep.main(given) == 1
    table = json.loads((tmp_path / 's' / 'table.json').read_text())
    assert [row['result'] for row in table] == ['tuned', 'failed, 3', 'tuned']
    assert table[2]['mean']['psnr'] == 22 and table[0]['seconds'] == 1.5
    mended.touch()
    capsys.readouterr()
    assert sweep.main(given) == 0
    assert '| 1 | tuned | 21 | 1.5 |' in (tmp_path / 's' / 'table.md').read_text()


@pytest.mark.exhaustive
def test_sweep_of_real_runs_by_the_local_launcher(tmp_path):
    """The shortest runs: no faces, no tuning."""
    given = [f'--into={tmp_path / "s"}', '--config.seed=0,1', '--local=--devices=1']
    fixed = ['--config=pti_multi_id:test', '--config.data.align=none', '--config.tune.num_steps=0']
    out = call('sweep', *given, '--', *fixed)
    rows = json.loads((tmp_path / 's' / 'table.json').read_text())
    assert [row['result'] for row in rows] == ['pivot', 'pivot']
    assert rows[0]['mean']['lpips_alex'] != rows[1]['mean']['lpips_alex']
    assert '[0] Work folder:' in out and '| 0 | pivot |' in out
    assert call('sweep', *given, '--', *fixed).startswith('| seed |')  # all runs are skipped


@pytest.mark.exhaustive
def test_two_processes_are_one_run(tmp_path):
    given = ['--config=pti_multi_id:test', '--config.data.align=none', '--config.tune.num_steps=2']
    out = call('local', '--processes=2', '--', *given, f'--workdir={tmp_path / "two"}')
    call('local', '--', *given, f'--workdir={tmp_path / "one"}')
    assert {line[:3] for line in out.splitlines()} == {'[0]', '[1]'}
    two, one = (
        json.loads((tmp_path / name / 'metrics.json').read_text())['mean']['tuned']
        for name in ('two', 'one')
    )
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.exhaustive
def test_sigterm_to_the_launcher_saves_in_all_processes(tmp_path):
    given = ['--processes=2', '--', '--config=pti_multi_id:test', '--config.data.align=none']
    given += ['--config.pivot.num_steps=200', f'--workdir={tmp_path / "w"}']
    process = start('local', *given)
    for line in process.stdout:
        if 'project' in line and '/200' in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=limits.SECONDS)
    assert process.returncode == common.PREEMPTED
    assert list((tmp_path / 'w' / 'state' / 'project').iterdir())


def test_exit_codes_are_those_of_the_runs():
    assert common.PREEMPTED == distributed.PREEMPTED  # the launchers do not import jaxinv


def test_configs_are_those_of_the_launcher():
    assert 'pti_multi_id' in launch.config_names()  # the examples of the README
    page = (LAUNCH / 'README.md').read_text()
    assert set(re.findall(r'--config=(\w+)', page)) <= {*launch.config_names(), 'NAME'}
