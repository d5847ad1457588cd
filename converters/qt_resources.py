"""Reads Qt's compiled resources (.rcc), formats 1 to 3: a tree of named files in one.

The layout is that of Qt's resource compiler: 'qres', the format, and the places of the tree, the
data and the names. Only files whose SHA-256 is known are given to it (jaxinv/data/benchmark.py).
"""

import struct
import zlib

FOLDER, ZLIB, ZSTD = 2, 1, 4  # flags of an entry


def read(data: bytes) -> dict[str, bytes]:
    """{path: content} of the files in a .rcc. Raises ValueError if it is none.

    Files that are compressed by Zstandard are left out.
    """
    if len(data) < 20 or data[:4] != b'qres':
        raise ValueError("not a .rcc: it does not begin with 'qres'")
    version, tree, blobs, names = struct.unpack_from('>4I', data, 4)
    if version not in (1, 2, 3):
        raise ValueError(f'a .rcc of format {version}; 1 to 3 are read')
    size = 14 if version == 1 else 22  # later formats add the time of the last change
    found: dict[str, bytes] = {}

    def visit(index: int, above: tuple[str, ...]) -> None:
        name, flags = struct.unpack_from('>IH', data, tree + size * index)
        path = (*above, _name(data, names + name)) if index else ()  # the root has no name
        if flags & FOLDER:
            count, first = struct.unpack_from('>II', data, tree + size * index + 6)
            for child in range(first, first + count):
                visit(child, path)
        elif not flags & ZSTD:
            (place,) = struct.unpack_from('>I', data, tree + size * index + 10)
            (length,) = struct.unpack_from('>I', data, blobs + place)
            content = data[blobs + place + 4 :][:length]
            # Before the compressed bytes are four with the length of the others.
            found['/'.join(path)] = zlib.decompress(content[4:]) if flags & ZLIB else content

    visit(0, ())
    return found


def _name(data: bytes, place: int) -> str:
    """A length, a hash of four bytes, and UTF-16."""
    (length,) = struct.unpack_from('>H', data, place)
    return data[place + 6 :][: 2 * length].decode('utf-16-be')
