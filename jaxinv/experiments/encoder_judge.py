"""How close an encoder's codes come: figures and pictures on held-out samples and photographs."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import data, faces, metrics, pixels, rendering
from jaxinv.data import images
from jaxinv.inversion import encode
from jaxinv.networks import encoders
from jaxinv.report import grid, schema

BATCH = 32  # pictures of a forward pass
RENDERED = 64  # held-out pictures whose codes are rendered
SHOWN = 8  # of them in predictions.png
NAMES = ('lpips_alex', 'lpips_vgg', 'mse')


def judge(
    generator, weights, encoder, statistics, nets, held_out, real, path: pathlib.Path
) -> dict[str, Any]:
    """Figures on held-out pictures and on photographs, beside those of the mean of W.

    held_out: an encoder_samples.Dataset; real: Targets, or None. Writes predictions.png to `path`.
    Images are compared at the samples' size, held-out ones as means over RENDERED of them.
    """
    mean = np.asarray(statistics.mean)
    differences = jax.jit(functools.partial(encoders.differences, encoder.spec))
    parts = [
        differences(encoder.weights, _padded(held_out.images_uint8, i))
        for i in range(0, len(held_out.w), BATCH)
    ]
    w_plus = mean + np.concatenate(parts)[: len(held_out.w)]
    errors = np.sum((w_plus[:, 0] - held_out.w) ** 2, 1)
    explained = float(1 - errors.sum() / np.sum((held_out.w - mean) ** 2))
    pictures = pixels.to_float(held_out.images_uint8[:RENDERED])
    size = pictures.shape[1]
    average = pixels.area_resize(rendering.render(generator, weights, mean[None, None]), size)
    result, sheet, labels = {}, [], []

    def add(name, names, pictures, w_plus, summarise):
        made = pixels.area_resize(rendering.render(generator, weights, w_plus), size)
        result[name] = {'rendered': len(w_plus)}
        for what, candidate in (
            ('encoder', made),
            ('mean_face', jnp.broadcast_to(average, pictures.shape)),
        ):
            table = dict(metrics.evaluate(pictures, candidate, nets, names=NAMES))
            if generator.spec.domain in data.ALIGNED_DOMAINS:
                table['id_distance'] = identity_distance(pictures, candidate)
            result[name][what] = {key: summarise(values) for key, values in table.items()}
        for label, picture, image in zip(names, pictures, made, strict=False):
            sheet.append([pixels.to_uint8(picture), pixels.to_uint8(image)])
            labels.append(label)

    if real is not None:
        codes = encode.encode(encoder, generator, weights, real)
        own = pixels.area_resize(pixels.to_float(real.images_uint8), size)
        add('photographs', real.names, own, codes, _rounded)
    names = [f'held out {i}' for i in range(SHOWN)]
    add('held_out', names, pictures, w_plus[: len(pictures)], _mean)
    result['held_out'] |= {'pictures': len(w_plus), 'explained': explained}
    images.save(path / 'predictions.png', grid.grid(sheet, labels, ['picture', 'code'], cell=256))
    return result


def identity_distance(pictures, candidates) -> np.ndarray:
    """Distance [n] of dlib's embeddings of two lots of float pictures; NaN without a face.

    dlib takes no part in any training of an encoder.
    """
    embeddings = [faces.embed(pixels.to_uint8(x)) for x in (pictures, candidates)]
    return faces.identity_distance(*embeddings)


def _rounded(values) -> list[float | None]:
    return [round(float(x), 4) if np.isfinite(x) else None for x in values]


def _mean(values) -> float | None:
    """Over the pictures that have a number, all of them but for identities without a face."""
    found = schema.mean(values)
    return None if found is None else round(found, 4)


def _padded(images_uint8, begin):
    own = images_uint8[begin : begin + BATCH]
    return pixels.to_float(np.concatenate([own, np.repeat(own[-1:], BATCH - len(own), 0)]))


def describe(result, path) -> str:
    """The lines printed at the end of a run."""
    lines = [f'w explained on held-out pictures: {100 * result["held_out"]["explained"]:.0f} %']
    for name in ('photographs', 'held_out'):
        if name in result:
            both = [np.mean(result[name][who]['lpips_vgg']) for who in ('encoder', 'mean_face')]
            lines.append(f'{name:<12} LPIPS vgg {both[0]:.3f}, of the mean face {both[1]:.3f}')
    return '\n'.join([*lines, f'Open {path / "predictions.png"}'])
