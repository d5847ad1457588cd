"""Dragging points: equations 1 and 2 of DragGAN against slow loops, and the whole on a tiny one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinv
from jaxinv import edits
from jaxinv.errors import JaxinvError
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import drag_features
from jaxinv.weights.zoo import load_named

SIZE, RESOLUTION, CHANNELS = 6, 24, 3
POINTS = [((16, 20), (20, 14)), ((9, 9), (9, 10))]


def enlarged(f):
    """The bilinear enlargement of f [n, n, c] with half-pixel centres, pixel by pixel."""
    n, scale = len(f), len(f) / RESOLUTION
    result = np.zeros((RESOLUTION, RESOLUTION, f.shape[2]))
    for y in range(RESOLUTION):
        for x in range(RESOLUTION):
            v, u = (min(max((t + 0.5) * scale - 0.5, 0), n - 1) for t in (y, x))
            i, j = min(int(v), n - 2), min(int(u), n - 2)
            a, b = v - i, u - j
            top = (1 - b) * f[i, j] + b * f[i, j + 1]
            result[y, x] = (1 - a) * top + a * ((1 - b) * f[i + 1, j] + b * f[i + 1, j + 1])
    return result


def between(big, x, y):
    """Bilinear between the pixels of an enlargement."""
    j, i = int(np.floor(x)), int(np.floor(y))
    b, a = x - j, y - i
    at = lambda i, j: big[np.clip(i, 0, len(big) - 1), np.clip(j, 0, len(big) - 1)]  # noqa: E731
    top = (1 - b) * at(i, j) + b * at(i, j + 1)
    return (1 - a) * top + a * ((1 - b) * at(i + 1, j) + b * at(i + 1, j + 1))


def slow_motion_loss(f, still, points, targets, radius, rules):
    """Equation 1 with `still` for the feature without gradient."""
    big, frozen, total = enlarged(f), enlarged(still), 0.0
    for p, t in zip(points, targets, strict=True):
        distance = np.hypot(*(t - p))
        if distance <= 1:
            continue
        d, terms = (t - p) / distance, []
        for y in range(-radius, radius + 1):
            for x in range(-radius, radius + 1):
                if np.hypot(x, y) < radius:
                    q = p + [x, y]
                    if rules == 'paper':
                        terms.append(np.abs(between(big, *(q + d)) - between(frozen, *q)).mean())
                    else:
                        terms.append(np.abs(between(big, *q) - between(frozen, *(q - d))).mean())
        total += np.mean(terms)
    return total


def slow_track(f, handle, point, radius, rules):
    big, best, found = enlarged(f), np.inf, None
    for y in range(max(point[1] - radius, 0), min(point[1] + radius, RESOLUTION - 1) + 1):
        for x in range(max(point[0] - radius, 0), min(point[0] + radius, RESOLUTION - 1) + 1):
            if rules == 'paper' and radius in (abs(x - point[0]), abs(y - point[1])):
                continue
            difference = big[y, x] - handle
            norm = np.abs(difference).sum() if rules == 'paper' else np.hypot.reduce(difference)
            if norm < best:
                best, found = norm, (x, y)
    return found


def random_feature(seed):
    return np.random.RandomState(seed).randn(SIZE, SIZE, CHANNELS).astype(np.float32)


@pytest.mark.parametrize('rules', ['paper', 'official'])
def test_the_motion_loss_and_its_gradient_are_those_of_loops(rules):
    f = random_feature(0)
    points, targets = np.array([[12, 10], [22, 3], [7, 7]]), np.array([[3, 15], [20, 9], [7, 8]])

    def ours(f, valid):
        return drag_features.motion_loss(
            f, jnp.asarray(points), jnp.float32(targets), jnp.float32(valid), RESOLUTION, 3, rules
        )

    both = jax.jit(jax.value_and_grad(ours))
    value, gradient = both(f, np.ones(3))
    slow = slow_motion_loss(f, f, points, targets, 3, rules)
    np.testing.assert_allclose(value, slow, rtol=1e-5)
    assert slow > 0.1
    for i, j, c in ((2, 3, 0), (3, 2, 1), (1, 5, 2)):
        step = np.zeros_like(f, np.float64)
        step[i, j, c] = 1e-4
        sides = [slow_motion_loss(f + s * step, f, points, targets, 3, rules) for s in (1, -1)]
        np.testing.assert_allclose(gradient[i, j, c], (sides[0] - sides[1]) / 2e-4, atol=2e-4)
    # The third point is within a pixel of its target, the others count one by one.
    alone = [both(f, row)[0] for row in np.eye(3)]
    np.testing.assert_allclose(alone[0] + alone[1], value, rtol=1e-5)
    assert alone[2] == 0


@pytest.mark.parametrize('rules', ['paper', 'official'])
def test_tracking_finds_the_nearest_feature_as_loops_do(rules):
    before, after = random_feature(0), random_feature(1)
    points = np.array([[12, 10], [21, 2], [2, 21]])  # the outermost pixels are equal
    at_points = jax.jit(drag_features.at_points, static_argnums=2)
    track = jax.jit(drag_features.track, static_argnums=(3, 4, 5))
    handles = at_points(before, points, RESOLUTION)
    big = enlarged(before)
    np.testing.assert_allclose(handles, [big[y, x] for x, y in points], atol=1e-5)
    found = track(after, handles, points, RESOLUTION, 4, rules)
    slow = [
        slow_track(after, h, p, 4, rules) for h, p in zip(np.asarray(handles), points, strict=True)
    ]
    assert found.tolist() == [list(p) for p in slow] and (np.array(slow) != points).any()
    still = track(before, handles, points, RESOLUTION, 4, rules)
    np.testing.assert_array_equal(still, points)


def test_what_is_outside_the_mask_counts_by_its_mean_change():
    f, reference, mask = random_feature(0), random_feature(1), np.zeros((SIZE, SIZE, 1), 'f4')
    mask[:3] = 1
    mask[3] = 0.5
    change = np.abs(f - reference)
    expected = (change[4:].sum() + 0.5 * change[3].sum()) / change.size
    np.testing.assert_allclose(drag_features.mask_loss(f, reference, mask), expected, rtol=1e-5)


# --- The whole, on the tiny generator ---


@pytest.fixture(scope='module')
def codes(tiny):
    generator, weights = tiny
    z = np.random.RandomState(0).randn(2, generator.spec.z_dim).astype(np.float32)
    return np.asarray(generator.map(weights, z))[:, None]


SETTINGS = {'steps': 8, 'learning_rate': 0.02}


@pytest.fixture(scope='module')
def dragged(tiny, codes):
    moments = []
    result = jaxinv.drag(*tiny, codes, [POINTS, POINTS[:1]], callback=moments.append, **SETTINGS)
    return result, moments


def test_a_drag_lowers_the_loss_and_moves_the_first_rows_only(tiny, codes, dragged):
    (result, moments), spec = dragged, tiny[0].spec
    assert result.w.shape == result.offsets.shape == (2, spec.num_ws, spec.w_dim)
    np.testing.assert_array_equal(result.w, codes + result.offsets)
    assert result.offsets[:, :8].any((1, 2)).all() and not result.offsets[:, 8:].any()
    assert [m.step for m in moments] == list(range(len(moments)))
    assert moments[0].identities == (0, 1) and not np.asarray(moments[0].w - codes).any()
    assert moments[-1].loss[0] != moments[0].loss[0]


def test_the_track_starts_at_the_handles_and_says_where_points_are(dragged):
    result, moments = dragged
    np.testing.assert_array_equal(result.points[0, 0], [p for p, _ in POINTS])
    np.testing.assert_allclose(result.distances[0, 0], [np.hypot(4, 6), 1], rtol=1e-6)
    # The second identity has one point.
    assert np.isnan(result.distances[1, :, 1]).all() and np.isnan(result.points[1, :, 1]).all()
    assert np.isfinite(result.distances[1, 0, 0])
    np.testing.assert_array_equal(moments[1].points[0], result.points[0, 1])


@pytest.mark.long
def test_identities_share_nothing(tiny, codes, dragged):
    alone = jaxinv.drag(*tiny, codes[1:], POINTS[:1], **SETTINGS)
    n = alone.points.shape[1]
    np.testing.assert_allclose(alone.w[0], dragged[0].w[1], atol=2e-5)
    np.testing.assert_array_equal(alone.points[0], dragged[0].points[1, :n, :1])
    each = jaxinv.drag(tiny[0], [tiny[1]] * 2, codes, [POINTS[:1]] * 2, **SETTINGS)
    np.testing.assert_allclose(each.w[1], alone.w[0], atol=2e-5)


def test_points_that_are_there_stop_at_once_and_a_callback_may_stop(tiny, codes):
    there = jaxinv.drag(*tiny, codes, [((5, 5), (6, 5))], **SETTINGS)
    assert there.arrived.all() and there.steps[0] == 0 and not there.offsets.any()
    stopped = jaxinv.drag(*tiny, codes, POINTS[:1], callback=lambda m: m.step < 2, **SETTINGS)
    assert stopped.steps[0] == 2 and stopped.points.shape[1] == 3 and not stopped.arrived[0]


def test_a_drag_is_an_edit_of_other_codes_and_of_files(tiny, codes, dragged, tmp_path):
    result, num_ws = dragged[0], tiny[0].spec.num_ws
    moved = edits.apply(codes[1:], result.edit(0), num_ws)
    np.testing.assert_allclose(moved[0], codes[1] + result.offsets[0], atol=1e-6)
    result.save(tmp_path / 'drag.npz', ['ann', 'bob'])
    (edit,) = edits.parse([f'{tmp_path}/drag.npz:ann=0.5'])
    half = edits.apply(codes[:1], edit, num_ws)
    np.testing.assert_allclose(half[0], codes[0] + 0.5 * result.offsets[0], atol=1e-6)


@pytest.mark.parametrize(
    ('points', 'changes', 'words'),
    [
        ([((3, 3), (40, 3))], {}, r'point \(40, 3\) is outside the picture; x and y .* 0 to 31'),
        ([(3, 3)], {}, 'pairs'),
        ([POINTS], {}, 'for 2 codes'),
        (POINTS, {'feature': 'F8'}, "'F8'; tiny has F4, F6"),
        (POINTS, {'rows': 12}, 'drag.rows is 12; tiny has 11'),
        (POINTS, {'step': 3}, 'did you mean steps'),
        (POINTS, {'mask': np.ones((8, 8))}, r'mask is \[8, 8\]; it can be \[32, 32\]'),
        (POINTS, {'mask': np.zeros((32, 32))}, 'mask of code 0 is 0 everywhere'),
    ],
)
def test_what_does_not_fit_is_said(tiny, codes, points, changes, words):
    with pytest.raises(JaxinvError, match=words):
        jaxinv.drag(*tiny, codes, points, **changes)


@pytest.mark.long
def test_a_mask_holds_the_rest(tiny, codes):
    mask = np.zeros((32, 32), np.float32)
    mask[14:26, 10:26] = 1

    def change(**settings):
        result = jaxinv.drag(*tiny, codes, POINTS, steps=20, learning_rate=0.02, **settings)
        before, after = (jaxinv.render(*tiny, w) for w in (codes, result.w))
        return (np.abs(after - before) * (1 - mask)[None, ..., None]).mean()

    assert change(mask=mask) < 0.8 * change()


@pytest.mark.long
@pytest.mark.parametrize(
    'family', ['stylegan2', pytest.param('biggan', marks=pytest.mark.exhaustive)]
)
def test_other_generators_are_dragged_by_the_rows_of_their_first_layers(family):
    if family == 'biggan':
        generator, weights = load_named('tiny_biggan')
        moving, dims = generator.spec.num_ws, generator.spec.moving_dims
    else:
        generator = stylegan2(32, z_dim=8, w_dim=8, mapping_layers=1, channels=(8,) * 4)
        weights = generator.init(jax.random.key(0))
        moving, dims = 6, 8
    w = np.random.RandomState(0).randn(1, 1, generator.spec.w_dim).astype(np.float32)
    end = generator.spec.resolution - 2
    result = jaxinv.drag(generator, weights, w, [((3, 3), (end, end))], steps=2)
    moved = result.offsets[0].any(0), result.offsets[0].any(1)
    assert moved[0][:dims].any() and not moved[0][dims:].any()
    assert moved[1][0] and not moved[1][moving:].any()
