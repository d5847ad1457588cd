"""Each of several processes reads an equal part of the pictures and gets all targets."""

import json
import pathlib

import numpy as np
import PIL.Image
import pytest
from test_distributed import together

from jaxinv import data
from jaxinv.data import prefetch

SCRIPT = pathlib.Path(__file__).parent / 'prefetch_cases.py'
OPTIONS = data.AlignOptions(32, align='none', fit='pad')


@pytest.fixture
def folder(tmp_path):
    """Seven pictures of two shapes, and two files that are not pictures."""
    folder = tmp_path / 'inputs'
    folder.mkdir()
    random = np.random.RandomState(0)
    for i in range(7):
        pixels = random.randint(0, 255, (64, 64 + 16 * (i % 2), 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f'{i}.png')
    for name in ('3a', '6a'):
        (folder / f'{name}.png').write_text('no picture')
    return folder


def test_packing_is_lossless(folder):
    targets, skipped = data.read_all(data.find(folder).files, OPTIONS)
    same_targets, same_skipped = prefetch._unpack(prefetch._pack(targets, skipped))
    assert skipped == same_skipped and len(skipped) == 2
    for target, same in zip(targets, same_targets, strict=True):
        assert (target.stem, target.source) == (same.stem, same.source)
        np.testing.assert_array_equal(target.image_uint8, same.image_uint8)
        np.testing.assert_array_equal(target.mask, same.mask)


def test_one_process_reads_all(folder):
    lines = []
    files = data.find(folder).files
    targets, skipped = prefetch.read_distributed(files, OPTIONS, lines.append)
    expected, expected_skipped = data.read_all(files, OPTIONS)
    assert [t.stem for t in targets] == [t.stem for t in expected]
    assert skipped == expected_skipped and not lines


@pytest.mark.long
@pytest.mark.parametrize('count', [2, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_processes_share_what_one_would_read(folder, tmp_path, count):
    together(count, folder, tmp_path / 'out', devices=2, script=SCRIPT)
    alone = data.load(data.find(folder), OPTIONS, 'it')
    opened = []
    for index in range(count):
        with np.load(tmp_path / f'out.{index}.npz') as result:
            opened.append(result['opened'].tolist())
            np.testing.assert_array_equal(result['images'], alone.images_uint8)
            np.testing.assert_array_equal(result['valid'], alone.valid)
            names, sources, skipped, lines = json.loads(str(result['record']))
        assert names == alone.names and sources == alone.sources and skipped == alone.skipped
        assert lines[-1] == '9 of 9 pictures read.'
    assert sorted(sum(opened, [])) == sorted(path.stem for path in folder.iterdir())
    assert max(map(len, opened)) - min(map(len, opened)) <= 2
