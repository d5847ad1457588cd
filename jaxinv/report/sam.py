"""Pictures, curves and tables that explain what SAM chose and why."""

import numpy as np

from jaxinv import metrics, pixels
from jaxinv.inversion import invertibility, masks
from jaxinv.report import writer
from jaxinv.report.text import ATTRIBUTES, number
from jaxinv.segmentation import segment

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


def panels(job, regions) -> list[writer.Panel]:
    """Segments, what each space alone makes of the picture, its error map, the chosen spaces."""
    targets_uint8 = job.targets.images_uint8
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
    valid = masks.valid_of(job, regions.labels.shape[1:])
    shares = [
        invertibility.areas(chosen[None], len(spaces), None if valid is None else valid[i : i + 1])
        for i, chosen in enumerate(regions.chosen)
    ]
    shares = np.concatenate(shares)
    share_notes = [
        ', '.join(f'{space} {share:.0%}' for space, share in zip(spaces, row, strict=True) if share)
        for row in shares
    ]
    found.append(
        writer.Panel(
            'Chosen spaces',
            {'segments': overlays, 'chosen': colored},
            {'segments': [', '.join(s.names) for s in regions.segments], 'chosen': share_notes},
            [(space, COLORS[space]) for space in spaces],
            'Each segment lies in the most editable space whose mean error there is at most '
            f'{job.config.invertibility.tau:g}; where none is, in the last.',
        )
    )
    maps, map_notes = {}, {}
    for space, values in regions.maps.items():
        maps[space] = np.stack([heat(v) for v in values])
        map_notes[space] = [f'mean {np.mean(v):.3f}' for v in values]
    found.append(
        writer.Panel(
            'Invertibility maps',
            maps,
            map_notes,
            [(f'{v:g}', _hex(heat(np.full((1, 1), v))[0, 0])) for v in (0, 0.2, 0.4, HOTTEST)],
            'LPIPS-vgg of an inversion into one space alone: dark can be inverted there.',
        )
    )
    if regions.singles:
        alone, notes = {}, {}
        for space, single in regions.singles.items():
            alone[space] = pixels.to_uint8(single.images)
            psnr = [
                float(metrics.psnr(image, pixels.to_float(target))[0])
                for image, target in zip(
                    single.images[:, None], targets_uint8[:, None], strict=True
                )
            ]
            notes[space] = [f'PSNR {value:.1f} dB' for value in psnr]
        found.append(writer.Panel('Inverted into one space alone', alone, notes))
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
    place = np.clip(np.asarray(values) / HOTTEST, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(int), len(_HEAT) - 2)
    part = (place - low)[..., None]
    return np.rint((1 - part) * _HEAT[low] + part * _HEAT[low + 1]).astype(np.uint8)


def threshold_curves(job, regions) -> list[writer.Trace]:
    """What a threshold would choose: the share of the first space, and the error to expect.

    The error is the mean of the chosen spaces' maps, that is, of inversions into them alone.
    """
    taus = job.config.sweep.taus
    if not taus:
        return []
    valid = masks.valid_of(job, regions.labels.shape[1:])
    found = invertibility.sweep(
        regions.maps,
        regions.labels,
        taus,
        job.generator.spec,
        valid=valid,
        batch_per_device=job.config.sam.batch_per_device,
    )
    stacked = np.stack(list(regions.maps.values()))  # [spaces, n, h, w]
    errors = np.take_along_axis(stacked[None], found.chosen[:, None], axis=1)[:, 0]
    weight = np.ones(errors.shape[1:]) if valid is None else valid[..., 0]
    expected = (errors * weight).sum((2, 3)) / weight.sum((1, 2))
    step = taus[1] - taus[0] if len(taus) > 1 else 1.0
    stage = 'choices at thresholds τ'
    return [
        writer.Trace(
            stage,
            f'share in {next(iter(regions.maps))}',
            found.areas[..., 0],
            taus[0],
            step,
        ),
        writer.Trace(stage, 'expected LPIPS vgg', expected, taus[0], step),
    ]


def edit_table(edits, changes) -> writer.Table:
    """changes: {space: [{attribute: mean change} for each edit]}. Only what an edit aims at."""
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
    return writer.Table(
        'edits_by_space',
        'Which edit acts in which space',
        ['edit', *changes],
        rows,
        'Pictures inverted into one space alone and then edited: the mean change of the attribute '
        'that the edit aims at. Later spaces leave less of the generator after them to edit with.',
        values,
    )


def _rgb(color: str) -> tuple[int, int, int]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _hex(rgb) -> str:
    return '#' + ''.join(f'{int(v):02x}' for v in rgb)
