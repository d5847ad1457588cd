"""Files that are often given instead of a checkpoint, by their first bytes."""

import pathlib
import re

_SIGNATURES = (
    (b'\x1f\x8b', 'gzip', 'unpack it (gunzip)'),
    (b'BZh', 'bzip2', 'unpack it (bunzip2)'),
    (b'\xfd7zXZ', 'an .xz archive', 'unpack it (unxz)'),
    (b'\x28\xb5\x2f\xfd', 'compressed by zstd', 'unpack it (unzstd)'),
    (b'7z\xbc\xaf', 'a 7z archive', 'unpack it'),
    (b'Rar!', 'a RAR archive', 'unpack it'),
    (b'\x89HDF', 'an HDF5 file', 'convert it to .npz or .safetensors'),
    (b'GGUF', 'a GGUF file', 'convert it to .safetensors'),
    (b'version https://git-lfs', 'a Git LFS pointer', 'download the file itself (git lfs pull)'),
)
_PAGES = re.compile(rb'(<!doctype|<html|<head|<\?xml)', re.IGNORECASE)
_MARKS = (b'\xef\xbb\xbf', b'\xff\xfe', b'\xfe\xff')  # byte order marks
_TAR = slice(257, 262)  # of b'ustar'
UNPACKED = 'data.pkl'  # of a torch file that was unpacked


def describe(data: memoryview) -> str | None:
    """What the file is and what to do, 'is ...; ...'; None if its start is not known."""
    start = bytes(data[:512])
    for signature, what, remedy in _SIGNATURES:
        if start.startswith(signature):
            return f'is {what}; {remedy} and give what is inside'
    if start[_TAR] == b'ustar':
        return 'is a tar archive; unpack it (tar -xf) and give the checkpoint inside'
    text = start
    for mark in _MARKS:
        text = text.removeprefix(mark)
    if _PAGES.match(text.replace(b'\0', b'').lstrip()):
        return 'is a web page, not the checkpoint itself; download it again'
    return None


def archive(names: list[str]) -> str:
    """The same for a zip file with members of these names, which is no torch or .npz file."""
    shown = ', '.join(name[:60] for name in names[:3]) + (', ...' if len(names) > 3 else '')
    return f'is a zip archive of {shown or "nothing"}; unpack it and give the checkpoint inside'


def unpacked(path: pathlib.Path) -> str | None:
    """The same for the folder, or its data.pkl, that unpacking a torch file leaves."""
    if path.is_dir():
        roots = [path, *sorted(p for p in path.iterdir() if p.is_dir())[:20]]
    else:
        roots = [path.parent] if path.name == UNPACKED else []
    for root in roots:
        if (root / UNPACKED).is_file() and (
            (root / 'data').is_dir() or (root / 'version').exists()
        ):
            return (
                'is an unpacked torch file; pack it again, in the folder above '
                f'{root.name or "it"}: zip -r -0 checkpoint.pt {root.name or "archive"}'
            )
    return None
