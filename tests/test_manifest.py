"""manifest.jsonl: written after its files, read whatever happened to it; so are its siblings."""

import json
import os

import pytest

from jaxinv.runtime import manifest, metrics_log, progress

LINE = {'name': 'ada', 'file': 'ada.png', 'sha256': 'ab', 'skipped': 'a reason'}


def test_a_line_follows_the_files_of_its_folder_to_the_disk(tmp_path, monkeypatch):
    (tmp_path / 'identities' / 'ada').mkdir(parents=True)
    (tmp_path / 'identities' / 'ada' / 'pivots.npz').write_bytes(b'1')
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda fd: synced.append(os.readlink(f'/proc/self/fd/{fd}')))
    lines = manifest.Manifest(tmp_path / manifest.FILE)
    lines.add({'name': 'ada', 'file': 'a', 'sha256': 'b', 'folder': 'identities/ada'})
    names = [str(tmp_path / name) for name in ('identities/ada/pivots.npz', 'identities/ada', '.')]
    order = [synced.index(os.path.normpath(name)) for name in names]
    assert order == sorted(order) and synced[-1] == str(tmp_path / manifest.FILE)


DAMAGED = [
    b'',
    b'\0\0',
    b'\xff\xfe',
    b'[' * 100_000,
    b'null',
    b'"ada"',
    b'{"name": "ada"}',
    b'{"na',
]


@pytest.mark.parametrize('damage', DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines_are_set_aside_when_a_line_is_added(damage, tmp_path):
    file, said = tmp_path / manifest.FILE, []
    good = json.dumps(LINE).encode()
    file.write_bytes(good + b'\n' + damage + b'\n' + good.replace(b'ada', b'bob') + b'\n{"cut')
    lines = manifest.Manifest(file, said.append)
    assert list(lines.records) == ['ada', 'bob'] and lines.damaged
    assert 'set aside in manifest.jsonl.damaged (2)' in said[0]
    assert damage in file.read_bytes()  # reading changes nothing: another process may be writing
    lines.add(LINE | {'name': 'cyd'})
    assert (tmp_path / 'manifest.jsonl.damaged').read_bytes() == damage + b'\n'
    again = manifest.Manifest(file, said.append)
    assert list(again.records) == ['ada', 'bob', 'cyd'] and not again.damaged and len(said) == 1


def test_a_cut_line_is_replaced_by_the_next(tmp_path):
    file = tmp_path / manifest.FILE
    file.write_text(json.dumps(LINE) + '\n{"name": "bob"')
    lines = manifest.Manifest(file)
    assert not lines.damaged
    lines.add(LINE | {'name': 'cyd'})
    assert list(manifest.Manifest(file).records) == ['ada', 'cyd']
    assert 'bob' not in file.read_text()


@pytest.mark.parametrize('damage', ['', '{', '[1]', '{"a": "x"}', '\0', '[' * 100_000])
def test_damaged_seconds_count_from_zero(damage, tmp_path):
    file = tmp_path / 'seconds.json'
    file.write_text(damage)
    stopwatch = progress.Stopwatch(file)
    with stopwatch.stage('a'):
        pass
    assert list(json.loads(file.read_text())) == ['a']
    assert progress.Stopwatch(file).seconds == stopwatch.seconds


def test_damaged_metrics_are_ignored(tmp_path):
    good = {'stage': 'tune', 'step': 3, 'loss': 1.0}
    bad = ['{', '[]', 'null', '{"stage": [], "step": 1}', '{"stage": "a", "step": "b"}', '\0']
    text = json.dumps(good | {'note': 'not a number'}) + '\n' + '\n'.join(bad) + '\n'
    (tmp_path / metrics_log.FILE).write_text(text)
    with metrics_log.MetricsWriter(tmp_path) as writer:
        writer.scalars(4, 'tune', {'loss': 2.0})
    assert [record['step'] for record in metrics_log.read(tmp_path)] == [3, 4]
