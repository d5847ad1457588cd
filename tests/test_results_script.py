"""benchmarks/results.sh: every command that it runs is one that the launcher takes."""

import os
import pathlib
import subprocess

from test_ablations import launcher_calls
from test_experiment import load_config

from jaxinv import settings
from jaxinv.experiments import method_runs

SCRIPT = pathlib.Path(__file__).parent.parent / 'benchmarks' / 'results.sh'


def test_its_tables_are_settings_and_methods_that_there_are(tmp_path, monkeypatch):
    for name in ('portraits', 'figure3', 'figure16', 'tau'):
        (tmp_path / 'out' / name / 'methods').mkdir(parents=True)
    places = ['out/portraits/methods/sam-1/regions.npz', 'cache/benchmark/generated-1/pivots.npz']
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    rows = {}
    for flags in launcher_calls(tmp_path, 'bash', str(SCRIPT), 'out'):
        name, _, variant = flags.pop('config').partition(':')
        folder = pathlib.Path(flags.pop('workdir'))
        assert folder.parent == tmp_path / 'out'
        config = load_config(name, variant)
        for flag, value in flags.items():
            method_runs.set_by_text(config, flag.removeprefix('config.'), value)
        settings.check(config)
        if name.startswith('evaluate'):
            rows[folder.name] = [row.name for row in method_runs.rows_of(config)]
            assert '*' not in config.methods
            if name == 'evaluate' and folder.name in ('figure15', 'tau'):
                assert str(tmp_path / places[folder.name == 'figure15']) in config.methods
    times = (tmp_path / 'out' / 'times.txt').read_text().split('\n')
    assert [line.split()[0] for line in times if line] == [
        'portraits', 'edits', 'consistency', 'baselines', 'figure16', 'figure17', 'again',
        'figure3', 'tau', 'figure7', 'generated', 'figure15', 'animals',
    ]  # fmt: skip
    assert rows['consistency'] == ['w', 'pti']
    assert rows['animals'] == ['w', 'w_plus', 'f6']
    assert rows['portraits'] == rows['portraits_edits'] == ['w', 'w_plus', 'pti', 'pti_free', 'sam']
    assert rows['figure3'] == rows['figure3_edits']
    assert rows['figure16'][:3] == rows['figure16_edits']
    assert rows['tau'][:-1] == rows['tau_edits']
    assert rows['figure16'] == ['pti', 'B', 'C', 'D', 'E', 'F', 'along']
    assert rows['figure17'] == ['pti', 'a8', 'a60', 'a120', 'none']
    assert rows['baselines'] == [
        'w_plus', 'gaussian_prior', 'encoder', 'hybrid', 'from_mean'
    ]  # fmt: skip


def test_the_set_that_figure15_needs_is_named_when_it_is_not_in_the_cache(tmp_path):
    command = ['bash', str(SCRIPT), str(tmp_path / 'out'), 'figure15']
    environment = os.environ | {'JAXINV_CACHE': str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode and done.stderr.rstrip().endswith('truth: generated comes first')
