"""Images of edits confined to a region.

The unedited and the edited code are one batch. At a feature map f both are blended by the mask m,

    f = f_unedited + m (f_edited - f_unedited)

so that the layers after it draw a transition, and the images once more, so that pixels outside the
mask's soft edge are those of the unedited image. (The blend in features is that of SAM, section
3.4, the other way round.)
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv.errors import JaxinvError
from jaxinv.pixels import to_uint8
from jaxinv.rendering import full_precision
from jaxinv.segmentation import regions
from jaxinv.types import Generator, GeneratorSpec

FEATHER = 0.03  # width of the soft edge, in sides of the picture
FEATURE_SIZE = 32  # pixels of the feature map where streams are blended (docs/edits.md)


class Confined(NamedTuple):
    unedited: np.ndarray  # [n, h, w, 3]
    images: np.ndarray  # [n, h, w, 3], edited in the region
    masks: np.ndarray  # [n, h, w], soft


def feature_of(spec: GeneratorSpec, feature: str | None) -> str | None:
    """The feature where streams are blended; None for a generator without features.

    feature: its name; None = the largest of at most FEATURE_SIZE pixels; '' = none, images only.
    """
    shapes = dict(spec.feature_shapes)
    if feature == '' or not shapes:
        return None
    if feature is None:
        return [name for name, shape in shapes.items() if shape[0] <= FEATURE_SIZE][-1]
    if feature not in shapes:
        raise JaxinvError(
            f"feature is {feature!r}; {spec.name} has {', '.join(shapes)}, and '' for none."
        )
    return feature


@functools.cache
def _renderer(generator: Generator, feature: str | None):
    def run(weights, w, edited, offsets, mask, small):
        def tap(x):
            before, after = jnp.split(x, 2)
            return jnp.concatenate([before, (before + small * (after - before)).astype(x.dtype)])

        taps = {} if feature is None else {feature: tap}
        # Without offsets the argument is left out: a generator need not have styles.
        styles = {layer: jnp.pad(x, ((1, 0), (0, 0))) for layer, x in offsets.items()}
        moved = {'style_offsets': styles} if styles else {}
        images, _ = generator.synthesize(weights, jnp.concatenate([w, edited]), taps=taps, **moved)
        before, after = jnp.split(images, 2)
        return before, before + mask * (after - before)

    return jax.jit(run)


def render(
    generator: Generator,
    weights,
    w,
    edited,
    masks,
    style_offsets=None,
    *,
    feature: str | None = None,
    feather: float = FEATHER,
) -> Confined:
    """Images of codes w, edited to codes `edited` within masks, at full precision.

    w and edited [n, 1 or num_ws, w_dim]; masks bool [n, h, w] at the image's size; style_offsets
    {layer: [1, channels]}: of the edited codes. feature: see `feature_of`. feather: width of the
    soft edge outside the mask, in sides of the picture. One image at a time.
    """
    spec, found = generator.spec, []
    name = feature_of(spec, feature)
    size = spec.resolution if name is None else dict(spec.feature_shapes)[name][0]
    both = [jnp.broadcast_to(x, (len(w), spec.num_ws, spec.w_dim)) for x in (w, edited)]
    renderer = _renderer(generator, name)
    soft = [regions.soft(mask, feather * spec.resolution) for mask in masks]
    for i, mask in enumerate(soft):
        small = regions.shrink(mask, (size, size))
        with full_precision():
            own = [x[i : i + 1] for x in both]
            images = renderer(
                weights, *own, style_offsets or {}, mask[None, ..., None], small[None, ..., None]
            )
        found.append([np.asarray(x)[0] for x in images])
    return Confined(*(np.stack(x) for x in zip(*found, strict=True)), np.stack(soft))


def render_edit(generator: Generator, weights, w, edits, j: int, mask) -> np.ndarray:
    """Image [h, w, 3] of the j-th edit of one code w [1, k, w_dim] within bool mask [h, w]."""
    spec = generator.spec
    edited = edits_lib.apply(w, edits[j], spec.num_ws)
    offsets = edits_lib.style_offsets(edits[j], spec)
    return render(generator, weights, w, edited, mask[None], offsets).images[0]


def confine_edits(images, edits, name: str, log, render_one=None) -> np.ndarray:
    """The column [1 + e, h, w, 3] of a picture and its edits, with edits confined to their regions.

    render_one(j, mask): the image of the j-th edit within bool mask [h, w]; None = the given images
    are blended. Where a region is not found, the log says so and the picture stays unedited.
    """
    masks: dict[str, np.ndarray | None] = {}
    for j, edit in enumerate(edits):
        if not edit.region:
            continue
        if edit.region not in masks:
            try:
                masks[edit.region] = regions.mask_of(edit.region, to_uint8(images[0]), name)
            except JaxinvError as error:
                log(f'{name}: not edited by {edit.name}: {error}')
                masks[edit.region] = None
        mask = masks[edit.region]
        if mask is None:
            images[j + 1] = images[0]
        elif render_one is None:
            images[j + 1] = confine(images[0], images[j + 1], mask)
        else:
            images[j + 1] = render_one(j, mask)
    return images


def confine(unedited, edited, mask, feather: float = FEATHER) -> np.ndarray:
    """float32 [h, w, 3]: the blend of two images by a bool mask [h, w], without a feature."""
    soft = regions.soft(mask, feather * len(mask))[..., None]
    return unedited + soft * (edited - unedited)


def seam(unedited, edited, images, masks) -> np.ndarray:
    """How visible the edges of regions are, [n], in levels of 255 a pixel.

    The mean length of the images' gradient along the soft edges, minus the blend by the mask of
    those of the unedited image and of the one edited everywhere: 0 = as steep as its two sources.
    Images are float [n, h, w, 3], masks soft [n, h, w].
    """
    result = []
    for before, after, image, mask in zip(unedited, edited, images, masks, strict=True):
        lengths = [_gradient(127.5 * x.mean(-1)) for x in (before, after, image)]
        expected = lengths[0] + mask[:-1, :-1] * (lengths[1] - lengths[0])
        result.append((lengths[2] - expected)[_gradient(mask) > 0].mean())
    return np.array(result)


def _gradient(x):
    """Length of the forward differences of x [h, w], [h - 1, w - 1]."""
    return np.hypot(x[:-1, 1:] - x[:-1, :-1], x[1:, :-1] - x[:-1, :-1])
