"""Settings: one declaration for defaults, checks, configs, help and the record of a run."""

import dataclasses
import importlib
import pathlib
import re
import subprocess
import sys

import limits
import pytest

from jaxinv import defaults, launch, settings
from jaxinv.errors import JaxinvError
from jaxinv.settings import Invert, InvertSam, Locality, Projection, Search, Tuning

ROOT = pathlib.Path(__file__).parent.parent
TASKS = [method.settings for method in settings.METHODS.values()]
# Keys that bound memory or time, or decide how often a run is saved: results are the same.
SAME_RESULT = {
    'mesh',
    'preview',
    'remat',
    'runs',
    'pivot.batch_per_device',
    'pivot.chunk_steps',
    'tune.microbatch',
    'tune.resident',
    'tune.slots',
    'tune.chunk_steps',
    'sam.batch_per_device',
    'sam.chunk_steps',
    'invertibility.spaces_at_once',
    'batch_per_device',
    'samples.chunk',
    'chunk_steps',
    'images_per_pass',
    'chunk',
}
HEAVY = ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'scipy', 'PIL', 'matplotlib')


def config_variants():
    for name in launch.config_names():
        module = importlib.import_module(f'jaxinv.configs.{name}')
        with pytest.raises(ValueError) as error:
            module.get_config('nope')
        for variant in ('', *str(error.value).partition('known: ')[2].strip('.').split(', ')):
            yield pytest.param(module, variant, id=f'{name}:{variant}')


def task_keys():
    for cls in TASKS:
        for key in settings.keys(cls):
            yield pytest.param(cls, key, id=f'{cls.__name__}-{key.path}')


def value_at(config, key):
    return (config[key.section.section] if key.section.section else config)[key.name]


def set_at(config, key, value):
    (config[key.section.section] if key.section.section else config)[key.name] = value


# --- Defaults and configs ---


@pytest.mark.parametrize('cls', TASKS)
def test_a_config_of_defaults_holds_the_settings_defaults(cls):
    config = defaults.get_config(cls().task)
    assert settings.of(config, cls) == cls()
    settings.check(config)
    for key in settings.keys(cls):
        assert value_at(config, key) == key.default


@pytest.mark.parametrize(('module', 'variant'), list(config_variants()))
def test_every_variant_of_every_config_can_be_used(module, variant):
    config = module.get_config(variant)
    settings.check(config)
    assert config.to_dict().keys() <= {
        key.path.partition('.')[0] for key in settings.keys(settings.METHODS[config.task].settings)
    }


def test_the_papers_variant_of_pti_is_the_defaults():
    from jaxinv.configs import pti_multi_id

    assert pti_multi_id.get_config('paper').to_dict() == defaults.get_config('invert').to_dict()
    run = settings.of(pti_multi_id.get_config('paper'), Invert)
    assert (run.pivot.num_steps, run.pivot.learning_rate) == (450, 5e-3)
    assert (run.tune.num_steps, run.tune.learning_rate) == (350, 3e-4)
    assert (run.tune.locality.weight, run.tune.locality.alpha) == (0.1, 30.0)


def test_quick_budgets_of_pti_differ_in_steps_and_pivot_rate_only():
    from jaxinv.configs import pti_multi_id

    quick, paper = pti_multi_id.get_config(), pti_multi_id.get_config('paper')
    changed = {
        key.path for key in settings.keys(Invert) if value_at(quick, key) != value_at(paper, key)
    }
    assert changed == {'pivot.num_steps', 'pivot.learning_rate', 'tune.num_steps'}


def test_a_misspelt_key_in_a_config_file_is_refused():
    config = defaults.get_config('invert')
    with pytest.raises(AttributeError, match='num_steps'):
        config.pivot.num_step = 3
    with config.unlocked():
        config.pivot.num_step = 3
    with pytest.raises(JaxinvError, match='config.pivot has no key num_step; did you mean num_st'):
        settings.check(config)
    with pytest.raises(JaxinvError, match='config has no key meshh; did you mean mesh'):
        settings.check({'task': 'invert', 'meshh': ''})
    with pytest.raises(JaxinvError, match="task is 'inverse'; it can be invert, invert_sam"):
        settings.check({'task': 'inverse'})


def test_choices_are_those_of_the_code():
    from jaxinv.experiments import direction_regression
    from jaxinv.generators import OPTIONS
    from jaxinv.inversion import masks, sam
    from jaxinv.networks import invertibility

    choices = {key.path: key.rule.choices for cls in TASKS for key in settings.keys(cls)}
    assert choices['choose.kinds'] == tuple(direction_regression.COSTS)
    assert set(choices['size']) == set(invertibility.SIZES)
    assert set(choices['latent']) == set(sam.SPACES)
    assert set(choices['invertibility.resample']) == set(masks.RESAMPLERS)
    assert set(OPTIONS) <= choices.keys()


# --- Checks ---


@pytest.mark.parametrize(('cls', 'key'), list(task_keys()))
def test_every_key_has_a_sentence_and_refuses_what_is_out_of_range(cls, key):
    rule, wrong = key.rule, []
    assert rule.sentence[0].isupper() or rule.sentence[0] in "'l0", rule.sentence
    assert rule.sentence.endswith('.')
    if rule.least is not None:
        wrong.append((rule.least - 1, f'at least {rule.least:g}'))
    if rule.above is not None:
        wrong.append((rule.above, f'above {rule.above:g}'))
    if rule.most is not None:
        wrong.append((rule.most + 1, f'at most {rule.most:g}'))
    if rule.below is not None:
        wrong.append((rule.below, f'below {rule.below:g}'))
    if rule.choices is not None:
        wrong.append((('?',) if key.kind is tuple else '?', 'it can be '))
    if key.kind in (int, float):
        wrong += [('1', 'number'), (float('nan'), 'number'), (True, 'number')]
    if not key.optional:
        wrong.append((None, 'it must be '))
    for value, words in wrong:
        section = key.section()
        with pytest.raises(JaxinvError) as error:
            section.replace(**{key.name: value}).check()
        message = str(error.value)
        assert message.startswith(f'{key.path} is {value!r}; it ') and words in message
        assert '\n' not in message
    for file in re.findall(r'(?:jaxinv|docs)/[\w/]+\.\w+', rule.sentence):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'group': -1}, 'group is -1; it must be at least 0'),
        (
            {'group': 4, 'data': {'faces': 'all'}, 'tune': {'shared': False}},
            "data.faces is 'all' and group is 4",
        ),
        ({'tune': {'slots': 2}}, 'tune.slots is 2 and tune.shared is True.*pti_single_id'),
        ({'tune': {'save': 'bfloat16'}}, "tune.save is 'bfloat16'.*pti_single_id"),
        ({'tune': {'locality': {'norm': 'z'}}}, "locality.norm is 'z'; it can be 'all_layers' or"),
    ],
)
def test_settings_of_pti_that_exclude_each_other_are_refused(changes, words):
    with pytest.raises(JaxinvError, match=words):
        settings.changed(Invert(), **changes)
    with pytest.raises(JaxinvError, match=words):
        settings.changed(InvertSam(method='pti'), **changes)


def test_settings_that_go_together_pass():
    settings.changed(Invert(), group=4, tune={'shared': False, 'slots': 2, 'save': 'low_rank'})
    settings.changed(Invert(), group=4)
    settings.changed(InvertSam(), group=4)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'method': 'f5'}, "method is 'f5'; it can be 'w', 'w_plus'"),
        ({'method': 'pti', 'tune': {'shared': False}}, 'tune.shared is False.*one by one'),
        ({'group': 2, 'sweep': {'num_steps': 5}}, 'sweep.num_steps is 5.*group=0'),
        ({'invertibility': {'tau': 0.0}}, 'invertibility.tau is 0.0; it must be above 0 and bel'),
    ],
)
def test_settings_of_sam_that_exclude_each_other_are_refused(changes, words):
    with pytest.raises(JaxinvError, match=words):
        settings.changed(InvertSam(), **changes)


# --- Keyword arguments ---


def test_an_unknown_keyword_names_the_close_one_and_all():
    with pytest.raises(JaxinvError) as error:
        settings.changed(Projection(), num_step=3)
    assert str(error.value) == (
        'Projection has no setting num_step; did you mean num_steps? It has: '
        f'{", ".join(field.name for field in dataclasses.fields(Projection))}.'
    )
    with pytest.raises(JaxinvError, match='Locality has no setting wight; did you mean weight'):
        settings.changed(Tuning(), locality={'wight': 1.0})
    with pytest.raises(JaxinvError, match='Search has no setting xyzzy. It has: num_steps'):
        settings.changed(Search(), xyzzy=1)
    with pytest.raises(JaxinvError, match='locality is 3; it can be a Locality or a dict'):
        settings.changed(Tuning(), locality=3)


def test_changed_settings_are_copies_and_equal_ones_are_one_key():
    tuning = settings.changed(Tuning(), num_steps=80, locality={'weight': 0.0})
    assert tuning == Tuning(num_steps=80, locality=Locality(weight=0.0)) != Tuning()
    assert {tuning: 'program'}[Tuning(num_steps=80).replace(locality=Locality(weight=0.0))]
    assert tuning.metrics == ('loss', 'l2', 'lpips_alex', 'locality')


def test_settings_of_the_two_searches_of_sam():
    config = defaults.get_config('invert_sam')
    config.invertibility.num_steps, config.invertibility.learning_rate = 7, 0.2
    config.sam.l2_weight = 3.0
    measuring = settings.measuring_settings(config)
    assert measuring == Search(num_steps=7, learning_rate=0.2, l2_weight=3.0)
    assert settings.search_settings(config) == Search(l2_weight=3.0)
    config.method = 'gaussian_prior'
    assert settings.search_settings(config) == Search(l2_weight=3.0, prior_weight=1e-6)


# --- Record of a run ---


def test_the_keys_without_influence_on_results():
    free = {key.path for cls in TASKS for key in settings.keys(cls) if not key.rule.changes_result}
    assert free == SAME_RESULT


@pytest.mark.parametrize(('cls', 'key'), list(task_keys()))
def test_a_run_continues_with_another_value_only_where_results_are_the_same(cls, key):
    if key.name == 'task':
        return
    config = defaults.get_config(cls().task)
    record = settings.record_of(config)
    others = {bool: (True, False), int: (3, 5), float: (0.1, 0.3), str: ('x',), tuple: (('x',),)}
    other = next(value for value in others[key.kind] if value != key.default)
    set_at(config, key, other)
    assert (settings.record_of(config) == record) == (key.path in SAME_RESULT)
    assert value_at(config, key) == other  # the config itself keeps all keys


def test_settings_of_later_versions_do_not_stop_an_earlier_run():
    config = defaults.get_config('invert')
    record = settings.record_of(config)
    assert 'generator_key' not in record and 'paste' not in record
    assert 'start' not in record['pivot']
    config.paste, config.pivot.start = True, 'encoder:a.pt'
    changed = settings.record_of(config)
    assert changed['paste'] is True and changed['pivot']['start'] == 'encoder:a.pt'


# --- Command line ---


def run_python(code):
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=limits.SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_config_and_no_help_imports_jax():
    found = run_python(
        f"""
import importlib, sys
from jaxinv import launch
def heavy():
    return sorted(set({HEAVY!r}) & sys.modules.keys())
for name in launch.config_names():
    importlib.import_module(f'jaxinv.configs.{{name}}').get_config()
    print(name, heavy())
for name in launch.config_names():
    launch.flags.FLAGS.unparse_flags()
    try:
        launch.parse_flags(['launch', f'--config={{name}}', '--help'])
    except SystemExit as end:
        assert end.code == 0
    print(name, heavy(), file=sys.stderr)
    assert not heavy()
"""
    )
    assert re.findall(r'^\w+ \[.*\]$', found, re.M) == [
        f'{name} []' for name in launch.config_names()
    ]


@pytest.mark.parametrize('task', settings.METHODS)
def test_help_explains_every_key(task):
    config = defaults.get_config(task)
    text = defaults.explain(config)
    words = ' '.join(text.split())
    for key in settings.keys(settings.METHODS[task].settings):
        assert f'\n  --config.{key.path}={key.default!r}\n' in text
        assert ' '.join(key.rule.sentence.split()) in words
    assert max(map(len, text.splitlines())) <= 100 or 'edits' in text


def test_help_shows_the_values_of_a_variant():
    from jaxinv.configs import sam

    text = defaults.explain(sam.get_config('paper,f6'))
    assert "\n  --config.method='f6'\n" in text and '\n  --config.sam.num_steps=1001\n' in text


@pytest.mark.parametrize(('old', 'new'), settings.RENAMED.items())
def test_an_earlier_name_of_a_key_is_taken_with_a_sentence(old, new, capsys):
    assert launch._current_key(f'--config.{old}=4') == f'--config.{new}=4'
    assert launch._current_key(f'-config.{old}') == f'--config.{new}'
    told = capsys.readouterr().err.splitlines()
    assert told == [f'config.{old} is now config.{new}; taken as that.'] * 2
    paths = {key.path for cls in TASKS for key in settings.keys(cls)}
    assert new in paths and old not in paths


@pytest.mark.parametrize('arg', ['--config.pivot.num_steps=4', '--config=pti', '--at_once=4', 'x'])
def test_other_arguments_stay(arg, capsys):
    assert launch._current_key(arg) == arg
    assert capsys.readouterr() == ('', '')


def test_the_earlier_name_works_on_the_command_line():
    command = [sys.executable, '-m', 'jaxinv.launch', '--config=pti_single_id', '--help']
    command.append('--config.pivot.at_once=5')
    done = subprocess.run(command, capture_output=True, text=True, timeout=limits.SECONDS)
    assert done.returncode == 0, done.stderr
    assert '--config.pivot.batch_per_device=5\n' in done.stdout
    assert done.stderr.strip() == (
        'config.pivot.at_once is now config.pivot.batch_per_device; taken as that.'
    )


def test_a_run_of_many_pictures_without_groups_says_how_to_save_memory():
    from jaxinv.configs import pti_multi_id, sam
    from jaxinv.experiments.session import MANY, memory_hint

    for config in (pti_multi_id.get_config(''), sam.get_config('')):
        assert memory_hint(config, MANY) == ''
        assert memory_hint(config, MANY + 1).startswith('65 pictures') and '--config.group' in (
            memory_hint(config, MANY + 1)
        )
        config.scores = 'psnr'
        assert memory_hint(config, 1000) == ''
        config.scores, config.group = 'all', 8
        assert memory_hint(config, 1000) == ''
