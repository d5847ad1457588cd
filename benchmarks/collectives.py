"""The collectives of a compiled program, read from its HLO.

    for sent in collectives.read(compiled.as_text()):
        print(sent.kind, sent.bytes, collectives.axis(sent, mesh.shape))

An instruction counts once: a step of `optimize` has none inside a loop (`lax.cond` around the
all-reduce of the gradients is true for the last microbatch of a batch).
"""

import math
import re
from typing import NamedTuple

import numpy as np

from jaxinv.errors import JaxinvError

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_LINE = re.compile(rf'= (.+?) ({"|".join(KINDS)})(-start)?\((.*)$', re.MULTILINE)
_ARRAY = re.compile(r'\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]')
_GROUPS = re.compile(
    r'replica_groups=(?:\{((?:\{[\d,]*\},?)*)\}|(\[[\d,]+\]<=\[[\d,]+\])(T\([\d,]+\))?)'
)


class Collective(NamedTuple):
    kind: str  # of KINDS
    shapes: tuple[tuple[int, ...], ...]  # of the results on a device
    bytes: int  # of the whole array that is summed, gathered or scattered, on one device
    groups: np.ndarray | None  # [groups, devices] that communicate; None = one group of all

    def sent(self, devices: int) -> float:
        """Bytes that a device sends in a ring algorithm.

        2 (n - 1) / n of an all-reduce, (n - 1) / n of a gather, scatter or exchange.
        """
        n = devices if self.groups is None else self.groups.shape[1]
        if self.kind == 'collective-permute':
            return self.bytes
        return (2 if self.kind == 'all-reduce' else 1) * (n - 1) / n * self.bytes


def read(text: str) -> list[Collective]:
    """The collectives of `compiled.as_text()`."""
    return [_collective(*match.groups()) for match in _LINE.finditer(text)]


def axis(collective: Collective, sizes) -> str:
    """The mesh axes along which devices communicate: 'data', 'fsdp', or 'data, fsdp'.

    sizes: {axis: devices}, as Mesh.shape. Raises JaxinvError if the groups match no axis.
    """
    numbers = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
    for kept in range(1, 2 ** len(sizes)):
        along = [i for i in range(len(sizes)) if kept >> i & 1]
        others = [i for i in range(len(sizes)) if not kept >> i & 1]
        count = math.prod(numbers.shape[i] for i in along)
        groups = numbers.transpose(*others, *along).reshape(-1, count)
        own = numbers.reshape(1, -1) if collective.groups is None else collective.groups
        if _as_sets(groups) == _as_sets(own):
            return ', '.join(name for i, name in enumerate(sizes) if i in along)
    raise JaxinvError(
        f'the groups of {collective.kind}, {own.tolist()}, are along no axis of {dict(sizes)}.'
    )


def _as_sets(groups) -> set[frozenset]:
    return {frozenset(row) for row in groups.tolist()}


def _collective(result: str, kind: str, start: str | None, rest: str) -> Collective:
    arrays = [
        (dtype, tuple(map(int, filter(None, sizes.split(',')))))
        for dtype, sizes in _ARRAY.findall(result)
    ]
    groups = _groups(rest)
    if start and kind != 'all-reduce':
        # (operands, results, ...): the second half of the pairs are the results.
        half = len(arrays) // 2
        arrays = arrays[half : 2 * half]
    size = sum(_size(dtype) * math.prod(shape) for dtype, shape in arrays)
    if kind == 'reduce-scatter':
        size *= groups.shape[1] if groups is not None else 1
    return Collective(kind, tuple(shape for _, shape in arrays), size, groups)


def _groups(text: str) -> np.ndarray | None:
    match = _GROUPS.search(text)
    if match is None or match[1] == '':
        return None
    if match[1] is not None:
        rows = re.findall(r'\{([\d,]*)\}', match[1])
        return np.array([[int(x) for x in row.split(',')] for row in rows])
    shape, source = (
        [int(x) for x in sizes.split(',')] for sizes in re.findall(r'\[([\d,]+)\]', match[2])
    )
    numbers = np.arange(math.prod(source)).reshape(source)
    if match[3]:
        numbers = numbers.transpose([int(x) for x in match[3][2:-1].split(',')])
    return numbers.reshape(shape)


def _size(dtype: str) -> int:
    return 1 if dtype == 'pred' else int(dtype.lstrip('bsufc')) // 8
