"""Edits by text: mapper, global directions and search against slow forms, tasks and spellings.

CLIP has random weights here; what is shown is the arithmetic and the files, not that CLIP sees.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import pathlib
import random

import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pickle_writer
import pytest
import recipe
import toy

import jaxinv
from jaxinv import edits, rendering
from jaxinv.converters import tables
from jaxinv.converters import text_mapper as converter
from jaxinv.errors import JaxinvError
from jaxinv.experiments import text_directions, train_mapper
from jaxinv.faces import identity_loss
from jaxinv.generators import style_space
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.networks import bpe, clip, ir_se50, text_mapper
from jaxinv.prompts import features, global_directions, mapper, search, sources
from jaxinv.settings import TextEdits, TextSearch, TrainMapper
from jaxinv.weights.clip import save_clip
from jaxinv.weights.text_edits import (
    Channels,
    Directions,
    load_directions,
    load_mapper,
    save_directions,
    save_mapper,
)

W_DIM, ROWS = 6, 10


@pytest.fixture(scope='module')
def network():
    """A CLIP of one layer with random weights and a vocabulary of bytes."""
    tokenizer = bpe.Tokenizer([])
    tower = clip.Tower(8, 1, 8)
    sizes = clip.Sizes(tower, tower, 4, 2, 40, tokenizer.size, 5)
    weights = jax.tree.map(jnp.asarray, clip.random_weights(sizes))
    return clip.Clip(clip.Spec(2, 2, 'quick_gelu'), weights, tokenizer, clip.RANDOM)


@pytest.fixture(scope='module')
def toys():
    return toy.GENERATOR, jax.jit(toy.GENERATOR.init)(jax.random.key(0))


@pytest.fixture(scope='module')
def styled():
    """A StyleGAN2 of 8 pixels."""
    generator = stylegan2(8, z_dim=4, w_dim=4, mapping_layers=1, channels=(4, 3))
    return generator, jax.jit(generator.init)(jax.random.key(1))


# --- Texts and pictures ---------------------------------------------------------------------------


def test_a_text_is_averaged_over_79_phrases_without_its_article(network):
    assert len(set(features.TEMPLATES)) == 79
    assert 'a photo of a beard.' in features.phrases_of('a beard', True)
    assert features.phrases_of('The beard ', False) == ['The beard']
    found = features.text_features(network, ['a beard', 'hat'], templates=True)
    program = jax.jit(clip.text_features, static_argnums=0)
    for text, own in zip(('beard', 'hat'), found, strict=True):
        tokens = network.tokenizer([t.replace('{}', text) for t in features.TEMPLATES], 40)
        each = np.concatenate(
            [program(network.spec, network.weights, np.stack([row] * 64))[:1] for row in tokens]
        )
        mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
        np.testing.assert_allclose(own, mean / np.linalg.norm(mean), atol=1e-5)
    with pytest.raises(JaxinvError, match='none of them empty'):
        features.text_features(network, [' '])


@pytest.mark.parametrize('size', [32, 24, 8])
def test_official_preparation_is_repetition_and_pooling(size):
    image = recipe.normal('areas', (1, size, size, 3))
    wide = image.repeat(7, 1).repeat(7, 2)
    if size * 7 % 56 == 0:
        pool = size * 7 // 56
        wanted = wide.reshape(1, 56, pool, 56, pool, 3).mean((2, 4))
        np.testing.assert_allclose(features._areas(jnp.asarray(image), 56), wanted, atol=1e-5)


# --- The mapper -----------------------------------------------------------------------------------


def official_mapper(groups=('course', 'medium', 'fine')):
    """The state dict of a mapper in the official layout."""
    found = {}
    for group in groups:
        name = 'mapping' if group == 'single' else f'{group}_mapping'
        for i in range(1, 5):
            key = f'mapper.{name}.mapping.{i}'
            found[f'{key}.weight'] = 100 * recipe.normal(f'{key}.weight', (W_DIM, W_DIM))
            found[f'{key}.bias'] = 30 * recipe.normal(f'{key}.bias', (W_DIM,))
    return found


def slow_mapper(arrays, w):
    """The official arithmetic, number by number, in float64."""
    moved = np.zeros(w.shape)
    for group, rows in (('course', range(4)), ('medium', range(4, 8)), ('fine', range(8, ROWS))):
        if f'mapper.{group}_mapping.mapping.1.weight' not in arrays:
            continue
        for b in range(len(w)):
            x = np.float64([w[b, r] for r in rows])
            x = x / np.sqrt(np.mean(x**2, 0) + 1e-8)  # over the rows
            for i in range(1, 5):
                weight = np.float64(arrays[f'mapper.{group}_mapping.mapping.{i}.weight'])
                bias = np.float64(arrays[f'mapper.{group}_mapping.mapping.{i}.bias'])
                x = x @ weight.T * (0.01 / np.sqrt(W_DIM)) + 0.01 * bias
                x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
            for r, row in zip(rows, x, strict=True):
                moved[b, r] = row
    return moved


def test_an_official_mapper_loads_and_acts(tmp_path):
    arrays = official_mapper()
    content = {'state_dict': arrays | {'decoder.input.input': np.zeros((1, 2), 'f')}, 'opts': {}}
    path = tmp_path / 'beard.pt'
    tensors = pickle_writer.tensors(content['state_dict'])
    path.write_bytes(pickle_writer.torch_zip(content | {'state_dict': tensors}))
    found = load_mapper(path)
    assert found.spec == text_mapper.Spec(('coarse', 'medium', 'fine'), 'rows')
    w = recipe.normal('codes', (2, ROWS, W_DIM))
    wanted = slow_mapper(arrays, w)
    np.testing.assert_allclose(text_mapper.apply(*found[:2], w), wanted, rtol=1e-4, atol=1e-5)
    save_mapper(tmp_path / 'copy.safetensors', found._replace(about={'prompt': 'a beard'}))
    again = load_mapper(tmp_path / 'copy.safetensors')
    assert again.spec == found.spec and again.about == {'prompt': 'a beard'}
    for name, array in found.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)


def test_groups_that_are_left_out_do_not_move():
    arrays = official_mapper(['medium'])
    found = converter.convert(arrays)
    w = recipe.normal('codes', (2, ROWS, W_DIM))
    moved = np.asarray(text_mapper.apply(*found[:2], w))
    np.testing.assert_allclose(moved, slow_mapper(arrays, w), rtol=1e-4, atol=1e-5)
    assert not moved[:, :4].any() and moved[:, 4:8].all() and not moved[:, 8:].any()
    single = converter.convert(official_mapper(['single']))
    assert single.spec.groups == ('all',) and np.all(text_mapper.apply(*single[:2], w))


def test_what_is_wrong_with_a_mapper_is_named(tmp_path):
    def refused(match, **changes):
        arrays = {k: v for k, v in (official_mapper() | changes).items() if v is not None}
        with pytest.raises(tables.ConversionError, match=match):
            converter.convert({'state_dict': arrays})

    name = 'mapper.fine_mapping.mapping.3.bias'
    refused('Missing array: fine_mapping.mapping.3.bias', **{name: None})
    refused(r'gives fine/2/bias the shape \[5\]', **{name: np.zeros(5, 'f')})
    refused('Unexpected array: mapper_0', **{'mapper.mapper_0': np.zeros(5, 'f')})
    with pytest.raises(tables.ConversionError, match='not a mapper of StyleCLIP on W+'):
        converter.convert({'encoder.weight': np.zeros(5, 'f')})
    with pytest.raises(JaxinvError, match='There is no file'):
        load_mapper(tmp_path / 'none.pt')


@pytest.mark.long
def test_the_loss_and_the_steps_of_training_are_their_definitions(toys, network):
    """Seven steps of Ranger, of which the sixth brings fast and slow weights together."""
    generator, weights = toys
    s = TrainMapper(batch_size=2, num_steps=7, chunk_steps=7, groups=('coarse',), norm='features')
    loop, start, spec = mapper.make_training(generator, network.spec, s, None)
    first = text_mapper.init(spec.groups, 6, 0)
    codes = jnp.asarray(recipe.normal('training', (5, 3, 6)))
    text = features.text_features(network, ['a beard'])[0]
    args = {'weights': weights, 'clip': network.weights, 'text': jnp.asarray(text), 'codes': codes}
    state, rows, _ = loop.chunk(start(first), args, key := jax.random.key(3), 7)

    def objective(own, w):
        x = w / jnp.sqrt(jnp.mean(w**2, 2, keepdims=True) + 1e-8)
        for i in range(4):
            x = x @ own[f'coarse/{i}/kernel'] * (0.01 / 6**0.5)
            x = x + 0.01 * own[f'coarse/{i}/bias'][None, None]
            x = jnp.where(x > 0, x, 0.2 * x) * 2**0.5
        moved = w + 0.1 * x
        image = clip.image_features(
            network.spec, network.weights, generator.synthesize(weights, moved)[0]
        )
        cosine = image @ text / jnp.linalg.norm(image, axis=1)
        return jnp.mean(1 - cosine + 0.8 * jnp.mean((moved - w) ** 2, (1, 2)))

    gradient = jax.jit(jax.value_and_grad(objective))
    fast, slow = dict(first), {k: np.float64(v) for k, v in first.items()}
    m, v = ({k: np.zeros(x.shape) for k, x in first.items()} for _ in range(2))
    for t in range(1, 8):
        chosen = jax.random.randint(jax.random.fold_in(key, t - 1), [2], 0, 5)
        loss, grads = gradient({k: jnp.float32(x) for k, x in fast.items()}, codes[chosen])
        np.testing.assert_allclose(rows['loss'][t - 1, 0], loss, rtol=1e-4)
        for name, g in grads.items():
            g = np.float64(g)
            if g.ndim > 1:
                g = g - g.mean(tuple(range(g.ndim - 1)), keepdims=True)
            m[name] = 0.95 * m[name] + 0.05 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            length = 2 / (1 - 0.999) - 1
            own = length - 2 * t * 0.999**t / (1 - 0.999**t)
            move = m[name] / (1 - 0.95**t)
            if own >= 5:
                rectified = (own - 4) * (own - 2) * length
                rectified /= (length - 4) * (length - 2) * own
                move = np.sqrt(rectified) * move / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-5)
            fast[name] = np.float64(fast[name]) - 0.5 * move
        if t == 6:
            slow = {k: x + 0.5 * (fast[k] - x) for k, x in slow.items()}
            fast = dict(slow)
    for name, array in fast.items():
        found = state.variables['mapper'][name]
        moved, wanted = (np.float64(x) - np.float64(first[name]) for x in (found, array))
        assert np.linalg.norm(moved - wanted) <= 0.02 * np.linalg.norm(wanted), name


@pytest.mark.long
def test_damaged_files_are_read_or_refused_by_a_sentence(network, styled, tmp_path):
    arrays = pickle_writer.tensors(official_mapper())
    (tmp_path / 'mapper.pt').write_bytes(pickle_writer.torch_zip({'state_dict': arrays}))
    save_mapper(tmp_path / 'mapper.safetensors', converter.convert(official_mapper()))
    save_directions(tmp_path / 'directions.safetensors', made_up(network, styled))
    save_clip(tmp_path / 'clip.safetensors', network)
    script = pathlib.Path(__file__).parent / 'data' / 'clip.npz'
    with np.load(script) as figures:
        (tmp_path / 'script.pt').write_bytes(figures['jit'].tobytes())
    readers = {
        'mapper.pt': load_mapper,
        'mapper.safetensors': load_mapper,
        'directions.safetensors': load_directions,
        'clip.safetensors': jaxinv.load_clip,
        'script.pt': jaxinv.load_clip,
    }
    chance, refused = random.Random(0), 0
    for name, read in readers.items():
        sound = (tmp_path / name).read_bytes()
        for i in range(40):
            file = tmp_path / f'{i}_{name}'
            file.write_bytes(fuzzing.damaged(sound, chance))
            try:
                read(file)
            except JaxinvError as error:  # another error fails the test
                refused += 1
                assert '\n' not in str(error) and len(str(error)) < 600
    assert refused > 100


# --- Global directions ----------------------------------------------------------------------------


def made_up(network, styled, **about):
    """A table with random rows for a generator."""
    generator, weights = styled
    rng = np.random.default_rng(0)
    layers = {}
    for layer, count in global_directions.layers_of(generator.spec):
        matrix = rng.standard_normal((count, 5))
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        layers[layer] = Channels(
            *(x.astype(np.float32) for x in (np.zeros(count), rng.uniform(1, 2, count), matrix))
        )
    probe = jaxinv.latents.mapping_fingerprint(generator, weights).tolist()
    record = {'generator': 'small', 'w_probe': probe}
    record |= {'clip': 'random', 'clip_probe': global_directions.probe_of(network)}
    return Directions(layers, record | about)


def test_the_direction_of_a_text_is_its_definition(network, styled):
    table = made_up(network, styled)
    target, neutral = features.text_features(network, ['a beard', 'a face'])
    change = np.float64(target - neutral)
    change /= np.linalg.norm(change)
    strongest = max(abs(row @ change) for own in table.layers.values() for row in own.matrix)
    found = global_directions.of_text(table, network, 'a beard', threshold=0.4, templates=False)
    assert found.strongest == pytest.approx(strongest, rel=1e-4)
    count = 0
    for layer, own in table.layers.items():
        wanted = []
        for row, deviation in zip(own.matrix, own.deviation, strict=True):
            relevance = row @ change
            wanted.append(deviation * relevance / strongest if abs(relevance) >= 0.4 else 0)
        count += np.count_nonzero(wanted)
        given = found.styles.get(layer, np.zeros((1, len(wanted))))
        np.testing.assert_allclose(given[0], wanted, atol=1e-5)
    assert found.channels == count and 0 < count < sum(len(x.mean) for x in table.layers.values())


def test_a_direction_that_cannot_be_used_is_refused(network, styled):
    table = made_up(network, styled)
    of_text = functools.partial(global_directions.of_text, table, network, templates=False)
    with pytest.raises(JaxinvError, match='the strongest has 0.* so set text.threshold below'):
        of_text('a beard', threshold=0.9999)
    with pytest.raises(JaxinvError, match='are the same to CLIP'):
        of_text('a face')
    other = made_up(network, styled, clip_probe=[0.0] * 5)
    with pytest.raises(JaxinvError, match='measured with another CLIP'):
        global_directions.of_text(other, network, 'a beard')
    check = global_directions.check_generator
    check(table, *styled)
    with pytest.raises(JaxinvError, match='another W than that of stylegan2'):
        check(made_up(network, styled, w_probe=None), *styled)
    with pytest.raises(JaxinvError, match='toy has no layer'):
        check(table, toy.GENERATOR, None)


def test_tables_are_kept_and_damaged_ones_refused(network, styled, tmp_path):
    table = made_up(network, styled)
    save_directions(tmp_path / 'text_directions.safetensors', table)
    found = load_directions(tmp_path)
    assert found.about == table.about
    for layer, own in table.layers.items():
        for wanted, array in zip(own, found.layers[layer], strict=True):
            np.testing.assert_array_equal(wanted, array)
    first = next(iter(table.layers))
    bad = table.layers[first]._replace(mean=np.zeros(1, np.float32))
    save_directions(tmp_path / 'bad.safetensors', table._replace(layers={first: bad}))
    with pytest.raises(JaxinvError, match='sizes that do not fit together'):
        load_directions(tmp_path / 'bad.safetensors')
    with pytest.raises(JaxinvError, match='--config=text_directions'):
        load_directions(tmp_path / 'none')


@pytest.mark.long
def test_statistics_and_effects_of_channels_are_their_definitions(network, styled):
    generator, weights = styled
    w = np.asarray(generator.map(weights, recipe.normal('z', (7, 4))))
    table = global_directions.statistics(generator, weights, w, batch=3)
    styles = style_space.styles(generator, weights, w[:, None])
    for layer, own in styles.items():
        np.testing.assert_allclose(table[layer][0], np.mean(own, 0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(table[layer][1], np.std(own, 0), rtol=1e-4, atol=1e-5)
    layers = tuple(global_directions.layers_of(generator.spec))
    assert [layer for layer, _ in layers] == ['b4_conv1', 'b8_conv0', 'b8_conv1']
    assert [layer for layer, _ in global_directions.layers_of(generator.spec, 4)] == ['b4_conv1']
    # 6 = channel 2 of b8_conv0
    found = global_directions.effects(
        generator, weights, network, w[:3], table, layers, np.array([1, 6]), 5.0, batch=2
    )
    program = jax.jit(
        lambda code, own: clip.image_features(
            network.spec,
            network.weights,
            generator.synthesize(weights, code, style_offsets=own)[0],
        )
    )
    for row, (layer, channel) in zip(found, (('b4_conv1', 1), ('b8_conv0', 2)), strict=True):
        mean, deviation = (x[channel] for x in table[layer])
        total = 0
        for i in range(3):
            seen = []
            for sign in (-1, 1):
                own = {k: np.zeros((1, v.shape[1]), np.float32) for k, v in styles.items()}
                own[layer][0, channel] = mean + sign * 5 * deviation - styles[layer][i, channel]
                feature = np.float64(program(w[i : i + 1, None], own)[0])
                seen.append(feature / np.linalg.norm(feature))
            change = seen[1] - seen[0]
            total = total + change / np.linalg.norm(change)
        np.testing.assert_allclose(row, total / np.linalg.norm(total), atol=2e-3)


# --- Search ---------------------------------------------------------------------------------------


PROMPTS = ('a beard', 'a hat')
SEARCH = {'verbose': False, 'mesh': '1', 'num_steps': 4, 'chunk_steps': 4, 'lr_rampup': 0.25}


@pytest.fixture(scope='module')
def searched(toys, network):
    w = recipe.normal('pivots', (2, 1, 6))
    return w, jaxinv.edit_by_text(*toys, w, PROMPTS, network, **SEARCH)


def test_a_search_is_its_definition_and_texts_share_nothing(toys, network, searched):
    generator, weights = toys
    w, found = searched
    assert found.w.shape == (2, 2, 3, 6) and found.clip == 'random weights'
    assert found.history['loss'].shape == (4, 2, 2)
    texts = features.text_features(network, PROMPTS)

    def loss(code, pivot, text):
        image = generator.synthesize(weights, code[None])[0]
        seen = clip.image_features(network.spec, network.weights, image)[0]
        l2 = jnp.sum((code - pivot) ** 2)
        return 1 - seen @ text / jnp.linalg.norm(seen) + 0.008 * l2

    gradient = jax.jit(jax.value_and_grad(loss))
    for p, text in enumerate(texts):
        for i in range(2):
            pivot = np.repeat(w[i], 3, 0)
            code, m, v = np.float64(pivot), 0.0, 0.0
            for step in range(4):
                t = step / 4
                rate = 0.1 * (0.5 - 0.5 * np.cos(np.pi * min(1, (1 - t) / 0.25))) * min(1, t / 0.25)
                value, g = gradient(jnp.float32(code), pivot, text)
                np.testing.assert_allclose(found.history['loss'][step, p, i], value, rtol=1e-4)
                m, v = 0.9 * m + 0.1 * np.float64(g), 0.999 * v + 0.001 * np.float64(g) ** 2
                bias = [1 - beta ** (step + 1) for beta in (0.9, 0.999)]
                code = code - rate * (m / bias[0]) / (np.sqrt(v / bias[1]) + 1e-8)
            np.testing.assert_allclose(found.w[p, i], code, atol=2e-3)


def test_each_code_may_have_a_generator_of_its_own(toys, network, searched):
    generator, weights = toys
    w, together = searched
    run = functools.partial(jaxinv.edit_by_text, generator, clip=network, **SEARCH)
    prompts = (*PROMPTS, 'blue', 'red')  # as many examples as together: the same program
    each = run([weights, weights], w, prompts)
    np.testing.assert_allclose(each.w[:2], together.w, atol=1e-4)
    assert each.history['loss'].shape == (4, 4, 2)
    with pytest.raises(JaxinvError, match='there are 1 generators and 2 codes'):
        run([weights], w, 'a beard')
    with pytest.raises(JaxinvError, match='codes are'):
        run(weights, w[0], 'a beard')
    with pytest.raises(JaxinvError, match='give what jaxinv.load_clip returned'):
        jaxinv.edit_by_text(generator, weights, w, 'a beard', 'ViT-B-32.pt')


@pytest.mark.long
def test_identity_counts_by_its_definition(toys, network, monkeypatch):
    """With a small function in place of ArcFace, whose own parity is in test_encoders.py."""

    def unit(x):
        return x / np.sqrt(np.sum(x**2, -1, keepdims=True))

    def embed(weights, x):
        assert x.shape[1:] == (112, 112, 3)
        return clip.unit(x[:, 40:60, 30:90].mean((1, 2)) @ weights)

    monkeypatch.setattr(ir_se50, 'identity', embed)
    generator, weights = toys
    arcface = jnp.asarray(recipe.normal('arcface', (3, 4)))
    w = jnp.asarray(recipe.normal('pivots', (1, 3, 6)))
    made = search.make_search(generator, network.spec, TextSearch(chunk_steps=1), 'arcface')
    text = features.text_features(network, ['a beard'])
    state, args = made.prepare(weights, network.weights, arcface, text, w)
    moved = state._replace(variables={'w': w + 0.5})
    _, rows, _ = made.loop.chunk(moved, args, jax.random.key(0), 1)
    own = []
    for code in (w, w + 0.5):
        image = np.asarray(generator.synthesize(weights, code)[0])
        face = image.repeat(8, 1).repeat(8, 2)[0, 35:223, 32:220]  # 32 to 256 pixels
        small = np.zeros((112, 112, 3))
        for y in range(112):
            for x in range(112):
                areas = [slice(i * 188 // 112, -(-(i + 1) * 188 // 112)) for i in (y, x)]
                small[y, x] = face[areas[0], areas[1]].mean((0, 1))
        own.append(unit(small[40:60, 30:90].mean((0, 1)) @ np.float64(arcface)))
    np.testing.assert_allclose(rows['identity'][0, 0], 1 - own[0] @ own[1], rtol=1e-3, atol=1e-5)
    total = rows['clip'] + 0.008 * rows['l2'] + 0.005 * rows['identity']
    np.testing.assert_allclose(rows['loss'], total, rtol=1e-5)


@pytest.mark.long
def test_sface_tells_people_apart_and_leaves_pictures_without_a_face_out():
    images = jaxinv.load_images('demo', resolution=256).images_uint8 / np.float32(127.5) - 1
    spec = dataclasses.replace(toy.SPEC, domain='ffhq')
    found = identity_loss.load('auto', spec)
    assert found.kind == 'sface' and identity_loss.load(found, spec) is found
    grace, eileen, none = *images, np.zeros_like(images[0])

    @jax.jit
    def measured(weights, pictures, others):
        start = identity_loss.before('sface', weights, pictures)
        return identity_loss.distance('sface', weights, others, start)

    pairs = np.stack([[grace, grace], [grace, eileen], [none, grace]], 1)
    same, other, without = np.asarray(measured(found.weights, *pairs))
    assert abs(same) < 1e-5 and other > 0.6 and without == 0


def test_networks_of_identities_are_chosen_by_name(tmp_path):
    for none in (None, '', 'auto'):  # toy is no generator of faces
        assert identity_loss.load(none, toy.SPEC) is None
    with pytest.raises(JaxinvError, match='identity is a dict'):
        identity_loss.load({}, toy.SPEC)
    with pytest.raises(JaxinvError, match='model_ir_se50.pth'):
        identity_loss.load(str(tmp_path / 'none.pth'), toy.SPEC)


# --- Spellings ------------------------------------------------------------------------------------


def test_a_mapper_is_an_edit_of_codes(tmp_path, network):
    generator = stylegan2(64, z_dim=W_DIM, w_dim=W_DIM, mapping_layers=1, channels=(2,) * 5)
    arrays = official_mapper()
    own = converter.convert(arrays)
    save_mapper(tmp_path / 'beard.safetensors', own)
    source = sources.make(TextEdits(), generator, None)
    spelling = f'mapper:{tmp_path}/beard.safetensors'
    (edit,) = edits.parse([f'{spelling}[4:8]=1.5'], '', sources=source)
    assert edit.name == 'mapper:beard[4:8]=1.5'
    w = recipe.normal('codes', (2, ROWS, W_DIM))
    wanted = 0.15 * slow_mapper(arrays, w)
    moved = np.asarray(edits.difference(w, edit, ROWS))
    np.testing.assert_allclose(moved[:, 4:8], wanted[:, 4:8], rtol=1e-4, atol=1e-5)
    assert not moved[:, :4].any() and not moved[:, 8:].any()
    one = np.asarray(edits.apply(w[:, :1], edit, ROWS))
    assert one.shape == (2, ROWS, W_DIM)
    edits.check(edit, generator.spec)
    with pytest.raises(edits.EditError, match='depends on the code'):
        edits.to_json(edit)
    with pytest.raises(edits.EditError, match='There is no file'):
        edits.parse(['mapper:none.pt=1'], '', sources=source)
    other = sources.make(TextEdits(), toy.GENERATOR._replace(spec=toy.SPEC), None)
    edits.parse([f'{spelling}=1'], '', sources=other)  # also of 6 numbers
    small = stylegan2(8, z_dim=4, w_dim=4, mapping_layers=1, channels=(4, 3))
    with pytest.raises(edits.EditError, match='takes codes of 6 numbers; stylegan2 has 4'):
        edits.parse([f'{spelling}=1'], '', sources=sources.make(TextEdits(), small, None))


def test_a_text_is_an_edit_of_styles(network, styled, tmp_path, monkeypatch):
    generator, weights = styled
    table = made_up(network, styled)
    save_directions(tmp_path / 'text_directions.safetensors', table)
    monkeypatch.setattr(sources, '_clip', lambda *args: network)
    text = {'clip': 'random', 'directions': str(tmp_path), 'threshold': 0.1, 'templates': False}
    lines = []
    source = sources.make(TextEdits(**text), generator, weights, lambda *a, **k: lines.append(a[0]))
    (edit,) = edits.parse(['text:a beard, and a hat=-1.5'], '', sources=source)
    assert edit.name == 'text:a beard, and a hat (random weights)=-1.5'
    assert len(lines) == 1 and 'its edits mean nothing' in lines[0]
    found = global_directions.of_text(
        table, network, 'a beard, and a hat', threshold=0.1, templates=False
    )
    offsets = edits.style_offsets(edit, generator.spec)
    assert offsets.keys() == found.styles.keys()
    for layer, own in found.styles.items():
        np.testing.assert_allclose(offsets[layer], -1.5 * own, rtol=1e-6)
    codes = np.zeros((1, 1, 4), np.float32)
    spelling = 'text:a beard, and a hat=-1.5'
    images = jaxinv.render(generator, weights, codes, edit=spelling, text=text)
    wanted = rendering.render(generator, weights, codes, offsets)
    np.testing.assert_allclose(images, wanted, atol=1e-5)
    with pytest.raises(edits.EditError, match='text.clip is not set'):
        jaxinv.render(generator, weights, codes, edit=spelling)
    with pytest.raises(edits.EditError, match='text.directions is not set'):
        jaxinv.render(generator, weights, codes, edit=spelling, text={'clip': 'random'})
    with pytest.raises(JaxinvError, match='has no setting clipp; did you mean clip'):
        jaxinv.render(generator, weights, codes, edit=spelling, text={'clipp': 'random'})


# --- Tasks ----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def run(task, path, generator, stop='never'):
    """Runs a task's test variant until a line starts with `stop`; returns the lines."""
    own = importlib.import_module(f'jaxinv.configs.{task.__name__.rpartition(".")[2]}')
    lines = []

    def log(text, **kwargs):
        lines.append(str(text))
        if lines[-1].startswith(stop):
            raise Killed

    config = own.get_config('quicktest')
    config.generator, config.resolution = str(generator), None
    if 'chunk' in config:
        config.chunk = 4
    with contextlib.suppress(Killed):
        task.run(config, path, log=log)
    return lines


@pytest.fixture(scope='module')
def saved(styled, tmp_path_factory):
    return jaxinv.save(tmp_path_factory.mktemp('generator'), *styled)


@pytest.mark.long
def test_a_killed_table_of_directions_goes_on_and_serves_edits(styled, saved, tmp_path):
    path = tmp_path / 'run'
    run(text_directions, path, saved, 'channel    4')
    assert not (path / 'metrics.json').exists()
    assert not any(line.startswith('channel    4') for line in run(text_directions, path, saved))
    assert 'Finished already' in run(text_directions, path, saved)[0]
    found = load_directions(path)
    generator, weights = styled
    assert found.about['random_clip']
    for own in found.layers.values():
        assert np.linalg.norm(own.matrix[:2], axis=1) == pytest.approx(1, abs=1e-5)
        assert not own.matrix[2:].any()  # not measured
    result = json.loads((path / 'metrics.json').read_text())
    assert result['channels'] == 2 * len(found.layers) and result['random_clip']
    code = np.asarray(weights['buffers']['w_avg'])[None, None]
    text = {'clip': 'random', 'directions': str(path), 'threshold': 0.01}
    images = jaxinv.render(generator, weights, code, edit='text:a beard=3', text=text)
    assert np.abs(images - jaxinv.render(generator, weights, code)).max() > 0.01


@pytest.mark.long
def test_a_killed_training_of_a_mapper_goes_on(styled, saved, tmp_path):
    path = tmp_path / 'run'
    run(train_mapper, path, saved, 'mapper     4/4')  # before its checkpoint
    assert 'mapper: going on after step 2.' in run(train_mapper, path, saved)
    assert 'Finished already' in run(train_mapper, path, saved)[0]
    result = json.loads((path / 'metrics.json').read_text())
    assert result['random_clip'] and result['held_out'] == 4 and result['l2'] > 0
    assert (path / 'mapper.png').is_file()
    generator, weights = styled
    code = np.asarray(weights['buffers']['w_avg'])[None, None]
    edit = f'mapper:{path}/mapper.safetensors=1'
    (parsed,) = edits.parse([edit], '', sources=sources.make(TextEdits(), generator, weights))
    assert parsed.name == 'mapper:mapper (random weights)=1'
    images = jaxinv.render(generator, weights, code, edit=parsed)
    assert np.abs(images - jaxinv.render(generator, weights, code)).max() > 0.01
