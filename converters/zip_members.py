"""The members of a zip file, of the kind that NumPy and torch write, after the checks."""

import re
import struct
import zipfile
import zlib

from jaxinv.converters.file_view import Reader, Refused

MAX_RATIO = 100  # by which a large member may unpack; trained weights reach 1.1, zeros 1000
_LARGE = 2**20
_LOCAL_HEAD = '<4s22x2H'  # signature ... lengths of the name and of the extra field


class Members:
    """Names, and their contents as views of the file where they are stored unpacked, as torch does.

    Raises Refused for doubled names, paths that lead elsewhere, members that share bytes, encrypted
    ones and ones that unfold to much more than they are; ValueError for damaged ones.
    """

    def __init__(self, data: memoryview, budget):
        self.data = data
        infos = zipfile.ZipFile(Reader(data)).infolist()
        self.infos, self.starts = {}, {}
        for info in infos:
            name = info.filename
            if name in self.infos:
                raise Refused(f'holds the member {name[:80]!r} twice')
            if name.startswith('/') or re.search(r'\.\.|\\|:|\0', info.orig_filename):
                raise Refused(f'holds a member with the path {name[:80]!r}')
            if info.flag_bits & 1:
                raise Refused('is encrypted')
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f'{name[:80]!r} is packed by method {info.compress_type}')
            if info.file_size > _LARGE + MAX_RATIO * info.compress_size:
                raise Refused('unpacks to more than allowed')
            self.infos[name] = info
            self.starts[name] = self._start(info)
        if sum(info.file_size for info in infos) > budget.left:
            raise Refused('unpacks to more than allowed')
        spans = sorted((i.header_offset, self.starts[i.filename] + i.compress_size) for i in infos)
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            if start < end:
                raise Refused('holds members that share bytes')

    def __contains__(self, name):
        return name in self.infos

    def __iter__(self):
        return iter(self.infos)

    def __getitem__(self, name) -> memoryview:
        if name not in self.infos:
            raise ValueError(f'no member {name[:80]!r}')
        info, start = self.infos[name], self.starts[name]
        content = self.data[start : start + info.compress_size]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            # One byte more than announced is enough to see that it lies.
            content = memoryview(zlib.decompressobj(-15).decompress(content, info.file_size + 1))
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise ValueError(f'{name[:80]!r} is damaged')
        return content

    def _start(self, info):
        """Where the content begins; the local header must be that of the directory's entry."""
        end = info.header_offset + struct.calcsize(_LOCAL_HEAD)
        head = self.data[info.header_offset : end]
        signature, name_length, extra_length = struct.unpack(_LOCAL_HEAD, head)
        if signature != b'PK\x03\x04':
            raise ValueError(f'{info.filename[:80]!r} does not begin where the directory says')
        if info.flag_bits & 0x800:
            name = info.orig_filename.encode()
        else:
            name = info.orig_filename.encode('cp437')
        if self.data[end : end + name_length] != name:
            raise Refused(f'calls the member {info.filename[:80]!r} by two names')
        start = end + name_length + extra_length
        if start + info.compress_size > len(self.data):
            raise ValueError(f'{info.filename[:80]!r} is cut short')
        return start
