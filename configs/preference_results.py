r"""Preferences with exact binomial intervals, from the files of a preference study's raters.

    python -m jaxinv.launch --config=preference_results --config.study=STUDY \
        --config.results=ANSWERS
"""

from jaxinv import defaults


def get_config(arg=''):
    return defaults.variant(defaults.get_config('preference_results'), arg, {})
