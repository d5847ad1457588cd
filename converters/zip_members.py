"""The checked members of a zip file, as written by NumPy and torch."""

import re
import struct
import zipfile
import zlib

from jaxinv.converters.file_view import Reader, Refused

MAX_RATIO = 100  # of unpacked to packed bytes; trained weights reach 1.1, zeros 1000
MAX_DIRECTORY = 2**22  # bytes; a torch file of 10^4 arrays has 10^6
_LARGE = 2**20  # bytes; the ratio of smaller members is not limited
_LOCAL_HEAD = '<4s22x2H'  # signature ..., lengths of the name and of the extra field


class Members:
    """{name: contents}; those of uncompressed members, as in torch files, are views of the file.

    Raises Refused for duplicate names, absolute or parent paths, overlapping or encrypted members
    and compression ratios above MAX_RATIO; ValueError for damage.
    """

    def __init__(self, data: memoryview, budget):
        self.data, self.budget = data, budget
        # The directory is read in one piece; zipfile makes 15 times its bytes of objects.
        infos = zipfile.ZipFile(Reader(data, MAX_DIRECTORY)).infolist()
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
                raise ValueError(f'{name[:80]!r} has the compression method {info.compress_type}')
            if info.file_size > _LARGE + MAX_RATIO * info.compress_size:
                raise Refused('unpacks to more than allowed')
            self.infos[name] = info
            self.starts[name] = self._start(info)
        packed = [info for info in infos if info.compress_type != zipfile.ZIP_STORED]
        if sum(info.file_size for info in packed) > budget.memory:
            raise Refused('unpacks to more than allowed')
        spans = sorted((i.header_offset, self.starts[i.filename] + i.compress_size) for i in infos)
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            if start < end:
                raise Refused('holds members that overlap')

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
            self.budget.allocate(info.file_size)
            # One byte more than the declared size shows that the size is wrong.
            content = memoryview(zlib.decompressobj(-15).decompress(content, info.file_size + 1))
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise ValueError(f'{name[:80]!r} is damaged')
        return content

    def _start(self, info):
        """Offset of the contents. Raises if the local header differs from the directory's entry."""
        end = info.header_offset + struct.calcsize(_LOCAL_HEAD)
        head = self.data[info.header_offset : end]
        signature, name_length, extra_length = struct.unpack(_LOCAL_HEAD, head)
        if signature != b'PK\x03\x04':
            raise ValueError(f'{info.filename[:80]!r} is not at the offset in the directory')
        if info.flag_bits & 0x800:
            name = info.orig_filename.encode()
        else:
            name = info.orig_filename.encode('cp437')
        if self.data[end : end + name_length] != name:
            raise Refused(f'has two names for the member {info.filename[:80]!r}')
        start = end + name_length + extra_length
        if start + info.compress_size > len(self.data):
            raise ValueError(f'{info.filename[:80]!r} is cut short')
        return start
