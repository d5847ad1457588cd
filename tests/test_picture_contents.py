"""Pictures are judged by their contents: profiles, metadata, brands, raw files, sizes."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest
import tifffile

from jaxinv.data import formats, images, large


def ramp(width=48, height=32):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 60)], -1).astype(np.uint8)


def srgb_of_linear(values):
    """IEC 61966-2-1, of values 0 ... 255 in linear light."""
    x = np.asarray(values, float) / 255
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def linear_rgb():
    """A profile of sRGB's colours in linear light; its name is still sRGB's."""
    profile = bytearray(PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes())
    (count,) = struct.unpack_from('>I', profile, 128)
    for i in range(count):
        name, offset, _ = struct.unpack_from('>4sII', profile, 132 + 12 * i)
        if name in (b'rTRC', b'gTRC', b'bTRC'):
            assert profile[offset : offset + 4] == b'para'
            struct.pack_into('>HHI', profile, offset + 8, 0, 0, 1 << 16)  # y = x^1
    return bytes(profile)


def linear_grey():
    """A minimal ICC profile of grey in linear light."""
    text = b'text' + bytes(4) + b'grey\0\0\0\0'
    tags = {
        b'desc': b'desc' + bytes(4) + struct.pack('>I', 5) + b'grey\0' + bytes(79),
        b'cprt': text,
        b'wtpt': b'XYZ ' + bytes(4) + struct.pack('>3i', 63190, 65536, 54061),
        b'kTRC': b'curv' + bytes(4) + struct.pack('>I', 0),
    }
    table, data, start = b'', b'', 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack('>4sII', name, start + len(data), len(content))
        data += content
    body = struct.pack('>I', len(tags)) + table + data
    header = struct.pack(
        '>I4sI4s4s4s', 128 + len(body), bytes(4), 0x02400000, b'mntr', b'GRAY', b'XYZ '
    )
    header += struct.pack('>6H', 2020, 1, 1, 0, 0, 0) + b'acsp' + bytes(28)
    header += struct.pack('>3i', 63190, 65536, 54061)
    return header.ljust(128, b'\0') + body


def test_a_profile_counts_by_its_curves_and_not_by_its_name(tmp_path):
    name = PIL.ImageCms.getProfileDescription(
        PIL.ImageCms.ImageCmsProfile(io.BytesIO(linear_rgb()))
    )
    assert 'sRGB' in name
    picture = PIL.Image.fromarray(ramp())
    picture.save(tmp_path / 'rgb.png', icc_profile=linear_rgb())
    picture.convert('RGBA').save(tmp_path / 'rgba.png', icc_profile=linear_rgb())
    for file in ('rgb.png', 'rgba.png'):
        found = np.asarray(images.read(tmp_path / file), float)
        assert np.abs(found - srgb_of_linear(ramp())).max() < 3
    sixteen = picture.quantize(16)
    sixteen.save(tmp_path / 'palette.png', icc_profile=linear_rgb())
    sixteen.save(tmp_path / 'clear.png', icc_profile=linear_rgb(), transparency=200)
    for file in ('palette.png', 'clear.png'):
        found = np.asarray(images.read(tmp_path / file), float)
        assert np.abs(found - srgb_of_linear(np.asarray(sixteen.convert('RGB')))).max() < 3


@pytest.mark.parametrize('mode', ['L', 'LA', 'I;16'])
def test_profiles_of_grey_pictures(mode, tmp_path):
    grey = ramp()[..., 0]
    picture = PIL.Image.fromarray(grey)
    if mode == 'I;16':
        picture = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == 'LA':
        picture.putalpha(255)
    assert picture.mode == mode
    picture.save(tmp_path / 'a.png', icc_profile=linear_grey())
    found = np.asarray(images.read(tmp_path / 'a.png'), float)
    assert np.abs(found - srgb_of_linear(grey)[..., None]).max() < 3


def test_srgb_pictures_keep_their_values(tmp_path):
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    PIL.Image.fromarray(ramp()).save(tmp_path / 'a.png', icc_profile=srgb)
    assert (np.asarray(images.read(tmp_path / 'a.png')) == ramp()).all()


@pytest.mark.parametrize('kind', ['zTXt', 'iTXt'])
def test_long_texts_do_not_spoil_a_picture(kind, tmp_path):
    text = PIL.PngImagePlugin.PngInfo()
    add = text.add_text if kind == 'zTXt' else text.add_itxt
    add('workflow', 'a' * 3_000_000, zip=True)
    PIL.Image.fromarray(ramp()).save(tmp_path / 'a.png', pnginfo=text)
    assert (np.asarray(images.read(tmp_path / 'a.png')) == ramp()).all()


def test_a_long_profile_is_used(tmp_path):
    profile = linear_rgb()
    profile = struct.pack('>I', len(profile) + 2_000_000) + profile[4:] + bytes(2_000_000)
    PIL.Image.fromarray(ramp()).save(tmp_path / 'a.png', icc_profile=profile)
    found = np.asarray(images.read(tmp_path / 'a.png'), float)
    assert np.abs(found - srgb_of_linear(ramp())).max() < 3
    png = (tmp_path / 'a.png').read_bytes()
    start = png.index(b'iCCP') - 4
    bomb = b'icc\0\0' + zlib.compress(bytes(50_000_000))
    end = start + 12 + struct.unpack_from('>I', png, start)[0]
    chunk = struct.pack('>I', len(bomb)) + b'iCCP' + bomb
    chunk += struct.pack('>I', zlib.crc32(chunk[4:]))
    (tmp_path / 'bomb.png').write_bytes(png[:start] + chunk + png[end:])
    assert (np.asarray(images.read(tmp_path / 'bomb.png')) == ramp()).all()


def ftyp(major, *compatible):
    brands = b''.join((major, bytes(4), *compatible))
    return struct.pack('>I', 8 + len(brands)) + b'ftyp' + brands + bytes(64)


@pytest.mark.parametrize(
    ('data', 'name'),
    [
        (ftyp(b'avif', b'mif1'), 'AVIF'),
        (ftyp(b'mif1', b'miaf', b'avif'), 'AVIF'),
        (ftyp(b'mif1', b'heic'), 'HEIC'),
        (ftyp(b'heix'), 'HEIC'),
        (ftyp(b'mif1'), 'HEIC'),
        (ftyp(b'crx ', b'isom'), 'Canon CR3'),
        (ftyp(b'isom', b'mp42'), 'a video'),
        (ftyp(b'qt  '), 'a video'),
        (b'\xff\x0a' + bytes(64), 'JPEG XL'),
        (b'\0\0\0\x0cJXL \r\n\x87\n' + bytes(64), 'JPEG XL'),
        (b'8BPS\0\1' + bytes(64), 'Photoshop'),
        (b'\x76\x2f\x31\x01' + bytes(64), 'OpenEXR'),
        (b'#?RADIANCE\n' + bytes(64), 'Radiance HDR'),
        (b'gimp xcf v011' + bytes(64), 'GIMP'),
        (bytes(128) + b'DICM' + bytes(64), 'DICOM'),
        (b'FUJIFILMCCD-RAW ' + bytes(64), 'raw photograph (Fujifilm)'),
        (b'IIU\0' + bytes(64), 'raw photograph (Panasonic)'),
        (b'%PDF-1.4' + bytes(64), 'vector graphics'),
        (b'PK\x03\x04' + bytes(64), 'zip archive'),
    ],
)
def test_formats_are_known_by_their_first_bytes(data, name, tmp_path):
    assert name in formats.name_of(data)
    if name not in ('AVIF', 'HEIC'):
        (tmp_path / 'a.jpg').write_bytes(data)
        with pytest.raises(images.ImageError) as error:
            images.read(tmp_path / 'a.jpg')
        assert name in str(error.value) and 'export it as JPEG or PNG' in str(error.value)


def preview_first(tmp_path, extra=(), maker='NIKON CORPORATION', subfile=1):
    """A TIFF as cameras write: a preview, and the photograph in a directory below it."""
    path = tmp_path / 'camera.tif'
    tags = [(271, 's', 0, maker, True), *extra]
    with tifffile.TiffWriter(path) as file:
        file.write(ramp(), subifds=1, subfiletype=subfile, extratags=tags, photometric='rgb')
        file.write(ramp(96, 64), photometric='rgb')
    return path


def test_raw_photographs_are_never_replaced_by_their_preview(tmp_path):
    for extra, name in (((), 'NIKON'), (((50706, 1, 4, (1, 4, 0, 0), True),), 'DNG')):
        with pytest.raises(
            images.ImageError, match=f'a raw photograph .{name}.*, which is not read'
        ):
            images.read(preview_first(tmp_path, extra))
    # Pages at several sizes, the largest first, are a picture.
    assert images.read(preview_first(tmp_path, maker='scanner', subfile=0)).size == (48, 32)


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'uint16'])
@pytest.mark.parametrize('samples', [1, 3, 4])
def test_tiff_pictures_of_other_types(dtype, samples, tmp_path):
    values = np.concatenate([ramp(), np.full_like(ramp()[..., :1], 255)], -1)[..., :samples]
    scale = 65535 if dtype == 'uint16' else 1
    stored = (values / 255 * scale).astype(dtype)
    kind = 'minisblack' if samples == 1 else 'rgb'
    extra = ['unassalpha'] if samples == 4 else None
    tifffile.imwrite(
        tmp_path / 'a.tif',
        stored[..., 0] if samples == 1 else stored,
        photometric=kind,
        extrasamples=extra,
    )
    expected = values[..., :3] if samples > 1 else values.repeat(3, -1)
    assert np.abs(np.asarray(images.read(tmp_path / 'a.tif'), int) - expected).max() <= 1


@pytest.mark.parametrize('suffix', ['jpg', 'jp2', 'tif', 'tiles.tif'])
def test_pictures_over_the_limit_are_read_at_reduced_size(suffix, tmp_path, monkeypatch):
    path, pixels = tmp_path / f'a.{suffix}', ramp(512, 256)
    if suffix == 'tiles.tif':
        tifffile.imwrite(path, pixels, tile=(64, 64), photometric='rgb', compression='zlib')
    else:
        PIL.Image.fromarray(pixels).save(path, **({'quality': 95} if suffix == 'jpg' else {}))
    assert images.read(path).size == (512, 256)
    monkeypatch.setattr(large, 'MAX_PIXELS', 512 * 256 // 3)
    monkeypatch.setattr(images, 'MAX_PIXELS', 512 * 256 // 3)
    found = images.read(path)
    assert found.size == (256, 128)
    assert np.abs(np.asarray(found, int) - pixels[::2, ::2]).mean() < 4
    monkeypatch.setattr(large, 'MAX_REDUCED', 512 * 256 - 1)
    with pytest.raises(images.ImageError, match='too large: 512 x 256 pixels'):
        images.read(path)


def test_progressive_jpegs_have_a_limit_of_their_own(tmp_path, monkeypatch):
    PIL.Image.fromarray(ramp(512, 256)).save(tmp_path / 'a.jpg', progressive=True)
    monkeypatch.setattr(large, 'MAX_PIXELS', 512 * 256 // 3)
    assert images.read(tmp_path / 'a.jpg').size == (256, 128)
    monkeypatch.setattr(large, 'MAX_PROGRESSIVE', 512 * 256 - 1)
    with pytest.raises(images.ImageError, match='too large'):
        images.read(tmp_path / 'a.jpg')
