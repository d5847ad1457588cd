"""Pictures of a small TensorFlow Datasets set, read without TensorFlow."""

import hashlib
import io
import sys

import numpy as np
import PIL.Image
import pytest
from test_experiment import load_config

from jaxinv import data
from jaxinv.data import tfds
from jaxinv.errors import JaxinvError
from jaxinv.experiments import bulk
from jaxinv.types import GeneratorSpec

SPEC = GeneratorSpec('any', resolution=32, z_dim=1, w_dim=1, num_ws=1)


def png(shade, size=(48, 40)):
    file = io.BytesIO()
    PIL.Image.new('RGB', size, (shade, 0, 0)).save(file, 'PNG')
    return file.getvalue()


PICTURES = [png(50), png(100), b'not a picture', png(200)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A set with four examples, one of them damaged."""
    package = pytest.importorskip('tensorflow_datasets')
    pytest.importorskip('array_record')

    class Shades(package.core.GeneratorBasedBuilder):
        VERSION = package.core.Version('1.0.0')

        def _info(self):
            features = {
                'image': package.features.Image(),
                'label': package.features.Scalar(np.int64),
            }
            return package.core.DatasetInfo(
                builder=self,
                features=package.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, manager):
            return {'train': self._generate_examples()}

        def _generate_examples(self):
            for i, content in enumerate(PICTURES):
                yield i, {'image': io.BytesIO(content), 'label': i}

    builder = Shades(data_dir=tmp_path_factory.mktemp('sets'), file_format='array_record')
    builder.download_and_prepare()
    return builder.data_path


def config_of(request):
    config = load_config('pti_multi_id').data
    config.tfds, config.align = request, 'none'
    return config


def test_examples_become_targets_without_tensorflow(folder):
    targets = data.load_for(config_of(f'{folder}:train'), SPEC)
    assert targets.names == ['shades_train_0', 'shades_train_1', 'shades_train_3']
    assert targets.images_uint8[:, 16, 16, 0].tolist() == [50, 100, 200]
    digests = [hashlib.sha256(PICTURES[i]).hexdigest() for i in (0, 1, 3)]
    assert [source['sha256'] for source in targets.sources] == digests
    assert targets.sources[2]['file'] == f'{folder}:train[3]'
    (skipped,) = targets.skipped
    assert skipped['file'] == f'{folder}:train[2]' and 'not an image' in skipped['reason']
    assert 'tensorflow' not in sys.modules


def test_a_part_of_a_split(folder):
    listing = tfds.find(f'{folder}:train[3:]')
    assert [stem for stem, _ in listing.files] == ['shades_train_3_0']
    picture = np.asarray(listing.files[0][1].open())
    assert picture.shape == (40, 48, 3) and (picture[..., 0] == 200).all()


def test_sets_that_cannot_be_opened_are_one_sentence_errors(folder, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    for request, expected in (
        (f'{folder}:tran', 'tran'),
        (f'{tmp_path}/empty:train', 'dataset_info.json'),
        ('no_such_set:train', 'no_such_set not found'),
        ('mnist:train', 'is not supported'),
        ('mnist', "'NAME:SPLIT'"),
    ):
        with pytest.raises(JaxinvError, match=expected) as error:
            tfds.find(request)
        assert '\n' not in str(error.value) and len(str(error.value)) < 400
    config = config_of(f'{folder}:train')
    config.images = 'photos'
    with pytest.raises(JaxinvError, match='one of them'):
        data.load_for(config, SPEC)


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    with pytest.raises(JaxinvError, match=r'jaxinv\[tfds\]'):
        tfds.find('mnist:train')


def test_groups_are_made_of_a_set_and_read(folder, tmp_path):
    request = f'{folder}:train'
    listing = tfds.find(request)
    with bulk._planned(tmp_path / 'work', {'config': {}}, False, listing, request, 3) as numbers:
        assert numbers == [0, 1]
    sources = {str(record): record for _, record in listing.files}
    options = data.AlignOptions(32, align='none')
    read = bulk._read(tmp_path / 'work', 0, sources, options, lambda: False)
    assert [row.stem for row in read.rows] == ['shades_train_0', 'shades_train_1']
    (skipped,) = read.skipped
    assert skipped['name'] == 'shades_train_2' and skipped['file'] == f'{request}[2]'
    assert skipped['sha256'] == hashlib.sha256(PICTURES[2]).hexdigest()
