"""Each of several processes reads its share of the pictures, and has them all."""

import json
import pathlib

import numpy as np
import PIL.Image
import pytest
from test_distributed import together

from jaxinv import data
from jaxinv.data import prefetch

SCRIPT = pathlib.Path(__file__).parent / 'reading_cases.py'


@pytest.fixture
def folder(tmp_path):
    """Seven pictures of two shapes, and two files that are none."""
    folder = tmp_path / 'inputs'
    folder.mkdir()
    random = np.random.RandomState(0)
    for i in range(7):
        pixels = random.randint(0, 255, (64, 64 + 16 * (i % 2), 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f'{i}.png')
    for name in ('3a', '6a'):
        (folder / f'{name}.png').write_text('no picture')
    return folder


def test_what_is_sent_arrives(folder):
    members, way = data.find(folder).files, data.AlignOptions(32, align='none', fit='pad')
    rows, skipped = data.read_all(members, way)
    same_rows, same_skipped = prefetch._unpacked(prefetch._packed(rows, skipped))
    assert skipped == same_skipped and len(skipped) == 2
    for row, same in zip(rows, same_rows, strict=True):
        assert (row.stem, row.source) == (same.stem, same.source)
        np.testing.assert_array_equal(row.image_uint8, same.image_uint8)
        np.testing.assert_array_equal(row.mask, same.mask)


@pytest.mark.long
@pytest.mark.parametrize('count', [2, 3])
def test_processes_share_what_one_would_read(folder, tmp_path, count):
    together(count, folder, tmp_path / 'out', devices=2, script=SCRIPT)
    alone = data.load(data.find(folder), data.AlignOptions(32, align='none', fit='pad'), 'it')
    opened = []
    for index in range(count):
        with np.load(tmp_path / f'out.{index}.npz') as found:
            opened.append(found['opened'].tolist())
            np.testing.assert_array_equal(found['images'], alone.images_uint8)
            np.testing.assert_array_equal(found['valid'], alone.valid)
            names, sources, skipped, lines = json.loads(str(found['about']))
        assert names == alone.names and sources == alone.sources and skipped == alone.skipped
        assert lines[-1] == '9 of 9 pictures read.'
    assert sorted(sum(opened, [])) == sorted(path.stem for path in folder.iterdir())
    assert max(map(len, opened)) - min(map(len, opened)) <= 2
