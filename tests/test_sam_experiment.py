"""The SAM task with a tiny random generator: outputs, resuming, baselines, bad settings."""

import functools
import json

import jax
import numpy as np
import PIL.Image
import pytest
from test_experiment import load_config

import jaxinv
from jaxinv import settings as sam_settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import sam as sam_experiment
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import code_files, region_files, sam
from jaxinv.weights.encoders import save_encoder
from jaxinv.weights.load import save_generator

pytestmark = pytest.mark.first

METRICS = {'psnr', 'psnr_256', 'lpips_vgg', 'lpips_vgg_full', 'lpips_alex', 'mse', 'ms_ssim'}


@pytest.fixture(scope='module')
def wide(tmp_path_factory):
    """Two wide pictures without faces."""
    folder = tmp_path_factory.mktemp('inputs')
    random = np.random.RandomState(0)
    for name in ('one', 'two'):
        blocks = random.randint(0, 255, (3, 4, 3)).astype(np.uint8)
        picture = PIL.Image.fromarray(blocks).resize((128, 96), PIL.Image.Resampling.BICUBIC)
        picture.save(folder / f'{name}.png')
    (folder / 'letter.png').write_text('not a picture')
    return folder


def config_of(folder, variant=''):
    config = load_config('sam', f'test,{variant}')
    config.data.images = str(folder)
    config.data.align, config.data.fit = 'none', 'pad'
    config.invertibility.spaces = ('W+', 'F6')
    return config


@pytest.fixture(scope='module')
def finished(wide, tmp_path_factory):
    path = tmp_path_factory.mktemp('run') / 'work'
    lines = []
    config = config_of(wide)
    sam_experiment.run(config, path, log=lambda text, **_: lines.append(text))
    return config, path, lines


def test_outputs_have_their_promised_names_and_numbers(finished):
    _, path, lines = finished
    result = json.loads((path / 'metrics.json').read_text())
    assert set(result['identities']) == {'one', 'two'}
    for stages in result['identities'].values():
        assert set(stages) == {'W', 'SAM'} and METRICS <= set(stages['SAM'])
        assert stages['SAM']['psnr'] > stages['W']['psnr']
    assert [s['file'].rsplit('/')[-1] for s in result['skipped']] == ['letter.png']
    names = {p.name for p in (path / 'images' / 'one').iterdir()}
    assert {'chosen_spaces_chosen.png', 'invertibility_maps_f6.png', 'SAM.png'} <= names
    page = (path / 'report.html').read_text()
    assert 'Chosen spaces' in page and 'area in W+' in page


def test_codes_give_the_picture_of_the_report_again(finished):
    config, path, _ = finished
    codes, masks = code_files.load_codes(path)
    assert codes.w_plus.shape[0] == 2 and set(codes.offsets) == set(masks) == {'F6'}
    generator, weights = jaxinv.load_generator(config.generator)
    images = jax.jit(functools.partial(sam.synthesize, generator))(weights, codes, masks)
    saved = np.asarray(PIL.Image.open(path / 'images' / 'two' / 'SAM.png'), np.float32)
    np.testing.assert_allclose(np.clip((images[1] + 1) * 127.5, 0, 255), saved, atol=1)


def test_chosen_spaces_follow_the_maps_and_padding_has_no_say(finished):
    config, path, _ = finished
    tau = config.invertibility.tau
    with np.load(path / region_files.FILE) as regions:
        labels, chosen = regions['labels'][0], regions['chosen'][0]
        error = regions['maps/W+'][0]
    picture = np.zeros((32, 32), bool)
    picture[4:28] = True  # 128 x 96 in a square of 32
    for segment in np.unique(labels[picture]):
        inside = (labels == segment) & picture
        if abs(error[inside].mean() - tau) > 1e-3:
            assert (chosen[inside] == (0 if error[inside].mean() <= tau else 1)).all()


@pytest.mark.long
def test_maps_of_a_run_serve_another_threshold(finished, tmp_path):
    config, path, _ = finished
    config = config.copy_and_resolve_references()
    config.invertibility.maps = str(path)
    sam_experiment.run(config, tmp_path / 'same', log=lambda *_, **__: None)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(code_files.load_codes(folder)[0] for folder in (path, tmp_path / 'same')),
    )
    assert not list((tmp_path / 'same' / 'state').glob('measure_*'))
    config.invertibility.tau = 9.0
    sam_experiment.run(config, tmp_path / 'other', log=lambda *_, **__: None)
    with np.load(tmp_path / 'other' / 'regions.npz') as regions:
        assert (regions['chosen'] == 0).all() and regions['names'].tolist() == ['one', 'two']
    for spaces, size, words in (
        (['W+', 'F10'], 32, 'no maps of F10; it has W[+], F6'),
        (['W+'], 64, 'have 32 pixels and the generator needs 64'),
    ):
        with pytest.raises(JaxinvError, match=words):
            region_files.check(path, spaces, size)
    with pytest.raises(JaxinvError, match='regions.npz of a SAM run'):
        region_files.load(path / 'codes.npz')


@pytest.mark.parametrize('change', ['picture', 'generator'])
def test_maps_of_something_else_are_refused_before_any_work(finished, wide, tmp_path, change):
    config, path, _ = finished
    config = config.copy_and_resolve_references()
    config.invertibility.maps = str(path)
    if change == 'picture':
        folder = tmp_path / 'in'
        folder.mkdir()
        with PIL.Image.open(wide / 'one.png') as picture:
            picture.rotate(180).save(folder / 'one.png')
        config.data.images, words = str(folder), 'no maps for one; its maps are of one, two, and'
    else:
        generator, weights = jaxinv.load_generator(config.generator)
        weights = jax.tree.map(lambda x: x * 1.001, weights)
        save_generator(tmp_path / 'other', generator, weights)
        config.generator, words = str(tmp_path / 'other'), 'no maps for one, two; '
    lines = []
    with pytest.raises(JaxinvError, match=words):
        sam_experiment.run(config, tmp_path / 'work', log=lambda text, **_: lines.append(text))
    assert not any(line.startswith('project') for line in lines)


@pytest.mark.exhaustive
def test_rerun_and_resumed_run_end_with_the_same_numbers(finished, tmp_path):
    config, path, lines = finished
    again = []
    sam_experiment.run(config, path, log=lambda text, **_: again.append(text))
    assert any('Finished already' in line for line in again)

    class Stop(Exception):
        pass

    def stop(text, **_):
        if text.startswith('invert ') and ' 2/4' in text:
            raise Stop

    with pytest.raises(Stop):
        sam_experiment.run(config, tmp_path / 'work', log=stop)
    resumed = []
    sam_experiment.run(config, tmp_path / 'work', log=lambda text, **_: resumed.append(text))
    assert any('measure_F6: going on' in line for line in resumed), resumed
    first, second = (code_files.load_codes(p)[0] for p in (path, tmp_path / 'work'))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    'variant',
    ['w', 'w_plus', 'gaussian_prior', 'f4', 'f6', 'pti', 'pti_sam', 'no_refinement', 'class_map',
     'no_offset_penalty', 'official', 'sweep'],
)  # fmt: skip
def test_baselines_and_ablations_make_the_same_report(finished, wide, tmp_path, variant):
    _, path, _ = finished
    config = load_config('sam', f'{variant},test')
    config.data.images = str(wide)
    config.data.align, config.data.fit = 'none', 'pad'
    config.start = str(path)
    if variant == 'sweep':
        config.sweep.num_steps = 2
    sam_experiment.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    result = json.loads((tmp_path / 'work' / 'metrics.json').read_text())
    last = sam_settings.LABELS[config.method]
    assert METRICS <= set(result['mean'][last])
    assert (tmp_path / 'work' / 'report.html').stat().st_size > 0


@pytest.mark.long
@pytest.mark.parametrize('method', ['encoder', 'hybrid'])
def test_baselines_with_an_encoder_make_the_same_report(wide, tiny, compact, tmp_path, method):
    config = load_config('sam', f'{method},test')
    config.data.images = str(wide)
    config.data.align, config.data.fit = 'none', 'pad'
    with pytest.raises(JaxinvError, match='which needs an encoder'):
        sam_experiment.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    assert not (tmp_path / 'work').exists()
    save_encoder(tmp_path / 'e.safetensors', compact)
    config.pivot.start = f'encoder:{tmp_path / "e.safetensors"}'
    sam_experiment.run(config, tmp_path / 'work', log=lambda *_, **__: None)
    result = json.loads((tmp_path / 'work' / 'metrics.json').read_text())
    stages = {'encoder': ['Encoder'], 'hybrid': ['Encoder', 'Hybrid W+']}[method]
    assert list(result['mean']) == stages and METRICS <= set(result['mean'][stages[-1]])


@pytest.mark.exhaustive
def test_default_edits_are_left_out_where_nobody_knows_their_directions(wide, tmp_path):
    generator = stylegan2(32, channels=(8,) * 4, z_dim=16, w_dim=16, mapping_layers=2)
    weights = jax.jit(generator.init)(jax.random.key(0, impl='unsafe_rbg'))  # compiles sooner
    save_generator(tmp_path / 'generator', generator, weights)
    config = config_of(wide, 'w')
    config.data.images = str(wide / 'one.png')
    config.generator, config.resolution = str(tmp_path / 'generator'), None
    config.start = str(tmp_path / 'start.npz')  # in place of a projection
    np.savez(config.start, names=np.array(['one']), w=np.zeros((1, 1, 16), np.float32))
    config.edits = sam_settings.EDITS
    lines = []
    sam_experiment.run(config, tmp_path / 'work', log=lambda text, **_: lines.append(text))
    assert any(line.startswith('No edits: smile, age and yaw') for line in lines), lines
    result = json.loads((tmp_path / 'work' / 'metrics.json').read_text())
    assert set(result['identities']['one']) == {'W'} and result['edits'] == {'one': {}}
    config.edits = ('smile=1',)
    with pytest.raises(JaxinvError, match="no direction 'smile'"):
        sam_experiment.run(config, tmp_path / 'other', log=lambda *_, **__: None)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'method': 'sad'}, "method is 'sad'"),
        ({'method': 'f10'}, 'has no F10; it has W'),
        ({'invertibility.tau': 0.0}, 'must be above 0 and below 10'),
        ({'sam.spread': 'cubic'}, "it can be 'squared' or 'norm'"),
        ({'prior.order': 'other'}, "it can be 'mean_of_map' or 'map_of_mean'"),
        ({'edit_mixing': 'none'}, "'with_offsets' or 'official'"),
        ({'start': '/nowhere'}, 'there is no /nowhere'),
        ({'segments.how': '/nowhere'}, 'neither one of auto, face, slic, torchvision'),
        ({'segments.how': 'regions:face,hiar'}, "no region 'hiar'. Did you mean 'hair'"),
        ({'invertibility.network': '/nowhere'}, 'is not a file'),
        ({'invertibility.maps': '/nowhere'}, 'there is no /nowhere'),
        ({'invertibility.maps': 'a', 'method': 'w_plus'}, 'which chooses no spaces'),
        ({'invertibility.maps': 'a', 'invertibility.network': 'b'}, 'are both given'),
        ({'invertibility.resample': 'cubic'}, "'bilinear' or 'lanczos'"),
        ({'invertibility.spaces': ('W+', 'F7')}, 'F7'),
        ({'invertibility.assign': (('face', 'F10'),)}, 'F10'),
    ],
)
def test_settings_that_cannot_be_used_are_named(wide, tmp_path, settings, words):
    config = config_of(wide)
    config.update_from_flattened_dict(settings)
    with pytest.raises(JaxinvError, match=words):
        sam_experiment.run(config, tmp_path / 'work', log=lambda *_, **__: None)


@pytest.mark.exhaustive
def test_groups_leave_the_codes_and_numbers_of_each_picture(wide, tmp_path):
    config = config_of(wide)
    config.group = 3
    work = tmp_path / 'work'
    sam_experiment.run(config, work, log=lambda *_, **__: None)
    records = [json.loads(line) for line in (work / 'manifest.jsonl').read_text().splitlines()]
    assert [record['name'] for record in records] == ['letter', 'one', 'two']
    assert 'not an image' in records[0]['skipped']
    for record in records[1:]:
        assert METRICS <= set(record['metrics']['SAM'])
        own = work / record['folder']
        codes, masks = code_files.load_codes(own)
        generator, weights = jaxinv.load_generator(config.generator)
        images = sam.synthesize(generator, weights, codes, masks)
        saved = np.asarray(PIL.Image.open(own / 'SAM.png'), np.float32)
        np.testing.assert_allclose(np.clip((images[0] + 1) * 127.5, 0, 255), saved, atol=1)
        assert (own / 'chosen_spaces_chosen.png').is_file()
    assert (work / 'report.html').is_file()
