"""What the methods' functions take, brought into one form: targets, LPIPS weights, a runner."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxinv import latents
from jaxinv.errors import JaxinvError
from jaxinv.optimize import sharding
from jaxinv.optimize.runner import Runner
from jaxinv.pixels import to_float, to_uint8
from jaxinv.runtime.progress import silent
from jaxinv.types import GeneratorSpec
from jaxinv.weights import networks


class Examples(NamedTuple):
    """The images that a method inverts."""

    names: tuple[str, ...]
    images_uint8: np.ndarray  # [n, h, w, 3]
    valid: np.ndarray | None  # [n, h, w, 1], 0 where a pixel is padding; None = none is

    @property
    def images(self) -> np.ndarray:
        """float32 [n, h, w, 3] in [-1, 1]."""
        return to_float(self.images_uint8, np)

    @property
    def ids(self) -> np.ndarray:
        """uint32 [n], the keys of each image's randomness (`latents.identity_ids`)."""
        return latents.identity_ids(self.images_uint8)


def examples_of(targets: Any, spec: GeneratorSpec | None = None) -> Examples:
    """Examples from what `load_images` returned, or from images [n, h, w, 3].

    Images are uint8, or floats in [-1, 1], which are rounded to 8 bits. Raises JaxinvError for
    another shape, and for a size that is not the generator's.
    """
    if hasattr(targets, 'images_uint8'):
        found = Examples(tuple(targets.names), targets.images_uint8, targets.valid)
    else:
        images = np.asarray(targets)
        if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
            raise JaxinvError(
                f'targets are {list(images.shape)}; give what load_images returned, or images '
                '[n, h, w, 3].'
            )
        images = images if images.dtype == np.uint8 else to_uint8(images)
        found = Examples(tuple(f'image_{i}' for i in range(len(images))), images, None)
    height, width = found.images_uint8.shape[1:3]
    if spec is not None and (height, width) != (spec.resolution, spec.resolution):
        raise JaxinvError(
            f'targets are {height} x {width} pixels and {spec.name} makes {spec.resolution} x '
            f'{spec.resolution}; load them with load_images(..., generator).'
        )
    return found


def lpips_weights(lpips: Any, nets: Sequence[str]) -> dict[str, Any]:
    """{net: weights} of LPIPS. lpips: 'auto', a path, or such a dictionary already."""
    if not isinstance(lpips, dict):
        return {net: networks.load_lpips(net, lpips) for net in nets}
    missing = [net for net in nets if net not in lpips]
    if missing:
        raise JaxinvError(f'lpips has weights of {sorted(lpips)}; {", ".join(missing)} is missing.')
    return {net: lpips[net] for net in nets}


def make_runner(
    names: Sequence[str], mesh: str = '', verbose: bool = True, callback: Callable | None = None
) -> Runner:
    """A runner that keeps nothing on disk.

    mesh: devices, as --config.mesh; verbose: prints a status line after every chunk of steps;
    callback: see Runner.
    """
    log = print if verbose else silent
    return Runner(tuple(names), sharding.make(mesh), None, log, callback)
