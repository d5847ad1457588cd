"""Edits confined to regions: spelling, masks, and the two blends against plain steps."""

import jax
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

import jaxinv
from jaxinv import edits, faces
from jaxinv.errors import JaxinvError
from jaxinv.inversion import region_render
from jaxinv.segmentation import regions
from jaxinv.types import Affine


@pytest.mark.parametrize(
    ('spec', 'name', 'region'),
    [
        ('smile=1.2@mouth', 'smile=1.2@mouth', 'mouth'),
        ('yaw=1,smile=1 @ face', 'yaw=1,smile=1@face', 'face'),
        ('smile=1', 'smile=1', ''),
        ('smile=1@a/my mask.png', 'smile=1@my mask.png', 'a/my mask.png'),
    ],
)
def test_a_region_is_spelled_behind_the_strength(spec, name, region):
    (edit,) = edits.parse([spec])
    assert (edit.name, edit.region) == (name, region)


def test_a_region_belongs_to_every_strength_and_step_and_an_at_may_be_in_a_name(tmp_path):
    assert [e.region for e in edits.parse(['smile=1/0.5@mouth'])] == ['mouth', 'mouth']
    steps = edits.with_steps(edits.parse(['yaw=1,smile=1@face']))
    assert [(e.name, e.region) for e in steps] == [
        ('yaw=1@face', 'face'),
        ('yaw=1,smile=1@face', 'face'),
    ]
    assert [e.name for e in edits.parse(['smile=1@a/m.png', 'smile=1@b/m.png'])] == [
        'smile=1@m.png',
        'smile=1@b/m.png',
    ]
    np.save(tmp_path / 'a@b.npy', np.ones(512, 'f4'))
    (edit,) = edits.parse([f'{tmp_path}/a@b.npy=2'])
    assert edit.region == '' and edit.name == 'a@b=2'


# --- Masks ---


@pytest.fixture
def landmarks(monkeypatch):
    """A face of straight lines in 64 pixels, found by a stand-in for dlib."""
    points = np.zeros((68, 2))
    points[:17] = np.stack(
        [np.linspace(16, 48, 17), 30 + 26 * np.sin(np.linspace(0, np.pi, 17))], 1
    )
    points[17:27] = np.stack([np.linspace(20, 44, 10), np.full(10, 26)], 1)
    points[27:36] = [[32, y] for y in (28, 31, 34, 37)] + [[x, 40] for x in (29, 30, 32, 34, 35)]
    for start, x in ((36, 25), (42, 39)):
        turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        points[start : start + 6] = np.stack([x + 3 * np.cos(turn), 30 + np.sin(turn)], 1)
    turn = np.linspace(-np.pi, np.pi, 12, endpoint=False)
    points[48:60] = np.stack([32 + 7 * np.cos(turn), 46 + 2 * np.sin(turn)], 1)
    points[60:] = [32, 46]
    monkeypatch.setattr(faces, 'landmarks_aligned', lambda image: points)
    return points


def test_parts_and_classes_of_a_face_are_masks(landmarks):
    image = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    image[:, :32] //= 4
    mouth = regions.mask_of('mouth', image)
    assert mouth[46, 32] and not mouth[30].any() and 0 < mouth.mean() < 0.1
    face = regions.mask_of('face', image)
    assert (face | ~mouth).all() and face.mean() > regions.LEAST


def test_what_is_not_there_is_said(landmarks, monkeypatch, tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(JaxinvError, match="Did you mean 'mouth'"):
        regions.check('mouht')
    with pytest.raises(JaxinvError, match='there is no file .*none.png'):
        regions.check('none.png')
    monkeypatch.setattr(regions, 'LEAST', 1.0)
    with pytest.raises(JaxinvError, match=r"'background' covers .* % of ann, less than 100 %"):
        regions.mask_of('background', image, 'ann')
    monkeypatch.setattr(faces, 'landmarks_aligned', lambda image: None)
    with pytest.raises(JaxinvError, match='no FFHQ-aligned face in ann'):
        regions.mask_of('mouth', image, 'ann')
    PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / 'grey.png')
    with pytest.raises(JaxinvError, match='64 different values; a mask has two'):
        regions.mask_of(tmp_path / 'grey.png', image)
    half = np.zeros((8, 8), np.uint8)
    half[:4] = 255
    PIL.Image.fromarray(half).save(tmp_path / 'half.png')
    found = regions.mask_of(tmp_path / 'half.png', image)
    assert found[:32].all() and not found[32:].any()


def test_objects_and_outlines_of_478_landmarks_are_masks(monkeypatch):
    image = np.zeros((64, 64, 3), np.uint8)
    classes = np.full((64, 64), regions.OBJECTS.index('cat') + 1)
    classes[:, :40] = regions.OBJECTS.index('person') + 1
    classes[:2, :2] = 0
    monkeypatch.setattr(regions, '_objects', lambda image: classes)
    assert regions.OBJECTS.index('person') + 1 == 15  # of PASCAL VOC
    np.testing.assert_array_equal(regions.mask_of('cat', image), classes == 8)
    with pytest.raises(JaxinvError, match="'dog' covers 0.0 % of ann, less than 5 %"):
        regions.mask_of('dog', image, 'ann')
    points = np.zeros((1, 478, 3))
    points[0, [469, 470, 471, 472], :2] = [[24, 20], [20, 16], [16, 20], [20, 24]]
    points[0, [474, 475, 476, 477], :2] = [[48, 20], [44, 16], [40, 20], [44, 24]]
    monkeypatch.setattr(regions.mesh, 'landmarks478', lambda images: points)
    irises = regions.mask_of('irises', image)
    assert irises[20, 20] and irises[20, 44] and not irises[20, 32] and not irises[28].any()
    monkeypatch.setattr(regions.mesh, 'landmarks478', lambda images: points * np.nan)
    with pytest.raises(JaxinvError, match='no FFHQ-aligned face in ann'):
        regions.mask_of('lips', image, 'ann')


def test_a_soft_mask_is_one_inside_and_falls_outwards():
    mask = np.zeros((32, 32), bool)
    mask[10:20, 10:20] = True
    soft = regions.soft(mask, 4)
    assert (soft[mask] == 1).all()
    far = scipy.ndimage.distance_transform_edt(~mask)
    assert (soft[far >= 4] == 0).all() and soft[15, 21] == pytest.approx(0.5)
    np.testing.assert_allclose(regions.shrink(soft, (8, 8)).mean(), soft.mean(), rtol=1e-5)


# --- Images ---


@pytest.fixture(scope='module')
def pair(tiny):
    """Codes, edited codes, masks and the confined images of two pictures."""
    generator, weights = tiny
    z = np.random.RandomState(0).randn(2, generator.spec.z_dim).astype(np.float32)
    w = np.asarray(generator.map(weights, z))[:, None]
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 8:20, 6:20] = masks[1, 20:, 20:] = True
    found = region_render.render(generator, weights, w, w + 1, masks, feature='F4', feather=0.1)
    return w, masks, found


def test_a_confined_edit_is_the_blend_in_a_feature_and_then_of_images(tiny, pair):
    (generator, weights), (w, masks, found) = tiny, pair
    plain = jax.jit(lambda w, taps: generator.synthesize(weights, w, taps=taps))
    for i in range(2):
        image, features = plain(w[i : i + 1], {})
        _, moved = plain(w[i : i + 1] + 1, {})
        soft = regions.soft(masks[i], 3.2)
        small = soft.reshape(16, 2, 16, 2).mean((1, 3))[None, ..., None]
        f = (1 - small) * features['F4'] + small * moved['F4']
        after, _ = plain(w[i : i + 1] + 1, {'F4': Affine(np.zeros_like(f), f)})
        expected = (1 - soft[..., None]) * image[0] + soft[..., None] * after[0]
        np.testing.assert_allclose(found.images[i], expected, rtol=1e-5, atol=1e-4)
        outside = soft == 0
        np.testing.assert_array_equal(found.images[i][outside], found.unedited[i][outside])
        assert np.abs(found.images[i] - found.unedited[i])[masks[i]].mean() > 0.01


def test_the_seam_is_the_gradient_in_excess_of_the_sources():
    x = np.random.RandomState(0).rand(2, 6, 6, 3).astype(np.float32)
    mask = np.zeros((6, 6), np.float32)
    mask[2:4, 3:], mask[4, 3:] = 1, 0.5
    image = x[0] + mask[..., None] * (x[1] - x[0])

    def length(picture, i, j):
        grey = 127.5 * picture.mean(-1)
        return np.hypot(grey[i, j + 1] - grey[i, j], grey[i + 1, j] - grey[i, j])

    terms = [
        length(image, i, j)
        - (1 - mask[i, j]) * length(x[0], i, j)
        - mask[i, j] * length(x[1], i, j)
        for i in range(5)
        for j in range(5)
        if mask[i, j] != mask[i, j + 1] or mask[i, j] != mask[i + 1, j]
    ]
    found = region_render.seam(x[:1], x[1:], image[None], mask[None])
    np.testing.assert_allclose(found, [np.mean(terms)], rtol=1e-4)


def test_render_takes_masks_of_the_user_and_edits_as_values(tiny, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(region_render, 'FEATURE_SIZE', 16)  # the program of `pair`
    (generator, weights), (w, masks, _) = tiny, pair
    edit = edits.Edit('move', ((edits.Direction('move', np.ones((1, 16), np.float32)), 1.0),))
    found = jaxinv.render(generator, weights, w, edit, region=masks)
    np.testing.assert_array_equal(
        found, region_render.render(generator, weights, w, w + 1, masks).images
    )
    mask = PIL.Image.fromarray(np.uint8(masks[0]) * 255)
    mask.save(tmp_path / 'mask.png')
    each = jaxinv.render(generator, [weights] * 2, w, edit, region=tmp_path / 'mask.png')
    np.testing.assert_allclose(each[0], found[0], atol=1e-6)
    for region, words in (
        ('mouht', 'Did you mean'),
        (masks[:1, :8], r'bool \[32, 32\] or \[2, 32, 32\]'),
        (np.zeros((32, 32), bool), 'empty'),
        ('mouth', 'no FFHQ-aligned face in code 0'),
    ):
        with pytest.raises(JaxinvError, match=words):
            jaxinv.render(generator, weights, w, edit, region=region)
    with pytest.raises(JaxinvError, match='there is no edit'):
        jaxinv.render(generator, weights, w, region=masks)


def test_of_a_run_a_region_that_is_not_found_is_said_and_the_picture_stays(tmp_path):
    images = np.random.RandomState(0).rand(3, 32, 32, 3).astype(np.float32)
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    PIL.Image.fromarray(255 * mask).save(tmp_path / 'mask.png')
    own = [edits.Edit('a', (), region=f'{tmp_path}/mask.png'), edits.Edit('b', (), region='hair')]
    said = []
    found = region_render.confine_edits(images.copy(), own, 'ann', said.append)
    np.testing.assert_allclose(found[1][:16], images[1][:16], atol=1e-6)
    np.testing.assert_array_equal(found[1][18:], images[0][18:])
    np.testing.assert_array_equal(found[2], images[0])
    assert len(said) == 1 and said[0].startswith('ann: not edited by b: there is no')


def test_a_region_is_kept_by_files(tmp_path):
    (edit,) = edits.parse(['smile=1@mouth'])
    edits.save(tmp_path / 'edit.json', edit)
    assert edits.load(tmp_path / 'edit.json').region == 'mouth'
    (other,) = edits.parse([f'{tmp_path}/edit.json@face'])
    assert (other.name, other.region) == ('smile=1@face', 'face')
    content = edits.to_json(edit) | {'region': 3}
    with pytest.raises(edits.EditError, match='region is 3'):
        edits.from_json(content)
