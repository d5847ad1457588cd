"""The task that trains SAM's encoders, and inversions by them: files, reports, resuming."""

import functools
import json

import jax
import numpy as np
import PIL.Image
import pytest
from test_experiment import load_config

import jaxinv
from jaxinv.errors import JaxinvError
from jaxinv.experiments import sam as sam_experiment
from jaxinv.experiments import train_sam_encoders
from jaxinv.inversion import code_files, region_files, sam
from jaxinv.weights.sam_encoders import load_sam_encoders

pytestmark = pytest.mark.long


def silent(*args, **kwargs):
    pass


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp('encoders') / 'run'
    lines = []
    config = load_config('train_sam_encoders', 'quicktest')
    train_sam_encoders.run(config, path, log=lambda *a, **k: lines.append(a[0]))
    return path, lines


@pytest.fixture(scope='module')
def wide(tmp_path_factory):
    """Two wide pictures without faces."""
    folder = tmp_path_factory.mktemp('inputs')
    rng = np.random.default_rng(0)
    for name in ('one', 'two'):
        blocks = PIL.Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
        blocks.resize((128, 96), PIL.Image.Resampling.BICUBIC).save(folder / f'{name}.png')
    return folder


def config_of(folder, variant):
    config = load_config('sam', f'test,{variant}')
    config.data.images = str(folder)
    config.data.align, config.data.fit = 'none', 'pad'
    return config


def test_the_task_leaves_encoders_of_the_generator(finished, tiny):
    path, lines = finished
    encoders = load_sam_encoders(path / train_sam_encoders.FILE)
    spec = tiny[0].spec
    assert encoders.spec.spaces == ('W+', 'F4', 'F6') and encoders.spec.num_ws == spec.num_ws
    np.testing.assert_allclose(encoders.average, tiny[1]['buffers']['w_avg'], atol=0.2)
    result = json.loads((path / 'metrics.json').read_text())
    assert set(result) == {'held_out', 'held_out_at_start'}
    assert result['held_out']['pictures'] == 4
    for name in ('W+', 'F4', 'F6', 'regions'):
        for rows in result.values():
            assert set(rows[name]) == {'psnr', 'lpips_vgg'}
    before = load_sam_encoders(path / train_sam_encoders.START)
    assert before.spec == encoders.spec
    for name, array in before.weights.items():
        moved = np.abs(array - encoders.weights[name]).max() > 0
        # The scales of what is read stay.
        assert moved != ('/maps/' in name), name
    assert (path / 'predictions.png').exists()
    assert any('\nheld_out, LPIPS vgg and PSNR: W+ ' in line for line in lines)
    again = []
    config = load_config('train_sam_encoders', 'quicktest')
    train_sam_encoders.run(config, path, log=lambda *a, **k: again.append(a[0]))
    assert 'Finished already' in again[0]


def test_the_linear_start_finds_features_of_samples_in_their_pictures(finished):
    lines = finished[1]
    fitted = [line for line in lines if 'by the linear fit at the start' in line]
    assert [line.split(':')[0] for line in fitted] == ['F4', 'F6']
    shares = [float(line.split(': ')[1].split(' %')[0]) for line in fitted]
    assert min(shares) > 30


def test_an_inversion_by_the_encoders_is_a_run_of_sam(finished, wide, tmp_path):
    path, work = finished[0], tmp_path / 'work'
    config = config_of(wide, 'encoder')
    config.edits = ()
    with pytest.raises(JaxinvError, match='needs an encoder; .* or sam_encoders=PATH'):
        sam_experiment.run(config, work, log=silent)
    config.sam_encoders = str(path / 'none.safetensors')
    with pytest.raises(JaxinvError, match='There is no file'):
        sam_experiment.run(config, work, log=silent)
    config.sam_encoders = str(path / train_sam_encoders.FILE)
    config.invertibility.assign = (('x', 'F8'),)
    with pytest.raises(JaxinvError, match='space F8'):
        sam_experiment.run(config, work, log=silent)
    assert not work.exists()
    config.invertibility.assign = ()
    config.invertibility.tau = 0.35
    sam_experiment.run(config, work, log=silent)
    result = json.loads((work / 'metrics.json').read_text())
    assert list(result['mean']) == ['Encoder', 'SAM encoder']
    assert 'encode' in result['seconds'] and 'invert' not in result['seconds']
    with np.load(work / region_files.FILE) as regions:
        assert set(np.unique(regions['chosen'])) > {0}
    codes, masks = code_files.load_codes(work)
    assert set(codes.offsets) == set(masks) <= {'F4', 'F6'} and codes.offsets
    generator, weights = jaxinv.load_generator('tiny')
    images = jax.jit(functools.partial(sam.synthesize, generator))(weights, codes, masks)
    saved = np.asarray(PIL.Image.open(work / 'images' / 'two' / 'SAM encoder.png'), np.float32)
    np.testing.assert_allclose(np.clip((images[1] + 1) * 127.5, 0, 255), saved, atol=1)
    # The same by the method's own name, and from Python.
    named = config_of(wide, 'sam_encoder')
    named.edits, named.invertibility.tau = (), 0.35
    named.sam_encoders = config.sam_encoders
    lines = []
    sam_experiment.run(named, work, log=lambda text, **_: lines.append(text))
    assert any('Finished already' in line for line in lines)


def test_one_space_for_all_and_a_sweep(finished, wide, tmp_path, tiny):
    generator, weights = tiny
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    quick = {'num_steps': 1, 'spaces': ('W+', 'F6'), 'tau': 1e-6}
    inverted = jaxinv.invert_sam(
        generator,
        weights,
        pictures,
        method='encoder',
        sam_encoders=str(finished[0] / train_sam_encoders.FILE),
        invertibility=quick,
        prior={'num_samples': 200},
        segments={'how': 'slic', 'parts': 4},
        verbose=False,
    )
    assert set(inverted.codes.offsets) == {'F6'} and (inverted.masks['F6'] == 1).all()
    assert [stage for stage, _ in inverted.history] == ['measure_W+', 'measure_F6']
    config = config_of(wide, 'sam_encoder,sweep')
    config.edits, config.sweep.taus = (), (0.01, 0.35)
    config.sam_encoders = str(finished[0] / train_sam_encoders.FILE)
    sam_experiment.run(config, tmp_path / 'work', log=silent)
    text = (tmp_path / 'work' / 'report.html').read_text()
    assert 'inversions at thresholds' in text


@pytest.mark.exhaustive
def test_a_run_that_was_killed_goes_on(finished, tmp_path):
    class Killed(Exception):
        pass

    config = load_config('train_sam_encoders', 'quicktest')

    def log(text, **kwargs):
        if str(text).startswith('encoders') and ' 2/4' in text:
            raise Killed

    with pytest.raises(Killed):
        train_sam_encoders.run(config, tmp_path / 'run', log=log)
    lines = []
    train_sam_encoders.run(config, tmp_path / 'run', log=lambda *a, **k: lines.append(a[0]))
    assert 'encoders: going on after step 2.' in lines
    ours, others = (
        load_sam_encoders(p / train_sam_encoders.FILE) for p in (tmp_path / 'run', finished[0])
    )
    for name, array in ours.weights.items():
        np.testing.assert_allclose(array, others.weights[name], rtol=5e-3, atol=5e-4, err_msg=name)
