"""Hostile checkpoint files: nothing in them is executed, and each is refused with one sentence."""

import resource
import sys
import time

import hostile
import numpy as np
import official_files as files
import pickle_writer
import pytest

from jaxinv.converters import checkpoint
from jaxinv.errors import JaxinvError
from jaxinv.weights import load


def peak_memory():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def refusal(read, path):
    """The sentence with which `read(path)` is refused, within 5 s and 1 GB."""
    start, memory = time.thread_time(), peak_memory()
    with pytest.raises(JaxinvError) as error:
        read(path)
    assert time.thread_time() - start < 5
    assert peak_memory() - memory < 10**9
    message = str(error.value)
    assert message.endswith('.') and '\n' not in message
    return message


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Reads the file, which must be refused with one sentence and leave no trace."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'file'

    def refused(data):
        path.write_bytes(data)
        before = set(sys.modules)
        message = refusal(checkpoint.read, path)
        assert [p.name for p in tmp_path.iterdir()] == ['file']
        assert not {m for m in set(sys.modules) - before if not m.startswith('encodings')}
        assert message.startswith(f'{path}') and len(message) < 500 + len(str(path))
        return message

    return refused


def test_the_files_without_what_is_hostile_are_read(tmp_path):
    path = tmp_path / 'file'
    extra = {
        'G_ema': files.nvidia_generator(hostile.weights()),
        'extra': hostile.view((2, 3), (6, 2), 7),
    }
    for data in (
        pickle_writer.plain_pickle(extra),
        pickle_writer.plain_pickle(extra, 2),
        pickle_writer.torch_zip({'g_ema': pickle_writer.tensors(hostile.rosinality())}),
    ):
        path.write_bytes(data)
        assert checkpoint.read(path, max_bytes=2**26).arguments['resolution'] == 8


@pytest.fixture
def refused_by_any(refused, tmp_path):
    """The same for what load_generator opens: files of jaxinv, too."""

    def refused_by_any(data):
        if data[8:9] != b'{':
            return refused(data)
        path = tmp_path / 'own.safetensors'
        path.write_bytes(data)
        message = refusal(load.load_generator, path)
        assert 'own.safetensors' in message
        return message

    return refused_by_any


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """Reads the file, whose generator is taken, and what is beside it left out; not a trace."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'file'

    def taken(data):
        path.write_bytes(data)
        before = set(sys.modules)
        found = checkpoint.read(path, max_bytes=2**26)
        assert [p.name for p in tmp_path.iterdir()] == ['file']
        assert not {m for m in set(sys.modules) - before if not m.startswith('encodings')}
        assert found.arguments['resolution'] == 8
        return ' '.join(found.notes)

    return taken


@pytest.mark.parametrize('name', hostile.CALLS)
def test_no_name_leads_out_of_the_table(name, refused, taken):
    """Where a call stands for the generator it is refused; beside one it is dropped, not run."""
    call = hostile.call(name)
    for protocol in (2, 4):
        refused(pickle_writer.plain_pickle({'G_ema': call, 'D': 1}, protocol))
        data = hostile.beside(call, protocol)
        if name in hostile.INVALID:
            refused(data)
        elif name in hostile.KNOWN:
            taken(data)
        else:
            notes = taken(data)
            assert 'nothing of them was executed' in notes
            assert name.rpartition('.')[2] in notes or name == 'collections.OrderedDict'
    refused(hostile.within(call))  # among the generator's own arrays


@pytest.mark.parametrize('name', hostile.LEFT_OUT)
def test_objects_beside_the_generator_are_left_out(name, taken):
    assert 'system' in taken(hostile.LEFT_OUT[name]())


def test_refusals_name_what_was_asked_for(refused):
    assert 'os.system' in refused(hostile.within(hostile.call('os.system')))
    assert 'builtins.eval' in refused(pickle_writer.plain_pickle(hostile.call('builtins.eval')))
    message = refused(pickle_writer.plain_pickle(hostile.SYSTEM))
    assert 'nothing in it was executed' in message
    assert "the member 'archive/data.pkl' twice" in refused(hostile.doubled_member())


@pytest.mark.parametrize('name', hostile.HOSTILE)
def test_hostile_files_are_refused(name, refused):
    refused(hostile.HOSTILE[name]())


@pytest.mark.parametrize('name', hostile.COSTLY)
def test_costly_files_are_refused_soon_and_within_memory(name, refused_by_any):
    refused_by_any(hostile.COSTLY[name]())


def test_source_text_in_official_files_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = {
        'ada.pkl': files.nvidia_pickle(hostile.weights()),
        'tuned.pt': files.tuned_generator(hostile.weights()),
        'tf.pkl': files.tensorflow_pickle(hostile.weights()),
    }
    before = set(sys.modules)
    for name, data in written.items():
        assert files.SOURCE.strip().encode() in data
        (tmp_path / name).write_bytes(data)
        checkpoint.read(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)
    assert not {m for m in set(sys.modules) - before if m.split('.')[0] != 'encodings'}


SOUND = {
    'ada': lambda: files.nvidia_pickle(hostile.weights()),
    'tuned': lambda: files.tuned_generator(hostile.weights()),
    'tensorflow': lambda: files.tensorflow_pickle(hostile.weights()),
    'legacy': lambda: files.rosinality_checkpoint(
        hostile.rosinality(), write=pickle_writer.torch_legacy
    ),
    'npz': lambda: pickle_writer.npz(hostile.weights()),
    'safetensors': lambda: pickle_writer.safetensors(hostile.weights()),
}


@pytest.mark.parametrize('kind', SOUND)
def test_truncated_files_are_refused(kind, refused):
    data = SOUND[kind]()
    for part in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        refused(data[: int(part * len(data))])
    refused(data[:-1])


@pytest.mark.parametrize('kind', SOUND)
def test_a_flipped_bit_is_refused_or_changes_a_number(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, path = SOUND[kind](), tmp_path / 'file'
    path.write_bytes(data)
    expected = checkpoint.read(path)
    random = np.random.RandomState(0)
    for _ in range(12):
        damaged = bytearray(data)
        damaged[random.randint(len(data))] ^= 1 << random.randint(8)
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(path, max_bytes=2**26)
        except JaxinvError:
            continue
        assert {k: v.shape for k, v in found.flat.items()} == {
            k: v.shape for k, v in expected.flat.items()
        }
    assert [p.name for p in tmp_path.iterdir()] == ['file']
