"""Edits: spelling, sources, and that a move in W is a move in W and no more."""

import dataclasses
import pickle
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from jaxinv import edits
from jaxinv.edits import directions as direction_files

NUM_WS, W_DIM = 6, 8


@pytest.fixture
def directions(tmp_path, monkeypatch):
    """A package folder with 'smile', 'age' (one row) and 'pc0'."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(1, W_DIM)).astype('f4') for name in ('smile', 'age', 'pc0')}
    np.savez(tmp_path / 'ffhq.npz', **arrays)
    monkeypatch.setattr(direction_files, 'DIRECTIONS', tmp_path)
    return arrays


@pytest.fixture
def w():
    return np.random.default_rng(1).normal(size=(3, 1, W_DIM)).astype('f4')


def test_strength_is_the_multiple_of_the_direction_that_is_added(directions, w):
    (edit,) = edits.parse(['smile=2.5'])
    np.testing.assert_allclose(
        edits.apply(w, edit, NUM_WS), w + 2.5 * directions['smile'], rtol=1e-6
    )


def test_strength_zero_is_the_identity(directions, w):
    (edit,) = edits.parse('age=0')
    assert np.array_equal(edits.apply(w, edit, NUM_WS), w)


def test_sequence_adds_its_steps_and_names_its_intermediates(directions, w):
    sequence = edits.parse(['age=-4, smile=2'])
    assert [e.parts for e in sequence] == [(('age', -4.0), ('smile', 2.0))]
    expected = w - 4 * directions['age'] + 2 * directions['smile']
    np.testing.assert_allclose(edits.apply(w, sequence[0], NUM_WS), expected, rtol=1e-5)
    steps = edits.with_steps(sequence)
    assert [(e.name, e.requested) for e in steps] == [('age=-4', False), ('age=-4,smile=2', True)]


def test_intermediate_that_was_asked_for_is_not_doubled(directions):
    steps = edits.with_steps(edits.parse(['age=-4,smile=2', 'age=-4']))
    assert [(e.name, e.requested) for e in steps] == [('age=-4,smile=2', True), ('age=-4', True)]


def test_several_strengths_and_semicolons_give_several_edits(directions):
    names = [e.name for e in edits.parse('age=-4/-2/4; smile=1.5;smile=1.50;')]
    assert names == ['age=-4', 'age=-2', 'age=4', 'smile=1.5']


def test_layer_range_promotes_to_w_plus_and_moves_only_those_rows(directions, w):
    (edit,) = edits.parse(['pc0[1:3]=2'])
    moved = np.asarray(edits.apply(w, edit, NUM_WS)) - w
    assert moved.shape == (3, NUM_WS, W_DIM)
    expected = np.broadcast_to(2 * directions['pc0'], (3, 2, W_DIM))
    np.testing.assert_allclose(moved[:, 1:3], expected, rtol=1e-4, atol=1e-6)
    assert not moved[:, [0, 3, 4, 5]].any()
    assert edit.name == 'pc0[1:3]=2'


def ganspace(w, mean, component, deviation, start, stop, strength):
    """GANSpace as in PTI's code, row by row: the coordinate, in deviations, becomes `strength`."""
    edited = np.array(w, np.float64)
    for own in edited:
        coordinate = (own[0] - mean) @ component / deviation
        for row in range(start, stop):
            own[row] += (strength - coordinate) * deviation * component
    return edited


def test_colon_equals_sets_the_coordinate_as_ganspace_in_ptis_code(tmp_path, directions):
    rng = np.random.default_rng(3)
    mean, component = rng.normal(size=(2, W_DIM)).astype('f4')
    component /= np.linalg.norm(component)
    np.save(tmp_path / 'smile.npy', 1.7 * component)
    plus = rng.normal(size=(3, NUM_WS, W_DIM)).astype('f4')
    (edit,) = edits.parse([f'{tmp_path}/smile.npy[1:4]:=-6'], mean=mean)
    expected = ganspace(plus, mean, component, 1.7, 1, 4, -6)
    np.testing.assert_allclose(edits.apply(plus, edit, NUM_WS), expected, rtol=1e-5, atol=1e-5)
    assert (edit.name, edit.parts) == ('smile[1:4]:=-6', (('smile[1:4]:', -6.0),))


def test_set_coordinate_is_that_of_the_result_and_setting_it_twice_changes_nothing(directions, w):
    mean, d = np.full(W_DIM, 0.3, 'f4'), directions['pc0'][0]
    (edit,) = edits.parse(['pc0:=2'], mean=mean)
    moved = np.asarray(edits.apply(w, edit, NUM_WS))
    np.testing.assert_allclose((moved[:, 0] - mean) @ d / (d @ d), 2, rtol=1e-5)
    np.testing.assert_allclose(edits.apply(moved, edit, NUM_WS), moved, atol=1e-5)


@pytest.mark.parametrize('spec', ['smile=2', 'pc0[1:3]=2', 'smile:=1', 'smile=2,pc0[2:]:=1,age=1'])
def test_difference_is_what_apply_adds(directions, w, spec):
    (edit,) = edits.parse([spec], mean=np.ones(W_DIM))
    added = np.asarray(edits.apply(w, edit, NUM_WS)) - w
    np.testing.assert_allclose(edits.difference(w, edit, NUM_WS), added, atol=1e-5)


def test_one_row_direction_keeps_rows_of_w_and_of_w_plus(directions, w):
    (edit,) = edits.parse(['smile=1'])
    assert edits.apply(w, edit, NUM_WS).shape == w.shape
    plus = np.broadcast_to(w, (3, NUM_WS, W_DIM))
    np.testing.assert_allclose(edits.apply(plus, edit, NUM_WS), plus + directions['smile'])


@pytest.mark.parametrize('shape', [(W_DIM,), (1, W_DIM), (NUM_WS, W_DIM), (1, NUM_WS, W_DIM)])
@pytest.mark.parametrize('suffix', ['.npy', '.npz', '.safetensors'])
def test_own_directions_load_in_every_shape(tmp_path, w, shape, suffix):
    array = np.random.default_rng(2).normal(size=shape).astype('f4')
    path = tmp_path / f'my beard, v=2{suffix}'  # a comma and an equals sign in a name are fine
    if suffix == '.npy':
        np.save(path, array)
    elif suffix == '.npz':
        np.savez(path, beard=array)
    else:
        safetensors.numpy.save_file({'beard': array}, path)
    (edit,) = edits.parse([f'{path}=-0.5'])
    expected = w - 0.5 * array.reshape(1, -1, W_DIM)
    np.testing.assert_allclose(edits.apply(w, edit, NUM_WS), expected, rtol=1e-5)


def test_one_array_of_several_is_picked_by_key(tmp_path):
    path = tmp_path / 'many.npz'
    np.savez(path, a=np.zeros(W_DIM), b=np.ones(W_DIM))
    assert edits.load_direction(f'{path}:b').sum() == W_DIM
    with pytest.raises(edits.EditError, match='holds a, b'):
        edits.load_direction(str(path))
    with pytest.raises(edits.EditError, match="no 'c'"):
        edits.load_direction(f'{path}:c')


def torch_file(path, global_name, storage):
    """A minimal zip-format .pt of one float tensor, whose pickle names `global_name`."""
    module, name = global_name
    program = b'\x80\x02c' + module.encode() + b'\n' + name.encode() + b'\n'
    program += b'((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
    program += b'X\x03\x00\x00\x00cpuK\x08tQ'
    program += b'K\x00K\x08\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR.'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as file:
        file.writestr('archive/data.pkl', program)
        file.writestr('archive/data/0', storage.astype('<f4').tobytes())
        file.writestr('archive/version', '3\n')


def test_torch_file_loads_without_torch_and_without_executing(tmp_path):
    values = np.arange(W_DIM, dtype='f4')
    torch_file(tmp_path / 'dir.pt', ('torch._utils', '_rebuild_tensor_v2'), values)
    np.testing.assert_array_equal(edits.load_direction(tmp_path / 'dir.pt'), values[None])
    assert 'torch' not in sys.modules


def test_hostile_files_are_refused_in_one_sentence(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'owned'), 'w'))

    pickled = pickle.dumps(Evil())
    (tmp_path / 'evil.npy').write_bytes(pickled)
    (tmp_path / 'text.npz').write_text('hello')
    (tmp_path / 'evil.pt').write_bytes(pickled)
    np.save(tmp_path / 'object.npy', np.array([Evil()], dtype=object), allow_pickle=True)
    for name in ('evil.npy', 'text.npz', 'evil.pt', 'object.npy'):
        with pytest.raises(edits.EditError, match='could not be read'):
            edits.load_direction(tmp_path / name)
    assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('smlie=2', "Did you mean 'smile'"),
        ('smile', 'NAME=STRENGTH'),
        ('smile=2=3', 'no direction'),
        ('smile=two', 'NAME=STRENGTH'),
        ('smile=1-2', 'not a strength'),
        ('smile=1e999', 'not finite'),
        ('smile=1/2,age=3', 'not a sequence'),
        ('nowhere.npy=1', 'no file'),
        ('smile:=1', 'mean of W'),
        ('class:3:=1', 'write class:3=1'),
    ],
)
def test_mistakes_say_what_exists(directions, spec, message):
    with pytest.raises(edits.EditError, match=message):
        edits.parse([spec])


def test_direction_that_does_not_fit_says_what_would(tmp_path, w):
    np.save(tmp_path / 'long.npy', np.ones((18, W_DIM)))
    np.save(tmp_path / 'wide.npy', np.ones(512))
    np.save(tmp_path / 'cube.npy', np.ones((2, 2, 2)))
    with pytest.raises(edits.EditError, match='18 rows; this generator takes 1 or 6'):
        edits.apply(w, edits.parse([f'{tmp_path}/long.npy=1'])[0], NUM_WS)
    with pytest.raises(edits.EditError, match='512 values a row; this generator takes 8'):
        edits.apply(w, edits.parse([f'{tmp_path}/wide.npy=1'])[0], NUM_WS)
    with pytest.raises(edits.EditError, match=r'shape \[2, 2, 2\]'):
        edits.parse([f'{tmp_path}/cube.npy=1'])


def test_rows_that_do_not_exist_are_refused(directions, w):
    for spec in ('smile[0:7]=1', 'smile[3:3]=1'):
        with pytest.raises(edits.EditError, match=r'0\.\.5'):
            edits.apply(w, edits.parse([spec])[0], NUM_WS)


def test_packaged_directions_have_length_one_and_a_validated_entry_each():
    names = edits.packaged()
    entries = edits.describe()['directions']
    assert {'smile', 'age', 'yaw', 'pc0'} <= set(names) == set(entries)
    vectors = np.concatenate([edits.load_direction(name) for name in names])
    assert vectors.shape == (len(names), 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    attributes = [name for name, entry in entries.items() if entry['kind'] == 'attribute']
    assert {'smile', 'age', 'yaw'} < set(attributes) and len(attributes) >= 14
    for name in attributes:
        # On fresh faces: strength goes with the attribute as its judge sees it, and it rises.
        assert entries[name]['correlation'] > 0.5 and entries[name]['per_unit'][name] > 0
        assert entries[name]['judge'] != entries[name]['steered_by']


def test_what_is_available_is_printed_with_range_unit_and_judge_and_what_was_not_found(tiny):
    found = edits.available()
    lines = str(found).splitlines()
    first, *_ = (line for line in lines if line.startswith('yaw '))
    assert 'degree' in first and 'yaw/head_pose' in first and ' to ' in first
    not_found = edits.describe()['not_found']
    for name, entry in not_found.items():
        assert name not in [entry.name for entry in found]
        assert any(line.startswith(name) and entry['reason'] in line for line in lines)
    assert sorted(entry.name for entry in found) == edits.packaged()
    assert all(entry.range[0] < 0 < entry.range[1] for entry in found)
    faces = tiny[0]._replace(spec=dataclasses.replace(tiny[0].spec, domain='ffhq'))
    assert str(edits.available(faces)) == str(found)
    assert len(edits.available(tiny[0])) == 0 and 'no packaged' in str(edits.available(tiny[0]))


def test_directions_with_one_name_are_edits_of_their_own(directions, tmp_path):
    for folder in ('interfacegan', 'styleclip'):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / 'beard.npy', np.ones(W_DIM, 'f4'))
    np.save(tmp_path / 'smile.npy', np.ones(W_DIM, 'f4'))

    def names(*specs):
        return [edit.name for edit in edits.parse(specs)]

    first, second = (f'{tmp_path}/{folder}/beard.npy' for folder in ('interfacegan', 'styleclip'))
    assert names(f'{first}=2', f'{second}=2') == ['beard=2', 'styleclip/beard=2']
    assert names(f'{first}=2', f'{first}=3', f'{first}=2') == ['beard=2', 'beard=3']
    own = f'{tmp_path}/smile.npy'
    for specs in (('smile=1.2', f'{own}=1.2'), (f'{own}=1.2', 'smile=1.2')):
        found = names(*specs)
        assert len(set(found)) == 2 and 'smile=1.2' in found
    assert names(f'{own}=1.2') == ['smile=1.2']
    assert names('age=0.333333333', 'age=0.33333331', 'age=0.333333333') == [
        'age=0.333333333',
        'age=0.33333331',
    ]


def test_components_of_ganspace_and_of_closed_form_factorisation(tmp_path):
    components = np.arange(3 * W_DIM, dtype='f4').reshape(3, 1, W_DIM)
    np.savez(tmp_path / 'gs.npz', lat_comp=components, lat_mean=np.zeros([1, W_DIM], 'f4'))
    found = edits.load_direction(f'{tmp_path}/gs.npz:lat_comp/2')
    np.testing.assert_array_equal(found, components[2])
    vectors = np.arange(W_DIM**2, dtype='f4').reshape(W_DIM, W_DIM)
    safetensors.numpy.save_file({'eigvec': vectors, 'a': vectors}, tmp_path / 'factor.safetensors')
    found = edits.load_direction(f'{tmp_path}/factor.safetensors:eigvec/5')
    np.testing.assert_array_equal(found, vectors[None, :, 5])
    np.save(tmp_path / 'all.npy', components)
    np.testing.assert_array_equal(edits.load_direction(f'{tmp_path}/all.npy:/1'), components[1])
    for source, words in (
        ('gs.npz:lat_comp', 'several components; take one of them, the first as .*lat_comp/0='),
        ('factor.safetensors:eigvec', 'several components; .*eigvec/0='),
        ('all.npy', 'several components; .*all.npy:/0='),
        ('gs.npz:lat_comp/3', 'components 0 ... 2, not'),
        ('gs.npz:lat_comp/x', 'components 0 ... 2, not'),
    ):
        with pytest.raises(edits.EditError, match=words):
            edits.load_direction(f'{tmp_path}/{source}')
    (edit,) = edits.parse(f'{tmp_path}/gs.npz:lat_comp/2=1.5')
    assert edit.name == 'gs:lat_comp/2=1.5'


@pytest.mark.parametrize('kind', ['npy', 'npz', 'safetensors'])
def test_bfloat16_directions_are_read(kind, tmp_path):
    import ml_dtypes

    array = np.linspace(-2, 2, W_DIM).astype(ml_dtypes.bfloat16)
    path = tmp_path / f'a.{kind}'
    if kind == 'npy':
        np.save(path, array)
    elif kind == 'npz':
        np.savez(path, a=array)
    else:
        bits = array.view(np.uint16).tobytes()
        entry = f'{{"a":{{"dtype":"BF16","shape":[{W_DIM}],"data_offsets":[0,{len(bits)}]}}}}'
        path.write_bytes(len(entry).to_bytes(8, 'little') + entry.encode() + bits)
    np.testing.assert_array_equal(edits.load_direction(str(path))[0], array.astype(np.float32))
