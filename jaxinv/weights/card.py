"""The model card of a tuned generator: README.md with the metadata that the hub reads.

It names the base generator, its licence, the number of pictures and the measured means. Names of
pictures, people, files' folders and settings of the machine are left out.
"""

import pathlib
import re
from typing import Any

from jaxinv.io import read_json
from jaxinv.text import printable
from jaxinv.types import GeneratorSpec
from jaxinv.weights import assets, runs
from jaxinv.weights.addresses import is_address
from jaxinv.weights.well_known import WELL_KNOWN

FILE = 'README.md'
LICENCE = 'other'  # of the hub's names
_NVIDIA = (
    "NVIDIA's source code licence (non-commercial), which holds for what is tuned from the "
    'network, too'
)
_TITLES = {  # measured on the targets; the others stay in metrics.json
    'lpips_alex': 'LPIPS (alex)', 'lpips_vgg': 'LPIPS (vgg)', 'mse': 'MSE', 'psnr': 'PSNR (dB)',
    'ms_ssim': 'MS-SSIM', 'id_distance': 'identity distance',
}  # fmt: skip


def base_licence(source: str) -> str:
    """The licence of a generator's weights, as far as jaxinv knows it."""
    if source.startswith('mobile_stylegan_ffhq'):
        return assets.PACKAGES['random-face'].licence
    if source in WELL_KNOWN:
        return _NVIDIA
    return 'not known to jaxinv: that of the base generator, and of its training data, holds'


def shown_source(source: str) -> str:
    """A generator's name or address, or a file's name without its folders."""
    return source if is_address(source) else re.split(r'[\\/]', source)[-1]


def of_run(
    folder: pathlib.Path, spec: GeneratorSpec, licence: str = LICENCE, codes: bool = True
) -> str:
    """The card of a work folder, or of a folder with a generator. See `text`."""
    found = runs.record_of(folder)
    record = {} if found is None else found[1]
    metrics = read_json((folder if found is None else found[0]) / 'metrics.json')
    return text(spec, record, metrics if isinstance(metrics, dict) else {}, licence, codes)


def text(
    spec: GeneratorSpec,
    record: dict[str, Any],
    metrics: dict[str, Any],
    licence: str = LICENCE,
    codes: bool = True,
) -> str:
    """The card. record, metrics: the contents of run.json and metrics.json, {} if there are none.

    licence: an identifier of the hub's, for the metadata; codes: whether the pictures' codes are
    beside the generator.
    """
    config = record.get('config') or {}
    source = str(config.get('generator') or spec.name)
    name, task = _plain(shown_source(source)), _plain(config.get('task') or '')
    # Of a repository on the hub, which then lists this one below the base.
    hub = re.match(r'hf://([\w.-]+/[\w.-]+)/', source)
    tags = ['jaxinv', 'gan-inversion', spec.family or 'mobile_stylegan', *([task] if task else [])]
    lines = ['---', f'license: {_yaml(licence)}', 'library_name: jaxinv']
    lines += [f'base_model: {_yaml(hub[1])}'] if hub else []
    lines += ['tags:', *(f'- {_yaml(tag)}' for tag in tags), '---', '']
    lines += [f'# {name}, tuned' if task else f'# {name}', '']
    count = len(metrics.get('identities') or record.get('sources') or ())
    made = f'{spec.resolution} x {spec.resolution} pixels, W+ of {spec.num_ws} x {spec.w_dim}.'
    what = 'A generator and codes' if codes else 'A generator'
    if task:
        pictures = f'{count} picture{"s" if count != 1 else ""}' if count else 'pictures'
        lines += [f'{what} for {pictures}, by the task `{task}` of jaxinv. {made}']
    else:
        lines += [f'{what}, by jaxinv. {made}']
    lines += ['', f'- Base generator: {name}']
    if record.get('generator'):
        lines += [f'- SHA-256 of its file: {_plain(record["generator"])}']
    lines += [f'- Licence of the base: {_plain(base_licence(source))}.', '']
    lines += _numbers(metrics.get('mean'), count)
    lines += ['## Use', '', '```python', 'import jaxinv', '']
    if codes:
        lines += [
            "generator, weights, codes = jaxinv.load('FOLDER')  # or 'hf://OWNER/NAME'",
            "images = jaxinv.render(generator, weights, codes, edit='smile=1.2')", '```', '',
            'The generator and the codes together draw the pictures that they were made from; '
            'where these show people, ask them before you publish.', '',
        ]  # fmt: skip
    else:
        lines += ["generator, weights = jaxinv.load_generator('FOLDER')", '```', '']
    return '\n'.join(lines)


def _numbers(mean, count) -> list[str]:
    """A table of the stages' means over the pictures."""
    if not isinstance(mean, dict) or not mean:
        return []
    stages = {stage: row for stage, row in mean.items() if isinstance(row, dict)}
    keys = [key for key in _TITLES if any(key in row for row in stages.values())]
    if not keys:
        return []

    def cell(value):
        return f'{value:.4g}' if isinstance(value, int | float) else ''

    rows = [['stage', *(_TITLES[key] for key in keys)], ['---'] * (len(keys) + 1)]
    rows += [[_plain(stage), *(cell(row.get(k)) for k in keys)] for stage, row in stages.items()]
    return [
        '## Numbers', '',
        f'Means over the {count or ""} aligned pictures that were reproduced; not of others.'
        .replace('  ', ' '), '',
        *('| ' + ' | '.join(row) + ' |' for row in rows), '',
    ]  # fmt: skip


def _plain(value) -> str:
    """Text of a file within a line of Markdown."""
    return re.sub(r'([\\`*\[\]<>|#])', r'\\\1', printable(value, 200))


def _yaml(value) -> str:
    """A string of YAML metadata: quoted, unless it is a plain word."""
    value = printable(value, 100)
    return value if re.fullmatch(r'[\w./-]+', value) else "'" + value.replace("'", "''") + "'"
