"""Segments from networks: requests, missing packages, and named masks as segments.

The networks are optional and have random weights here; tests of them are skipped without their
packages.
"""

import importlib.util
import os

import numpy as np
import pytest
import skimage.data

from jaxinv.errors import JaxinvError
from jaxinv.segmentation import segment, torch_models

WITH_TORCH = importlib.util.find_spec('torch') is not None


@pytest.fixture
def cat():
    return np.ascontiguousarray(skimage.data.chelsea()[:288:3, :384:3])  # [96, 128, 3]


def test_named_regions_keep_their_pixels_and_the_rest_is_divided_by_colour(cat):
    one, two, speck = np.zeros((3, *cat.shape[:2]), bool)
    one[10:50, 10:60] = two[30:80, 40:90] = speck[0, 0] = True
    segments = segment.by_masks(cat, [('cat', one), ('cat', two), ('fly', speck)], parts=8)
    assert segments.names[:2] == ('cat', 'cat 2')
    np.testing.assert_array_equal(segments.labels == 1, two)  # the later one on top
    np.testing.assert_array_equal(segments.labels == 0, one & ~two)
    others = segments.names[2:]
    assert others == tuple(f'part {i + 1}' for i in range(len(others)))
    # 8 parts of the picture times the fraction of the remaining pixels.
    assert len(others) == round(8 * (1 - (one | two).mean()))
    assert np.unique(segments.labels).tolist() == list(range(len(segments.names)))


def test_a_picture_without_anything_named_is_divided_by_colour(cat):
    segments, colors = segment.by_masks(cat, [], parts=5), segment.segment(cat, 'slic', parts=5)
    np.testing.assert_array_equal(segments.labels, colors.labels)
    everything = segment.by_masks(cat, [('cat', np.ones(cat.shape[:2], bool))], parts=5)
    assert everything.names == ('cat',)


def test_an_unknown_method_is_refused_by_check():
    for how in ('auto', 'slic', 'face', os.curdir):
        segment.check(how)
    with pytest.raises(JaxinvError, match='neither one of auto, face, slic, torchvision, transf'):
        segment.check('detectron')


@pytest.mark.skipif(WITH_TORCH, reason='torch is installed')
@pytest.mark.parametrize('package', ['torchvision', 'transformers'])
def test_a_missing_package_is_named_with_its_remedy(cat, package):
    with pytest.raises(JaxinvError, match=rf"pip install 'jaxinv\[{package}\]'"):
        segment.check(f'{package}:anything')
    with pytest.raises(JaxinvError, match='not installed here'):
        segment.segment(cat, package)


@pytest.fixture
def torchvision_file(tmp_path):
    """Path of LR-ASPP's weights in torchvision's cache; nothing is downloaded if it exists."""
    torch, models = pytest.importorskip('torch'), pytest.importorskip('torchvision').models
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    torch_models._torchvision_model.cache_clear()
    url = models.get_model_weights('lraspp_mobilenet_v3_large').DEFAULT.url
    path = tmp_path / 'checkpoints' / url.rsplit('/', 1)[1]
    path.parent.mkdir()
    yield path
    torch.hub.set_dir(before)


def test_torchvision_segments_are_the_likeliest_categories(cat, torchvision_file):
    import torch
    from torchvision import models

    torch.manual_seed(0)
    network = models.get_model('lraspp_mobilenet_v3_large', weights=None, weights_backbone=None)
    torch.save(network.state_dict(), torchvision_file)
    masks = torch_models.masks(cat, 'torchvision:lraspp_mobilenet_v3_large')
    weights = models.get_model_weights('lraspp_mobilenet_v3_large').DEFAULT
    batch = weights.transforms()(torch.from_numpy(cat).permute(2, 0, 1))[None]
    with torch.no_grad():
        scores = network.eval()(batch)['out']
    scores = torch.nn.functional.interpolate(scores, size=cat.shape[:2], mode='bilinear')
    categories = scores[0].argmax(0).numpy()
    assert masks and sum(mask.sum() for _, mask in masks) == (categories > 0).sum()
    for name, mask in masks:
        np.testing.assert_array_equal(mask, categories == weights.meta['categories'].index(name))
    with pytest.raises(JaxinvError, match='those of torchvision are deeplabv3'):
        segment.check('torchvision:resnet50')


class _Call:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_torchvision_weights_with_code_are_refused(cat, torchvision_file):
    import torch

    trap = torchvision_file.parent / 'ran'
    torch.save({'backbone.weight': _Call(str(trap))}, torchvision_file)
    with pytest.raises(JaxinvError, match='could not be fetched or read'):
        torch_models.masks(cat, 'torchvision:lraspp_mobilenet_v3_large')
    assert not trap.exists()


def test_transformers_segments_are_the_likeliest_categories(cat, tmp_path):
    torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        id2label={0: 'background', 1: 'cat', 2: 'blanket'},
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path)
    processor = transformers.SegformerImageProcessor(size={'height': 64, 'width': 64})
    processor.save_pretrained(tmp_path)
    masks = torch_models.masks(cat, f'transformers:{tmp_path}')
    with torch.no_grad():
        outputs = network(**processor(cat, return_tensors='pt'))
    categories = processor.post_process_semantic_segmentation(outputs, [cat.shape[:2]])[0].numpy()
    expected = [
        (name, categories == i)
        for i, name in ((1, 'cat'), (2, 'blanket'))
        if (categories == i).any()
    ]
    assert expected and [name for name, _ in masks] == [name for name, _ in expected]
    for (_, mask), (_, other) in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, other)
    with pytest.raises(JaxinvError, match='could not be fetched or read'):
        torch_models.masks(cat, f'transformers:{tmp_path / "nowhere"}')
