"""The ImageNet classifier: as the PyTorch code, right on known pictures, strict about files."""

import pathlib

import jax
import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import skimage

from jaxinv import pixels
from jaxinv.converters import efficientnet as converter
from jaxinv.converters import safe_pickle, tables
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.inversion import classes
from jaxinv.networks import efficientnet
from jaxinv.weights import assets
from jaxinv.weights.networks import EFFICIENTNET_ASSET, find_efficientnet

FIGURES = np.load(pathlib.Path(__file__).parent / 'data' / 'efficientnet_figures.npz')
SKIMAGE = pathlib.Path(skimage.__file__).parent / 'data'
MATPLOTLIB = pathlib.Path(matplotlib.get_data_path()) / 'sample_data'
PICTURES = {  # what they show, and the classifier's probability to two digits
    MATPLOTLIB / 'grace_hopper.jpg': (652, 'military uniform', 0.39),
    SKIMAGE / 'chelsea.png': (285, 'Egyptian cat', 0.38),
    SKIMAGE / 'coffee.png': (967, 'espresso', 0.94),
    SKIMAGE / 'motorcycle_left.png': (665, 'moped', 0.72),
}


@pytest.fixture(scope='module')
def weights():
    return find_efficientnet()


@pytest.fixture(scope='module')
def state_dict():
    return dict(safe_pickle.load(assets.get(*EFFICIENTNET_ASSET)))


def recorded():
    """The pictures that the figures are of, [2, 224, 224, 3] in [-1, 1]."""
    enlarged = np.repeat(np.repeat(FIGURES['images'], 4, 1), 4, 2)
    return enlarged.astype(np.float64) / 127.5 - 1


def test_equals_the_torch_code(weights):
    result = jax.jit(efficientnet.logits)(weights, recorded().astype(np.float32))
    np.testing.assert_allclose(result, FIGURES['logits'], atol=5e-5)


@pytest.mark.long  # the same in float64, map by map
def test_every_map_equals_the_torch_codes(state_dict):
    with jax.enable_x64(True):
        wide = {name: x.astype(np.float64) for name, x in converter.convert(state_dict).items()}
        maps = jax.jit(efficientnet.features)(wide, recorded())
        result = efficientnet.logits(wide, recorded())
    moments = [(x.mean(), np.sqrt(np.square(x).mean())) for x in map(np.asarray, maps)]
    np.testing.assert_allclose(moments, FIGURES['moments'], atol=1e-5)
    np.testing.assert_allclose(result, FIGURES['logits'], atol=1e-5)


def test_says_what_the_packages_pictures_show():
    for path, (number, name, probability) in PICTURES.items():
        picture = pixels.to_float(np.asarray(images.read(path)))
        (row,) = classes.classify(picture[None])
        assert abs(row.sum() - 1) < 1e-5
        (first, *rest) = classes.top(row, 3)
        assert first[:2] == (number, name) and abs(first[2] - probability) < 0.01
        assert len(rest) == 2 and first[2] >= rest[0][2] >= rest[1][2]


def test_square_is_pillows_bicubic_of_the_middle():
    picture = np.asarray(images.read(SKIMAGE / 'chelsea.png'))  # 451 x 300
    for size in (224, 400):
        middle = PIL.Image.fromarray(picture[:, 75:375])
        want = pixels.to_float(
            np.asarray(middle.resize((size, size), PIL.Image.Resampling.BICUBIC))
        )
        found = classes.square(pixels.to_float(picture)[None], size)[0]
        assert np.abs(found - want).max() < 1.01 / 127.5 and np.abs(found - want).mean() < 1e-4


def test_names_are_the_thousand_classes():
    names = classes.names()
    assert len(names) == 1000 and all(names)
    assert (names[0], names[291], names[517], names[999]) == (
        'tench',
        'lion',
        'crane',
        'toilet tissue',
    )


def test_labels_are_predicted_or_given():
    lines = []
    cup, cat = (images.read(SKIMAGE / name) for name in ('coffee.png', 'chelsea.png'))
    pictures = np.stack([PIL.ImageOps.fit(picture, (128, 128)) for picture in (cup, cat)])
    choice = classes.choose_labels(pictures, None, 1000, lines.append, ['cup', 'cat'])
    assert choice.labels.dtype == np.int32 and choice.labels.shape == (2,)
    assert [shown[0][0] for shown in choice.candidates] == choice.labels.tolist()
    assert all(len(shown) == 3 for shown in choice.candidates)
    assert choice.labels[0] == 967 and lines[0].startswith('cup: 967 espresso 0.')
    assert lines[1].startswith('cat: ') and '--config.label' in lines[2]
    for num_classes in (1000, 10):
        choice = classes.choose_labels(pictures, 7, num_classes, lines.append)
        assert choice.labels.tolist() == [7, 7] and choice.candidates == () and len(lines) == 3


def test_labels_that_cannot_be_chosen_are_named():
    pictures = np.zeros((1, 32, 32, 3), np.uint8)
    for label, num_classes, words in (
        (1000, 1000, r'label is 1000; choose one of 1000 classes with --config.label=0 ... 999'),
        (-1, 10, r'label is -1; choose one of 10'),
        (None, 10, r'1000 of ImageNet only, and the generator makes 10; .*--config.label=0 ... 9'),
    ):
        with pytest.raises(JaxinvError, match=words):
            classes.choose_labels(pictures, label, num_classes)
    with pytest.raises(JaxinvError, match=r'pictures \[32, 32, 3\] are not'):
        classes.classify(np.zeros((32, 32, 3), np.float32))
    with pytest.raises(JaxinvError, match='pictures are uint8'):
        classes.classify(pictures)
    with pytest.raises(JaxinvError, match=r'\[1, 1000\] are not \[1000\]'):
        classes.top(np.zeros((1, 1000)))


def test_strictness_names_the_array(state_dict):
    stem = state_dict['_conv_stem.weight']
    variance = state_dict['_bn0.running_var']
    for changes, words in (
        ({'_fc.bias': None}, 'Missing array: _fc.bias'),
        ({'_blocks.3._bn2.running_var': None}, 'Missing array: _blocks.3._bn2.running_var'),
        ({'_blocks.16._bn0.weight': variance}, 'Unexpected array: _blocks.16._bn0.weight'),
        ({'_conv_stem.weight': stem[:16]}, r"'_conv_stem.weight' has the shape \[16, 3, 3, 3\]"),
        ({'_bn0.running_var': -variance}, "'_bn0.running_var' has negative"),
        (
            {'_bn0.bias': variance * np.float32(np.nan)},
            "'_bn0.bias' has values that are not finite",
        ),
        ({'_bn0.bias': np.zeros(32, np.int64)}, "'_bn0.bias' holds int64"),
        ({'_bn0.bias': 'text'}, "'_bn0.bias' holds str"),
    ):
        changed = {name: x for name, x in {**state_dict, **changes}.items() if x is not None}
        with pytest.raises(tables.ConversionError, match=words):
            converter.convert(changed)


def test_wrong_files_give_one_sentence(tmp_path):
    path = tmp_path / 'weights.pth'
    with pytest.raises(JaxinvError, match='no file .*weights.pth'):
        find_efficientnet(path)
    good = assets.get(*EFFICIENTNET_ASSET).read_bytes()
    evil = b"cos\nsystem\n(S'touch ran'\ntR."
    for data in (b'', b'<html>', good[:100_000], good[:-100], evil, b'\x80\x02]q\x00.'):
        path.write_bytes(data)
        with pytest.raises(JaxinvError, match='weights.pth') as error:
            find_efficientnet(path)
        assert str(error.value).endswith('.') and '\n' not in str(error.value)
