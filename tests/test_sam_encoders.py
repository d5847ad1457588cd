"""SAM's encoders: networks, one pass, files, regions, losses and fits, against slow references."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recipe
import safetensors.numpy

import jaxinv
from jaxinv import settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import sam_encoder_start, train_sam_encoders
from jaxinv.experiments.encoder_samples import Dataset, Place, place_of
from jaxinv.experiments.encoder_training import relative_adam
from jaxinv.experiments.sam_encoder_batches import RegionBatches, example, num_regions
from jaxinv.inversion import invertibility, sam, sam_encode, sam_prior
from jaxinv.inversion.masks import soft_masks
from jaxinv.networks import compact_encoder, efficientnet, lpips, sam_encoders
from jaxinv.networks import invertibility as map_network
from jaxinv.nn import ops
from jaxinv.settings import InvertSam, Prior, Search, method_list
from jaxinv.settings.encoders import Augmentation
from jaxinv.settings.sam_encoders import Regions, TrainSamEncoders
from jaxinv.types import Affine
from jaxinv.weights.networks import load_lpips
from jaxinv.weights.sam_encoders import load_sam_encoders, save_sam_encoders

OFF = dict.fromkeys(('crop', 'colour', 'grey', 'blur', 'noise', 'jpeg', 'occluders'), 0.0)


def encoders_of(spec, average):
    """Encoders with seeded weights that look at everything."""
    weights = {}
    for name, shape in sam_encoders.shapes(spec).items():
        weights[name] = jnp.asarray(recipe.normal(name, shape) / np.sqrt(np.prod(shape[:-1])))
    for name in ('w_plus/w/kernel', 'w_plus/rows/up'):
        weights[name] *= 1e-2
    return sam_encoders.Encoders(spec, weights, average)


@pytest.fixture(scope='module')
def own(tiny):
    """Encoders for all spaces of the tiny generator."""
    spec = sam_encoders.spec_of(tiny[0].spec)
    return encoders_of(spec, tiny[1]['buffers']['w_avg'])


@pytest.fixture(scope='module')
def given(tiny):
    """Two pictures [2, 32, 32, 3], and chosen spaces [2, 32, 32] with soft masks."""
    rng = np.random.default_rng(0)
    pictures = jnp.asarray(rng.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
    chosen = np.repeat(np.repeat(rng.integers(0, 3, (2, 4, 4)), 8, 1), 8, 2).astype(np.int32)
    return pictures, chosen, soft_masks(chosen, tiny[0].spec)


@pytest.fixture(scope='module')
def inverted(tiny, own, given):
    """(images, codes) of the pictures by `sam_encode.invert`, compiled."""
    pictures, chosen, masks = given
    run = jax.jit(functools.partial(sam_encode.invert, own, tiny[0]))
    return run(tiny[1], pictures, sam_encode.space_masks(chosen, own.spec.spaces), masks)


# --- Networks -------------------------------------------------------------------------------------


def test_each_encoder_reads_the_maps_of_its_features_size():
    """ImageNet's trunk at 256 pixels: the stem and the last map of each stage."""
    assert [tuple(level) for level in sam_encoders.levels()] == [
        (0, 128, 32), (1, 128, 16), (3, 64, 24), (5, 32, 40), (8, 16, 80), (11, 16, 112),
        (15, 8, 192), (16, 8, 320),
    ]  # fmt: skip
    spec = sam_encoders.spec_of(jaxinv.load_generator('mobile_stylegan_ffhq')[0].spec)
    assert spec.features == (('F4', 16, 512), ('F6', 32, 512), ('F8', 64, 512), ('F10', 128, 256))
    assert spec.spaces == ('W+', 'F4', 'F6', 'F8', 'F10')
    shapes = sam_encoders.shapes(spec)
    kernels = [shapes[f'{space}/offset/kernel'] for space in spec.spaces[1:]]
    assert kernels == [(3, 3, 192, 512), (3, 3, 40, 512), (3, 3, 24, 512), (3, 3, 48, 256)]
    # Four channels, and no layer after the last map that is read.
    assert all(shapes[f'{space}/stem/kernel'] == (3, 3, 4, 32) for space in spec.spaces[1:])
    assert 'F8/block2/project/kernel' in shapes and 'F8/block3/project/kernel' not in shapes


def test_spaces_that_there_are_not_are_named(tiny):
    with pytest.raises(JaxinvError, match=r"features \['F8'\] are not of tiny; it has F4, F6"):
        sam_encoders.spec_of(tiny[0].spec, ('F4', 'F8'))
    odd = tiny[0].spec
    odd = odd.__class__(**odd.__dict__ | {'feature_shapes': (('F0', (4, 4, 8)),)})
    with pytest.raises(JaxinvError, match='F0 has 4 pixels; .* one of 8, 16, 32, 64, 128'):
        sam_encoders.spec_of(odd)
    with pytest.raises(JaxinvError, match='W\\+ is always one'):
        TrainSamEncoders(spaces=('W+', 'F4')).check()


def test_a_fourth_channel_that_nobody_looks_at_changes_nothing(own, given):
    weights = sam_encoders.part(own.weights, 'F4')
    plain = {k: x for k, x in weights.items() if k in efficientnet.shapes(True, depth=3)}
    kernel = weights['stem/kernel'][:, :, :3]
    masked = plain | {'stem/kernel': jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))}
    run = jax.jit(functools.partial(efficientnet.trunk, depth=3))
    expected = run(plain | {'stem/kernel': kernel}, given[0])
    assert len(expected) == 4
    with_mask = jnp.concatenate([given[0], jnp.ones((2, 32, 32, 1))], -1)
    for a, b in zip(run(masked, with_mask), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(JaxinvError, match=r'\(2, 32, 32, 3\) are not \[b, h, w, 4\]'):
        efficientnet.trunk(masked, given[0])


@pytest.fixture(scope='module')
def parts_of(own):
    """Of pictures and masks: what F4's convolution reads and gives, the summary, and w_plus."""

    @jax.jit
    def run(images, mask):
        read = sam_encoders.read_maps(own.spec, own.weights, 'F4', images, mask)
        seen = sam_encoders.content(own.spec, own.weights, 'F4', images, mask)
        summary = compact_encoder.summary(
            sam_encoders.part(own.weights, 'w_plus'), sam_encoders.joined(images, mask)
        )
        w_plus = sam_encoders.w_plus(own.spec, own.weights, own.average, images, mask)
        return read, seen, summary, w_plus

    return run


def test_the_networks_are_their_definitions(own, given, parts_of):
    mask = jnp.zeros((2, 32, 32, 1)).at[:, 8:20].set(1)
    read, seen, summary, w_plus = map(np.asarray, parts_of(given[0], mask))
    assert read.shape == (2, 16, 16, 192) and seen.shape == (2, 16, 16, 32)
    kernel, bias = (np.asarray(own.weights[f'F4/offset/{k}']) for k in ('kernel', 'bias'))
    maps = jax.jit(functools.partial(efficientnet.trunk, depth=11))(
        sam_encoders.part(own.weights, 'F4'), sam_encoders.joined(given[0], mask)
    )
    stages = np.concatenate([maps[8], maps[11]], -1)
    centre, scale = (np.asarray(own.weights[f'F4/maps/{k}']) for k in ('centre', 'scale'))
    np.testing.assert_allclose(read, (stages - centre) * scale, rtol=1e-3, atol=1e-3)
    for y, x in ((0, 5), (7, 15), (9, 3)):
        total = bias.astype(np.float64)
        for i in range(3):
            for j in range(3):
                a, b = y + i - 1, x + j - 1
                if 0 <= a < 16 and 0 <= b < 16:
                    total = total + read[1, a, b].astype(np.float64) @ kernel[i, j]
        np.testing.assert_allclose(seen[1, y, x], total, rtol=1e-4, atol=1e-4)
    weights = {k: np.asarray(x, np.float64) for k, x in own.weights.items() if 'w_plus' in k}
    first = (
        summary @ weights['w_plus/w/kernel'] + weights['w_plus/w/bias'] + np.asarray(own.average)
    )
    np.testing.assert_allclose(w_plus[:, 0], first, rtol=1e-3, atol=1e-4)
    down = summary @ weights['w_plus/rows/down/kernel'] + weights['w_plus/rows/down/bias']
    w_dim = own.spec.w_dim
    for row in (1, own.spec.num_ws - 1):
        up = weights['w_plus/rows/up'][:, (row - 1) * w_dim : row * w_dim]
        np.testing.assert_allclose(w_plus[:, row], first + down @ up, rtol=1e-3, atol=1e-4)
    _, other, _, moved = parts_of(given[0], 1 - mask)
    assert np.abs(other - seen).max() > 1e-2 and np.abs(moved - w_plus).max() > 1e-4


def test_an_offset_takes_back_a_share_of_the_feature(own):
    rng = np.random.default_rng(0)
    seen, feature = (rng.standard_normal((1, 16, 16, 32)).astype(np.float32) for _ in range(2))
    found = sam_encoders.offset(own.spec, own.weights, 'F4', seen, feature)
    expected = seen - np.asarray(own.weights['F4/replaced']) * feature
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    blind = own.spec._replace(sees_feature=False)
    assert 'F4/replaced' not in sam_encoders.shapes(blind)
    assert sam_encoders.offset(blind, {}, 'F4', seen, feature) is seen


# --- One pass -------------------------------------------------------------------------------------


@pytest.mark.long
def test_one_pass_equals_passes_one_after_another(tiny, own, given, inverted):
    """Each offset from the feature of a pass with the offsets before it; equations 3 and 4."""
    generator, weights = tiny
    pictures, chosen, masks = given
    images, codes = inverted
    run, taps = jax.jit(generator.synthesize), {}
    for i, space in enumerate(own.spec.spaces[1:], 1):
        region = (chosen == i)[..., None].astype(np.float32)
        seen = sam_encoders.content(own.spec, own.weights, space, pictures, region)
        feature = run(weights, codes.w_plus, taps=taps)[1][space]
        found = seen - np.asarray(own.weights[f'{space}/replaced']) * np.asarray(feature)
        found = np.where(masks[space] > 0, found, 0)
        np.testing.assert_allclose(codes.offsets[space], found, atol=2e-4)
        one = jnp.ones_like(masks[space])
        taps = taps | {space: Affine(one, masks[space] * codes.offsets[space])}
    np.testing.assert_allclose(images, run(weights, codes.w_plus, taps=taps)[0], atol=2e-4)


def test_the_codes_give_the_image_again(tiny, given, inverted):
    images, codes = inverted
    again = jax.jit(functools.partial(sam.synthesize, tiny[0]))(tiny[1], codes, given[2])
    np.testing.assert_allclose(again, images, atol=1e-4)


@pytest.mark.long
def test_pictures_in_batches_are_pictures_alone(tiny, own, given):
    """Five pictures are two batches; the last is padded."""
    generator, weights = tiny
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    chosen = np.tile(given[1][:1], (5, 1, 1))
    masks = {space: np.tile(mask[:1], (5, 1, 1, 1)) for space, mask in given[2].items()}
    found = sam_encode.encode(own, generator, weights, pictures, chosen, masks)
    one = {space: mask[:1] for space, mask in masks.items()}
    alone = sam_encode.encode(own, generator, weights, pictures[4:], chosen[:1], one)
    assert found.w_plus.shape == (5, own.spec.num_ws, own.spec.w_dim)
    np.testing.assert_allclose(found.w_plus[4:], alone.w_plus, atol=1e-4)
    np.testing.assert_allclose(found.offsets['F6'][4:], alone.offsets['F6'], atol=1e-3)
    start = sam_encode.start(own, pictures, generator.spec)
    assert start.shape == found.w_plus.shape and np.abs(start - found.w_plus).max() > 1e-4


def test_encoders_of_another_generator_are_refused(tiny, own):
    other = own._replace(spec=own.spec._replace(features=(('F4', 16, 31),)))
    with pytest.raises(JaxinvError, match='trained for another generator'):
        sam_encode.check_fits(other, tiny[0].spec)
    other = own._replace(spec=own.spec._replace(num_ws=3))
    with pytest.raises(JaxinvError, match='3 rows of 16 numbers .* tiny takes 11 of 16'):
        sam_encode.check_fits(other, tiny[0].spec)


# --- Files ----------------------------------------------------------------------------------------


def test_a_file_gives_the_encoders_again(own, tmp_path):
    save_sam_encoders(tmp_path / 'full.safetensors', own)
    save_sam_encoders(tmp_path / 'half.safetensors', own, 'float16')
    full, half = (load_sam_encoders(tmp_path / f'{n}.safetensors') for n in ('full', 'half'))
    assert full.spec == half.spec == own.spec
    np.testing.assert_array_equal(full.average, own.average)
    for name, array in own.weights.items():
        np.testing.assert_array_equal(full.weights[name], array)
        assert half.weights[name].dtype == jnp.float32
        np.testing.assert_allclose(half.weights[name], array, rtol=1e-3, atol=1e-3)


def test_files_that_are_damaged_or_something_else_are_named(own, tmp_path):
    file = tmp_path / 'e.safetensors'
    small = own._replace(
        spec=own.spec._replace(features=own.spec.features[:1]),
        weights={k: x for k, x in own.weights.items() if not k.startswith('F6/')},
    )
    save_sam_encoders(file, small)
    arrays = safetensors.numpy.load_file(file)
    record = json.dumps(small.spec._asdict())

    def refused(changes, header=record, match=''):
        written = {k: x for k, x in (arrays | changes).items() if x is not None}
        safetensors.numpy.save_file(written, file, {'jaxinv_sam_encoders': header})
        with pytest.raises(JaxinvError, match=match):
            load_sam_encoders(file)

    refused({'F4/replaced': None}, match='Missing array: F4/replaced')
    refused({'F4/more': np.ones(3, np.float32)}, match='Unexpected array: F4/more')
    refused({'F4/replaced': np.ones(3, np.float32)}, match="'F4/replaced' gives .* shape")
    refused({'F4/replaced': np.full(32, np.nan, np.float32)}, match='not finite')
    for wrong in (
        {'num_ws': 1}, {'num_ws': 10**9}, {'w_dim': '16'}, {'sees_feature': 1}, {'features': []},
        {'features': [['F4', 16, 32]] * 2}, {'features': [['../F4', 16, 32]]},
        {'features': [['F4', 16]]}, {'features': [['F4', True, 32]]}, {'more': 1},
    ):  # fmt: skip
        header = json.dumps(small.spec._asdict() | wrong)
        refused({}, header, match="not the record of SAM's encoders")
    refused({}, json.dumps(small.spec._asdict() | {'features': [['F4', 17, 32]]}), '17 pixels')
    refused({}, '[', match='or is damaged')
    with pytest.raises(JaxinvError, match='no file .*none.safetensors with SAM'):
        load_sam_encoders(tmp_path / 'none.safetensors')


# --- Regions and batches --------------------------------------------------------------------------

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_a_picture_is_in_regions_of_one_space_each():
    s, changes = Regions(parts=5, w_plus=0.5, whole=0.0), Augmentation(**OFF | {'occluders': 1.0})
    spaces, counts, edges = np.zeros(4), [], np.zeros(2)
    for seed in range(60):
        found = example(PICTURE, np.random.default_rng(seed), changes, s, 4)
        again = example(PICTURE, np.random.default_rng(seed), changes, s, 4)
        jax.tree.map(np.testing.assert_array_equal, found, again)
        assert not found.whole and found.labels.max() < num_regions(s)
        for label in np.unique(found.labels):
            assert len(np.unique(found.chosen[found.labels == label])) == 1
        # What is not the sample any more is an occluder, which is in no W+.
        covered = np.abs(found.image_uint8.astype(int) - PICTURE).sum(-1) > 0
        changed = covered & (found.chosen == 0)
        edges += changed.sum(), covered.sum()
        counts.append(len(np.unique(found.labels)))
        spaces += [(found.chosen == i).mean() for i in range(4)]
    assert edges[0] < 0.15 * edges[1]  # soft edges
    assert min(counts) < max(counts) <= num_regions(s)
    assert (spaces > 3).all() and spaces[0] > spaces[1:].max()


def test_whole_pictures_are_in_every_space_and_cells_are_of_the_nearest_point():
    s, off = Regions(parts=3, whole=1.0), Augmentation(**OFF)
    found = [example(PICTURE, np.random.default_rng(i), off, s, 3) for i in range(30)]
    assert all(f.whole and len(np.unique(f.chosen)) == 1 for f in found)
    assert {int(f.chosen[0, 0]) for f in found} == {0, 1, 2}
    np.testing.assert_array_equal(found[0].image_uint8, PICTURE)
    rng = np.random.default_rng(3)
    labels = example(PICTURE, np.random.default_rng(3), off, s, 3).labels
    # The same numbers in the same order: none of the changes happens.
    rng.random(7)
    count = rng.integers(1, 4)
    points = rng.uniform(0, 64, (count, 2))
    for y in range(0, 64, 7):
        for x in range(0, 64, 7):
            distances = [(y + 0.5 - a) ** 2 + (x + 0.5 - b) ** 2 for a, b in points]
            assert labels[y, x] == int(np.argmin(distances))


def test_batches_depend_on_seed_and_step_only():
    rng = np.random.default_rng(0)
    pictures, w = rng.integers(0, 256, (5, 32, 32, 3), np.uint8), rng.standard_normal((5, 4))
    dataset = Dataset(pictures, w)

    def batches(step, seed=0):
        return RegionBatches(
            dataset, Augmentation(**OFF), 2, regions=Regions(), num_spaces=3, seed=seed,
            name='encoders', step=step,
        )  # fmt: skip

    with batches(0) as first, batches(2) as later:
        found = [next(first) for _ in range(3)]
        jax.tree.map(np.testing.assert_array_equal, found[2], next(later))
    with batches(0, seed=1) as other:
        assert (next(other)['chosen'] != found[0]['chosen']).any()
    assert found[0]['images'].shape == (2, 32, 32, 3) and found[0]['images'].dtype == np.float32
    for batch in found:
        for image, own_w in zip(batch['images'], batch['w'], strict=True):
            (i,) = np.flatnonzero(np.abs(w - own_w).max(1) < 1e-6)
            np.testing.assert_allclose((image + 1) * 127.5, pictures[i], atol=1e-3)


def test_a_network_chooses_the_space_of_each_region():
    """As `invertibility.select` does on the host; whole pictures keep theirs."""
    config = config_of('quicktest')
    network = map_network.make(('W+', 'F4', 'F6'), 'small')
    variables = map_network.init(network, 0)
    rng = np.random.default_rng(0)
    pictures = jnp.asarray(rng.uniform(-1, 1, (3, 32, 32, 3)), jnp.float32)
    labels = np.repeat(np.repeat(rng.integers(0, 4, (3, 4, 4)), 8, 1), 8, 2).astype(np.int32)
    batch = {
        'labels': labels,
        'chosen': np.full((3, 32, 32), 2, np.int32),
        'whole': np.array([False, True, False]),
    }
    large = jnp.repeat(jnp.repeat(pictures, 8, 1), 8, 2)
    maps = jax.jit(network.apply)(variables, large)
    maps = {s: np.asarray(m).reshape(3, 32, 8, 32, 8).mean((2, 4)) for s, m in maps.items()}
    config.regions.tau = float(np.median(maps['W+']))
    spec = sam_encoders.Spec(11, 16, (('F4', 16, 32), ('F6', 32, 32)))
    choose = jax.jit(train_sam_encoders.chooser(config, spec, (network, variables)))
    found = choose((variables, None), pictures, batch)
    ordered = {space: maps[space] for space in spec.spaces}
    expected = np.array(invertibility.select(ordered, labels, config.regions.tau).chosen)
    assert len(np.unique(expected)) > 1
    expected[1] = 2
    np.testing.assert_array_equal(found, expected)
    random = train_sam_encoders.chooser(config, spec, None)
    np.testing.assert_array_equal(random(None, pictures, batch), batch['chosen'])


# --- The loss and the start -----------------------------------------------------------------------


def config_of(variant):
    from jaxinv.configs import train_sam_encoders as module

    return module.get_config(variant)


@pytest.mark.long
def test_the_loss_is_its_definition(tiny, own, given):
    generator, weights = tiny
    pictures, chosen, masks = given
    rng = np.random.default_rng(1)
    vgg = load_lpips('vgg')
    w = rng.standard_normal((2, own.spec.w_dim)).astype(np.float32)
    prior = sam_prior.statistics(generator, weights, Prior(num_samples=200))
    s = Search(l2_weight=2.0, lpips_weight=0.5, prior_weight=1e-3, spread_weight=0.1,
               offsets_weight=0.3, loss_size=16)  # fmt: skip
    args = {
        'generator': weights,
        'average': own.average,
        'variance': jnp.float32(4.0),
        'lpips': vgg,
        'prior': prior,
        'w_weight': jnp.float32(0.7),
        'maps': None,
    }
    choose = train_sam_encoders.chooser(config_of('quicktest'), own.spec, None)
    objective = functools.partial(train_sam_encoders.objective, own.spec, generator, s, choose)
    batch = {'images': pictures, 'chosen': chosen, 'w': w}
    found = jax.jit(objective)(own.weights, args, batch)
    codes = sam_encode.encode(own, generator, weights, np.asarray(pictures), chosen, masks)
    images = jax.jit(functools.partial(sam.synthesize, generator))(weights, codes, masks)
    images, targets = (
        np.asarray(x, np.float64).reshape(2, 16, 2, 16, 2, 3).mean((2, 4))
        for x in (images, pictures)
    )
    factor, mean = (np.asarray(x, np.float64) for x in (prior.factor, prior.mean))
    for i in range(2):
        l2 = np.mean((images[i] - targets[i]) ** 2)
        maps = [
            lpips.features(vgg, jnp.asarray(x[i : i + 1], jnp.float32)) for x in (images, targets)
        ]
        distance = float(lpips.distance(*maps)[0])
        rows = np.asarray(codes.w_plus[i], np.float64)
        v = np.where(rows >= 0, rows, 5 * rows)
        gaussian = sum(np.sum(((row - mean) @ factor) ** 2) for row in v)
        spread = sum(np.sum((row - rows[0]) ** 2) for row in rows[1:])
        offsets = sum(np.mean(np.asarray(x[i], np.float64) ** 2) for x in codes.offsets.values())
        wrong = np.mean([np.sum((row - w[i]) ** 2) for row in rows]) / 4
        np.testing.assert_allclose(found['l2'][i], l2, rtol=2e-2)
        np.testing.assert_allclose(found['w'][i], wrong, rtol=1e-2)
        np.testing.assert_allclose(found['offsets'][i], offsets, rtol=2e-2)
        expected = (
            2 * l2 + 0.5 * distance + 1e-3 * gaussian + 0.1 * spread + 0.3 * offsets + 0.7 * wrong
        )
        np.testing.assert_allclose(found['loss'][i], expected, rtol=2e-2)


def test_steps_are_in_units_of_each_arrays_rms():
    rng = np.random.default_rng(0)
    values = {'a': rng.standard_normal((4, 5)), 'b': 100 * rng.standard_normal(7)}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values)
    optimizer = relative_adam(lambda step: 0.01 * (step + 1))
    state = optimizer.init(params)
    means, squares = ({k: np.zeros_like(x) for k, x in values.items()} for _ in range(2))
    for step in range(1, 4):
        gradients = {k: rng.standard_normal(x.shape) for k, x in values.items()}
        changes, state = optimizer.update(
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradients), state, params
        )
        params = optax.apply_updates(params, changes)
        for name, g in gradients.items():
            means[name] = 0.9 * means[name] + 0.1 * g
            squares[name] = 0.999 * squares[name] + 0.001 * g**2
            adam = means[name] / (1 - 0.9**step)
            adam /= np.sqrt(squares[name] / (1 - 0.999**step)) + 1e-8
            rms = np.sqrt(np.mean(values[name] ** 2))
            values[name] = values[name] - 0.01 * step * rms * adam
            np.testing.assert_allclose(params[name], values[name], rtol=1e-4, atol=1e-4)


def test_sums_fit_as_least_squares_do():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6)) * [1, 10, 0.1, 1, 1, 1] + [0, 5, 0, 0, 0, 3]
    y = x @ rng.standard_normal((6, 3)) + 2 + 0.3 * rng.standard_normal((500, 3))
    sums = sam_encoder_start.Sums()
    for rows in np.split(np.arange(500), [100, 350]):
        sums.add(x[rows], y[rows])
    solution, bias, explained = sums.solve(1e-12)
    expected = np.linalg.lstsq(np.c_[x, np.ones(500)], y, rcond=None)[0]
    np.testing.assert_allclose(solution, expected[:6], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bias, expected[6], rtol=1e-6)
    left = np.var(y - x @ solution - bias, axis=0).sum() / np.var(y, axis=0).sum()
    np.testing.assert_allclose(explained, 1 - left, rtol=1e-6)


def test_patches_are_what_a_convolution_reads():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 8, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 5)), jnp.float32)
    found = sam_encoder_start.patches(x) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(found, ops.conv(x, kernel), atol=1e-4)
    places = np.array([[0, 9], [63, 2]])
    rows = sam_encoder_start.at_places(x, places)
    expected = [x[0, 0, 0], x[0, 1, 1], x[1, 7, 7], x[1, 0, 2]]
    np.testing.assert_array_equal(rows, np.stack(expected))


# --- Samples of another training, and spellings ---------------------------------------------------


def test_samples_of_another_training_are_used_if_they_are_the_same(tmp_path):
    from jaxinv.configs import train_encoder

    theirs = train_encoder.get_config('quicktest')
    theirs.samples.num = 200
    record = {'config': settings.record_of(theirs)}
    (tmp_path / 'run.json').write_text(json.dumps(record))
    config = config_of('quicktest')
    assert place_of(config, tmp_path / 'own') == Place(tmp_path / 'own', 60)
    config.samples.folder = str(tmp_path)
    # Held out are samples that neither was trained on.
    assert place_of(config, tmp_path / 'own') == Place(tmp_path, 200)
    config.samples.num = 300
    assert place_of(config, tmp_path / 'own').held_out == 300
    config.samples.least_psi = 0.7
    with pytest.raises(JaxinvError, match='made with samples.least_psi=0.5; this training has 0.7'):
        place_of(config, tmp_path / 'own')
    config.samples.folder = str(tmp_path / 'nothing')
    with pytest.raises(JaxinvError, match='not the work folder of a training of encoders'):
        place_of(config, tmp_path / 'own')


def test_the_method_encoder_with_sams_encoders_is_sam():
    assert InvertSam(method='encoder').resolved.method == 'encoder'
    assert InvertSam(method='encoder', sam_encoders='a').resolved.method == 'sam_encoder'
    assert InvertSam(sam_encoders='a').resolved.method == 'sam'
    with pytest.raises(JaxinvError, match="method is 'sam_encoder', whose codes are those of an"):
        InvertSam(method='sam_encoder', start='a').check()
    (row,) = method_list.parse('sam_encoder:a/b.safetensors')
    assert (row.config, row.variants) == ('sam', 'sam_encoder')
    assert row.overrides == (('sam_encoders', 'a/b.safetensors'),)
    with pytest.raises(JaxinvError, match='needs an encoder; write sam_encoder:FILE'):
        method_list.parse('sam,sam_encoder')
