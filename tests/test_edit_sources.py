"""Directions of any StyleGAN2: SeFa, GANSpace's files, boundaries, channels of styles, mixing."""

import json

import numpy as np
import pickle_writer
import pytest

from jaxinv import edits
from jaxinv.edits import ganspace, sefa
from jaxinv.generators import style_space
from jaxinv.generators.stylegan2 import stylegan2


@pytest.fixture
def w(tiny):
    spec = tiny[0].spec
    return np.random.default_rng(1).normal(size=(2, spec.num_ws, spec.w_dim)).astype('f4')


def parse(tiny, *specs):
    generator, weights = tiny
    mean = weights['buffers']['w_avg']
    return edits.parse(specs, '', mean=mean, generator=generator, weights=weights)


def applied(tiny, spec, w):
    (edit,) = parse(tiny, spec)
    return np.asarray(edits.apply(w, edit, tiny[0].spec.num_ws))


# --- SeFa -----------------------------------------------------------------------------------------


def affine_by_changes(tiny, layers):
    """A of the layers [channels, w_dim], from finite changes of w, one dimension at a time."""
    generator, weights = tiny
    spec = generator.spec
    zero = style_space.styles(generator, weights, np.zeros((1, 1, spec.w_dim), 'f4'))
    columns = []
    for unit in np.eye(spec.w_dim, dtype='f4'):
        moved = style_space.styles(generator, weights, unit[None, None])
        columns.append(np.concatenate([moved[name][0] - zero[name][0] for name in layers]))
    return np.stack(columns, 1).astype(np.float64)


@pytest.mark.parametrize(('rows', 'normalised'), [(None, False), ((0, 3), False), ((2, 7), True)])
def test_sefa_finds_the_directions_that_change_the_styles_most(tiny, rows, normalised):
    layers = [
        name for name, row, _ in tiny[0].spec.style_layers if rows is None or row in range(*rows)
    ]
    a = affine_by_changes(tiny, layers)
    if normalised:
        a /= np.linalg.norm(a, axis=1, keepdims=True)
    values, vectors = np.linalg.eig(a.T @ a)  # as the official code: not sorted, no signs
    order = np.argsort(-values.real)
    found = edits.factorise(*tiny, rows, normalised)
    np.testing.assert_allclose(found.eigenvalues, values.real[order], rtol=1e-3)
    alike = np.abs(np.sum(found.directions[:5] * vectors.real[:, order[:5]].T, axis=1))
    np.testing.assert_allclose(alike, 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1, atol=1e-5)
    assert (found.directions.max(1) == np.abs(found.directions).max(1)).all()


def test_sefa_by_its_spelling_moves_the_rows_it_was_factorised_for(tiny, w):
    found = edits.factorise(*tiny, (0, 3)).directions
    moved = applied(tiny, 'sefa2[0:3]=1.5', w)
    np.testing.assert_allclose(moved[:, :3] - w[:, :3], 1.5 * found[2] + 0 * w[:, :3], atol=1e-5)
    assert np.array_equal(moved[:, 3:], w[:, 3:])
    other = parse(tiny, 'sefa2:normalised[0:3]=1.5')[0].steps[0][0].array
    assert np.abs(other - found[2]).max() > 1e-3
    with pytest.raises(edits.EditError, match='sefa0 ... sefa15'):
        parse(tiny, 'sefa16=1')
    with pytest.raises(edits.EditError, match='needs the generator'):
        edits.parse('sefa1=1')


def test_sefa_takes_the_convolutions_and_the_last_image_layer_of_stylegan2():
    layers = sefa.layers_of(stylegan2(1024).spec)
    assert len(layers) == 18 and layers[-1] == 'b1024_torgb'
    assert not any(name.endswith('torgb') for name in layers[:-1])


# --- GANSpace -------------------------------------------------------------------------------------


@pytest.fixture
def pca(tiny, tmp_path):
    """Files of five components: GANSpace's .npz, and a .pt as projects that edit save it."""
    w_dim = tiny[0].spec.w_dim
    rng = np.random.default_rng(2)
    vectors, _ = np.linalg.qr(rng.normal(size=(w_dim, w_dim)))
    vectors, std = vectors[:5].astype('f4'), np.array([3, 2, 1.5, 1, 0.5], 'f4')
    mean = np.asarray(tiny[1]['buffers']['w_avg'])
    (tmp_path / 'npz').mkdir()
    (tmp_path / 'pt').mkdir()
    np.savez(
        tmp_path / 'npz' / 'gs.npz',
        act_comp=np.zeros((2, 2)),
        lat_comp=vectors[:, None],
        lat_stdev=std,
        lat_mean=mean[None, None],
    )
    arrays = {'mean': mean[None], 'std': std, 'comp': vectors[:, None]}
    file = pickle_writer.torch_zip(pickle_writer.tensors(arrays))
    (tmp_path / 'pt' / 'ffhq_pca.pt').write_bytes(file)
    return tmp_path, vectors, std, mean


def set_coordinate(w, mean, component, std, start, stop, strength):
    """GANSpace as in PTI's code, row by row."""
    edited = np.array(w, np.float64)
    for own in edited:
        coordinate = (own[0] - mean) @ component / std
        for row in range(start, stop):
            own[row] += (strength - coordinate) * std * component
    return edited


def test_components_count_deviations_and_set_coordinates(tiny, w, pca):
    folder, vectors, std, mean = pca
    for file in ('npz/gs.npz', 'pt/ffhq_pca.pt'):
        added = applied(tiny, f'ganspace:{folder}/{file}/2[1:4]=-2', w)
        np.testing.assert_allclose(added[:, 1:4], w[:, 1:4] - 2 * std[2] * vectors[2], atol=1e-5)
        expected = set_coordinate(w, mean, vectors[2], std[2], 1, 4, -2)
        found = applied(tiny, f'ganspace:{folder}/{file}/2[1:4]:=-2', w)
        np.testing.assert_allclose(found, expected, atol=1e-4)


TABLES = {
    'titles.csv': 'Name, component, start layer, end layer, strength\nsmile,2,1,4,-5\n',
    'plain.csv': 'smile,2,1,4,-5\nage,0,0,3,2\n',
    'tabs.csv': 'smile\t2\t1\t4\t-5\nage\t0\t0\t3\t2\n',
    'list.json': [{'name': 'smile', 'pc': 2, 'layers': '1-3', 'sigma': -5}],
    'map.json': {'smile': {'component': 2, 'layers': [1, 4], 'strength': -5}},
    'whole.json': {
        'components': '../npz/gs.npz',
        'edits': [{'name': 'smile', 'component': 2, 'layers': '1:4', 'strength': -5}],
    },
}


@pytest.mark.parametrize('name', list(TABLES))
def test_tables_of_edits(tiny, w, pca, name):
    folder, vectors, std, mean = pca
    table = folder / 'pt' / name
    text = TABLES[name] if name.endswith('csv') else json.dumps(TABLES[name])
    table.write_text(text)
    (edit,) = parse(tiny, f'ganspace:{table}:smile=0.5')
    assert edit.steps[0][0].rows == (1, 4)
    found = np.asarray(edits.apply(w, edit, tiny[0].spec.num_ws))
    np.testing.assert_allclose(found[:, 1:4], w[:, 1:4] - 2.5 * std[2] * vectors[2], atol=1e-5)
    assert np.array_equal(found[:, 4:], w[:, 4:])
    expected = set_coordinate(w, mean, vectors[2], std[2], 1, 4, -5)
    found = applied(tiny, f'ganspace:{folder}/npz/gs.npz:{table}:smile:=1', w)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ('table', 'name', 'words'),
    [
        ('name,component,strength\nsmile,1,2\n', 'smlie', "Did you mean 'smile'"),
        ('name,component,strength\nsmile,7,2\n', 'smile', 'components 0 ... 4, not 7'),
        ('name,component,strength\nsmile,x,2\n', 'smile', 'not a whole number'),
        ('name,component\nsmile,1\n', 'smile', 'has no strength; its titles are name, component'),
        ('name,component,layers,strength\nsmile,1,top,2\n', 'smile', "layers are '4:8'"),
        ('name,component,strength\na,1,2\na,1,3\n', 'a', "the edit 'a' twice"),
        ('', 'a', 'has no edits'),
    ],
)
def test_mistakes_of_tables(tiny, pca, table, name, words):
    path = pca[0] / 'pt' / 'edits.csv'
    path.write_text(table)
    with pytest.raises(edits.EditError, match=words):
        parse(tiny, f'ganspace:{path}:{name}=1')


def test_mistakes_of_components(tiny, pca, tmp_path):
    np.savez(tmp_path / 'other.npz', lat_comp=np.ones((3, 1, 16)), lat_mean=np.ones(16))
    np.savez(tmp_path / 'odd.npz', lat_comp=np.ones((3, 1, 16)), lat_stdev=np.ones(4))
    for spec, words in (
        (f'{tmp_path}/other.npz/0', 'no lat_stdev or lat_std or std; it holds lat_comp, lat_mean'),
        (f'{tmp_path}/odd.npz/0', r'lat_comp \[3, 1, 16\], lat_stdev \[4\]'),
        (f'{tmp_path}/npz/gs.npz/5', 'components 0 ... 4, not 5'),
        (f'{tmp_path}/none.npz/5', 'no file'),
        ('gs', 'write ganspace:FILE/COMPONENT'),
    ):
        with pytest.raises(edits.EditError, match=words):
            parse(tiny, f'ganspace:{spec}=1')
    far = np.asarray(tiny[1]['buffers']['w_avg']) + 3
    arrays = {'comp': np.eye(16, dtype='f4')[:3], 'std': np.ones(3, 'f4'), 'mean': far}
    np.savez(tmp_path / 'far.npz', **arrays)
    with pytest.warns(edits.EditWarning, match='seems to belong to another generator'):
        parse(tiny, f'ganspace:{tmp_path}/far.npz/1=1')


# --- Boundaries -----------------------------------------------------------------------------------


def test_boundaries_of_interfacegan_in_all_their_shapes(tiny, w, tmp_path):
    spec = tiny[0].spec
    rng = np.random.default_rng(4)
    plus = rng.normal(size=(spec.num_ws, spec.w_dim)).astype('f4')
    for i, array in enumerate((plus[0], plus[:1], plus, plus.reshape(-1), plus.reshape(1, -1))):
        expected = plus[:1] if i < 2 else plus
        np.save(tmp_path / f'{i}.npy', array)
        np.savez(tmp_path / f'{i}.npz', boundary=array)
        file = pickle_writer.torch_zip(pickle_writer.tensor(array))
        (tmp_path / f'{i}.pt').write_bytes(file)
        for suffix in ('npy', 'npz', 'pt'):
            found = applied(tiny, f'{tmp_path}/{i}.{suffix}=0.5', w)
            np.testing.assert_allclose(found, w + 0.5 * expected, atol=1e-5)
    np.savez(tmp_path / 'svm.npz', boundary=plus[:1], intercept=np.array([0.3]))
    with pytest.warns(edits.EditWarning, match="intercept beside 'boundary' is not used"):
        found = applied(tiny, f'{tmp_path}/svm.npz=1', w)
    np.testing.assert_allclose(found, w + plus[:1], atol=1e-5)


def test_conditional_direction_is_orthogonal_to_what_is_held(tiny, w, tmp_path):
    rng = np.random.default_rng(5)
    w_dim = tiny[0].spec.w_dim
    a, b, c = rng.normal(size=(3, w_dim)).astype('f4')
    for name, array in (('a', a), ('b', b), ('c', c), ('d', 2 * b)):
        np.save(tmp_path / f'{name}.npy', array)
    p = str(tmp_path)
    moved = applied(tiny, f'{p}/a.npy|{p}/b.npy=1.2', w) - w
    expected = a - (a @ b) / (b @ b) * b  # InterFaceGAN, section 3.2
    expected *= 1.2 * np.linalg.norm(a) / np.linalg.norm(expected)
    np.testing.assert_allclose(moved, expected + 0 * w, atol=1e-4)
    (edit,) = parse(tiny, f'{p}/a.npy|{p}/b.npy,{p}/c.npy,{p}/d.npy[0:2]=1')
    d = edit.steps[0][0].array[0]
    assert abs(d @ b) < 1e-4 and abs(d @ c) < 1e-4 and d @ a > 0
    assert edit.name == 'a|b,c,d[0:2]=1'
    with pytest.raises(edits.EditError, match='nothing is left'):
        parse(tiny, f'{p}/b.npy|{p}/d.npy=1')


# --- StyleSpace and mixing ------------------------------------------------------------------------


def test_a_channel_of_a_style_by_name_and_by_number(tiny, w):
    spec = tiny[0].spec
    sequence = parse(tiny, 'style:b16_conv1/3=2,style:6_0=-4,style:b16_conv1/3=0.5')
    number = [name for name, _, _ in spec.style_layers].index('b16_conv1')
    assert number == 5 and spec.style_layers[6][0] == 'b16_conv2'
    found = edits.style_offsets(sequence[0], spec)
    assert {k: np.flatnonzero(v).tolist() for k, v in found.items()} == {
        'b16_conv1': [3],
        'b16_conv2': [0],
    }
    assert found['b16_conv1'][0, 3] == 2.5 and found['b16_conv2'][0, 0] == -4
    assert np.array_equal(edits.apply(w, sequence[0], spec.num_ws), w)
    plain = parse(tiny, 'sefa0=1')
    codes, offsets = edits.moved(w[:1], [*plain, *sequence], spec)
    assert codes.shape == (3, spec.num_ws, spec.w_dim) and not offsets['b16_conv1'][:2].any()
    np.testing.assert_array_equal(offsets['b16_conv1'][2:], found['b16_conv1'])
    for name, words in (
        ('styl:b16_conv1/3=1', 'Did you mean style:'),
        ('style:b16_conv9/3=1', "Did you mean 'b16_conv2'|Did you mean 'b16_conv1'"),
        ('style:b16_conv1/999=1', 'channels 0 ... 7, not 999'),
        ('style:b16_conv1=1', 'style:LAYER/CHANNEL'),
        ('style:b16_conv1/3[0:2]=1', 'leave the rows out'),
        ('style:b16_conv1/3:=1', 'not'),
    ):
        with pytest.raises(edits.EditError, match=words):
            parse(tiny, name)


def test_mixing_takes_rows_of_another_code(tiny, w, tmp_path):
    spec = tiny[0].spec
    names = np.array(['anna', 'ben'])
    other = np.random.default_rng(6).normal(size=(2, 1, spec.w_dim)).astype('f4')
    np.savez(tmp_path / 'pivots.npz', names=names, w=other)
    mixed = applied(tiny, f'mix:{tmp_path}/pivots.npz:ben[3:]=1', w)
    np.testing.assert_allclose(mixed[:, 3:], other[1] + 0 * w[:, 3:], atol=1e-5)
    assert np.array_equal(mixed[:, :3], w[:, :3])
    half = applied(tiny, f'mix:{tmp_path}:anna=0.5', w)
    np.testing.assert_allclose(half, (w + other[0]) / 2, atol=1e-5)
    np.testing.assert_allclose(edits.mix(w, other[1:], (3, None), spec.num_ws), mixed, atol=1e-6)
    with pytest.raises(edits.EditError, match='codes of anna, ben; say whose'):
        parse(tiny, f'mix:{tmp_path}/pivots.npz=1')


# --- Another generator's W ------------------------------------------------------------------------


def test_a_direction_of_another_w_is_recognised(tiny, tmp_path):
    generator, weights = tiny
    array = np.ones(generator.spec.w_dim, 'f4')
    edits.save_direction(tmp_path / 'own.npz', array, *tiny)
    assert parse(tiny, f'{tmp_path}/own.npz=1')[0].steps[0][0].array.shape == (1, 16)
    mapping = {k: {**v, 'bias': v['bias'] + 1} for k, v in weights['buffers']['mapping'].items()}
    other = {**weights, 'buffers': {**weights['buffers'], 'mapping': mapping}}
    edits.save_direction(tmp_path / 'other.npz', array, generator, other)
    with pytest.raises(edits.EditError, match="belongs to another generator's W"):
        parse(tiny, f'{tmp_path}/other.npz=1')
    np.save(tmp_path / 'wide.npy', np.ones(512))
    with pytest.raises(edits.EditError, match="direction of another generator's W"):
        edits.check(parse(tiny, f'{tmp_path}/wide.npy=1')[0], generator.spec)


def test_further_spellings_by_prefix(tiny):
    def text(words):
        return edits.styles_direction(words, {'b8_conv1': np.ones((1, 8), 'f4')})

    (edit,) = edits.parse(['text:a face, with a beard=1.5'], '', sources={'text': text})
    assert edit.name == 'a face, with a beard=1.5'
    assert edits.style_offsets(edit, tiny[0].spec)['b8_conv1'][0, 0] == 1.5


def test_layers_of_tables():
    found = [ganspace._range(layers, '') for layers in ('4:8', '4-7', '4', 'all', [4, 8], ':3')]
    assert found == [(4, 8), (4, 8), (4, 5), None, (4, 8), (0, 3)]
