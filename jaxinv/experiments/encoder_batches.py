"""Batches of an encoder's training: samples in seeded order, changed, on the devices."""

import concurrent.futures
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxinv import pixels
from jaxinv.data import augment
from jaxinv.experiments.encoder_samples import Dataset
from jaxinv.optimize.sharded_step import AXES
from jaxinv.optimize.sharding import Sharding
from jaxinv.settings.encoders import Augmentation

as_float = functools.partial(pixels.to_float, numpy=np)


class Batches:
    """Batches {'images', 'w'} and, if asked for, 'clean', each made while the step before runs.

    images [b, h, h, 3] in [-1, 1], changed; clean: the same unchanged; w [b, w_dim]. A batch
    depends on seed, name and step only.
    """

    def __init__(
        self,
        dataset: Dataset,
        changes: Augmentation,
        batch_size: int,
        *,
        seed: int,
        name: str,
        step: int,
        clean: bool,
    ):
        """name: of the stage, which has an order of its own. step: of the first batch."""
        self._seed = [seed, zlib.crc32(name.encode())]
        self._dataset, self._changes, self._size = dataset, changes, batch_size
        self._step, self._clean = step, clean
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._next = self._pool.submit(self._make, step)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown()

    def __next__(self) -> dict[str, np.ndarray]:
        made, self._step = self._next.result(), self._step + 1
        self._next = self._pool.submit(self._make, self._step)
        return made

    def _make(self, step):
        chosen, rng = self._chosen(step), np.random.default_rng([*self._seed, 2, step])
        clean = self._dataset.images_uint8[chosen]
        changed = np.stack([augment.augment(x, rng, self._changes) for x in clean])
        batch = {'images': as_float(changed), 'w': self._dataset.w[chosen].astype(np.float32)}
        return batch | {'clean': as_float(clean)} if self._clean else batch

    def _chosen(self, step) -> list[int]:
        """Samples of a step: every one once in an epoch."""
        count = len(self._dataset.w)
        epochs, places = np.divmod(np.arange(step * self._size, (step + 1) * self._size), count)
        order = {
            int(e): np.random.default_rng([*self._seed, 1, int(e)]).permutation(count)
            for e in np.unique(epochs)
        }
        return [order[int(e)][p] for e, p in zip(epochs, places, strict=True)]


def placing(sharding: Sharding, batch_size: int, log):
    """A function that puts a batch on the devices, divided by pictures.

    XLA's partitioner then divides the step and sums the gradients. Where the number of devices does
    not divide the batch, each of them computes all of it.
    """
    if sharding.mesh is None:
        return lambda batch: jax.tree.map(jnp.asarray, batch)
    if batch_size % sharding.num_shards:
        log(
            f'{sharding.num_shards} devices do not divide a batch of {batch_size}: each computes '
            'all of it.'
        )
        return lambda batch: jax.tree.map(sharding.replicate, batch)
    own = NamedSharding(sharding.mesh, P(AXES))
    return lambda batch: jax.device_put(batch, own)
