"""Pictures, curves and tables of SAM's choice of spaces."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxinv import metrics
from jaxinv.inversion import invertibility
from jaxinv.inversion.sam_regions import Regions
from jaxinv.report.schema import Panel, Table, Trace
from jaxinv.report.text import ATTRIBUTES, number
from jaxinv.segmentation import segment
from jaxinv.types import GeneratorSpec

BATCH = 4  # images whose maps are compared with all thresholds at a time
# From editable to faithful.
COLORS = {
    'W+': '#1b9e77', 'Z+': '#1b9e77', 'F2': '#66c2a5', 'F4': '#a6d854', 'F6': '#ffd92f',
    'F8': '#fc8d62', 'F10': '#d53e4f',
}  # fmt: skip
HOTTEST = 0.6  # LPIPS of the brightest colour
_HEAT = np.array(  # dark to bright, each step of about the same change in lightness
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    np.float64,
)


def panels(targets_uint8, regions: Regions, tau: float, valid=None) -> list[Panel]:
    """Segments and chosen spaces, error maps, and the inversions into each space alone.

    targets_uint8 [n, h, w, 3]; tau: the threshold of the choice; valid [n, size, size, 1] at the
    maps' size, None = all pixels.
    """
    spaces = tuple(regions.maps)
    found = []
    overlays = np.stack(
        [segment.overlay(t, s) for t, s in zip(targets_uint8, regions.segments, strict=True)]
    )
    colored = np.stack(
        [
            choice_overlay(target, chosen, spaces)
            for target, chosen in zip(targets_uint8, regions.chosen, strict=True)
        ]
    )
    areas = [
        invertibility.areas(chosen[None], len(spaces), None if valid is None else valid[i : i + 1])
        for i, chosen in enumerate(regions.chosen)
    ]
    area_notes = [
        ', '.join(f'{space} {area:.0%}' for space, area in zip(spaces, row, strict=True) if area)
        for row in np.concatenate(areas)
    ]
    found.append(
        Panel(
            'Chosen spaces',
            {'segments': overlays, 'chosen': colored},
            {'segments': [', '.join(s.names) for s in regions.segments], 'chosen': area_notes},
            [(space, COLORS[space]) for space in spaces],
            'Each segment lies in the most editable space whose mean error there is at most '
            f'{tau:g}; if there is none, in the last.',
        )
    )
    maps, map_notes = {}, {}
    for space, values in regions.maps.items():
        maps[space] = np.stack([heat(v) for v in values])
        map_notes[space] = [f'mean {np.mean(v):.3f}' for v in values]
    found.append(
        Panel(
            'Invertibility maps',
            maps,
            map_notes,
            [(f'{v:g}', _hex(heat(np.full((1, 1), v))[0, 0])) for v in (0, 0.2, 0.4, HOTTEST)],
            'LPIPS-vgg of an inversion into one space alone; dark regions can be inverted.',
        )
    )
    if regions.singles:
        alone, notes = {}, {}
        for space, single in regions.singles.items():
            alone[space] = np.asarray(single.images_uint8)
            psnr = metrics.evaluate(targets_uint8, alone[space], {}, names=('psnr',))['psnr']
            notes[space] = [f'PSNR {value:.1f} dB' for value in psnr]
        found.append(Panel('Inverted into one space alone', alone, notes))
    return found


def choice_overlay(image_uint8, chosen, spaces, strength: float = 0.6) -> np.ndarray:
    """The picture's lightness in the colours of the chosen spaces; uint8 [h, w, 3]."""
    size = image_uint8.shape[0]
    rows = np.minimum(((np.arange(size) + 0.5) * len(chosen) / size).astype(int), len(chosen) - 1)
    colors = np.array([_rgb(COLORS[space]) for space in spaces], np.float64)
    tint = colors[chosen[rows[:, None], rows]]
    grey = image_uint8.mean(axis=2, keepdims=True)
    return np.rint(strength * tint + (1 - strength) * grey).astype(np.uint8)


def heat(values) -> np.ndarray:
    """A map [h, w] in colours, 0 dark and HOTTEST or more bright; uint8 [h, w, 3]."""
    position = np.clip(np.asarray(values) / HOTTEST, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(position.astype(int), len(_HEAT) - 2)
    fraction = (position - low)[..., None]
    return np.rint((1 - fraction) * _HEAT[low] + fraction * _HEAT[low + 1]).astype(np.uint8)


def threshold_curves(
    regions: Regions, taus: Sequence[float], spec: GeneratorSpec, valid=None
) -> list[Trace]:
    """Curves over the threshold, estimated from the maps: area of the first space, expected error.

    The error is the mean of the chosen spaces' maps, that is, of inversions into them alone. valid:
    as in `panels`.
    """
    if not taus:
        return []
    areas, errors = [], []
    batches = invertibility.sweep_batches(
        regions.maps, regions.labels, taus, spec, valid=valid, batch_per_device=BATCH
    )
    for rows, found in batches:
        maps = np.stack([values[rows] for values in regions.maps.values()])  # [spaces, b, h, w]
        chosen = np.take_along_axis(maps[None], found.chosen[:, None], axis=1)[:, 0]
        weight = np.ones(chosen.shape[1:]) if valid is None else valid[rows][..., 0]
        errors.append((chosen * weight).sum((2, 3)) / weight.sum((1, 2)))
        areas.append(found.areas[..., 0])
    step = taus[1] - taus[0] if len(taus) > 1 else 1.0
    stage, first = 'choices at thresholds τ', next(iter(regions.maps))
    columns = {f'area in {first}': areas, 'expected LPIPS vgg': errors}
    return [
        Trace(stage, name, np.concatenate(values, axis=1), taus[0], step)
        for name, values in columns.items()
    ]


def edit_table(edits: Sequence, changes: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    """The mean changes of the attributes that edits aim at, by space.

    changes: {space: [{attribute: mean change} of each edit]}.
    """
    rows, values = [], {}
    for i, edit in enumerate(edits):
        for name, _ in edit.parts:
            aim = name.split('[')[0]
            known = {space: c[i][aim] for space, c in changes.items() if aim in c[i]}
            if not known:
                continue
            texts = [number(v, ATTRIBUTES[aim], signed=True) for v in known.values()]
            title = edit.name if len(edit.parts) == 1 else f'{edit.name}: {aim}'
            rows.append([title, *texts])
            values.setdefault(edit.name, {})[aim] = known
    return Table(
        'edits_by_space',
        'Which edit acts in which space',
        ['edit', *changes],
        rows,
        'Pictures inverted into one space alone and then edited: the mean change of the attribute '
        'that the edit aims at. Fewer layers follow a later space, so its edits act less.',
        values,
    )


def _rgb(color: str) -> tuple[int, int, int]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _hex(rgb) -> str:
    return '#' + ''.join(f'{int(v):02x}' for v in rgb)
