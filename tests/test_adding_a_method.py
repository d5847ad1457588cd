"""A method is added by its module, settings, config and one line of METHODS: the diff of a toy."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DIFF = ROOT / 'tests' / 'data' / 'toy_method.diff'


def test_the_diff_has_three_new_files_and_one_line():
    text = DIFF.read_text(encoding='utf-8')
    files = re.findall(r'^diff --git a/(\S+)', text, re.M)
    new = re.findall(r'^diff --git a/(\S+) \S+\nnew file', text, re.M)
    assert new == ['configs/toy.py', 'jaxinv/experiments/toy.py', 'jaxinv/settings/toy.py']
    assert sorted({*files} - {*new}) == ['jaxinv/settings/methods.py']
    hunk = text.split('a/jaxinv/settings/methods.py')[-1].split('diff --git')[0]
    lines = [line for line in hunk.splitlines() if re.match(r'[+-](?![+-])', line)]
    assert lines == ["+    'toy': Method('jaxinv.settings.toy.Toy', 'jaxinv.experiments.toy'),"]


@pytest.mark.long
def test_with_the_diff_the_launcher_runs_the_method(tmp_path):
    for folder in ('jaxinv', 'converters', 'configs'):
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    subprocess.run(['git', 'apply', '--unidiff-zero', str(DIFF)], cwd=tmp_path, check=True)
    command = [sys.executable, '-m', 'jaxinv.launch', '--config=toy']
    environment = os.environ | {'PYTHONPATH': str(tmp_path)}
    found = subprocess.run(
        [*command, '--workdir=work', '--config.num_samples=4'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / 'work' / 'metrics.json').read_text(encoding='utf-8'))
    assert set(result['identities']) == {'grace_hopper', 'eileen_collins'}
    assert (tmp_path / 'work' / 'report.html').is_file()
    text = subprocess.run(
        [*command, '--help'], cwd=tmp_path, env=environment, capture_output=True, text=True
    ).stdout
    assert 'num_samples' in text and 'Samples of w.' in text
