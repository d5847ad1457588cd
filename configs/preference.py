r"""A preference study: one page of blind comparisons, in random order, with attention checks.

    python -m jaxinv.launch --config=preference --workdir=STUDY \
        --config.methods='pti=runs/a:tuned,sam=runs/b:SAM'         # stages of two runs
    python -m jaxinv.launch --config=preference --workdir=STUDY \
        --config.methods='ours=FOLDER,theirs=FOLDER' --config.originals=FOLDER

STUDY/preference.html is sent to the raters; each sends back the file that it offers at the end.
Then --config=preference_results reads these files.
"""

from jaxinv import defaults


def get_config(arg=''):
    return defaults.variant(defaults.get_config('preference'), arg, {})
