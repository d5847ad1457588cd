"""The spelling of methods to compare, and what of it is refused before any work."""

import pytest

from jaxinv import metrics, settings
from jaxinv.configs import evaluate
from jaxinv.errors import JaxinvError
from jaxinv.experiments import method_runs
from jaxinv.settings import evaluation, method_list


def test_methods_by_their_spelling():
    text = (
        r'w, F6,pti:official,mine=pti_multi_id?tune.num_steps=20&edits=("a","b"),e4e:a/b.pt,'
        r'sam:f6+paper, external:out\,side'
    )
    found = method_list.parse(text)
    assert [(m.name, m.config, m.variants, m.folder) for m in found] == [
        ('w', 'sam', 'w', ''),
        ('F6', 'sam', 'f6', ''),
        ('pti:official', 'pti_single_id', 'official', ''),
        ('mine', 'pti_multi_id', '', ''),
        ('e4e:a/b.pt', 'sam', 'e4e', ''),
        ('sam:f6+paper', 'sam', 'f6,paper', ''),
        ('external:out,side', '', '', 'out,side'),
    ]
    assert found[3].overrides == (('tune.num_steps', '20'), ('edits', '("a","b")'))
    assert found[4].overrides == (('pivot.start', 'encoder:a/b.pt'),)


@pytest.mark.parametrize(
    ('text', 'folders'),
    [
        ('external:"a,b",pti', ['a,b', '']),
        ("external:/d/O'Brien,pti,x=external:/d/O'Hara?", ["/d/O'Brien", '', "/d/O'Hara?"]),
        ('"my, row"=external: "a?b=1" ,"external:a,b"', ['a?b=1', 'a,b']),
        ('x=external:\'it"s\',y=external:"it\'s, too"', ['it"s', "it's, too"]),
    ],
)
def test_quotes_are_around_a_value_and_apostrophes_in_it(text, folders):
    assert [method.folder for method in method_list.parse(text)] == folders


def test_quotes_around_files_settings_and_names():
    text = '"a, b"=e4e:"a?b,c.pt"?pivot.num_steps=3&start="x&y",w?start=/d/O\'Brien&seed=3'
    first, second = method_list.parse(text)
    assert first.name == 'a, b' and second.config == 'sam'
    assert dict(first.overrides)['pivot.start'] == 'encoder:a?b,c.pt'
    assert dict(first.overrides)['start'] == '"x&y"'
    assert second.overrides == (('start', "/d/O'Brien"), ('seed', '3'))


def test_configs_are_spelled_in_upper_and_lower_case_alike():
    found = method_list.parse('SAM,Pti,PTI_multi_id:official,W_Plus,E4E:A/B.pt')
    assert [(m.config, m.variants) for m in found] == [
        ('sam', ''), ('pti_single_id', ''), ('pti_multi_id', 'official'), ('sam', 'w_plus'),
        ('sam', 'e4e'),
    ]  # fmt: skip
    config = evaluate.get_config('test')
    config.methods = 'SAM,Pti_Multi_ID'
    assert [row.config.task for row in method_runs.rows_of(config)] == ['invert_sam', 'invert']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (' , ', 'name one at least'),
        ("pti,external:'a,sam", "has a quote ' that does not close; close it, or put"),
        ('w,w', "two rows 'w'"),
        ('pti?tune.num_steps', 'not KEY=VALUE'),
        ('e4e', 'needs an encoder; write e4e:FILE'),
        ('external:', 'names no folder'),
        ('pti:', 'ends with a colon'),
    ],
)
def test_a_spelling_that_is_none_is_refused(text, message):
    with pytest.raises(JaxinvError, match=message):
        method_list.parse(text)


@pytest.mark.parametrize(
    ('methods', 'message'),
    [
        ('w_pluss', 'no method w_pluss; did you mean w_plus'),
        ('sam:nope', "Unknown variant 'nope'"),
        ('pti?tune.num_step=3', 'no key tune.num_step; did you mean tune.num_steps'),
        ('pti?tune.num_steps=many', "tune.num_steps is 'many'; it must be a whole number"),
        ('pti?tune.num_steps=-3', 'tune.num_steps is -3; it must be at least 0'),
        ('external:/nowhere/at/all', 'no pictures in that folder'),
    ],
)
def test_a_method_that_cannot_be_used_is_refused_before_any_work(methods, message):
    config = evaluate.get_config('test')
    config.methods = methods
    with pytest.raises(JaxinvError, match=message):
        method_runs.rows_of(config)


def test_settings_reach_the_methods():
    config = evaluate.get_config('test')
    config.group, config.seed = 4, 7
    config.methods = (
        'pti:official?tune.stop_lpips=None&tune.lpips_net=vgg&pivot.space="w_plus",'
        'pti_sam,sam?invertibility.spaces=("W+","F6")&seed=3&sam.learning_rate=1'
    )
    first, second, third = (row.config for row in method_runs.rows_of(config))
    assert (first.tune.stop_lpips, first.tune.lpips_net) == (None, 'vgg')
    assert (first.pivot.space, first.group, first.seed, first.generator) == ('w_plus', 4, 7, 'tiny')
    assert (second.method, second.group) == ('pti_sam', 4)
    assert (third.invertibility.spaces, third.seed) == (('W+', 'F6'), 3)
    assert third.sam.learning_rate == 1.0 and third.edits == ()
    assert first.scores == third.scores == 'psnr'  # the comparison measures the pictures


def test_choices_are_those_of_the_code():
    assert set(evaluation.IMAGE_METRICS) == set(metrics.PROTOCOLS)
    assert set(settings.Measures().identity) <= set(method_list.JUDGES)
    for name, where, kind in (
        ('arcface', 'identity', 'arcface'),
        ('curricularface', 'identity', 'curricularface'),
        ('inception', 'sets', 'fid_inception'),
    ):
        with pytest.raises(JaxinvError, match=f'measure.{name} is empty'):
            settings.Measures(**{where: (kind,)}, rank_by='mse_signed').check()
        if where == 'identity':
            with pytest.raises(JaxinvError, match=f'measure.{name} is empty'):
                evaluation.EditMeasures(identity=(kind,)).check()
    with pytest.raises(JaxinvError, match="rank_by is 'id_dlib'; it can be lpips"):
        settings.Measures(identity=(), rank_by='id_dlib').check()
    config = evaluate.get_config('test')
    config.statistics.reference = 'sam'
    with pytest.raises(JaxinvError, match="reference is 'sam'; it can be w, pti"):
        settings.check(config)


def test_configs_that_can_be_methods_are_those_of_inversions():
    known = method_runs.known_configs()
    assert {'pti_single_id', 'pti_multi_id', 'pti_biggan', 'sam', 'sam_biggan'} == set(known)
    config = evaluate.get_config('test')
    config.methods = 'train_encoder'
    with pytest.raises(JaxinvError, match='no method train_encoder'):
        method_runs.rows_of(config)
