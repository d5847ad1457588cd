"""Segments from a pretrained network of torchvision or transformers (SAM section 3.1, refinement).

    segments.how = 'torchvision'          # DeepLabV3: 20 classes of objects
                   'torchvision:NAME'     # another segmentation model of torchvision
                   'transformers'         # Mask2Former: 133 classes of objects and surroundings
                   'transformers:NAME'    # a model of the Hugging Face hub, or a folder with one

Both are extras, `pip install jaxinv[torchvision]` or `[transformers]`, and download their weights
once. Only tensors are read (safetensors, or torch's weights_only), and no code of a model is run.
Pixels without a class are divided by colour (segment.by_masks), so that a hedge and the sky behind
a car can have different latent spaces.
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


def is_network(how) -> bool:
    """True if segments.how names a network of this module, not a method or a file."""
    return str(how).partition(':')[0] in DEFAULTS


def check(how: str) -> None:
    """Raises JaxinvError if a package is not installed or torchvision has no such model."""
    package, model = _parse(how)
    missing = [p for p in ('torch', package) if importlib.util.find_spec(p) is None]
    if missing:
        raise JaxinvError(
            f'segments.how={how} needs {" and ".join(missing)}, not installed here; run '
            f"pip install 'jaxinv[{package}]', or use 'slic' or a label map."
        )
    if package == 'torchvision':
        _torchvision_weights(model)


def masks(image_uint8, how: str) -> list[tuple[str, np.ndarray]]:
    """Named masks [(name, bool [h, w]), ...] of a uint8 picture [h, w, 3].

    Masks of transformers may overlap; later ones cover earlier ones. Raises JaxinvError, see check.
    """
    check(how)
    package, model = _parse(how)
    predict = {'torchvision': _by_torchvision, 'transformers': _by_transformers}[package]
    return predict(np.ascontiguousarray(image_uint8), model)


def _parse(how: str) -> tuple[str, str]:
    package, _, model = str(how).partition(':')
    return package, model or DEFAULTS[package]


# --- torchvision ---


def _torchvision_weights(model: str):
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if model not in known:
        raise JaxinvError(
            f'segments.how names the model {model!r}; those of torchvision are {", ".join(known)}.'
        )
    return models.get_model_weights(model).DEFAULT


@functools.cache
def _torchvision_model(model: str):
    from torchvision import models

    weights = _torchvision_weights(model)
    categories = weights.meta['categories']
    try:
        # Not get_model(weights=...), which would unpickle the file without restrictions.
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        auxiliary = any(name.startswith('aux_classifier') for name in state)
        network = models.get_model(
            model,
            weights=None,
            weights_backbone=None,
            num_classes=len(categories),
            **{'aux_loss': True} if auxiliary else {},
        )
        network.load_state_dict(state)
    except Exception as error:
        raise _unusable(f'torchvision:{model}', error) from error
    return network.eval(), weights.transforms(), categories


def _by_torchvision(image_uint8, model: str):
    import torch

    network, transform, categories = _torchvision_model(model)
    with torch.inference_mode():
        pixels = transform(torch.from_numpy(image_uint8).permute(2, 0, 1))
        scores = network(pixels[None])['out']
        scores = torch.nn.functional.interpolate(
            scores, size=image_uint8.shape[:2], mode='bilinear', align_corners=False
        )
        labels = scores[0].argmax(0).numpy()
    present = [k for k in np.unique(labels) if categories[k] not in UNNAMED]
    return [(categories[k], labels == k) for k in present]


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
    results = _transformers_pipeline(model)(PIL.Image.fromarray(image_uint8))
    named = [(entry['label'], np.asarray(entry['mask']) > 127) for entry in results]
    return [(name, mask) for name, mask in named if mask.any() and name not in UNNAMED]


def _unusable(how: str, error: Exception) -> JaxinvError:
    """An exception of a download or of a library's reader, as one sentence."""
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return JaxinvError(
        f'segments.how={how}: its weights could not be fetched or read ({reason}); the name may be '
        "misspelt or the internet unreachable; 'slic' and label maps need no weights."
    )
