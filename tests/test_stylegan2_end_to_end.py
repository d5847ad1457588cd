"""The main job from a StyleGAN2 file in the official layout: any size, classes, no faces."""

import importlib.util
import json
import pathlib

import jax
import matplotlib
import numpy as np
import official_files
import PIL.Image
import pytest
import skimage

import jaxinv
from jaxinv import data, generators, launch, settings
from jaxinv.converters import export
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti
from jaxinv.generators.stylegan2 import stylegan2

pytestmark = pytest.mark.first

PICTURES = (
    pathlib.Path(matplotlib.get_data_path(), 'sample_data', 'grace_hopper.jpg'),  # 512 x 600
    pathlib.Path(skimage.__file__).parent / 'data' / 'astronaut.png',
)


def write_pkl(path, resolution, channels=16, z_dim=16, mapping_layers=2, **arguments):
    """A pickle as stylegan2-ada-pytorch's training writes it, of a small random generator."""
    count = resolution.bit_length() - 2
    generator = stylegan2(
        resolution,
        channels=(channels,) * count,
        z_dim=z_dim,
        w_dim=z_dim,
        mapping_layers=mapping_layers,
        **arguments,
    )
    weights = jax.jit(generator.init)(jax.random.key(0, impl='unsafe_rbg'))  # compiles sooner
    source = export.state_dict(generator.spec, weights, 'ada')
    clamp = arguments.get('conv_clamp')
    path.write_bytes(official_files.nvidia_pickle(source, conv_clamp=clamp))
    return path


def config_for(path):
    """pti_multi_id with a few steps; the generator's keys as in the defaults."""
    spec = importlib.util.spec_from_file_location('c', launch.config_folder() / 'pti_multi_id.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config('test')
    config.generator = str(path)
    config.resolution = None
    config.data.align = 'auto'
    config.data.images = ','.join(map(str, PICTURES))
    config.edits = settings.EDITS
    config.pivot.num_steps = config.tune.num_steps = 2
    return config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    # The LPIPS weights stay where they are.
    monkeypatch.setattr('jaxinv.weights.import_checkpoint.W_AVG_SAMPLES', 10_000)


def run(config, path):
    lines = []
    pti.run(config, path, log=lambda text, **_: lines.append(text))
    return json.loads((path / 'metrics.json').read_text()), lines


def assert_whole(result, path, resolution, num_ws):
    for stage in ('pivot', 'tuned'):
        assert all(np.isfinite(value) for value in result['mean'][stage].values()), result['mean']
        assert 'id_distance' not in result['mean'][stage]  # no faces: nothing to compare
    assert result['mean']['tuned']['mse'] < result['mean']['pivot']['mse']
    assert result['generator']['num_ws'] == num_ws
    generator, weights = jaxinv.load_generator(path)
    pivots = np.load(path / 'pivots.npz')['w']
    images, _ = jax.jit(generator.synthesize)(weights, pivots)
    assert images.shape == (2, resolution, resolution, 3)
    shown = np.asarray(PIL.Image.open(path / 'images' / 'astronaut' / 'tuned.png'), float)
    np.testing.assert_allclose(np.clip((np.asarray(images[1]) + 1) * 127.5, 0, 255), shown, atol=1)
    return generator


@pytest.mark.exhaustive
def test_a_class_of_a_conditional_pickle_at_32_pixels(tmp_path):
    """With a direction of the user's own."""
    file = write_pkl(tmp_path / 'animals.pkl', 32, c_dim=5, conv_clamp=256)
    np.save(tmp_path / 'greener.npy', np.eye(16, dtype=np.float32)[2])
    config = config_for(file)
    config.label = 3
    config.edits = (f'{tmp_path / "greener.npy"}=2',)
    result, lines = run(config, tmp_path / 'work')
    assert any('not aligned by faces' in line for line in lines)
    assert result['generator']['kind'] == 'stylegan2-ada-pytorch pickle'
    assert result['generator']['label'] == 3
    generator = assert_whole(result, tmp_path / 'work', 32, 8)
    assert dict(generator.spec.arguments)['conv_clamp'] == 256 and generator.spec.label_dim == 5
    edits = result['edits']['astronaut']
    assert list(edits) == ['greener=2'] and edits['greener=2']['id_distance'] is None
    assert 'greener' in (tmp_path / 'work' / 'report.html').read_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize('resolution', (8, 32, 64, 256))
def test_any_size(resolution, tmp_path):
    """8 pixels are fewer than LPIPS and MS-SSIM are made for."""
    file = write_pkl(tmp_path / 'net.pkl', resolution)
    result, lines = run(config_for(file), tmp_path / 'work')
    assert any('smile, age and yaw' in line for line in lines)  # the default edits: left out
    for stage in result['mean'].values():
        assert ('ms_ssim' in stage) == (resolution > 8)
    assert_whole(result, tmp_path / 'work', resolution, 2 * resolution.bit_length() - 4)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    return write_pkl(folder / 'plain.pkl', 8), write_pkl(folder / 'classes.pkl', 8, c_dim=5)


@pytest.mark.parametrize(
    'which,changes,words',
    [
        (1, {}, 'choose one by --config.label=0 ... 4'),
        (1, {'label': 5}, 'has 5 classes and label is 5'),
        (0, {'label': 0}, 'has no classes'),
        (0, {'resolution': 512}, 'images of 8 pixels, not 512'),
        (0, {'edits': ('smile=1',)}, "no direction 'smile'"),
        (0, {'edits': ('my.npy=1',)}, 'takes 16'),
        (0, {'data.align': 'yes'}, "it can be 'auto', 'face' or 'none'"),
        (0, {'data.fit': 'squeeze'}, "a shape such as '4:3'"),
    ],
)
def test_settings_that_do_not_fit_the_generator_get_a_sentence(
    files, which, changes, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save('my.npy', np.zeros(512, np.float32))
    config = config_for(files[which])
    config.update_from_flattened_dict(changes)
    with pytest.raises(JaxinvError) as error:
        pti.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    assert words in str(error.value) and '\n' not in str(error.value)
    assert not (tmp_path / 'work').exists()


@pytest.mark.exhaustive
def test_another_file_under_the_same_name_is_another_run(files, tmp_path):
    file = tmp_path / 'net.pkl'
    file.write_bytes(files[0].read_bytes())
    config = config_for(file)
    config.tune.num_steps = 0
    config.pivot.num_steps = 1
    run(config, tmp_path / 'work')
    write_pkl(file, 8, mapping_layers=3)
    with pytest.raises(JaxinvError, match='other settings'):
        run(config, tmp_path / 'work')


def test_the_domain_decides_how_pictures_become_targets(tiny):
    config = config_for('tiny')
    spec = tiny[0].spec
    as_faces = data.load_for(config.data, generators.with_domain(tiny[0], 'faces').spec)
    assert as_faces.sources[0]['face'] is not None
    lines = []
    plain = data.load_for(config.data, spec, lines.append)
    assert plain.sources[0]['face'] is None and len(lines) == 1
    cars = data.load_for(config.data, generators.with_domain(tiny[0], 'cars').spec)
    assert (cars.images_uint8[:, :4] == 0).all() and (cars.images_uint8[:, -4:] == 0).all()
    assert (cars.images_uint8[:, 5:-5].mean((1, 2)) > 20).all()


def test_one_class_maps_as_the_label_does(files):
    generator, weights = jaxinv.load_generator(files[1])
    z = np.random.RandomState(0).standard_normal((3, 16)).astype(np.float32)
    one = generators.with_label(generator, 2)
    label = jax.nn.one_hot(np.full(3, 2), 5)
    expected = generator.map(weights, z, label)
    np.testing.assert_array_equal(one.map(weights, z), expected)
    assert one.spec.label_dim == 0 and one is generators.with_label(generator, 2)
    assert float(
        abs(one.map(weights, z) - generators.with_label(generator, 1).map(weights, z)).max()
    )
