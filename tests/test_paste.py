"""Crops go back to where they were: geometry, masks, seams, files."""

import dataclasses

import matplotlib
import numpy as np
import PIL.Image
import pytest

import jaxinv
from jaxinv import report
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.faces import align, paste
from jaxinv.report import writer

HOPPER = f'{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg'


@pytest.fixture(scope='module')
def portrait():
    """(photograph, landmarks' quad, aligned crop of 512 pixels)"""
    targets = jaxinv.load_images(HOPPER, resolution=512)
    return images.read(HOPPER), targets.sources[0]['face']['quad'], targets


def error(a, b, mask=None):
    difference = np.abs(np.asarray(a, float) - np.asarray(b, float)).mean(-1)
    return difference.mean() if mask is None else difference[mask].mean()


@pytest.mark.parametrize('mask', ['face', 'crop'])
@pytest.mark.parametrize('match_colour', [True, False])
def test_a_round_trip_without_an_edit_changes_what_resampling_explains(
    portrait, mask, match_colour
):
    photograph, quad, targets = portrait
    crop = targets.images_uint8[0]
    found = paste(photograph, crop, quad, mask=mask, match_colour=match_colour)
    assert found.size == photograph.size
    changed = np.any(np.asarray(found) != np.asarray(photograph), axis=-1)
    # Slow and plain: the crop of 512 pixels, seen at the photograph's pixels by its own alignment.
    side = align.side(quad)
    assert 0 < changed.mean() < (side + 3) ** 2 / np.prod(photograph.size)
    assert error(found, photograph, changed) < 3.5
    # A shift by one pixel of the photograph would cost far more.
    shifted = paste(photograph, crop, np.asarray(quad) + 1, mask=mask, match_colour=match_colour)
    assert error(shifted, photograph, changed) > 2 * error(found, photograph, changed)


def test_pixels_outside_the_mask_stay(portrait):
    photograph, quad, targets = portrait
    black = np.zeros_like(targets.images_uint8[0])
    for mask in ('face', 'crop', np.zeros(black.shape[:2])):
        found = np.asarray(paste(photograph, black, quad, mask=mask, match_colour=False))
        y, x = np.nonzero(np.any(found != np.asarray(photograph), axis=-1))
        if not isinstance(mask, str):
            assert not len(y)
            continue
        places = align.into_crop(np.stack([x, y], -1), quad, 1) + 0.5
        assert places.min() > -0.01 and places.max() < 1.01
        middle = np.asarray(quad).mean(0).astype(int)
        assert found[middle[1], middle[0]].max() < 30  # the edit itself is there


def test_a_rotated_square_lands_where_it_came_from():
    rng = np.random.RandomState(0)
    smooth = PIL.Image.fromarray(rng.randint(0, 255, [12, 16, 3]).astype(np.uint8))
    photograph = smooth.resize((320, 240), PIL.Image.Resampling.BICUBIC)
    angle, half, centre = 0.4, 70.0, np.array([160.0, 120.0])
    x = half * np.array([np.cos(angle), np.sin(angle)])
    y = np.array([-x[1], x[0]])
    quad = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    crop = photograph.transform(
        (280, 280), PIL.Image.Transform.QUAD, (quad + 0.5).flatten().tolist(),
        PIL.Image.Resampling.BICUBIC,
    )  # fmt: skip
    found = paste(photograph, np.asarray(crop), quad, mask='crop', match_colour=False)
    assert error(found, photograph) < 0.3
    turned = paste(photograph, np.asarray(crop), quad[[1, 2, 3, 0]], mask='crop')
    assert error(turned, photograph) > 3


def test_the_seam_has_the_photographs_colours():
    photograph = PIL.Image.new('RGB', (300, 300), (100, 120, 140))
    quad = [[50, 50], [50, 250], [250, 250], [250, 50]]
    crop = np.full([200, 200, 3], (130, 120, 110), np.uint8)
    matched = np.asarray(paste(photograph, crop, quad, mask='crop'), int)
    plain = np.asarray(paste(photograph, crop, quad, mask='crop', match_colour=False), int)
    assert np.abs(matched - [100, 120, 140]).max() <= 2
    assert np.abs(plain - [100, 120, 140]).max() == 30


def test_what_is_another_thing_at_the_seam_does_not_tint_the_face():
    """A turned head: at one side of the seam the crop has a face where background was."""
    photograph = np.full((200, 200, 3), (100, 120, 140), np.uint8)
    photograph[:, :45] = (20, 40, 160)
    crop = np.full((120, 120, 3), (90, 110, 130), np.uint8)  # 10 levels darker than the photograph
    quad = [[40, 40], [40, 160], [160, 160], [160, 40]]
    found = np.asarray(paste(PIL.Image.fromarray(photograph), crop, quad, mask='crop'), int)
    face = found[60:140, 60:150]
    assert np.abs(face - [100, 120, 140]).max() <= 3


def test_squares_beyond_the_photograph(portrait):
    photograph, quad, targets = portrait
    crop = targets.images_uint8[0]
    partly = np.asarray(quad) - np.asarray(quad).mean(0)
    assert paste(photograph, crop, partly, mask='crop').size == photograph.size
    outside = paste(photograph, crop, np.asarray(quad) + 10_000)
    assert error(outside, photograph) == 0


def test_faces_of_photographs_go_back_together(portrait, tmp_path):
    _, _, targets = portrait
    paths = jaxinv.paste_back(targets, targets.images, tmp_path)
    pictures = jaxinv.paste_back(targets, targets.images)
    (file,) = pictures
    assert file == targets.sources[0]['file']
    assert paths == {file: tmp_path / 'grace_hopper.jpg'}
    with PIL.Image.open(paths[file]) as written:
        assert written.format == 'JPEG' and not written.getexif()
        assert error(written, pictures[file]) < 3
    both = targets.select([0, 0], ['a', 'b'])
    assert len(jaxinv.paste_back(both, both.images_uint8)) == 1


def test_what_cannot_be_pasted_gets_a_sentence(portrait):
    photograph, quad, targets = portrait
    crop = targets.images_uint8[0]
    for arguments, message in (
        ((crop.astype(float), quad), 'takes a uint8 crop'),
        ((crop, quad[:3]), 'takes a uint8 crop'),
        ((crop, quad, 'hair'), "mask is 'hair'"),
        ((crop, quad, np.ones([3, 3])), r'mask is \[3, 3\]'),
    ):
        with pytest.raises(JaxinvError, match=message):
            paste(photograph, *arguments[:2], **dict(zip(['mask'], arguments[2:], strict=False)))
    aligned = targets.select([0])
    aligned.sources[0] = aligned.sources[0] | {'face': None}
    with pytest.raises(JaxinvError, match='was not aligned by jaxinv'):
        jaxinv.paste_back(aligned, aligned.images_uint8)
    with pytest.raises(JaxinvError, match='2 images for 1 targets'):
        jaxinv.paste_back(targets, np.concatenate([targets.images_uint8] * 2))


def test_a_run_writes_them_beside_the_aligned_pictures(portrait, tmp_path):
    photograph, _, targets = portrait
    crop = targets.images_uint8
    dark = crop // 2
    edits = [report.EditResult('smile=2', (('smile', 2.0),), dark, [0.1])]
    edits += [report.EditResult('yaw=1', (('yaw', 1.0),), dark, [0.1], requested=False)]
    run = report.Run(
        title='Test',
        names=list(targets.names),
        targets_uint8=crop,
        stages=[report.Stage('tuned', crop)],
        edits=edits,
        sources=targets.sources,
        paste=True,
    )
    writer.write_identity(tmp_path, run)
    pasted = sorted(path.name for path in tmp_path.glob('pasted_*'))
    assert pasted == ['pasted_edit_smile_2.jpg', 'pasted_tuned.jpg']
    assert images.read(tmp_path / pasted[0]).size == photograph.size
    gone = dataclasses.replace(run, sources=[targets.sources[0] | {'file': 'gone.jpg'}])
    writer.write_identity(tmp_path / 'other', gone)
    assert not list((tmp_path / 'other').glob('pasted_*'))
