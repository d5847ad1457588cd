"""Segments from a pretrained network of torchvision or transformers (SAM section 3.1, refinement).

    segments.how = 'torchvision'          # DeepLabV3: 20 kinds of things
                   'torchvision:NAME'     # another of its segmentation models
                   'transformers'         # Mask2Former: things and surroundings, 133 kinds
                   'transformers:NAME'    # a model of the Hugging Face hub, or a folder with one

Both are extras, `pip install jaxinv[torchvision]` or `[transformers]`, and fetch their weights
once. Weights are read as tensors alone: safetensors or torch's weights_only, and no code of a
model's own. What a network leaves unnamed is divided by colour, so that a hedge and the sky behind
a car need not share a latent space.
"""

import functools
import importlib.util

import numpy as np
import PIL.Image

from jaxinv.errors import JaxinvError

DEFAULTS = {
    'torchvision': 'deeplabv3_resnet50',
    'transformers': 'facebook/mask2former-swin-tiny-coco-panoptic',
}
UNNAMED = ('background', '__background__')


def is_asked_for(how) -> bool:
    """Whether segments.how names a network of this module and not a method or a file."""
    return str(how).partition(':')[0] in DEFAULTS


def check(how: str) -> None:
    """Raises JaxinvError if the package, or the model of torchvision, is not there."""
    package, model = _parse(how)
    missing = [p for p in ('torch', package) if importlib.util.find_spec(p) is None]
    if missing:
        raise JaxinvError(
            f'segments.how={how} takes {" and ".join(missing)}, not installed here; run '
            f"pip install 'jaxinv[{package}]', or take 'slic' or a label map."
        )
    if package == 'torchvision':
        _torchvision_weights(model)


def find(image_uint8, how: str) -> list[tuple[str, np.ndarray]]:
    """What the network sees in a picture [h, w, 3]: (name, mask bool [h, w]), later ones on top."""
    check(how)
    package, model = _parse(how)
    see = {'torchvision': _by_torchvision, 'transformers': _by_transformers}[package]
    return see(np.ascontiguousarray(image_uint8), model)


def _parse(how: str) -> tuple[str, str]:
    package, _, model = str(how).partition(':')
    return package, model or DEFAULTS[package]


# --- torchvision ---


def _torchvision_weights(model: str):
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if model not in known:
        raise JaxinvError(
            f'segments.how names the model {model!r}; torchvision segments with {", ".join(known)}.'
        )
    return models.get_model_weights(model).DEFAULT


@functools.cache
def _torchvision_model(model: str):
    from torchvision import models

    weights = _torchvision_weights(model)
    kinds = weights.meta['categories']
    try:
        # Not get_model(weights=...), which would unpickle the file without restrictions.
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        auxiliary = any(name.startswith('aux_classifier') for name in state)
        network = models.get_model(
            model,
            weights=None,
            weights_backbone=None,
            num_classes=len(kinds),
            **{'aux_loss': True} if auxiliary else {},
        )
        network.load_state_dict(state)
    except Exception as error:
        raise _unusable(f'torchvision:{model}', error) from error
    return network.eval(), weights.transforms(), kinds


def _by_torchvision(image_uint8, model: str):
    import torch

    network, transform, kinds = _torchvision_model(model)
    with torch.inference_mode():
        pixels = transform(torch.from_numpy(image_uint8).permute(2, 0, 1))
        scores = network(pixels[None])['out']
        scores = torch.nn.functional.interpolate(
            scores, size=image_uint8.shape[:2], mode='bilinear', align_corners=False
        )
        labels = scores[0].argmax(0).numpy()
    return [(kinds[k], labels == k) for k in np.unique(labels) if kinds[k] not in UNNAMED]


# --- transformers ---


@functools.cache
def _transformers_pipeline(model: str):
    import transformers

    try:
        return transformers.pipeline(
            'image-segmentation',
            model=model,
            device='cpu',
            trust_remote_code=False,
            model_kwargs={'weights_only': True},
        )
    except Exception as error:
        raise _unusable(f'transformers:{model}', error) from error


def _by_transformers(image_uint8, model: str):
    found = _transformers_pipeline(model)(PIL.Image.fromarray(image_uint8))
    masks = [(entry['label'], np.asarray(entry['mask']) > 127) for entry in found]
    return [(name, mask) for name, mask in masks if mask.any() and name not in UNNAMED]


def _unusable(how: str, error: Exception) -> JaxinvError:
    """Whatever a download or a library's reader raises, as one sentence."""
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return JaxinvError(
        f'segments.how={how}: its weights could not be fetched or read ({reason}); the name may be '
        "misspelt or the network unreachable; 'slic' and label maps need neither."
    )
