"""Bulk mode with pictures of several classes (BigGAN-deep), and on several devices."""

import json
import subprocess
import sys

import biggan_folder
import jax
import limits
import numpy as np
import PIL.Image
import pytest
from test_bulk import NAMES, records_of, write_picture
from test_distributed import ROOT
from test_experiment import load_config
from test_sharding import environment

import jaxinv
from jaxinv import latents
from jaxinv.experiments import pti, sam
from jaxinv.inversion import classes, code_files, region_files

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """A folder of weights, and one of three pictures that BigGAN-deep made of three classes."""
    folder = biggan_folder.write(tmp_path_factory.mktemp('biggan'))
    generator, weights = jaxinv.load_generator(folder, log=lambda *_, **__: None)
    z = latents.sample_z(5, 3, generator.spec.z_dim, 1.0)
    w = generator.map(weights, z, jax.nn.one_hot(np.array([3, 9, 27]), 1000))[:, None]
    pictures = tmp_path_factory.mktemp('pictures')
    for name, picture in zip(NAMES, jax.jit(generator.synthesize)(weights, w)[0], strict=False):
        levels = np.rint((np.clip(picture, -1, 1) + 1) * 127.5).astype(np.uint8)
        PIL.Image.fromarray(levels).resize((64, 64), 0).save(pictures / f'{name}.png')
    return folder, pictures


def in_groups(module, config, official, work, **settings):
    """The lines of the manifest by name, and the embedding of each one's class [1, 16]."""
    config.generator, config.data.images = map(str, official)
    config.update_from_flattened_dict({'group': 2} | settings)
    module.run(config, work, log=lambda *_, **__: None)
    records = records_of(work)
    assert list(records) == list(NAMES[:3])
    generator, weights = jaxinv.load_generator(official[0], log=lambda *_, **__: None)
    labels = {}
    for name, record in records.items():
        result = json.loads((work / record['folder'] / 'metrics.json').read_text())
        labels[name] = result['classes'][name]['label']
    found = classes.embeddings(generator, weights, list(labels.values()))
    return records, labels, dict(zip(labels, found[:, None], strict=True))


def test_each_picture_of_a_group_keeps_its_class(official, tmp_path):
    config = load_config('sam_biggan')
    settings = {'invertibility.spaces': ('Z+', 'F4'), 'sam.num_steps': 8}
    records, labels, embeddings = in_groups(sam, config, official, tmp_path, **settings)
    assert len(set(labels.values())) > 1, labels
    for name, record in records.items():
        stages = record['metrics']
        assert set(stages) == {'Z', 'SAM'} and stages['SAM']['psnr'] > stages['Z']['psnr']
        codes, _ = code_files.load_codes(tmp_path / record['folder'])
        np.testing.assert_array_equal(
            codes.w_plus[0, :, 16:], np.repeat(embeddings[name], 7, axis=0)
        )
        with np.load(tmp_path / record['folder'] / region_files.FILE) as arrays:
            maps = [key for key in arrays.files if key.startswith('maps/')]
        assert maps == ['maps/Z+', 'maps/F4']  # what `chosen` counts by


@pytest.mark.parametrize('label', [None, 7])
def test_a_generator_each_keeps_the_class_too(official, tmp_path, label):
    config = load_config('pti_biggan')
    config.tune.shared, config.tune.slots, config.label = False, 1, label
    config.locality.weight = 0.0  # half the time to compile
    records, labels, embeddings = in_groups(pti, config, official, tmp_path)
    assert len(set(labels.values())) > 1 if label is None else set(labels.values()) == {7}
    for name, record in records.items():
        stages, own = record['metrics'], tmp_path / record['folder']
        assert stages['tuned']['psnr'] > stages['pivot']['psnr']
        pivot = np.load(own / 'pivots.npz')['w']
        np.testing.assert_array_equal(pivot[0, :, 16:], np.repeat(embeddings[name], 7, axis=0))
        generator, weights = jaxinv.load_generator(own)
        picture = generator.synthesize(weights, pivot)[0][0]
        saved = np.asarray(PIL.Image.open(own / 'tuned.png'), np.float32)
        np.testing.assert_allclose(np.clip((picture + 1) * 127.5, 0, 255), saved, atol=1)


def launched_on(devices, config, pictures, work, *options):
    command = [sys.executable, '-m', 'jaxinv.launch', f'--config={config}:test']
    command += [f'--config.data.images={pictures}', f'--workdir={work}', '--config.group=4']
    command += ['--config.data.align=none', '--config.pivot.batch_per_device=1', *options]
    env = environment(devices, 'float32')
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=limits.SECONDS
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def losses_of(work):
    """{(stage, step, identity, name): value} of the curves of all groups."""
    found = {}
    for file in sorted((work / 'groups').glob('*/metrics.jsonl')):
        for record in map(json.loads, file.read_text().splitlines()):
            stage, _, last = record['stage'].partition('/')  # or the identity, in slots
            for key, value in record.items():
                name, _, identity = key.partition('/')
                identity = identity or last
                if identity in NAMES and (name in ('loss', 'l2') or name.startswith('lpips')):
                    found[stage, record['step'], identity, name] = value
    return found


@pytest.mark.parametrize(
    'config,options',
    [
        (
            'pti_single_id',
            [
                'tune.slots={}',
                'tune.stop_lpips=0.0',
                'locality.weight=0.0',
                'tune.learning_rate=3e-5',
            ],
        ),
        (
            'sam',
            [
                'sam.batch_per_device=1',
                'sam.learning_rate=1e-3',
                'invertibility.learning_rate=1e-3',
                'invertibility.spaces=("W+","F6")',
            ],
        ),
    ],
)
def test_groups_on_two_devices_end_as_on_one(config, options, tmp_path):
    """A row a device each time; programs of more rows round differently. With slow steps, since in
    float32 Adam's first ones are as sure of a gradient of nearly nothing as of any other."""
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    for seed, name in enumerate(NAMES):
        write_picture(pictures, name, seed)
    for devices in (1, 2):
        own = [f'--config.{option.format(devices)}' for option in options]
        said = launched_on(devices, config, pictures, tmp_path / str(devices), *own)
        assert ('each on 2 devices' in said) == (devices == 2)
    one, two = (losses_of(tmp_path / devices) for devices in '12')
    assert one.keys() == two.keys() and len(one) >= 4 * len(NAMES) * 5
    for key, value in one.items():
        assert abs(value - two[key]) <= 1e-5 * abs(value), key
    one, two = (records_of(tmp_path / devices) for devices in '12')
    assert list(one) == list(two) == list(NAMES)
    for name in NAMES:
        for stage, metrics in one[name]['metrics'].items():
            for metric, value in metrics.items():
                other = two[name]['metrics'][stage][metric]
                assert value is other is None or abs(value - other) <= 1e-4 * abs(value), metric
