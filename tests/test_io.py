"""The atomic writer: the umask's permissions, whole files or none, nothing left behind."""

import ast
import multiprocessing
import os
import pathlib
import stat

import numpy as np
import pytest
import safetensors.numpy

from jaxinv import io
from jaxinv.data import images

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def umask_077():
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def write_npz(path):
    with io.atomic_path(path) as scratch:
        np.savez(scratch, x=np.zeros(3))


def write_safetensors(path):
    with io.atomic_path(path) as scratch:
        safetensors.numpy.save_file({'x': np.zeros(3)}, scratch)


def write_picture(path):
    images.save(path, np.zeros([4, 4, 3], np.uint8))


WRITERS = {
    'a.html': lambda path: io.write_atomically(path, 'ä'),
    'a.bin': lambda path: io.write_atomically(path, b'\xff'),
    'a.npz': write_npz,
    'a.safetensors': write_safetensors,
    'a.png': write_picture,
}


@pytest.mark.parametrize('name', WRITERS)
def test_the_umask_decides_who_can_read(name, tmp_path, umask_077):
    WRITERS[name](tmp_path / 'new' / name)
    assert mode(tmp_path / 'new' / name) == 0o600
    os.umask(0o022)
    WRITERS[name](tmp_path / 'new' / name)
    assert mode(tmp_path / 'new' / name) == 0o644
    assert [p.name for p in (tmp_path / 'new').iterdir()] == [name]


def test_text_is_utf8_and_bytes_are_kept(tmp_path):
    io.write_atomically(tmp_path / 'a', 'ä')
    assert (tmp_path / 'a').read_bytes() == b'\xc3\xa4'
    io.write_atomically(tmp_path / 'a', b'\xff\n')
    assert (tmp_path / 'a').read_bytes() == b'\xff\n'


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / 'a.txt'
    io.write_atomically(path, 'old')
    with pytest.raises(error):
        with io.atomic_path(path) as scratch:
            scratch.write_text('half')
            raise error
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_a_name_that_cannot_be_replaced_leaves_nothing(tmp_path):
    (tmp_path / 'folder' / 'x').mkdir(parents=True)
    with pytest.raises(OSError):
        io.write_atomically(tmp_path / 'folder', b'')
    assert [p.name for p in tmp_path.iterdir()] == ['folder']


def _write_many(path, letter):
    for _ in range(100):
        io.write_atomically(path, letter * 100_000)


def test_two_processes_write_whole_files(tmp_path):
    path = tmp_path / 'a.txt'
    context = multiprocessing.get_context('spawn')
    writers = [context.Process(target=_write_many, args=(path, x)) for x in 'ab']
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen and seen <= {'a' * 100_000, 'b' * 100_000}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_matches_no_glob_and_is_swept(tmp_path):
    writer = io.atomic_path(tmp_path / 'identities' / 'ada' / 'target.png')
    scratch = writer.__enter__()
    scratch.write_bytes(b'half')
    assert not list((tmp_path / 'identities' / 'ada').glob('*.png'))
    (tmp_path / 'thesis.partial').write_text('not ours')
    io.remove_partial(tmp_path)
    assert not list((tmp_path / 'identities' / 'ada').iterdir())
    assert (tmp_path / 'thesis.partial').exists()


def test_fsync_reaches_every_file_and_the_folders_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda fd: synced.append(os.readlink(f'/proc/self/fd/{fd}')))
    folder = tmp_path / 'identities' / 'ada'
    io.write_atomically(folder / 'orbax' / 'd' / 'x', b'1')
    synced.clear()
    io.fsync_tree(folder, tmp_path)
    wanted = [folder / 'orbax/d/x', folder / 'orbax/d', folder, folder.parent, tmp_path]
    assert set(map(str, wanted)) <= set(synced)
    assert str(tmp_path.parent) not in synced


WRITING = {
    'write_text',
    'write_bytes',
    'savez',
    'savez_compressed',
    'save_file',
    'replace',
    'rename',
}
ALLOWED = {
    'jaxinv/io.py',
    'jaxinv/data/prefetch.py: savez',  # to memory
    'jaxinv/weights/registries.py: write_text',  # in a temporary folder
    'jaxinv/weights/https.py: open',  # a partial download, resumed later
    'jaxinv/optimize/checkpoints.py: replace',  # renames a damaged checkpoint
    'jaxinv/optimize/state_files.py: replace',
    'jaxinv/studio/app.py: replace',  # of an upload that is written piece by piece
}


def writers(node, inside=False):
    """Names of calls that write a file, but not through `atomic_path`."""
    if isinstance(node, ast.With):
        called = [item.context_expr for item in node.items]
        inside = inside or any('atomic_path' in ast.unparse(call) for call in called)
    if isinstance(node, ast.Call) and not inside:
        name = ast.unparse(node.func).rpartition('.')
        if name[2] in WRITING and name[0] not in ('dataclasses', ''):
            # Of others, str.replace(old, new) and dataclasses.replace write nothing.
            if name[2] != 'replace' or len(node.args) == 1 or name[0] == 'os':
                yield name[2]
        if name == ('', '', 'open') and len(node.args) > 1 and "w'" in ast.unparse(node.args[1]):
            yield 'open'
    for child in ast.iter_child_nodes(node):
        yield from writers(child, inside)


def test_files_are_written_atomically_everywhere():
    found = []
    for folder in ('jaxinv', 'converters'):
        for path in sorted((ROOT / folder).rglob('*.py')):
            name = path.relative_to(ROOT).as_posix()
            calls = writers(ast.parse(path.read_text(encoding='utf-8')))
            found += [f'{name}: {call}' for call in calls if name not in ALLOWED]
    assert not set(found) - ALLOWED, set(found) - ALLOWED
