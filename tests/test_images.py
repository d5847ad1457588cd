"""Picture files: every format and mode that is read, and damaged or mislabelled files."""

import io
import os
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from jaxinv import pixels as pixels_lib
from jaxinv.data import images
from jaxinv.report import grid


def ramp(width=48, height=32):
    """Red rises to the right, green downwards: shows every flip and turn."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 60)], -1).astype(np.uint8)


def close(picture, expected, tolerance):
    return np.abs(np.asarray(picture).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(
    ('suffix', 'tolerance'),
    [('png', 0), ('bmp', 0), ('tiff', 0), ('ppm', 0), ('tga', 0), ('qoi', 0), ('jpg', 12)]
    + [('webp', 12), ('jp2', 6), ('avif', 20), ('pcx', 0)],
)
def test_common_formats_are_read(tmp_path, suffix, tolerance):
    path = tmp_path / f'a.{suffix}'
    try:
        PIL.Image.fromarray(ramp()).save(path)
    except (KeyError, OSError, ValueError):
        pytest.skip(f'this Pillow does not write {suffix}')
    assert close(images.read(path), ramp(), tolerance)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    stored = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[orientation](ramp())
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'phone.png'
    PIL.Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert close(images.read(path), ramp(), 0)


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    path = tmp_path / 'a.jpg'
    PIL.Image.fromarray(ramp()).save(path, exif=b'Exif\0\0MM\0*\xff\xff\xff\xff', quality=98)
    assert close(images.read(path), ramp(), 12)


def test_transparency_shows_white(tmp_path):
    alpha = np.zeros((32, 48), np.uint8)
    alpha[:, 24:] = 255
    path = tmp_path / 'cutout.png'
    PIL.Image.fromarray(np.dstack([ramp(), alpha])).save(path)
    read = np.asarray(images.read(path))
    assert (read[:, :24] == 255).all() and (read[:, 24:] == ramp()[:, 24:]).all()


def test_palettes_with_and_without_transparency(tmp_path):
    picture = PIL.Image.fromarray(ramp()).quantize(64)
    picture.save(tmp_path / 'a.gif')
    assert close(images.read(tmp_path / 'a.gif'), ramp(), 40)
    picture.save(tmp_path / 'b.png', transparency=picture.getpixel((0, 0)))
    assert images.read(tmp_path / 'b.png').getpixel((0, 0)) == (255, 255, 255)


def test_grey_bilevel_and_grey_with_alpha(tmp_path):
    grey = ramp()[..., 0]
    PIL.Image.fromarray(grey).save(tmp_path / 'l.png')
    assert close(images.read(tmp_path / 'l.png'), np.dstack([grey] * 3), 0)
    PIL.Image.fromarray(grey > 127).save(tmp_path / '1.png')
    assert set(np.unique(images.read(tmp_path / '1.png'))) == {0, 255}
    PIL.Image.fromarray(np.dstack([grey, np.full_like(grey, 255)])).save(tmp_path / 'la.png')
    assert close(images.read(tmp_path / 'la.png'), np.dstack([grey] * 3), 0)


@pytest.mark.parametrize(
    ('kind', 'top'), [(np.uint16, 65535), (np.int32, 65535), (np.float32, 1), (np.float32, 255)]
)
@pytest.mark.parametrize('suffix', ['png', 'tiff'])
def test_deep_grey_keeps_its_brightness(tmp_path, kind, top, suffix):
    if suffix == 'png' and kind != np.uint16:
        pytest.skip('PNG holds no such values')
    grey = ramp()[..., 0]
    path = tmp_path / f'deep.{suffix}'
    PIL.Image.fromarray((grey / 255 * top).astype(kind)).save(path)
    assert close(images.read(path), np.dstack([grey] * 3), 1)


def test_float_picture_with_nan_is_read(tmp_path):
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    PIL.Image.fromarray(values).save(tmp_path / 'nan.tiff')
    assert np.asarray(images.read(tmp_path / 'nan.tiff'))[2, 2].tolist() == [128] * 3


def test_sixteen_bit_rgb_png(tmp_path):
    pixels = ramp().astype('>u2') * 257
    raw = b''.join(b'\0' + row.tobytes() for row in pixels)
    header = struct.pack('>IIBBBBB', 48, 32, 16, 2, 0, 0, 0)
    path = tmp_path / 'deep.png'
    path.write_bytes(_png((b'IHDR', header), (b'IDAT', zlib.compress(raw)), (b'IEND', b'')))
    assert close(images.read(path), ramp(), 1)


def _png(*chunks):
    out = b'\x89PNG\r\n\x1a\n'
    for kind, data in chunks:
        out += struct.pack('>I', len(data)) + kind + data
        out += struct.pack('>I', zlib.crc32(kind + data))
    return out


def test_cmyk_lab_and_ycbcr(tmp_path):
    picture = PIL.Image.fromarray(ramp())
    picture.convert('CMYK').save(tmp_path / 'print.jpg', quality=98)
    assert close(images.read(tmp_path / 'print.jpg'), ramp(), 16)
    lab = PIL.ImageCms.profileToProfile(
        picture,
        PIL.ImageCms.createProfile('sRGB'),
        PIL.ImageCms.createProfile('LAB'),
        outputMode='LAB',
    )
    lab.save(tmp_path / 'lab.tiff')
    # Eight bits of Lab are coarse in deep blues.
    assert np.abs(np.asarray(images.read(tmp_path / 'lab.tiff')) - ramp().astype(int)).mean() < 3


def test_colour_profile_is_converted_and_a_broken_one_ignored(tmp_path):
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    for profile in (srgb, b'not a profile', srgb[:100]):
        PIL.Image.fromarray(ramp()).save(tmp_path / 'a.png', icc_profile=profile)
        assert close(images.read(tmp_path / 'a.png'), ramp(), 0)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [PIL.Image.new('RGB', (8, 8), colour) for colour in ('red', 'green', 'blue')]
    for suffix in ('gif', 'png', 'webp', 'tiff'):
        path = tmp_path / f'moving.{suffix}'
        frames[0].save(path, save_all=True, append_images=frames[1:])
        r, g, b = images.read(path).getpixel((4, 4))
        assert r > 240 and g < 15 and b < 15, suffix


def _truncated(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ('jpg', 'png', 'webp', 'tiff', 'gif', 'bmp'):
        PIL.Image.fromarray(noise).save(tmp_path / f'whole.{suffix}')
        data = (tmp_path / f'whole.{suffix}').read_bytes()
        for share in (0.02, 0.3, 0.7):
            yield suffix, data[: int(len(data) * share)]


def test_truncated_files_are_one_sentence_errors(tmp_path):
    for suffix, data in _truncated(tmp_path):
        path = tmp_path / f'cut.{suffix}'
        path.write_bytes(data)
        # A TIFF's directory or a GIF's frame may be whole already: then it is a picture.
        try:
            images.read(path)
        except images.ImageError as error:
            assert 'cut.' in str(error) and '\n' not in str(error) and str(error).endswith('.')
        else:
            assert suffix == 'gif', suffix


def test_garbled_files_never_raise_anything_else(tmp_path):
    """Random bytes changed in sound files of several formats: a picture or ImageError."""
    rng = np.random.default_rng(1)
    path = tmp_path / 'x'
    for suffix in ('png', 'jpg', 'gif', 'tiff', 'webp', 'bmp', 'tga', 'ppm', 'ico', 'jp2'):
        buffer = io.BytesIO()
        try:
            PIL.Image.fromarray(ramp()).save(
                buffer, {'jpg': 'jpeg', 'jp2': 'jpeg2000'}.get(suffix, suffix)
            )
        except (KeyError, OSError):
            continue
        for _ in range(25):
            data = bytearray(buffer.getvalue())
            for position in rng.integers(0, min(len(data), 200), 4):
                data[position] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert images.read(path).mode == 'RGB'
            except images.ImageError as error:
                assert '\n' not in str(error)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', 'empty'),
        (b'Dear Grace,\n', 'not an image but text'),
        ('Grüße'.encode() * 300, 'not an image but text'),
        (bytes(range(256)) * 4, 'unknown data'),
        (b'\x89PNG\r\n\x1a\n', 'damaged'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n', 'vector graphics'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'vector graphics'),
        (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC|damaged'),
    ],
)
def test_impostors_are_named_for_what_they_are(tmp_path, data, words):
    path = tmp_path / 'portrait.png'
    path.write_bytes(data)
    with pytest.raises(images.ImageError, match=words) as caught:
        images.read(path)
    assert 'portrait.png' in str(caught.value)


def test_decompression_bombs_are_refused_quickly(tmp_path):
    header = struct.pack('>IIBBBBB', 60_000, 60_000, 1, 0, 0, 0, 0)
    bomb = _png((b'IHDR', header), (b'IDAT', zlib.compress(b'\0' * 10_000)), (b'IEND', b''))
    (tmp_path / 'bomb.png').write_bytes(bomb)
    with pytest.raises(images.ImageError, match='bomb.png is too large'):
        images.read(tmp_path / 'bomb.png')
    # A short text chunk that unpacks to 100 MB.
    text = b'note\0\0' + zlib.compress(b'a' * 100_000_000)
    header = struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0)
    pixel = (b'IDAT', zlib.compress(b'\0\0'))
    (tmp_path / 'text.png').write_bytes(
        _png((b'IHDR', header), (b'zTXt', text), pixel, (b'IEND', b''))
    )
    assert images.read(tmp_path / 'text.png').size == (1, 1)  # the text is not unpacked


def test_the_limit_on_pixels_does_not_depend_on_pillows(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', None)
    monkeypatch.setattr(images, 'MAX_PIXELS', 1000)
    PIL.Image.fromarray(ramp()).save(tmp_path / 'a.png')
    with pytest.raises(images.ImageError, match='48 x 32 pixels'):
        images.read(tmp_path / 'a.png')


def test_things_that_are_not_files(tmp_path):
    with pytest.raises(images.ImageError, match='does not exist'):
        images.read(tmp_path / 'nowhere.png')
    with pytest.raises(images.ImageError, match='folder'):
        images.read(tmp_path)
    with pytest.raises(images.ImageError, match='a.*png'):
        images.read('a\0b.png')
    if hasattr(os, 'mkfifo'):
        os.mkfifo(tmp_path / 'pipe.png')  # opening it would wait for ever
        with pytest.raises(images.ImageError, match='not a regular file'):
            images.read(tmp_path / 'pipe.png')


def test_values_round_trip_exactly():
    every = np.arange(256, dtype=np.uint8)
    floats = pixels_lib.to_float(every)
    assert floats.dtype == jnp.float32 and floats.min() == -1 and floats.max() == 1
    assert (pixels_lib.to_uint8(floats) == every).all()
    assert pixels_lib.to_uint8(np.array([-9.0, 9.0])).tolist() == [0, 255]
    with pytest.raises(ValueError, match='1 of 2 image values are not finite'):
        pixels_lib.to_uint8(np.array([0.0, np.nan]))


def _area_reference(x, size):
    """Slow: the mean over each output pixel's window, as torch's adaptive average pooling."""
    b, h, w, c = x.shape
    out = np.zeros((b, *size, c))
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i * h // size[0], -(-(i + 1) * h // size[0]))
            columns = slice(j * w // size[1], -(-(j + 1) * w // size[1]))
            out[:, i, j] = x[:, rows, columns].mean((1, 2))
    return out


@pytest.mark.parametrize('size', [4, 8, (3, 5), 7, 1, (8, 24), 12])
def test_area_resize_is_the_mean_of_each_window(size):
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    expected = _area_reference(x, (size, size) if isinstance(size, int) else size)
    np.testing.assert_allclose(pixels_lib.area_resize(jnp.asarray(x), size), expected, atol=1e-6)


def test_area_resize_equals_torchs_area_interpolation():
    # torch 2.13: F.interpolate(torch.arange(25.).reshape(1, 1, 5, 5), size=3, mode='area')
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    expected = [[3.0, 4.5, 6.0], [10.5, 12.0, 13.5], [18.0, 19.5, 21.0]]
    np.testing.assert_allclose(pixels_lib.area_resize(x, 3)[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize('size', [4, 5])
def test_area_resize_has_the_transposed_gradient(size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 2)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(1, size, size, 2)), jnp.float32)
    grad = jax.jit(jax.grad(lambda x: (pixels_lib.area_resize(x, size) * weights).sum()))(x)
    # It is linear: <grad, x> is the value itself.
    value = (pixels_lib.area_resize(x, size) * weights).sum()
    np.testing.assert_allclose((grad * x).sum(), value, rtol=1e-4)


def test_area_resize_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match='b, h, w, c'):
        pixels_lib.area_resize(jnp.zeros((8, 8, 3)), 4)
    with pytest.raises(ValueError, match='sizes >= 1'):
        pixels_lib.area_resize(jnp.zeros((1, 8, 8, 3)), 0)


def test_save_round_trips_and_leaves_no_scratch(tmp_path):
    images.save(tmp_path / 'new' / 'a.png', ramp())
    assert close(images.read(tmp_path / 'new' / 'a.png'), ramp(), 0)
    images.save(tmp_path / 'new' / 'b.jpg', ramp())
    with pytest.raises(ValueError, match='uint8'):
        images.save(tmp_path / 'new' / 'c.png', ramp() / 255)
    with pytest.raises((ValueError, OSError)):
        images.save(tmp_path / 'new' / 'd.nonsense', ramp())
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == ['a.png', 'b.jpg']


def test_grid_places_every_picture_and_label():
    red, blue = (np.full((64, 64, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(grid.grid([[red, blue], [None, red]], ['one', 'two'], ['a', 'b']))
    assert (sheet == (255, 0, 0)).all(-1).sum() == 2 * 64 * 64
    assert (sheet == (0, 0, 255)).all(-1).sum() == 64 * 64
    bare = np.asarray(grid.grid([[red]]))
    assert bare.shape[0] < sheet.shape[0] and (bare[0] == 255).all()
    left = sheet[:, : np.argmax((sheet == (255, 0, 0)).all(-1).any(0))]
    assert (left < 128).any(), 'row labels are drawn'


def test_grid_takes_ragged_rows_other_sizes_and_long_labels():
    small, wide = np.zeros((20, 20, 3), np.uint8), np.zeros((30, 60, 3), np.uint8)
    label = 'a_very_long_name_of_a_file_that_somebody_gave_' * 3
    sheet = grid.grid([[small], [wide, small]], [label, ''], [label, 'ü 漢'], cell=80)
    assert sheet.width < 450
    with pytest.raises(ValueError, match='at least one picture'):
        grid.grid([[None]])
    with pytest.raises(ValueError, match='1 column labels for 2'):
        grid.grid([[small, small]], None, ['one'])
