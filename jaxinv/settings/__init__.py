"""Every setting of every method and task: default, meaning, range. One declaration, no JAX.

    from jaxinv import settings
    projection = settings.Projection(num_steps=100)       # frozen and hashable
    projection.check()                                    # JaxinvError names pivot.KEY
    settings.changed(projection, learning_rate=0.1)       # a checked copy, for keyword arguments
    settings.of(config, settings.Projection)              # read from a run's config

`jaxinv.defaults` builds the configs of the command line from these classes; configs/*.py hold the
budgets that differ from the defaults.
"""

from jaxinv.settings.declare import Key, Section, changed, keys, of, setting, subsection
from jaxinv.settings.directions import FitDirections
from jaxinv.settings.drag import Drag
from jaxinv.settings.evaluation import Evaluate, EvaluateEdits, Measures, Statistics
from jaxinv.settings.maps import InvertibilityData, TrainInvertibility
from jaxinv.settings.methods import METHODS, RENAMED, check, record_of
from jaxinv.settings.pti import Drift, Locality, Projection, Saving, Tuning, WStatistics
from jaxinv.settings.sam import (
    CHOOSING,
    ENCODED,
    LABELS,
    SINGLE,
    WITH_ENCODER,
    Invertibility,
    Prior,
    Search,
    Segments,
    Sweep,
    named,
)
from jaxinv.settings.tasks import (
    EDITS,
    Data,
    Inversion,
    Invert,
    InvertSam,
    measuring_settings,
    prior_settings,
    random_seed,
    search_settings,
    title,
)
from jaxinv.settings.text_edits import (
    MapperSamples,
    TextDirections,
    TextEdits,
    TextSearch,
    TrainMapper,
)

__all__ = [
    'CHOOSING', 'Data', 'Drag', 'Drift', 'EDITS', 'ENCODED', 'Evaluate', 'EvaluateEdits',
    'FitDirections', 'Inversion', 'Invert', 'Invertibility', 'InvertibilityData', 'InvertSam',
    'Key', 'LABELS', 'Locality', 'MapperSamples', 'Measures', 'METHODS', 'Prior', 'Projection',
    'RENAMED', 'Saving', 'Search', 'Section', 'Segments', 'SINGLE', 'Statistics', 'Sweep',
    'TextDirections', 'TextEdits', 'TextSearch', 'TrainInvertibility', 'TrainMapper', 'Tuning',
    'WITH_ENCODER', 'WStatistics', 'changed', 'check', 'keys', 'measuring_settings', 'named', 'of',
    'prior_settings', 'random_seed', 'record_of', 'search_settings', 'setting', 'subsection',
    'title',
]  # fmt: skip
