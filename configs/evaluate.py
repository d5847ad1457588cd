r"""Methods compared on the same photographs: one table with intervals, and a page.

    python -m jaxinv.launch --config=evaluate                             # two portraits
    python -m jaxinv.launch --config=evaluate --config.data.images=FOLDER \
        --config.methods="w,w_plus,pti,pti:official,sam,pti_sam" --config.group=16
    python -m jaxinv.launch --config=evaluate \
        --config.methods="pti,short=pti?tune.num_steps=20,external:THEIR_PICTURES" \
        --config.statistics.reference=pti

Rows are methods, columns metrics (docs/evaluate.md). Results: table.csv, table.tex, page.html,
metrics.json, and measured/METHOD/PICTURE.json. The same command resumes, also with more methods.
`:paper` takes the default methods with the budgets of the papers.
"""

from jaxinv import defaults
from jaxinv.configs import _tiny


def get_config(arg=''):
    variants = {'paper': _paper, 'test': _test}
    return defaults.variant(defaults.get_config('evaluate'), arg, variants)


def _paper(config):
    config.methods = 'w:paper,w_plus:paper,pti:paper,sam:paper'


def _test(config):
    _tiny.comparison(config)
