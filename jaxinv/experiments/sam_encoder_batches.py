"""Batches for SAM's encoders: samples, changed, with occluders, in regions of random spaces."""

from typing import Any, NamedTuple

import numpy as np

from jaxinv.data import augment, occluders
from jaxinv.experiments.encoder_batches import Batches, as_float
from jaxinv.settings.encoders import Augmentation
from jaxinv.settings.sam_encoders import Regions


class Example(NamedTuple):
    """A picture to train on or to judge by; n regions at most, of `num_regions`."""

    image_uint8: Any  # [h, h, 3]
    labels: Any  # int32 [h, h]: its regions
    chosen: Any  # int32 [h, h]: index of the space that each region is inverted in
    whole: Any  # bool: all of it in one space


def num_regions(s: Regions) -> int:
    """Largest number of regions of a picture."""
    return s.parts + occluders.MAX_OCCLUDERS


def example(
    clean, rng: np.random.Generator, changes: Augmentation, s: Regions, num_spaces: int
) -> Example:
    """A sample [h, h, 3], changed.

    Occluders are over everything, regions of their own, and in features: no code in W+ has them.
    The other regions are the cells of random points.
    """
    image = augment.augment(clean, rng, changes.replace(occluders=0.0))
    size = image.shape[:2]
    points = rng.uniform(0, size[0], (rng.integers(1, s.parts + 1), 2))
    places = np.stack(np.mgrid[: size[0], : size[1]], -1) + 0.5
    labels = ((places[:, :, None] - points) ** 2).sum(-1).argmin(-1).astype(np.int32)
    spaces = np.where(
        rng.random(len(points)) < s.w_plus, 0, _features(rng, len(points), num_spaces)
    )
    if rng.random() < changes.occluders:
        for _ in range(rng.integers(1, occluders.MAX_OCCLUDERS + 1)):
            image, opacity = occluders.cover(image, rng)
            labels = np.where(opacity > 0.5, len(spaces), labels).astype(np.int32)
            spaces = np.append(spaces, _features(rng, 1, num_spaces))
    whole = rng.random() < s.whole
    if whole:
        spaces = np.full_like(spaces, rng.integers(num_spaces))
    return Example(image, labels, spaces.astype(np.int32)[labels], whole)


def _features(rng, count, num_spaces):
    """Random spaces but for the first, which is W+."""
    return rng.integers(1, num_spaces, count)


class RegionBatches(Batches):
    """Batches {'images', 'w', 'labels', 'chosen', 'whole'}, see Example; otherwise as Batches."""

    def __init__(self, dataset, changes, batch_size, *, regions: Regions, num_spaces: int, **other):
        self._regions, self._num_spaces = regions, num_spaces
        super().__init__(dataset, changes, batch_size, clean=False, **other)

    def _make(self, step):
        chosen, rng = self._chosen(step), np.random.default_rng([*self._seed, 2, step])
        rows = [
            example(x, rng, self._changes, self._regions, self._num_spaces)
            for x in self._dataset.images_uint8[chosen]
        ]
        joined = Example(*(np.stack(x) for x in zip(*rows, strict=True)))
        return {
            'images': as_float(joined.image_uint8),
            'w': self._dataset.w[chosen].astype(np.float32),
            'labels': joined.labels,
            'chosen': joined.chosen,
            'whole': joined.whole,
        }
