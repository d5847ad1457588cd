"""What a picture file is, by its content; names and suffixes say nothing."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from jaxinv.converters.file_view import Refused

MAX_ENTRIES = 4096  # of a TIFF directory that are looked at
_START = {
    b'\x89PNG': 'PNG',
    b'\xff\xd8\xff': 'JPEG',
    b'GIF8': 'GIF',
    b'\0\0\0\x0cjP  ': 'JPEG2000',
    b'\xff\x4f\xff\x51': 'JPEG2000',
    b'BM': 'BMP',
    b'II*\0': 'TIFF',
    b'MM\0*': 'TIFF',
    b'II+\0': 'TIFF',
    b'MM\0+': 'TIFF',
}
# Formats that are known and not read.
_OTHERS = (
    (0, b'\xff\x0a', 'JPEG XL'),
    (0, b'\0\0\0\x0cJXL ', 'JPEG XL'),
    (0, b'8BPS', 'a Photoshop document'),
    (0, b'gimp xcf', 'a GIMP document'),
    (0, b'\x76\x2f\x31\x01', 'OpenEXR'),
    (0, b'#?RADIANCE', 'Radiance HDR'),
    (0, b'#?RGBE', 'Radiance HDR'),
    (0, b'DDS ', 'a DirectDraw texture'),
    (0, b'\xabKTX', 'a KTX texture'),
    (0, b'SIMPLE  =', 'FITS'),
    (0, b'\x89HDF', 'HDF5'),
    (128, b'DICM', 'DICOM'),
    (0, b'\x93NUMPY', 'a NumPy array'),
    (0, b'PK\x03\x04', 'a zip archive (also .kra, .ora and .docx)'),
    (0, b'%!PS', 'vector graphics'),
    (0, b'%PDF', 'vector graphics (PDF)'),
    (0, b'<?xml', 'vector graphics or XML'),
    (0, b'<svg ', 'vector graphics (SVG)'),
    (0, b'\x1aE\xdf\xa3', 'a video'),
    (8, b'AVI ', 'a video'),
    (0, b'\0\0\x01\xba', 'a video'),
    # Raw photographs that are no TIFF files.
    (0, b'FUJIFILMCCD-RAW', 'a raw photograph (Fujifilm)'),
    (0, b'FOVb', 'a raw photograph (Sigma)'),
    (0, b'\0MRM', 'a raw photograph (Minolta)'),
    (0, b'IIU\0', 'a raw photograph (Panasonic)'),
    (0, b'IIRO', 'a raw photograph (Olympus)'),
    (0, b'IIRS', 'a raw photograph (Olympus)'),
    (0, b'MMOR', 'a raw photograph (Olympus)'),
)
# By the brands of an ISO base media file (ftyp box), the first that is among them.
_BRANDS = (
    ({b'avif', b'avis'}, 'AVIF'),
    ({b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs'}, 'HEIC'),
    ({b'crx '}, 'a raw photograph (Canon CR3)'),
    ({b'jxl '}, 'JPEG XL'),
    ({b'jp2 ', b'jpx ', b'jpm '}, 'JPEG2000'),
    ({b'mif1', b'msf1', b'miaf'}, 'HEIC'),
    ({b'qt  ', b'isom', b'iso2', b'mp41', b'mp42', b'M4V ', b'avc1', b'3gp4', b'3gp5'}, 'a video'),
)
_RAW_MAKERS = (
    'NIKON CANON SONY PENTAX HASSELBLAD LEICA SAMSUNG FUJIFILM PANASONIC OLYMPUS RICOH EPSON LEAF '
    'KODAK EASTMAN MAMIYA SIGMA'
).split() + ['PHASE ONE']
_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4, 16: 8, 18: 8}  # bytes of a value


def name_of(data: bytes) -> str | None:
    """'PNG', 'AVIF', 'JPEG XL', ...; None for unknown bytes."""
    if data[4:8] == b'ftyp':
        brands = _brands(data)
        return next((name for known, name in _BRANDS if brands & known), 'an unknown media file')
    for start, name in _START.items():
        if data.startswith(start):
            return name
    return _other(data)


def check(data: bytes) -> None:
    """Raises Refused for a format that is known and not read, with what to do."""
    name = name_of(data)
    if name == 'TIFF':
        raw = _raw_tiff(data)
        if raw:
            name = raw
    elif name in _START.values() or name in ('AVIF', 'HEIC', None):
        return
    if name != 'TIFF':
        raise Refused(f'is {name}, which is not read; export it as JPEG or PNG')


def _other(data):
    return next((name for at, start, name in _OTHERS if data.startswith(start, at)), None)


def _brands(data):
    """All brands of the ftyp box: the major one and the compatible ones."""
    (size,) = struct.unpack('>I', data[:4])
    box = data[8 : min(max(size, 16), 1024)]
    return {box[:4], *(box[i : i + 4] for i in range(8, len(box) - 3, 4))}


# --- TIFF -----------------------------------------------------------------------------------------


class Entry(NamedTuple):
    tag: int
    kind: int
    count: int
    value: bytes  # of the values, or the first of them


def tiff_entries(data: bytes) -> tuple[str, list[Entry]]:
    """(byte order for struct, entries of the first directory). [] where it is damaged."""
    order = '<' if data[:2] == b'II' else '>'
    return order, list(_entries(data, order))


def _entries(data, order) -> Iterator[Entry]:
    try:
        if data[2:4] in (b'+\0', b'\0+'):  # BigTIFF
            (start,) = struct.unpack_from(order + 'Q', data, 8)
            (count,) = struct.unpack_from(order + 'Q', data, start)
            layout, start, width = 'HHQ8s', start + 8, 8
        else:
            (start,) = struct.unpack_from(order + 'I', data, 4)
            (count,) = struct.unpack_from(order + 'H', data, start)
            layout, start, width = 'HHI4s', start + 2, 4
        step = struct.calcsize(order + layout)
        for i in range(min(count, MAX_ENTRIES)):
            tag, kind, number, value = struct.unpack_from(order + layout, data, start + i * step)
            size = _TIFF_TYPES.get(kind, 8) * number
            if size > width:
                (at,) = struct.unpack(order + ('Q' if width == 8 else 'I'), value)
                value = data[at : at + min(size, 64)]
            yield Entry(tag, kind, number, value)
    except struct.error:
        return


def _raw_tiff(data):
    """Name of the raw photograph in a TIFF container; None for a TIFF picture.

    Cameras write a small preview as the first page, and the photograph into another directory.
    """
    order, entries = tiff_entries(data)
    tags = {entry.tag: entry for entry in entries}
    maker = tags[271].value[:20].rstrip(b'\0 ') if 271 in tags else b''
    maker = maker.decode('ascii', 'replace').strip() or 'unknown camera'
    if 50706 in tags:  # DNGVersion
        return 'a raw photograph (DNG)'
    if data[8:10] == b'CR':
        return 'a raw photograph (Canon CR2)'
    kind = tags[254].value[:4] if 254 in tags else b''  # NewSubfileType, bit 0: a reduced image
    reduced = len(kind) == 4 and struct.unpack(order + 'I', kind)[0] & 1
    photometric = tags[262].value[:2] if 262 in tags else b''
    if len(photometric) == 2 and struct.unpack(order + 'H', photometric)[0] in (32803, 34892):
        return f'a raw photograph ({maker})'
    known = maker.upper().startswith(tuple(_RAW_MAKERS))
    if 330 in tags and (reduced or (known and 34665 in tags)):  # SubIFDs
        return f'a raw photograph ({maker})'
    return None
