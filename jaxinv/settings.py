"""SAM's methods and baselines as config.method names them, their settings, and what cannot be."""

from jaxinv.errors import JaxinvError
from jaxinv.experiments import artifacts, bulk, session
from jaxinv.inversion import project, pti, sam, sam_prior
from jaxinv.optimize import continuous_batching
from jaxinv.weights import deltas

LABELS = {
    'w': 'W',
    'w_plus': 'W+',
    'gaussian_prior': 'W+ prior',
    'f2': 'F2',
    'f4': 'F4',
    'f6': 'F6',
    'f8': 'F8',
    'f10': 'F10',
    'sam': 'SAM',
    'pti': 'PTI',
    'pti_sam': 'PTI+SAM',
}
SINGLE = {'gaussian_prior': 'W+'} | {
    name: LABELS[name] for name in ('w_plus', 'f2', 'f4', 'f6', 'f8', 'f10')
}
CHOOSING = ('sam', 'pti_sam')  # the methods that choose a space for each region


def title(config, spec) -> str:
    return f'{named(LABELS[config.method], spec)} inversion'


def named(label: str, spec) -> str:
    """A label or space as it is called for the generator: W and W+ of BigGAN are Z and Z+."""
    return label.replace('W', spec.latent)


def check(config) -> None:
    """Raises JaxinvError for settings that cannot be used, before anything is computed."""
    if config.method not in LABELS:
        raise JaxinvError(f'method is {config.method!r}; it can be {", ".join(LABELS)}.')
    projection, tuning = session.settings_of(config)
    project.check(projection)
    pti.check(tuning)
    deltas.check(artifacts.saving_of(config), shared=True)
    continuous_batching.check(config.tune.slots, shared=True)
    bulk.check(config, config.method.startswith('pti'))
    if config.group and config.sweep.num_steps:
        raise JaxinvError(
            f'group={config.group} and sweep.num_steps={config.sweep.num_steps} do not go '
            'together; sweep a few pictures with group=0.'
        )
    if config.method.startswith('pti') and not tuning.shared:
        raise JaxinvError(
            f'method {config.method} tunes one generator for all pictures (tune.shared=True); '
            'run pictures one by one for a generator each.'
        )
    sam.check(search_settings(config))
    sam.check(measuring_settings(config))
    sam_prior.check(prior_settings(config))
    if config.edit_mixing not in ('with_offsets', 'official'):
        raise JaxinvError(
            f"edit_mixing is {config.edit_mixing!r}; it can be 'with_offsets' or 'official'."
        )


def search_settings(config) -> sam.Settings:
    settings = sam.Settings(**config.sam.to_dict())
    if config.method == 'gaussian_prior':
        settings = settings._replace(prior_weight=config.gaussian_prior_weight)
    return settings


def measuring_settings(config) -> sam.Settings:
    s = config.invertibility
    settings = sam.Settings(**config.sam.to_dict())
    return settings._replace(num_steps=s.num_steps, learning_rate=s.learning_rate)


def prior_settings(config) -> sam_prior.Settings:
    return sam_prior.Settings(**config.prior.to_dict())
