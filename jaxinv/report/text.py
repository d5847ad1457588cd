"""Numbers as text: titles, units, digits, which direction is better, the last lines of a run."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxinv.report.schema import Run, mean

NO_FACE = 'no face'


class Column(NamedTuple):
    title: str
    digits: int
    better: int  # -1 = lower is better, 1 = higher is better, 0 = neither
    unit: str = ''
    help: str = ''


METRICS = {
    'lpips_alex': Column('LPIPS alex', 3, -1, help='perceptual distance, AlexNet, full resolution'),
    'lpips_vgg': Column('LPIPS vgg', 3, -1, help='perceptual distance, VGG-16, at 256 px'),
    'mse': Column('MSE', 4, -1, help='mean squared error, pixels in [-1, 1]'),
    'psnr': Column('PSNR', 2, 1, ' dB', 'peak signal-to-noise ratio'),
    'psnr_256': Column('PSNR at 256', 2, 1, ' dB', 'the same at 256 px'),
    'lpips_vgg_full': Column('LPIPS vgg full', 3, -1, help='VGG-16, full resolution'),
    'ms_ssim': Column('MS-SSIM', 3, 1, help='multi-scale structural similarity, 1 = equal'),
    'id_distance': Column(
        'Identity distance',
        3,
        -1,
        help='Euclidean, of face embeddings; its authors call below 0.6 the same person',
    ),
    'moved_lpips_alex': Column(
        'Pivot moved, LPIPS alex',
        4,
        0,
        help='between the images of the pivot before and after the tuning, by the generator before '
        'it, full resolution',
    ),
    'moved_mse': Column('Pivot moved, MSE', 5, 0, help='the same, pixels in [-1, 1]'),
}
PROTOCOLS = {  # of the evaluation's tables: net or range, and resolution, in the title
    'lpips_alex_256': Column('LPIPS alex 256', 3, -1, help='AlexNet, at 256 px by area averaging'),
    'lpips_alex_full': Column('LPIPS alex full', 3, -1, help='AlexNet, full resolution'),
    'lpips_vgg_256': Column('LPIPS vgg 256', 3, -1, help='VGG-16, at 256 px by area averaging'),
    'lpips_vgg_full': Column('LPIPS vgg full', 3, -1, help='VGG-16, full resolution'),
    'mse_signed': Column('MSE [-1, 1]', 4, -1, help='of pixels in [-1, 1], full resolution'),
    'mse_unit': Column('MSE [0, 1]', 4, -1, help='of pixels in [0, 1], full resolution'),
    'mse_unit_256': Column('MSE [0, 1] 256', 4, -1, help='of pixels in [0, 1], at 256 px'),
    'psnr_unit': Column('PSNR', 2, 1, ' dB', 'peak 1, pixels in [0, 1], full resolution'),
    'psnr_unit_256': Column('PSNR 256', 2, 1, ' dB', 'peak 1, pixels in [0, 1], at 256 px'),
    'ms_ssim_full': Column('MS-SSIM full', 3, 1, help='pixels in [0, 1], full resolution'),
    'ms_ssim_256': Column('MS-SSIM 256', 3, 1, help='pixels in [0, 1], at 256 px'),
    'id_dlib': Column('Identity dlib', 3, -1, help="distance of dlib's embeddings, 0 = equal"),
    'id_sface': Column('Identity SFace', 3, 1, help="cosine of SFace's embeddings, 1 = equal"),
    'id_mobilefacenet': Column(
        'Identity MobileFaceNet', 3, 1, help="cosine of MobileFaceNet's embeddings, 1 = equal"
    ),
    'id_arcface': Column(
        'Identity ArcFace', 3, 1, help="cosine of IR-SE50's embeddings, 1 = equal"
    ),
    'id_curricularface': Column(
        'Identity CurricularFace', 3, 1, help="cosine of IR-101's embeddings, 1 = equal"
    ),
    'frechet_efficientnet_lite0': Column(
        'Fréchet EfficientNet-Lite0',
        2,
        -1,
        help="of the network's 1280 features at 224 px; not FID",
    ),
    'kernel_efficientnet_lite0': Column(
        'Kernel EfficientNet-Lite0', 4, -1, help='unbiased squared MMD of the same; not KID'
    ),
    'frechet_fid_inception': Column('FID', 2, -1, help="2048 features of FID's Inception"),
    'kernel_fid_inception': Column('KID', 4, -1, help='unbiased, all pairs, of the same features'),
    'outside': Column('Outside', 5, -1, help='MSE [0, 1] outside the edited region'),
    'strength': Column('Strength', 2, 0, help='absolute, at which the change is reached'),
    'lec_w': Column('LEC in W+', 2, -1, help='Euclidean distance of codes, edited and back'),
    'lec_lpips_alex_256': Column(
        'LEC LPIPS alex 256', 3, -1, help='of the pictures of these codes'
    ),
    'moved_lpips_alex': METRICS['moved_lpips_alex'],
    'moved_mse': METRICS['moved_mse'],
    'seconds': Column('Time a picture', 1, -1, ' s', 'of the method, with compilation'),
}
ATTRIBUTES = {
    'age': Column('age', 1, 0, ' y'),
    'smile': Column('smile', 2, 0),
    'yaw': Column('yaw', 1, 0, '°'),
}


def protocol(name: str) -> Column:
    """Of a metric of the evaluation, 'METRIC' or 'METRIC @ EDIT'."""
    base = name.partition(' @ ')[0]
    if base.startswith('change_'):
        return _change(base.removeprefix('change_'))
    return column(base, PROTOCOLS)


def _change(name: str) -> Column:
    """Of ATTRIBUTE_SOURCE, a change of an attribute as a source of faces/measures.py has it."""
    from jaxinv.faces import measures  # dlib is loaded with it

    for attribute, own in measures.ATTRIBUTES.items():
        for key, unit, help_ in (
            (own.judge, own.judge_unit or own.unit, 'by a judge that the edit was not fitted to'),
            (own.steer, own.unit, 'by what the edit was fitted to'),
        ):
            source = key.partition('/')[2]
            if name == f'{attribute}_{source}':
                title = f'Change of {attribute}, {source}'.replace('_', ' ')
                return Column(title, 2, 0, help=f'{help_} ({key}), unit: {unit}')
    return Column(f'Change of {name.replace("_", " ")}', 2, 0)


def number(value: Any, kind: Column, signed: bool = False) -> str:
    """'0.058', '+2.3 y', '∞' (PSNR of equal pictures), or 'no face' if it was not measured."""
    if value is None or math.isnan(value):
        return NO_FACE
    if math.isinf(value):
        return '∞' if value > 0 else '\N{MINUS SIGN}∞'
    value = round(float(value), kind.digits) + 0.0  # + 0.0: no negative zero
    text = f'{value:{"+" if signed and value else ""}.{kind.digits}f}{kind.unit}'
    return text.replace('-', '\N{MINUS SIGN}')


def column(name: str, table: Mapping[str, Column]) -> Column:
    return table.get(name) or Column(name.replace('_', ' '), 3, 0)


def duration(seconds: float) -> str:
    """'8.2 s', '2 min 05 s' or '1 h 02 min'."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f'{minutes} min {rest:02d} s'
    return f'{minutes // 60} h {minutes % 60:02d} min'


def summary(run: Run, folder: pathlib.Path) -> str:
    """The last lines that a run prints: means of its stages, drift, time, where the report is."""
    lines = []
    for stage in run.stages:
        means = {name: mean(values) for name, values in stage.metrics.items()}
        shown = [f'{name} {NO_FACE if x is None else f"{x:.4f}"}' for name, x in means.items()]
        lines.append(f'{stage.name:<6} {"  ".join(shown)}')
    if run.drift:
        shown = [f'{name} {x:.4f}' for name, x in run.drift.metrics.items()]
        lines.append(f'drift of random latents: {"  ".join(shown)}')
    lines.append(f'{duration(sum(run.seconds.values()))} in all. Open {folder / "report.html"}')
    return '\n'.join(lines)
