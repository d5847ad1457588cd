"""Fitting directions of a synthetic generator, whose true directions are known.

Its pixels encode w. The attributes are nearly linear in the decoded w, the identity embedding is
linear, so the only other error is the rounding to 8 bits.
"""

import dataclasses
import importlib.util
import itertools
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import edits
from jaxinv.errors import JaxinvError
from jaxinv.experiments import (
    direction_regression,
    direction_validation,
    fit_directions,
    sampling,
)
from jaxinv.faces import controls, measures
from jaxinv.types import Generator, GeneratorSpec

W_DIM = 12
RNG = np.random.default_rng(0)
TRUE = {name: RNG.normal(size=W_DIM) for name in ('smile', 'age', 'yaw', 'gender')}
ATTRIBUTES = ('smile', 'age', 'yaw')  # gender is only held fixed
MIXING = RNG.normal(size=(W_DIM, W_DIM)) * np.linspace(0.5, 0.1, W_DIM)[:, None]
EMBEDDING = RNG.normal(size=(W_DIM, 5)) * 0.1
SCALE = 0.15  # keeps w within the pixels' range


def synthetic_generator():
    spec = GeneratorSpec('fake', 4, W_DIM, W_DIM, num_ws=3)

    def synthesize(weights, w, noise='const', taps=None):
        flat = jnp.repeat(w.mean(1) * SCALE, 4, axis=1)  # 12 * 4 = 4 * 4 * 3
        return flat.reshape(-1, 4, 4, 3), {}

    return Generator(spec, None, lambda weights, z: z @ weights['buffers']['mapping'], synthesize)


WEIGHTS = {
    'params': {},
    'buffers': {'mapping': jnp.asarray(MIXING, jnp.float32), 'w_avg': jnp.zeros(W_DIM)},
}


def read_w(images_uint8):
    flat = (np.asarray(images_uint8, np.float64) / 127.5 - 1).reshape(len(images_uint8), W_DIM, 4)
    return flat.mean(2) / SCALE


def measure(images_uint8):
    w = read_w(images_uint8)
    values = {name: w @ v + 0.02 * (w @ v) ** 2 for name, v in TRUE.items()}
    values['smile'] = np.where(
        w[:, 0] > 1.5, np.nan, values['smile']
    )  # a few faces are not detected
    return values


@pytest.fixture
def pipeline():
    return sampling.Pipeline(
        synthetic_generator(),
        WEIGHTS,
        measure,
        lambda images_uint8: read_w(images_uint8) @ EMBEDDING,
    )


def get_config(arg=''):
    path = pathlib.Path(__file__).parents[1] / 'configs' / 'fit_directions.py'
    spec = importlib.util.spec_from_file_location('fit_config', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


@pytest.fixture
def config():
    config = get_config('quick')
    config.samples.num, config.samples.chunk = 160, 64
    config.choose.num, config.validate.num = 6, 12
    config.ganspace.components = 3
    config.attributes, config.controls, config.keep = ATTRIBUTES, ('gender',), ()
    config.choose.kinds = tuple(direction_regression.COSTS)
    return config


def quiet(*_, **__):
    pass


def keep(lines):
    return lambda line, *_, **__: lines.append(str(line))


@pytest.fixture
def finished(config, pipeline, tmp_path):
    fit_directions.run(config, tmp_path / 'run', log=quiet, pipeline=pipeline)
    return tmp_path / 'run'


def test_fitted_directions_change_their_attribute_and_no_other_one(finished):
    record = json.loads((finished / 'directions.json').read_text())
    for name in ATTRIBUTES:
        vector = edits.load_direction(f'{finished}/directions.npz:{name}')[0]
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        moved = {other: vector @ v for other, v in TRUE.items()}
        others = [abs(moved[other]) for other in TRUE if other != name]
        assert moved[name] > 0.2 and max(others) < 0.2 * moved[name]
        entry = record['directions'][name]
        assert entry['correlation'] > 0.95
        assert entry['per_unit'][name] == pytest.approx(moved[name], rel=0.25)
    assert set(record['recipe']['price_of_each_kind']['age']) == set(direction_regression.COSTS)


def test_components_have_their_standard_deviation(finished):
    record = json.loads((finished / 'directions.json').read_text())['directions']
    assert [record[f'pc{i}']['kind'] for i in range(3)] == ['ganspace'] * 3
    assert record['pc0']['std'] > record['pc1']['std'] > record['pc2']['std'] > 0


def test_pictures_show_every_direction(finished):
    assert {p.stem for p in finished.glob('*.png')} == set(ATTRIBUTES)


def test_interrupted_run_ends_with_the_same_numbers(config, pipeline, finished, tmp_path):
    calls = []

    def measure_until_killed(images_uint8):
        calls.append(len(images_uint8))
        if len(calls) == 12:
            raise KeyboardInterrupt
        return measure(images_uint8)

    path = tmp_path / 'killed'
    broken = sampling.Pipeline(
        pipeline.generator, pipeline.weights, measure_until_killed, pipeline.embed
    )
    with pytest.raises(KeyboardInterrupt):
        fit_directions.run(config, path, log=quiet, pipeline=broken)
    (path / 'state' / 'samples' / '.000064_000128.0123abcd.partial.npz').write_bytes(b'half')
    fit_directions.run(config, path, log=quiet, pipeline=pipeline)
    assert (path / 'directions.json').read_bytes() == (finished / 'directions.json').read_bytes()
    with np.load(path / 'directions.npz') as a, np.load(finished / 'directions.npz') as b:
        assert a.files == b.files and all(np.array_equal(a[k], b[k]) for k in a.files)


def test_a_finished_run_is_not_repeated(config, pipeline, finished):
    lines = []
    before = (finished / 'directions.npz').stat().st_mtime_ns
    fit_directions.run(config, finished, log=lambda *a, **k: lines.append(a[0]), pipeline=pipeline)
    assert 'Finished already' in lines[0]
    assert (finished / 'directions.npz').stat().st_mtime_ns == before


def test_stages_and_seeds_use_different_faces(config, pipeline):
    stages = ('fit', 'choose', 'validate')
    w = [fit_directions.sample_w(config, pipeline, stage, 20) for stage in stages]
    config.seed += 1  # a seed's stages are not those of the next seed
    w += [fit_directions.sample_w(config, pipeline, stage, 20) for stage in stages]
    config.seed -= 1
    pairs = itertools.combinations(w, 2)
    assert min(np.linalg.norm(a[:, None] - b, axis=-1).min() for a, b in pairs) > 0.01
    again = fit_directions.sample_w(config, pipeline, 'fit', 5)
    np.testing.assert_allclose(again, w[0][:5], rtol=1e-5, atol=1e-6)


def test_too_few_faces_are_one_sentence(config, pipeline, tmp_path):
    blind = sampling.Pipeline(
        pipeline.generator,
        pipeline.weights,
        lambda x: dict.fromkeys(TRUE, np.full(len(x), np.nan)),
        pipeline.embed,
    )
    with pytest.raises(JaxinvError, match='0 of 160 samples have a face'):
        fit_directions.run(config, tmp_path / 'blind', log=quiet, pipeline=blind)


def test_unknown_kind_says_what_exists(config, pipeline, tmp_path):
    config.choose.kinds = ('plain', 'magic')
    with pytest.raises(JaxinvError, match='identity_likely'):
        fit_directions.run(config, tmp_path / 'x', log=quiet, pipeline=pipeline)


def test_config_has_its_variants():
    assert get_config().samples.num > get_config('quick').samples.num
    with pytest.raises(ValueError, match='quick'):
        get_config('fast')


# --- The mathematics ------------------------------------------------------------------------------


def test_ridge_recovers_coefficients_and_reports_the_held_out_fit():
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(400, 6)), rng.normal(size=(6, 2))
    result = direction_regression.ridge(w, w @ b + 3 + 0.1 * rng.normal(size=(400, 2)))
    np.testing.assert_allclose(result.coefficients, b, atol=0.03)
    assert (result.r2 > 0.98).all()
    noise = direction_regression.ridge(w, rng.normal(size=(400, 1)))
    assert abs(noise.r2[0]) < 0.2 and np.abs(noise.coefficients).max() < 0.15


def test_ridge_solves_the_normal_equations():
    rng = np.random.default_rng(2)
    w, a = rng.normal(size=(30, 4)), rng.normal(size=(30, 1))
    x, y = w - w.mean(0), a - a.mean(0)
    fits = direction_regression._ridge_path(w, a, [0.1, 2.0])
    for penalty, got in zip((0.1, 2.0), fits, strict=True):
        unit = np.trace(x.T @ x) / 4
        expected = np.linalg.solve(x.T @ x + penalty * unit * np.eye(4), x.T @ y)
        np.testing.assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize('kind', direction_regression.COSTS)
def test_direction_changes_one_attribute_at_the_least_cost(kind):
    rng = np.random.default_rng(3)
    b, jacobian = rng.normal(size=(8, 3)), rng.normal(size=(5, 8))
    covariance = np.cov(rng.normal(size=(50, 8)) * np.arange(1, 9), rowvar=False)
    cost = direction_regression.COSTS[kind](covariance, jacobian)
    v = direction_regression.direction(b, 1, cost)
    gains = b.T @ v
    assert gains[1] > 0 and np.abs(gains[[0, 2]]).max() < 1e-9
    v = v / gains[1]
    free = np.linalg.svd(b.T)[2][3:]  # moves that change no attribute
    for step in free:
        for sign in (1e-3, -1e-3):
            other = v + sign * step
            assert other @ cost @ other > v @ cost @ v


def test_plain_direction_is_the_coefficient_with_the_others_projected_out():
    b = np.random.default_rng(4).normal(size=(8, 3))
    others = np.linalg.qr(b[:, 1:])[0]
    expected = b[:, 0] - others @ (others.T @ b[:, 0])
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(
        direction_regression.direction(b, 0, np.eye(8)), expected, atol=1e-12
    )


def test_components_span_the_largest_variance():
    w = np.random.default_rng(5).normal(size=(3000, 4)) * [1.0, 5.0, 0.1, 2.0]
    components, std = direction_regression.principal_components(w, 2)
    np.testing.assert_allclose(components, np.eye(4)[[1, 3]], atol=0.05)
    np.testing.assert_allclose(std, [5, 2], rtol=0.05)


def test_effect_ignores_undetected_faces_and_is_nan_without_any():
    strengths = np.array([-1.0, 2.0])
    base = {'age': np.array([20.0, 40.0]), 'yaw': np.array([0.0, 1.0])}
    edited = {
        'age': np.array([[17.0, 26.0], [37.0, np.nan]]),
        'yaw': np.array([[0.0, 0.0], [1.0, 1.0]]),
    }
    distance = np.array([[0.1, 0.7], [0.3, np.nan]])
    result = direction_regression.effect(strengths, base, edited, distance, 'age')
    assert result.per_unit == {'age': pytest.approx(3.0), 'yaw': 0.0}
    assert result.correlation == pytest.approx(1.0)
    assert result.identity_distance == {'-1': pytest.approx(0.2), '2': pytest.approx(0.7)}
    assert result.same_person == {'-1': 1.0, '2': 0.0}
    assert result.lost == 0.25
    nothing = {name: np.full((2, 2), np.nan) for name in base}
    lost = direction_regression.effect(strengths, base, nothing, distance * np.nan, 'age')
    assert lost.lost == 1.0 and np.isnan(lost.correlation)


def test_price_is_infinite_for_a_direction_without_effect():
    deviations = {'age': 10.0, 'yaw': 5.0}
    common = dict(correlation=1, correlation_raw=1, same_person={}, lost=0)
    good = direction_regression.Effect(
        per_unit={'age': 5, 'yaw': 0}, identity_distance={'1': 0.3}, **common
    )
    leaky = good._replace(per_unit={'age': 5, 'yaw': 2.5})
    dead = good._replace(per_unit={'age': 0, 'yaw': 0})
    price = [
        direction_regression.price(e, 'age', np.array([-1, 1]), deviations)
        for e in (good, leaky, dead)
    ]
    assert price == [pytest.approx(0.5 * 0.5**-0.6), pytest.approx(0.5 * 0.5**-0.6 + 1), np.inf]


def test_samples_do_not_depend_on_how_they_are_batched(config, pipeline):
    w = fit_directions.sample_w(config, pipeline, 'fit', 11)
    together = sampling.measure(pipeline, w)
    apart = [sampling.measure(pipeline, w[i : i + 1]) for i in range(11)]
    for key, values in together.items():
        parts = np.concatenate([part[key] for part in apart])
        np.testing.assert_allclose(values, parts, rtol=1e-12)


def test_a_frame_across_the_nose_counts_as_glasses():
    landmarks = np.zeros((68, 2))
    landmarks[39], landmarks[42] = (110, 120), (146, 120)  # inner corners of the eyes
    rng = np.random.default_rng(6)
    face = (170 + rng.normal(0, 2, (256, 256, 3))).astype(np.uint8)
    framed = face.copy()
    framed[108:114, 80:176] = 30
    assert controls.glasses(face, landmarks) == 0
    assert controls.glasses(framed, landmarks) > 0.5
    assert controls.glasses(framed[::-1], landmarks) == 0  # the bar is in another place


def test_the_range_ends_where_the_identity_distance_reaches_the_limit():
    strengths = np.array([-2.0, -1.0, 1.0, 2.0])
    distances = 0.3 * np.abs(strengths) ** 0.5

    def reach(limit, changes=strengths):
        return direction_regression.reach(strengths, distances, np.array(changes), limit)

    low, high = reach(0.36)
    assert -low == high == pytest.approx((0.36 / 0.3) ** 2)
    assert reach(9.0) == (-2.0, 2.0)  # not beyond
    low, high = reach(0.15)  # below the smallest tested
    assert high == pytest.approx((0.15 / 0.3) ** (1 / direction_regression.DISTANCE_POWER))
    assert reach(9.0, [-1.0, -1.1, 1.0, 0.9]) == (-1.0, 1.0)  # where the change stops rising
    assert reach(9.0, [-2.0, -1.0, -0.1, 2.0]) == (-2.0, 0.0)
    assert reach(0.36, [-2.0, -1.0, 1.0, 0.5])[1] == 1.0
    one = direction_regression.reach(np.array([1.0]), np.array([0.1]), np.array([1.0]), 0.4)
    assert one == (0.0, 1.0)


def test_a_direction_that_the_judge_does_not_confirm_is_left_out(config, pipeline, tmp_path):
    """Smile is judged by its negative, and yaw by what does not depend on it."""

    def with_judges(images_uint8):
        values = measure(images_uint8)
        noise = np.sin(1e4 * read_w(images_uint8).sum(1))
        return {**values, 'smile/judge': -values['smile'], 'yaw/judge': noise}

    attributes = {name: measures.Attribute(name, name, '') for name in TRUE}
    attributes['smile'] = measures.Attribute('smile', 'smile/judge', 'smile')
    attributes['yaw'] = measures.Attribute('yaw', 'yaw/judge', 'degree')
    judged = dataclasses.replace(pipeline, measure=with_judges, attributes=attributes)
    config.choose.kinds = ('plain',)
    lines = []
    fit_directions.run(config, tmp_path, log=keep(lines), pipeline=judged)
    record = json.loads((tmp_path / 'directions.json').read_text())
    assert set(record['not_found']) == {'smile', 'yaw'}
    assert 'smile/judge sees a correlation of -0.9' in record['not_found']['smile']['reason']
    assert {name for name in record['directions'] if not name.startswith('pc')} == {'age'}
    assert not {'smile', 'yaw'} & set(np.load(tmp_path / 'directions.npz').files)
    assert 'smile        left out' in lines[-1]
    entry = record['directions']['age']
    assert entry['steered_by'] == entry['judge'] == 'age'
    low, high = entry['strengths']
    assert low < 0 < high


def test_a_steady_change_and_a_noticeable_one_are_needed(config):
    entry = {
        'judge': 'j', 'correlation': 0.9, 'strengths': [-1.0, 1.0], 'per_unit': {'age': 2.0},
        'judged_change': {'-1': -2.0, '1': 2.0},
    }  # fmt: skip

    def reason(deviation, **changes):
        return direction_validation.refusal(config, entry | changes, 'age', {'age': deviation})

    assert reason(3.0) == ''
    assert 'no steady change: -2, +2' in reason(3.0, strengths=[0.0, 1.0])
    assert 'by 0.40 standard deviations only' in reason(10.0)
    assert 'correlation of nan' in reason(3.0, correlation=float('nan'))


def test_every_attribute_is_judged_by_another_source():
    for name, attribute in measures.ATTRIBUTES.items():
        sources = [one.split('/')[1] for one in (attribute.steer, attribute.judge)]
        assert sources[0] != sources[1], name
        assert set(sources) != {'mesh', 'blendshapes'}, name  # the second reads the first's points
        assert set(attribute.free) <= set(measures.ATTRIBUTES), name
