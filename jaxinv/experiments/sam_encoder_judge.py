"""How well SAM's encoders reproduce pictures: in each space alone, and in regions of several."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import metrics, pixels, rendering, settings
from jaxinv.data import images
from jaxinv.experiments.sam_encoder_batches import Example, example
from jaxinv.inversion import sam_encode
from jaxinv.inversion.masks import soft_masks
from jaxinv.networks import sam_encoders
from jaxinv.report import grid
from jaxinv.report import sam as sam_figures
from jaxinv.settings.encoders import Augmentation
from jaxinv.settings.sam_encoders import Regions

BATCH = 4  # pictures of a forward pass
RENDERED = 32  # held-out pictures whose codes are rendered
SHOWN = 6  # of them in predictions.png
NAMES = ('psnr', 'lpips_vgg')
REGIONS = 'regions'  # in metrics.json: each region in its space


def judge(
    generator, weights, encoders, before, nets, held_out, real, choose, config, path: pathlib.Path
) -> dict[str, Any]:
    """Figures of held-out pictures with occluders, and of photographs, in each space alone.

    Held-out pictures also in regions, as in training: choose(pictures, batch) -> chosen; and by the
    encoders `before` the training. held_out: an encoder_samples.Dataset; real: Targets, or None. At
    the samples' size. Writes predictions.png to `path`.
    """
    spaces = encoders.spec.spaces
    result, sheet, labels = {}, [], []

    def add(name, names, pictures_uint8, summarise, regions=None, encoders=encoders):
        make = functools.partial(render, generator, weights, encoders)
        pictures = pixels.to_float(pictures_uint8)
        whole = np.zeros(pictures.shape[:3], np.int32)
        made = {space: make(pictures, whole + i) for i, space in enumerate(spaces)}
        columns = [pictures_uint8, *made.values()]
        if regions is not None:
            made[REGIONS] = make(pictures, regions)
            overlays = [
                sam_figures.choice_overlay(x, chosen, spaces)
                for x, chosen in zip(pictures_uint8, regions, strict=True)
            ]
            columns += [overlays, made[REGIONS]]
        result[name] = {}
        for what, candidate in made.items():
            table = metrics.evaluate(pictures, candidate, nets, names=NAMES)
            result[name][what] = {key: summarise(values) for key, values in table.items()}
        for i, label in enumerate(names):
            row = [np.asarray(x[i]) for x in columns]
            sheet.append([x if x.dtype == np.uint8 else pixels.to_uint8(x) for x in row])
            labels.append(label)

    if real is not None:
        size = held_out.images_uint8.shape[1]
        own = pixels.area_resize(pixels.to_float(real.images_uint8), size)
        add('photographs', real.names, pixels.to_uint8(own), _rounded)
    shown = held_out.images_uint8[:RENDERED]
    batch = examples(shown, config, len(spaces))
    names = [f'held out {i}' for i in range(min(SHOWN, len(shown)))]
    chosen = np.asarray(choose(pixels.to_float(batch.image_uint8), batch._asdict()))
    add('held_out', names, batch.image_uint8, _mean, chosen)
    add('held_out_at_start', [], batch.image_uint8, _mean, chosen, before)
    result['held_out']['pictures'] = len(shown)
    heads = ['picture', *spaces, 'spaces', REGIONS]
    sheet = [row + [None] * (len(heads) - len(row)) for row in sheet]
    images.save(path / 'predictions.png', grid.grid(sheet, labels, heads, cell=192))
    return result


def examples(pictures_uint8, config, num_spaces: int) -> Example:
    """Held-out pictures with occluders and regions, the same for every training of this seed."""
    changes = settings.of(config, Augmentation)
    regions = settings.of(config, Regions).replace(whole=0.0)
    rows = [
        example(x, np.random.default_rng([config.seed, 3, i]), changes, regions, num_spaces)
        for i, x in enumerate(pictures_uint8)
    ]
    return Example(*(np.stack(x) for x in zip(*rows, strict=True)))


def render(generator, weights, encoders, pictures, chosen) -> np.ndarray:
    """Images [n, h, h, 3] of pictures [n, h, h, 3] with chosen spaces [n, h, h], at their size."""
    found, count = [], len(pictures)
    run = _program(encoders.spec, generator, pictures.shape[1])
    for i in range(0, count, BATCH):
        rows = np.minimum(np.arange(i, i + BATCH), count - 1)
        with rendering.full_precision():
            own = run(encoders.weights, encoders.average, weights, pictures[rows], chosen[rows])
        found.append(np.asarray(own))
    return np.concatenate(found)[:count]


@functools.lru_cache(maxsize=4)
def _program(spec, generator, size):
    @jax.jit
    def run(own, average, weights, pictures, chosen):
        encoders = sam_encoders.Encoders(spec, own, average)
        masks = soft_masks(chosen, generator.spec, spec.spaces)
        regions = sam_encode.space_masks(chosen, spec.spaces)
        made = sam_encode.invert(encoders, generator, weights, pictures, regions, masks)[0]
        return jnp.clip(pixels.area_resize(made, size), -1, 1)

    return run


def _mean(values) -> float:
    return round(float(np.mean(values)), 4)


def _rounded(values) -> list[float]:
    return [round(float(x), 4) for x in values]


def describe(result, path) -> str:
    """The lines printed at the end of a run."""
    lines = []
    for name in ('photographs', 'held_out_at_start', 'held_out'):
        if name in result:
            rows = {k: row for k, row in result[name].items() if k != 'pictures'}
            shown = [
                f'{space} {np.mean(row["lpips_vgg"]):.3f} {np.mean(row["psnr"]):.2f} dB'
                for space, row in rows.items()
            ]
            lines.append(f'{name}, LPIPS vgg and PSNR: {", ".join(shown)}')
    return '\n'.join([*lines, f'Open {path / "predictions.png"}'])
