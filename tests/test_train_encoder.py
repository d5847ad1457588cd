"""The task that trains an encoder: samples, augmentation, losses, resuming, files."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import limits
import numpy as np
import pytest

import jaxinv
from jaxinv import latents, pixels, settings
from jaxinv.data import augment, load_images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import encoder_judge, encoder_samples, encoder_start, train_encoder
from jaxinv.faces import identity, mesh
from jaxinv.networks import compact_encoder, encoders, lpips
from jaxinv.settings.encoders import Augmentation, ImageLoss, Samples
from jaxinv.weights import graphs
from jaxinv.weights.encoders import load_encoder, save_encoder
from jaxinv.weights.networks import load_lpips

OFF = dict.fromkeys(('crop', 'colour', 'grey', 'blur', 'noise', 'jpeg', 'occluders'), 0.0)


def config_of(variant):
    file = pathlib.Path(__file__).parents[1] / 'configs' / 'train_encoder.py'
    spec = importlib.util.spec_from_file_location('train_encoder', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def silent(*args, **kwargs):
    pass


def weights_of(w_dim, num_ws=None):
    """Seeded random weights of a compact encoder; num_ws: of one to W+."""
    rng = np.random.default_rng(0)
    rows = compact_encoder.row_shapes(num_ws, w_dim) if num_ws else {}
    return {
        name: jnp.asarray(rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)
        for name, shape in (compact_encoder.shapes(w_dim) | rows).items()
    }


# --- Samples and their changes --------------------------------------------------------------------


@pytest.mark.long
def test_samples_are_the_generators_images_and_missing_files_are_made_again(tiny, tmp_path):
    generator, weights = tiny
    s = Samples(num=70, held_out=2, least_psi=0.5, perturbation=0.0)
    place = encoder_samples.Place(tmp_path, s.num)
    found = encoder_samples.make(generator, weights, s, 3, place, silent)
    assert found.images_uint8.shape == (72, 32, 32, 3) and found.w.shape[0] == 72
    z = latents.sample_z(3, 128, generator.spec.z_dim)
    w = np.asarray(generator.map(weights, z))[:72] - np.asarray(weights['buffers']['w_avg'])
    moved = found.w - np.asarray(weights['buffers']['w_avg'])
    psi = (w * moved).sum(1) / (w * w).sum(1)  # found.w is between the mean and w
    assert psi.min() > 0.499 and psi.max() < 1.001 and psi.std() > 0.05
    np.testing.assert_allclose(moved, psi[:, None] * w, atol=1e-4)
    images = jaxinv.render(generator, weights, found.w[:4, None])
    whole = np.rint((np.asarray(images, np.float64) + 1) * 127.5).clip(0, 255)
    assert np.abs(whole - found.images_uint8[:4]).max() <= 1
    (tmp_path / 'samples' / '00001.npz').unlink()
    again = encoder_samples.make(generator, weights, s, 3, place, silent)
    np.testing.assert_array_equal(again.images_uint8, found.images_uint8)
    (tmp_path / 'samples' / '00000.npz').write_bytes(b'PK\x03\x04')
    with pytest.raises(JaxinvError, match='00000.npz'):
        encoder_samples.make(generator, weights, s, 3, place, silent)


def test_each_change_happens_by_its_share_and_seed():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def changed(seed=0, **shares):
        return augment.augment(picture, np.random.default_rng(seed), Augmentation(**OFF | shares))

    np.testing.assert_array_equal(changed(), picture)
    for name in OFF:
        one = changed(**{name: 1.0})
        assert one.shape == picture.shape and one.dtype == np.uint8
        assert (one != picture).any(), name
        np.testing.assert_array_equal(one, changed(**{name: 1.0}))
        assert (one != changed(1, **{name: 1.0})).any() or name == 'grey'
    assert (np.ptp(changed(grey=1.0), axis=2) == 0).all()


def test_a_crop_moves_the_picture_a_little_and_mirrors_what_is_outside():
    """A white square stays near its place; no black comes in from outside a white picture."""
    square = np.zeros((64, 64, 3), np.uint8)
    square[24:40, 24:40] = 255
    rng = np.random.default_rng(0)
    for _ in range(8):
        moved = augment.augment(square, rng, Augmentation(**OFF | {'crop': 1.0}))
        rows, columns = np.nonzero(moved[..., 0] > 127)
        assert abs(rows.mean() - 31.5) < 12 and abs(columns.mean() - 31.5) < 12
        white = augment.augment(np.full_like(square, 255), rng, Augmentation(**OFF | {'crop': 1.0}))
        assert (white == 255).all()


# --- Losses and the start -------------------------------------------------------------------------


def test_the_loss_on_w_is_its_definition():
    rng = np.random.default_rng(0)
    weights = weights_of(5)
    images = jnp.asarray(rng.uniform(-1, 1, (2, 256, 256, 3)), jnp.float32)
    w, mean, visible = (rng.standard_normal(shape) for shape in ((2, 5), (5,), (5, 7)))
    args = {
        'mean': jnp.asarray(mean, jnp.float32),
        'variance': jnp.float32(4.0),
        'visible': jnp.asarray(visible, jnp.float32),
        'visible_weight': jnp.float32(0.5),
    }
    batch = {'images': images, 'w': jnp.asarray(w, jnp.float32)}
    found = jax.jit(train_encoder.on_w)(weights, args, batch)
    codes = jax.jit(compact_encoder.differences)(weights, images)
    codes = np.asarray(codes, np.float64) + mean
    for i in range(2):
        wrong = codes[i] - w[i]
        own = sum(x**2 for x in wrong) / 4
        seen = sum((wrong @ visible[:, j]) ** 2 for j in range(7))
        np.testing.assert_allclose(found['w'][i], own, rtol=1e-4)
        np.testing.assert_allclose(found['loss'][i], own + 0.5 * seen, rtol=1e-4)


def image_case(tiny):
    """Arguments of the loss on images for two random pictures."""
    generator, weights = tiny
    rng = np.random.default_rng(0)
    clean = jnp.asarray(rng.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((2, generator.spec.w_dim)), jnp.float32)
    mean = weights['buffers']['w_avg']
    args = {
        'mean': mean,
        'variance': jnp.float32(4.0),
        'visible': jnp.zeros((len(mean), 1)),
        'visible_weight': jnp.float32(1.0),
        'generator': weights,
        'lpips': load_lpips('alex'),
    }
    return args, {'images': clean, 'clean': clean, 'w': w}


@pytest.mark.long
def test_the_loss_on_the_image_is_its_definition(tiny):
    generator, weights = tiny
    own = weights_of(generator.spec.w_dim)
    args, batch = image_case(tiny)
    clean, alex = batch['clean'], args['lpips']
    s = ImageLoss(size=32, lpips_weight=0.5, l2_weight=2.0, w_weight=3.0)
    found = train_encoder.on_image(generator, s, own, args, batch)
    assert tuple(found) == s.metrics == ('loss', 'w', 'l2', 'lpips_alex')
    for i in range(2):
        code = args['mean'] + compact_encoder.differences(own, clean[i : i + 1])[0]
        image = generator.synthesize(weights, code[None, None])[0]
        l2 = np.mean((np.asarray(image[0], np.float64) - np.asarray(clean[i])) ** 2)
        maps = [lpips.features(alex, x) for x in (image, clean[i : i + 1])]
        distance = float(lpips.distance(*maps)[0])
        wrong = float(jnp.sum((code - batch['w'][i]) ** 2)) / 4
        np.testing.assert_allclose(found['l2'][i], l2, rtol=1e-3)
        np.testing.assert_allclose(found['loss'][i], 3 * wrong + 2 * l2 + 0.5 * distance, rtol=1e-3)


@pytest.mark.long
def test_the_loss_on_the_image_with_differences_of_rows_and_identity(tiny, monkeypatch):
    """The image is that of w_plus; e4e's penalty; one minus the cosine of SFace's embeddings."""
    generator, weights = tiny
    spec = generator.spec
    own = weights_of(spec.w_dim, spec.num_ws)
    args, batch = image_case(tiny)
    args['identity'] = networks = (graphs.load('sface'), graphs.load('landmarks478'))
    s = ImageLoss(size=32, identity_weight=0.7, deltas=True, delta_weight=0.01, num_steps=1)
    found = train_encoder.on_image(generator, s, own, args, batch)
    assert tuple(found) == s.metrics == ('loss', 'w', 'l2', 'lpips_alex', 'identity', 'deltas')
    np.testing.assert_array_equal(found['identity'], 0)  # no face in these pictures
    monkeypatch.setattr(mesh, 'LEAST', -np.inf)
    found = train_encoder.on_image(generator, s, own, args, batch)
    encoder = train_encoder.as_encoder(spec, own, latents.WStatistics(args['mean'], 2.0))
    for i in range(2):
        picture = batch['clean'][i : i + 1]
        w_plus = encoder.average + encoders.differences(encoder.spec, own, picture)[0]
        image = generator.synthesize(weights, w_plus[None])[0]
        penalty = sum(float(x) ** 2 for row in w_plus[1:] for x in row - w_plus[0])
        np.testing.assert_allclose(found['deltas'][i], penalty, rtol=1e-3)
        a, b = (
            np.asarray(
                identity.embed_of(networks[0], x, mesh.points_of(networks[1], picture)[0])[0]
            )
            for x in (image, picture)
        )
        cosine = (a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(found['identity'][i], 1 - cosine, atol=1e-3)
        np.testing.assert_allclose(found['l2'][i], np.mean((image[0] - picture[0]) ** 2), rtol=1e-3)
        parts = [float(found[name][i]) for name in s.metrics[2:]]
        whole = train_encoder.on_w(own, args, batch)['loss'][i] + np.dot(parts, (1, 1, 0.7, 0.01))
        np.testing.assert_allclose(found['loss'][i], whole, rtol=1e-3)


@pytest.mark.long
def test_rows_start_without_differences_and_are_then_linear_in_the_summary():
    own, num_ws, w_dim = weights_of(5), 4, 5
    pictures = np.random.default_rng(1).integers(0, 256, (6, 64, 64, 3), np.uint8)
    dataset = encoder_samples.Dataset(pictures, np.zeros((6, w_dim), np.float32))
    images = pixels.to_float(pictures[:2])
    summary = compact_encoder.summary(own, images)
    rows = encoder_start.rows(own, num_ws, 3, dataset, 0)
    first = np.asarray(compact_encoder.differences(own, images))
    found = compact_encoder.rows_of_summary(own | rows, summary, num_ws)
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], num_ws, 1))
    np.testing.assert_allclose(found[:, 0], first, rtol=1e-4, atol=1e-5)
    down, bias, up = (np.asarray(rows[name]) for name in compact_encoder.ROWS)
    up = np.random.default_rng(2).standard_normal(up.shape).astype(np.float32)
    moved = own | rows | {compact_encoder.ROWS[2]: jnp.asarray(up)}
    found = compact_encoder.rows_of_summary(moved, summary, num_ws)
    for i in range(2):
        low = np.asarray(summary)[i] @ down + bias
        for k in range(1, num_ws):
            wanted = first[i] + low @ up[:, (k - 1) * w_dim : k * w_dim]
            np.testing.assert_allclose(found[i, k], wanted, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize(('name', 'value'), [('deltas', True), ('identity_weight', 0.5)])
def test_what_is_of_the_steps_on_images_needs_them(name, value):
    config = config_of('')
    config.image[name] = value
    with pytest.raises(JaxinvError, match=f'image.{name} is {value} and image.num_steps is 0'):
        settings.check(config)


def test_the_linear_map_to_the_image_is_found():
    """Pictures that are linear in w give the map back, scaled to E|A dw|^2 = 1."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((600, 4))
    true = rng.uniform(-1, 1, (4, 3)) * 20
    colours = 128 + w @ true
    pictures = np.broadcast_to(np.rint(colours)[:, None, None], (600, 16, 16, 3))
    dataset = encoder_samples.Dataset(pictures.clip(0, 255).astype(np.uint8), w.astype(np.float32))
    found = encoder_start.visible_map(dataset, latents.WStatistics(np.zeros(4), 2.0))
    found = found.reshape(4, 256, 3)[:, 0].astype(np.float64)
    scale = np.sum(found * true) / np.sum(true**2)
    np.testing.assert_allclose(found, scale * true, atol=0.05 * np.abs(scale * true).max())
    whole = encoder_start.visible_map(dataset, latents.WStatistics(np.zeros(4), 2.0))
    assert abs(np.mean(np.sum((w @ whole) ** 2, 1)) - 1) < 1e-3


@pytest.mark.long
def test_identity_is_judged_by_dlib_and_missing_without_a_face():
    portraits = pixels.to_float(load_images('demo', resolution=256).images_uint8)
    grey = np.zeros_like(portraits[:1])
    pictures = np.concatenate([portraits, grey])
    found = encoder_judge.identity_distance(pictures, pictures)
    np.testing.assert_allclose(found, [0, 0, np.nan], atol=1e-6)
    assert encoder_judge.identity_distance(portraits, portraits[::-1]).min() > 0.6


# --- The task -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp('encoder') / 'run'
    lines = []
    train_encoder.run(config_of('quicktest'), path, log=lambda *a, **k: lines.append(a[0]))
    return path, lines


@pytest.mark.long
def test_the_task_leaves_an_encoder_of_the_generator(finished, tiny):
    path, lines = finished
    generator, weights = tiny
    encoder = load_encoder(path / 'encoder.safetensors')
    spec = generator.spec
    assert encoder.spec == encoders.Spec('compact', spec.num_ws, True, spec.w_dim)
    result = json.loads((path / 'metrics.json').read_text())
    assert result['held_out']['pictures'] == 4 and (path / 'predictions.png').exists()
    assert any('explained on held-out' in line for line in lines)
    pictures = np.zeros([2, 32, 32, 3], np.uint8)
    found = jaxinv.project(
        generator, weights, pictures, start=encoder, num_steps=0, lpips={'vgg': {}}
    )
    assert found.w.shape == (2, spec.num_ws, spec.w_dim) and np.isfinite(found.w).all()
    again = []
    train_encoder.run(config_of('quicktest'), path, log=lambda *a, **k: again.append(a[0]))
    assert 'Finished already' in again[0]


@pytest.mark.exhaustive
def test_the_task_trains_an_encoder_to_w_plus(tmp_path, tiny):
    config = config_of('quicktest')
    config.image.deltas, config.image.learning_rate = True, 1e-3
    train_encoder.run(config, tmp_path / 'run', log=silent)
    encoder = load_encoder(tmp_path / 'run' / 'encoder.safetensors')
    spec = tiny[0].spec
    assert encoder.spec == encoders.Spec('compact_w_plus', spec.num_ws, True, spec.w_dim)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    w_plus = np.asarray(encoders.encode(encoder, pixels.to_float(pictures)))
    assert np.isfinite(w_plus).all() and (w_plus[:, 1] != w_plus[:, 0]).any()
    assert (tmp_path / 'run' / 'predictions.png').exists()


@pytest.mark.parametrize('kind', encoders.OURS)
def test_half_precision_files_are_read_as_float32(tmp_path, kind):
    weights = weights_of(5, 3 if kind == encoders.COMPACT_W_PLUS else None)
    encoder = encoders.Encoder(encoders.Spec(kind, 3, True, 5), weights, jnp.zeros([3, 5]))
    save_encoder(tmp_path / 'half.safetensors', encoder, 'float16')
    found = load_encoder(tmp_path / 'half.safetensors')
    assert found.spec == encoder.spec
    assert found.weights.keys() == encoder.weights.keys()
    for name, array in found.weights.items():
        assert array.dtype == jnp.float32
        np.testing.assert_allclose(array, encoder.weights[name], rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_a_generator_with_classes_is_refused(tmp_path):
    config = config_of('quicktest')
    config.generator, config.resolution = 'tiny_biggan', None
    with pytest.raises(JaxinvError, match="generator is 'tiny_biggan', which has classes"):
        train_encoder.run(config, tmp_path / 'run', log=silent)
    assert not (tmp_path / 'run').exists()


@pytest.mark.exhaustive
def test_a_run_that_was_killed_in_both_stages_goes_on_on_two_devices(finished, tmp_path):
    class Killed(Exception):
        pass

    path = tmp_path / 'run'
    config = config_of('quicktest')
    for last, chunk in (('w          2/4', 2), ('image      1/2', 1)):
        config.chunk_steps = chunk

        def log(text, last=last, **kwargs):
            if str(text).startswith(last):
                raise Killed

        with pytest.raises(Killed):
            train_encoder.run(config, path, log=log)
    command = ['--config=train_encoder:quicktest', f'--workdir={path}']
    done = subprocess.run(
        [sys.executable, '-m', 'jaxinv.launch', *command],
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '2'},
        capture_output=True,
        text=True,
        timeout=limits.SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'image: going on after step 1.' in done.stdout
    ours, others = (load_encoder(p / 'encoder.safetensors') for p in (path, finished[0]))
    for name, array in ours.weights.items():
        np.testing.assert_allclose(array, others.weights[name], rtol=5e-3, atol=5e-4, err_msg=name)
