"""Records what the PyTorch code of EfficientNet-Lite0 computes, for test_classify.py.

    pip install efficientnet_lite_pytorch==0.1.0  # needs torch
    PYTHONPATH=. python tests/record_efficientnet.py

In float64, for two pictures of 56 pixels, each repeated 4 x 4 times: the logits, and mean and root
mean square of the maps after the stem, each block and the head.
"""

import pathlib

import efficientnet_lite_pytorch
import numpy as np
import skimage.data
import torch

from jaxinv.weights import assets
from jaxinv.weights.networks import EFFICIENTNET_ASSET

OUTPUT = pathlib.Path(__file__).parent / 'data' / 'efficientnet_figures.npz'


def main():
    images = np.stack([crop(skimage.data.chelsea()), crop(skimage.data.coffee())])
    model = efficientnet_lite_pytorch.EfficientNet.from_pretrained(
        'efficientnet-lite0', weights_path=str(assets.get(*EFFICIENTNET_ASSET))
    )
    model = model.double().eval()
    moments = []

    def note(module, inputs, output):
        moments.append((output.mean().item(), output.square().mean().sqrt().item()))

    for block in model._blocks:
        block.register_forward_hook(note)
    seen = {}
    model._blocks[0].register_forward_pre_hook(lambda module, inputs: seen.update(stem=inputs[0]))
    x = np.repeat(np.repeat(images, 4, 1), 4, 2).transpose(0, 3, 1, 2).astype(np.float64)
    with torch.no_grad():
        x = torch.from_numpy((x - 127) / 128)
        logits = model(x)
        head = model.extract_features(x)  # runs the hooks again
    del moments[len(model._blocks) :]
    for place, output in ((0, seen['stem']), (len(moments) + 1, head)):
        moments.insert(place, (output.mean().item(), output.square().mean().sqrt().item()))
    np.savez_compressed(OUTPUT, images=images, logits=logits.numpy(), moments=np.array(moments))
    print(logits.softmax(1).topk(3), f'{OUTPUT.stat().st_size / 1000:.0f} kB')


def crop(image):
    """56 x 56 pixels: every fifth of the middle of a picture."""
    top, left = (n // 2 - 140 for n in image.shape[:2])
    return image[top : top + 280 : 5, left : left + 280 : 5]


if __name__ == '__main__':
    main()
