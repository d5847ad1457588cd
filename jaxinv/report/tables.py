"""Tables of the report: size and loss of deltas, classes of pictures."""

from collections.abc import Mapping

from jaxinv.inversion import classes as classify
from jaxinv.inversion.classes import Classes
from jaxinv.report import schema
from jaxinv.report.text import METRICS, number
from jaxinv.settings import Saving

COLUMNS = (
    'identity',
    'size',
    'of the full file',
    'largest error',
    'RMS error',
    'RMS tuning moved',
    'PSNR',
    'LPIPS alex',
    'LPIPS alex to the photograph',
)


def delta_table(settings: Saving, facts: Mapping[str, Mapping]) -> schema.Table:
    """Size and loss of each identity's delta.

    facts: {identity: values of deltas.write, 'psnr' and 'lpips_alex' of the pivot's picture against
    the full generator's, 'to_target' {'full', 'restored'}: LPIPS alex to the photograph}.
    """
    rows = [[name, *_cells(found)] for name, found in facts.items()]
    rank = f', rank {settings.rank}' if settings.save == 'low_rank' else ''
    return schema.Table(
        'deltas',
        f'Generators kept as differences ({settings.save}{rank})',
        list(COLUMNS),
        rows,
        "Errors are of the restored parameters. PSNR and LPIPS compare the restored generator's "
        "picture of the pivot with the full one's; the last column is LPIPS of the full and of "
        'the restored one to the photograph.',
        {name: {'save': settings.save, **found} for name, found in facts.items()},
    )


def _cells(found):
    lpips = METRICS['lpips_alex']
    to_target = found['to_target']
    return [
        f'{found["bytes"] / 1e6:.2f} MB',
        f'{100 * found["share"]:.1f} %',
        f'{found["largest_error"]:.1e}',
        f'{found["rms_error"]:.1e}',
        f'{found["rms_moved"]:.1e}',
        number(found['psnr'], METRICS['psnr']),
        f'{found["lpips_alex"]:.5f}',
        f'{number(to_target["full"], lpips)} → {number(to_target["restored"], lpips)}',
    ]


def class_tables(names, classes: Classes | None) -> list[schema.Table]:
    """The class of each picture, with the likeliest classes; [] for generators without classes."""
    if classes is None:
        return []
    labels, candidates = classes.choice.labels.tolist(), classes.choice.candidates
    shown = [classify.describe(c) for c in candidates] or ['chosen by --config.label'] * len(labels)
    values = {
        name: {'label': label, 'candidates': candidates[i] if candidates else []}
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    }
    rows = [list(row) for row in zip(names, map(str, labels), shown, strict=True)]
    return [
        schema.Table(
            'classes',
            'Classes',
            ['picture', 'class', 'likeliest classes, with probabilities'],
            rows,
            'The class is kept during the inversion; --config.label=CLASS takes another for all.',
            values,
        )
    ]
