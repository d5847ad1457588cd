"""Strengths in units, edits as JSON, and the way between two identities."""

import functools
import itertools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinv
from jaxinv import edits, rendering, report
from jaxinv.edits import directions as direction_files
from jaxinv.edits import record
from jaxinv.edits.solve import search_range, solve_strength
from jaxinv.errors import JaxinvError
from jaxinv.experiments import evaluate, sam_score
from jaxinv.faces import measures
from jaxinv.inversion import sam
from jaxinv.inversion.invert_sam import Inverted


@pytest.fixture(scope='module')
def w(tiny):
    spec = tiny[0].spec
    return np.random.default_rng(1).normal(size=(2, 1, spec.w_dim)).astype('f4')


@pytest.fixture(scope='module')
def mine(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp('directions') / 'mine.npy'
    np.save(path, np.random.default_rng(2).normal(size=tiny[0].spec.w_dim).astype('f4'))
    return path


@pytest.fixture
def packaged(monkeypatch, tiny, tmp_path):
    """'yaw' with a calibrated range, in the generator's W."""
    array = np.random.default_rng(3).normal(size=(1, tiny[0].spec.w_dim)).astype('f4')
    np.savez(tmp_path / 'ffhq.npz', yaw=array / np.linalg.norm(array))
    about = {'directions': {'yaw': {'strengths': [-2, 2]}}}
    (tmp_path / 'ffhq.json').write_text(json.dumps(about))
    monkeypatch.setattr(direction_files, 'DIRECTIONS', tmp_path)


def red(images_uint8):
    """A measurement: the mean of red, and an attribute that is never measured."""
    values = images_uint8[..., 0].mean((1, 2)).astype(np.float64)
    return {'red': values, 'face': np.full(len(values), np.nan)}


# --- Strengths in units ---------------------------------------------------------------------------

CASES = {
    'linear': (lambda s: 3 + 2 * s, 5.0, 2.5),
    'falling': (lambda s: 1 - s, 2.0, -2.0),
    'curved': (lambda s: s**3, -8.0, -2.0),
    'hump': (lambda s: s * (4 - s), 3.0, 1.0),  # also at 3, which is farther
    'none': (lambda s: 7 + s, 0.0, 0.0),
}


@pytest.mark.parametrize('case', list(CASES))
def test_strength_of_a_function(case):
    function, change, expected = CASES[case]
    calls = []

    def values(strengths):
        calls.append(len(strengths))
        return function(strengths)

    found = solve_strength(values, change, -4, 4, 0.01)
    assert found.reached and abs(found.strength - expected) < 0.02
    assert abs(found.change - change) <= 0.01 and max(calls) <= rendering.BATCH
    assert found.change == pytest.approx(function(found.strength) - function(0.0))


def test_strength_that_is_out_of_reach_or_not_measurable():
    found = solve_strength(lambda s: 2 * s, 9.0, -1, 3, 0.1)
    assert found == (3.0, 6.0, False)
    # A face is found up to 2.2 only, where the change is 4.4.
    lost = solve_strength(lambda s: np.where(s < 2.2, 2 * s, np.nan), 4.0, -3, 3, 0.1)
    assert lost.reached and abs(lost.strength - 2) < 0.05
    lost = solve_strength(lambda s: np.where(s < 2.2, 2 * s, np.nan), 5.0, -3, 3, 0.1)
    assert not lost.reached and 1.5 < lost.strength < 2.2
    with pytest.raises(edits.EditError, match='cannot be measured'):
        solve_strength(lambda s: np.full(s.shape, np.nan), 1.0, -1, 1, 0.1)


def test_edit_in_a_unit_makes_the_change_for_each_identity(tiny, w, mine):
    generator, weights = tiny
    spec = generator.spec
    (edit,) = edits.parse([f'{mine}=0.3,{mine}=red:12u'], '')
    assert edit.name == 'mine=0.3,mine=red:12u' and not edit.is_solved
    assert edit.parts == (('mine', 0.3), ('mine (red, u)', 12.0))
    with pytest.raises(edits.EditError, match='jaxinv.edits.solve'):
        edits.apply(w, edit, spec.num_ws)
    images_of = functools.partial(rendering.render, generator, weights)
    strengths = []
    for i in range(2):
        own = w[i : i + 1]
        found = edits.solve(edit, images_of, red, own, spec)
        (step,) = found.steps
        strengths.append(step.strength)
        assert found.edit.is_solved and found.edit.steps[1][1] == step.strength
        # Slow and obvious: the picture before the step, and the picture after it.
        direction = np.load(mine)
        before = images_of(own + 0.3 * direction)
        after = images_of(own + np.float32(0.3 + step.strength) * direction)
        change = np.diff([red(jaxinv.pixels.to_uint8(x))['red'][0] for x in (before, after)])
        assert abs(change[0] - 12) < 1 and abs(step.change - change[0]) < 0.2
        assert 'measured red +' in str(step)
    assert abs(strengths[0] - strengths[1]) > 1e-3
    images = jaxinv.render(generator, weights, w, edit, measure=red)
    plain = jaxinv.render(generator, weights, w, f'{mine}=0.3')
    change = red(jaxinv.pixels.to_uint8(images))['red'] - red(jaxinv.pixels.to_uint8(plain))['red']
    np.testing.assert_allclose(change, 12, atol=1)
    far = edits.parse([f'{mine}=red:250u'], '')[0]
    with pytest.raises(edits.EditError, match='not reached for this picture: of the strengths'):
        edits.solve(far, images_of, red, w[:1], spec)
    closest = edits.solve(far, images_of, red, w[:1], spec, strict=False)
    assert not closest.steps[0].reached and '(not reached)' in str(closest.steps[0])


def test_mistakes_of_units(tiny, w, mine, packaged):
    generator, weights = tiny
    for spec, words in (
        (f'{mine}=10px', "unit 'px'; units are deg"),
        ('yaw=10y', 'yaw is measured in deg, not y'),
        ('yaw:=10deg', 'with =, not with :='),
        ('yaw=1x5deg', 'not an edit'),
    ):
        with pytest.raises(edits.EditError, match=words):
            edits.parse(spec, mean=np.zeros(16))
    (edit,) = edits.parse(f'{mine}=rde:10u')
    with pytest.raises(edits.EditError, match="rde is not measured.*Did you mean 'red'"):
        edits.check(edit, generator.spec, red(np.zeros((0, 8, 8, 3), np.uint8)))
    (edit,) = edits.parse(f'{mine}=face:10u')
    images_of = functools.partial(rendering.render, generator, weights)
    with pytest.raises(edits.EditError, match='cannot be measured'):
        edits.solve(edit, images_of, red, w[:1], generator.spec)
    lost = edits.solve(edit, images_of, red, w[:1], generator.spec, strict=False)
    assert lost.edit.steps[0][1] == 0 and not lost.steps[0].reached


def test_range_is_the_calibrated_one_and_going_beyond_it_warns_once(tiny, packaged, mine):
    spec = tiny[0].spec
    (edit,) = edits.parse('yaw=10deg')
    assert search_range(edit.steps[0][0], spec) == (-2, 2)
    low, high = search_range(edits.parse(f'{mine}=1')[0].steps[0][0], spec)
    assert high == -low and high * np.linalg.norm(np.load(mine)) == pytest.approx(6)
    with pytest.warns(edits.EditWarning) as caught:
        edits.parse(['yaw=2.5/3/-1', 'yaw=-2.5'])
    assert [str(w.message) for w in caught] == [
        'yaw=3 is outside the range -2 to 2 in which the edit was validated.'
    ]
    edits.parse('yaw=2/-2')  # no warning, which would be an error here


# --- JSON -----------------------------------------------------------------------------------------


@pytest.fixture
def sequence(tiny, mine, packaged):
    """Steps of all kinds."""
    generator, weights = tiny
    spec = generator.spec
    parsed = edits.parse(
        [f'yaw[0:8]=1.5,{mine}:=0.5,sefa1=1,style:b16_conv1/3=4'],
        mean=weights['buffers']['w_avg'],
        generator=generator,
        weights=weights,
    )
    rng = np.random.default_rng(4)
    drag = edits.of_arrays('drag', rng.normal(size=(spec.num_ws, spec.w_dim)))
    text = edits.of_arrays('beard', styles={'b8_conv1': rng.normal(size=(1, 8))})
    target = edits.Direction('mix', rng.normal(size=(1, spec.w_dim)).astype('f4'), (9, None), True)
    mixed = edits.Edit('mix', ((target, 0.5),))
    return edits.join([*parsed, drag, text, mixed], 'all')


def test_json_reproduces_an_edit(tiny, w, sequence, tmp_path):
    generator, weights = tiny
    spec = generator.spec
    edits.save(tmp_path / 'all.json', sequence, generator, weights)
    found = edits.load(tmp_path / 'all.json', generator, weights)
    assert found.name == 'all' and found.parts == sequence.parts
    assert [d.limits for d, _ in found.steps][:2] == [(-2, 2), None]
    expected = edits.apply(w, sequence, spec.num_ws)
    np.testing.assert_array_equal(edits.apply(w, found, spec.num_ws), expected)
    offsets = edits.style_offsets(found, spec)
    assert set(offsets) == {'b16_conv1', 'b8_conv1'}
    expected = jaxinv.render(generator, weights, w, sequence)
    for given in (str(tmp_path / 'all.json'), tmp_path / 'all.json', found):
        np.testing.assert_array_equal(jaxinv.render(generator, weights, w, given), expected)


def test_json_of_a_strength_in_a_unit(mine, tmp_path):
    (edit,) = edits.parse(f'{mine}=red:12u')
    edits.save(tmp_path / 'a.json', edit)
    assert edits.load(tmp_path / 'a.json').steps[0][1] == edits.Wanted(12.0, 'u', 'red')
    edits.save(tmp_path / 'b.json', edit)
    names = [e.name for e in edits.parse([f'{tmp_path}/a.json', f'{tmp_path}/b.json'])]
    assert names == ['mine=red:12u', f'{tmp_path}/b.json']


def test_json_of_another_generator(tiny, sequence, tmp_path):
    generator, weights = tiny
    content = edits.to_json(sequence, generator, weights)
    content['generator']['w_probe'][0][0] += 5
    with pytest.raises(edits.EditError, match="another generator's W"):
        edits.from_json(content, generator, weights)
    content['generator'] |= {'w_dim': 512, 'name': 'other'}
    with pytest.raises(edits.EditError, match='made for other, whose w_dim is 512'):
        edits.from_json(content, generator, weights)
    assert edits.from_json(content).name == 'all'


def test_damaged_json_is_refused_in_one_sentence(tiny, sequence, tmp_path):
    content = edits.to_json(sequence, *tiny)
    assert edits.from_json(json.loads(json.dumps(content))).name == 'all'
    step = content['steps'][0]
    bad = [None, -1, 'x', [], {}, [1], True, float('nan'), 10**40, {'shape': [2**40]}]
    refused = 0
    for field, value in itertools.product(step, bad):
        try:
            edits.from_json({**content, 'steps': [{**step, field: value}]})
        except edits.EditError as error:
            refused += 'step 1 of edit' in str(error)
    assert refused >= len(bad) * len(step) - 8  # name 'x', rows and limits None, ...
    for change, words in (
        ({'jaxinv_edit': 2}, 'reads version 1'),
        ({'steps': []}, '1 to 1000 steps'),
        ({'more': 1}, "unknown field 'more'"),
        ({'steps': [{**step, 'array': {'shape': [1, 16], 'float32': 'AAAA'}}]}, 'not the values'),
        ({'steps': [{**step, 'kind': 'exec'}]}, 'none of the kinds'),
    ):
        with pytest.raises(edits.EditError, match=words):
            edits.from_json({**content, **change})
    for text in ('[1]', '{', '{"a": 1}'):
        (tmp_path / 'x.json').write_text(text)
        with pytest.raises(edits.EditError, match='not an edit of jaxinv'):
            edits.load(tmp_path / 'x.json')
    assert record.VERSION == 1


# --- Morphs ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_morph_goes_from_one_tuned_generator_to_another(tiny, w):
    generator, weights = tiny
    rng = np.random.default_rng(5)

    def tuned(leaf):
        return leaf + 0.1 * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)

    other = {**weights, 'params': jax.tree.map(tuned, weights['params'])}
    start, end = (weights, w[:1]), (other, w[1:])
    frames = edits.morph(generator, start, end, frames=3)
    assert isinstance(frames, types.GeneratorType)  # one frame at a time
    first, middle, last = frames
    np.testing.assert_allclose(first, rendering.render(generator, *start)[0], atol=1e-3)
    np.testing.assert_allclose(last, rendering.render(generator, *end)[0], atol=1e-3)
    half = jax.tree.map(lambda a, b: (a + b) / 2, weights['params'], other['params'])
    expected = rendering.render(generator, {**weights, 'params': half}, w.mean(0, keepdims=True))
    np.testing.assert_allclose(middle, expected[0], atol=1e-3)
    assert np.abs(middle - (first + last) / 2).max() > 1e-2  # not a cross-fade


def test_morph_of_one_generator_moves_the_code_only(tiny, w):
    generator, weights = tiny
    pair = (weights, w[:1]), (weights, np.repeat(w[1:], generator.spec.num_ws, 1))
    found = list(edits.morph(generator, *pair, amounts=(0, 0.25, 1, 1.5, 0.5)))
    for amount, frame in zip((0, 0.25, 1, 1.5, 0.5), found, strict=True):
        code = (1 - amount) * w[:1] + amount * w[1:]
        np.testing.assert_allclose(frame, rendering.render(generator, weights, code)[0], atol=1e-3)


def test_mistakes_of_morphs(tiny, w):
    generator, weights = tiny
    one = (weights, w[:1])
    with pytest.raises(JaxinvError, match='at least 2'):
        edits.morph(generator, one, one, frames=1)
    with pytest.raises(JaxinvError, match='give one'):
        edits.morph(generator, one, (weights, w))
    synthesis = {k: v for k, v in weights['params']['synthesis'].items() if k != 'b8'}
    other = {**weights, 'params': {'synthesis': synthesis}}
    with pytest.raises(JaxinvError, match='different architectures: .*b8'):
        edits.morph(generator, one, (other, w[:1]))


# --- In runs --------------------------------------------------------------------------------------


def session_of(tiny, names):
    lines = []
    return types.SimpleNamespace(
        generator=tiny[0],
        targets=types.SimpleNamespace(names=names),
        config=types.SimpleNamespace(edit_mixing='with_offsets'),
        log=lambda line, **_: lines.append(line),
        lines=lines,
    )


def test_strengths_in_units_of_sam_codes(tiny, w, mine, monkeypatch):
    """Codes in W+ alone: the same strengths as those of the plain generator."""
    generator, weights = tiny
    monkeypatch.setattr(measures, 'steering', lambda names: red)
    plus = np.repeat(w, generator.spec.num_ws, 1)
    found = Inverted(('a', 'b'), w, weights, sam.Codes(plus, {}), {}, None, None, [])
    parsed = edits.parse([f'{mine}=red:12u', f'{mine}=0.5'], '')
    session = session_of(tiny, ['a', 'b'])
    deltas, solutions = sam_score.deltas_of(session, found, parsed)
    assert deltas.shape == (2, *plus.shape) and len(session.lines) == 2
    assert session.lines[1].startswith('b: mine=red:12u: strength')
    images_of = functools.partial(rendering.render, generator, weights)
    for i in range(2):
        plain = edits.solve(parsed[0], images_of, red, plus[i : i + 1], generator.spec)
        strength = plain.steps[0].strength
        assert solutions[i][0].steps[0].strength == pytest.approx(strength, abs=1e-3)
        expected = strength * np.load(mine) + 0 * deltas[0, i]
        np.testing.assert_allclose(deltas[0, i], expected, atol=1e-3)
        np.testing.assert_allclose(deltas[1, i], 0.5 * np.load(mine) + 0 * expected, atol=1e-5)
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    results = [report.EditResult(e.name, e.parts, pictures, np.zeros(2)) for e in parsed]
    results = evaluate.with_strengths(results, solutions)
    assert list(results[0].strengths['mine']) == [own[0].steps[0].strength for own in solutions]
    assert results[1].strengths == {}
    style = edits.of_arrays('s', styles={'b8_conv1': np.ones((1, 8))})
    with pytest.raises(edits.EditError, match='edits of codes of SAM move w'):
        jaxinv.render(generator, weights, found, style)
