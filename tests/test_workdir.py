"""The work folder: resumes its own run, refuses anything else."""

import json

import pytest

from jaxinv.errors import JaxinvError
from jaxinv.runtime import workdir

RECORD = {'config': {'seed': 0, 'tune': {'num_steps': 80}}, 'sources': ['aa']}


def test_default_path_follows_the_settings():
    a = workdir.default_path('pti_multi_id:paper', {'x': 1})
    assert a == workdir.default_path('pti_multi_id:paper', {'x': 1})
    assert a != workdir.default_path('pti_multi_id:paper', {'x': 2})
    assert a.parts[0] == 'runs' and ':' not in a.name


def test_same_run_goes_on_and_a_finished_one_says_so(tmp_path):
    path = tmp_path / 'new'
    with workdir.claim(path, RECORD) as finished:
        assert not finished
        (path / 'state').mkdir()
    with workdir.claim(path, RECORD) as finished:
        assert not finished
        (path / 'metrics.json').write_text('{}')
    with workdir.claim(path, RECORD) as finished:
        assert finished


def test_other_settings_are_refused_by_name(tmp_path):
    with workdir.claim(tmp_path, RECORD):
        pass
    other = {**RECORD, 'config': {'seed': 0, 'tune': {'num_steps': 9}}}
    with pytest.raises(JaxinvError, match='config.tune.num_steps: 80 then, 9 now'):
        with workdir.claim(tmp_path, other):
            pass


def test_overwrite_clears_an_earlier_run_but_never_foreign_files(tmp_path):
    run, foreign = tmp_path / 'run', tmp_path / 'foreign'
    with workdir.claim(run, RECORD):
        (run / 'metrics.json').write_text('{}')
        (run / 'images').mkdir()
    with workdir.claim(run, {**RECORD, 'sources': ['bb']}, overwrite=True) as finished:
        assert not finished and not (run / 'images').exists()
    assert json.loads((run / 'run.json').read_text())['sources'] == ['bb']
    foreign.mkdir()
    (foreign / 'thesis.tex').write_text('years of work')
    with pytest.raises(JaxinvError, match='thesis.tex'):
        with workdir.claim(foreign, RECORD, overwrite=True):
            pass
    assert (foreign / 'thesis.tex').exists()


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with workdir.claim(tmp_path, RECORD):
        with pytest.raises(JaxinvError, match='another run is at work'):
            with workdir.claim(tmp_path, RECORD):
                pass


def test_a_file_is_no_work_folder(tmp_path):
    (tmp_path / 'f').write_text('')
    with pytest.raises(JaxinvError, match='is a file'):
        with workdir.claim(tmp_path / 'f', RECORD):
            pass


def test_a_damaged_record_is_not_taken_for_the_same_run(tmp_path):
    (tmp_path / 'run.json').write_text('{"config": ')
    with pytest.raises(JaxinvError, match='other settings'):
        with workdir.claim(tmp_path, RECORD):
            pass
