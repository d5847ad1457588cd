"""Inversions of BigGAN-deep: z moves and the class stays, edits of the class, the configs."""

import json

import biggan_folder
import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest
from test_experiment import load_config

import jaxinv
from jaxinv import edits, generators, latents
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti as experiment
from jaxinv.experiments import sam as sam_experiment
from jaxinv.inversion import classes, code_files, pti, sam, sam_prior
from jaxinv.inversion.sam_render import edit_deltas
from jaxinv.settings import Locality, Prior, Saving
from jaxinv.weights import deltas

long = pytest.mark.long
SPEC = generators.make('tiny_biggan').spec
EMBEDDINGS = np.random.RandomState(0).standard_normal((1000, 16)).astype(np.float32)


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """The folder of the weights, and one of two pictures that the generator made."""
    folder = biggan_folder.write(tmp_path_factory.mktemp('biggan'))
    generator, weights = jaxinv.load_generator(folder, log=lambda *_, **__: None)
    z = latents.sample_z(5, 2, generator.spec.z_dim, 1.0)
    w = generator.map(weights, z, jax.nn.one_hot(np.array([3, 9]), 1000))[:, None]
    pictures = tmp_path_factory.mktemp('pictures')
    made = jax.jit(generator.synthesize)(weights, w)[0]
    for name, picture in zip(('one', 'two'), np.asarray(made), strict=True):
        levels = np.rint((np.clip(picture, -1, 1) + 1) * 127.5).astype(np.uint8)
        PIL.Image.fromarray(levels).resize((64, 64), 0).save(pictures / f'{name}.png')
    return folder, pictures


def test_spaces_are_those_of_the_paper():
    assert sam.spaces(SPEC) == ('Z+', 'F2', 'F4')
    masks = sam.full_masks(SPEC, ['F4', 'Z+'])
    assert {space: mask[:, 0, 0, 0].tolist() for space, mask in masks.items()} == {
        'F2': [0, 0],
        'F4': [1, 0],
    }


def test_adam_leaves_the_class_exactly_where_it_is():
    w = jax.random.normal(jax.random.key(0), [2, 7, 32])
    optimizer = optax.adam(0.1)
    state, moved = optimizer.init(w), w
    for _ in range(3):
        gradient = jax.grad(lambda w: jnp.sum(jnp.sin(3 * latents.freeze_class(w, SPEC))))(moved)
        changes, state = optimizer.update(gradient, state, moved)
        moved = optax.apply_updates(moved, changes)
    np.testing.assert_array_equal(moved[..., 16:], w[..., 16:])
    assert float(jnp.abs(moved - w)[..., :16].min()) > 0


def test_normals_are_cut_in_their_order():
    z = np.random.RandomState(1).standard_normal((100_000,)).astype(np.float32)
    found = np.asarray(latents.truncated_normal(z, 0.5))
    assert np.abs(found).max() <= 1 and np.diff(found[np.argsort(z)]).min() > -1e-6
    expected = latents.sample_z(2, 100_000, 1, 0.5)[:, 0]
    shares = np.linspace(0.01, 0.99, 20)
    np.testing.assert_allclose(np.quantile(found, shares), np.quantile(expected, shares), atol=0.02)
    assert latents.truncated_normal(z, None) is z


def test_prior_is_of_z_alone_and_without_a_leaky_relu():
    z = latents.sample_z(3, 500, 16, 1.0)
    settings = Prior(epsilon=0.0)
    prior = sam_prior.from_samples(z, settings, sam_prior.slope_of(SPEC))
    w_plus = np.random.RandomState(4).standard_normal((2, 7, 16))
    centered = w_plus - z.astype(np.float64).mean(0)
    inverse = np.linalg.inv(np.cov(z.astype(np.float64), rowvar=False))
    expected = np.einsum('bki,ij,bkj->b', centered, inverse, centered)
    found = sam_prior.distance(jnp.asarray(w_plus, jnp.float32), prior, sam_prior.slope_of(SPEC))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_class_edits_go_a_share_of_the_way():
    w = np.random.RandomState(5).standard_normal((2, 1, 32)).astype(np.float32)
    half, whole = edits.parse('class:207=0.5/1', '', EMBEDDINGS)
    moved = np.asarray(edits.apply(w, half, 7))
    np.testing.assert_array_equal(moved[..., :16], w[..., :16])
    np.testing.assert_allclose(moved[:, 0, 16:], (w[:, 0, 16:] + EMBEDDINGS[207]) / 2, atol=1e-6)
    moved = np.asarray(edits.apply(w, whole, 7))
    np.testing.assert_allclose(moved[:, 0, 16:], EMBEDDINGS[[207, 207]], atol=1e-6)
    (rows,) = edits.parse('class:207[2:4]=1', '', EMBEDDINGS)
    moved = np.asarray(edits.apply(w, rows, 7))
    assert moved.shape == (2, 7, 32)
    np.testing.assert_allclose(moved[:, 2:4, 16:] - EMBEDDINGS[207], 0, atol=1e-6)
    np.testing.assert_array_equal(moved[:, 4:], np.repeat(w, 3, 1))


def test_what_a_class_edit_adds_is_each_pictures_own():
    w_plus = np.random.RandomState(6).standard_normal((2, 7, 32)).astype(np.float32)
    deltas = edit_deltas(edits.parse('class:1=0.5', '', EMBEDDINGS), w_plus, SPEC)
    assert deltas.shape == (1, 2, 7, 32) and not deltas[..., :16].any()
    np.testing.assert_allclose(
        deltas[0, ..., 16:], (EMBEDDINGS[1] - w_plus[..., 16:]) / 2, atol=1e-6
    )


@pytest.mark.parametrize(
    ('text', 'known', 'words'),
    [
        ('class:1000=1', EMBEDDINGS, 'class:0 ... class:999'),
        ('class:cat=1', EMBEDDINGS, 'is none of the classes'),
        ('class:3=1', None, 'no embeddings of classes'),
    ],
)
def test_classes_that_cannot_be_are_named(text, known, words):
    with pytest.raises(edits.EditError, match=words):
        edits.parse(text, '', known)


def test_every_picture_has_the_embedding_of_its_class(official):
    generator, weights = jaxinv.load_generator(official[0], log=lambda *_, **__: None)
    table = weights['buffers']['mapping']['embeddings']
    np.testing.assert_allclose(
        classes.embeddings(generator, weights, [4, 9]), table[np.array([4, 9])]
    )
    assert classes.embeddings(generator, weights).shape == (1000, 16)
    w = np.zeros((3, 7, 32), np.float32)
    moved = latents.with_class(w, np.ones((3, 1, 16), np.float32))
    assert moved.shape == w.shape and (moved[..., 16:] == 1).all() and not moved[..., :16].any()


@pytest.mark.long
def test_the_regulariser_keeps_the_class(official):
    generator, weights = jaxinv.load_generator(official[0], log=lambda *_, **__: None)
    labelled = generators.with_label(generator, 3)
    w_avg = latents.w_statistics(labelled, weights, 100).mean
    own = classes.embeddings(generator, weights, [4, 9])
    pivots = latents.with_class(np.ones((2, 7, 32), np.float32), own[:, None])
    examples = {'pivots': pivots, 'ids': np.arange(2, dtype=np.uint32)}
    args = weights, {'w_avg': w_avg}, examples
    settings = Locality(num_samples=3, norm='all_layers')
    codes = pti.codes_around(
        labelled, settings, latents.identity_normals, *args, 0, jax.random.key(1)
    )
    assert codes.shape == (6, 7, 32)
    np.testing.assert_array_equal(codes[..., 16:], np.repeat(pivots, 3, 0)[..., 16:])
    distance = jnp.sqrt(jnp.sum((codes - np.repeat(pivots, 3, 0)) ** 2, (1, 2)))
    np.testing.assert_allclose(distance, 30, rtol=1e-5)


def test_a_delta_keeps_the_truncation(official, tmp_path):
    generator, weights = jaxinv.load_generator(official[0], log=lambda *_, **__: None)
    options = {'truncation': 0.5, 'truncation_mode': 'official'}
    base = deltas.Base.of(official[0], None, weights, options)
    deltas.write(tmp_path, base, weights, Saving(save='bfloat16'))
    restored, _ = jaxinv.load_generator(tmp_path)
    assert restored.spec == generators.with_options(generator, **options).spec
    assert restored.spec.z_truncation == 0.5


def config_of(name, variant, official, **settings):
    config = load_config(name, variant)
    config.generator, config.data.images = map(str, official)
    with config.unlocked():
        config.update(settings)
    return config


@long
def test_sam_from_the_official_files(official, tmp_path):
    config = config_of('sam_biggan', 'test', official, edits=('class:7=0.5',))
    config.start = str(tmp_path / 'start.npz')  # of no class in particular
    np.savez(config.start, names=np.array(['one', 'two']), w=np.zeros([2, 1, 32], np.float32))
    config.sam.num_steps = 8
    lines = []
    folder = tmp_path / 'run'
    sam_experiment.run(config, folder, log=lambda text, **_: lines.append(text))
    result = json.loads((folder / 'metrics.json').read_text())
    for stages in result['identities'].values():
        assert set(stages) == {'Z', 'SAM'} and stages['SAM']['psnr'] > stages['Z']['psnr']
    found = {name: entry['label'] for name, entry in result['classes'].items()}
    assert set(found) == {'one', 'two'} and len(result['classes']['one']['candidates']) == 3
    assert any(line.startswith(f'one: {found["one"]} ') for line in lines)
    page = (folder / 'report.html').read_text()
    assert 'likeliest classes' in page and 'area in Z+' in page and 'area in W+' not in page
    generator, weights = jaxinv.load_generator(official[0], log=lambda *_, **__: None)
    codes, masks = code_files.load_codes(folder)
    own = classes.embeddings(generator, weights, list(found.values()))
    np.testing.assert_array_equal(codes.w_plus[..., 16:], np.repeat(own[:, None], 7, 1))
    assert set(masks) <= {'F2', 'F4'}


@pytest.mark.exhaustive
def test_pivotal_tuning_from_the_official_files(official, tmp_path):
    config = config_of('pti_biggan', 'test', official, label=3, truncation=0.5)
    config.edits = ('class:7=1',)
    config.locality.weight = 0.0  # half the time to compile
    experiment.run(config, tmp_path, log=lambda *_, **__: None)
    result = json.loads((tmp_path / 'metrics.json').read_text())
    assert result['classes']['one'] == {'label': 3, 'candidates': []}
    for stages in result['identities'].values():
        assert stages['tuned']['psnr'] > stages['pivot']['psnr']
    with np.load(tmp_path / 'pivots.npz') as arrays:
        pivots = arrays['w']
    assert pivots.shape == (2, 7, 32) and np.ptp(pivots[..., :16], axis=1).max() > 0
    generator, weights = jaxinv.load_generator(tmp_path)
    assert generator.spec.label_dim == 1000 and generator.spec.z_truncation == 0.5
    own = classes.embeddings(generator, weights, [3, 3])
    np.testing.assert_array_equal(pivots[..., 16:], np.repeat(own[:, None], 7, 1))


@pytest.mark.parametrize('name,other', [('pti_biggan', 'pti_multi_id'), ('sam_biggan', 'sam')])
def test_another_generator_is_sent_to_its_own_config(name, other, tmp_path):
    config = load_config(name, 'test')
    config.generator = 'tiny'
    run = experiment.run if name.startswith('pti') else sam_experiment.run
    with pytest.raises(JaxinvError, match=f'for BigGAN-deep, and tiny .* --config={other} '):
        run(config, tmp_path, log=lambda *_, **__: None)


def test_a_label_out_of_range_is_named(official, tmp_path):
    config = config_of('pti_biggan', 'test', official, label=1000)
    with pytest.raises(JaxinvError, match='--config.label=0 ... 999'):
        experiment.run(config, tmp_path, log=lambda *_, **__: None)
