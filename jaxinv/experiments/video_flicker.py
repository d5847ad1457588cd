"""Flicker of an edited video against its source, between frames in a row.

  lpips_alex    LPIPS between a face and the one in the next frame, at 256 px at most. The source
                has its own, by its motion: what is above it is flicker.
  warp_rmse     warping error (Lai et al. 2018, "Learning blind video temporal consistency",
                equation 12): the next frame is brought back by the optical flow of the source, and
                compared where that flow is consistent. Root mean square, of levels 0 to 255.

The flow is TV-L1 (Zach et al. 2007) of scikit-image at FLOW pixels. A pixel counts where the flow
forth and back ends within a pixel or so of where it began (Ruder et al. 2016, equation 5).
"""

import numpy as np
import scipy.ndimage
import skimage.registration

from jaxinv import metrics, pixels

FACE = 256  # pixels a side at most of the compared faces
FLOW = 128  # pixels a side at most of the pictures that flow is computed of
NAMES = ('lpips_alex', 'warp_rmse')


def measure(nets, faces: dict[str, np.ndarray], source: str = 'source') -> dict[str, dict]:
    """{name: {'lpips_alex': [m], 'warp_rmse': [m]}} of m + 1 frames in a row.

    faces: {name: uint8 [m + 1, h, w, 3]}, cut by the same squares; the flow is of faces[source].
    nets: {'alex': LPIPS weights}.
    """
    flows = [flow(a, b) for a, b in _pairs(small(faces[source]))]
    found = {}
    for name, images in faces.items():
        own = metrics.evaluate(images[:-1], images[1:], nets, names=('lpips_alex',))
        warped = [
            warp_rmse(a, b, *motion)
            for (a, b), motion in zip(_pairs(small(images)), flows, strict=True)
        ]
        found[name] = {'lpips_alex': own['lpips_alex'], 'warp_rmse': np.array(warped)}
    return found


def small(images_uint8) -> np.ndarray:
    """float32 [n, h, w, 3] in [0, 255], reduced to FLOW pixels by area averaging."""
    images = np.asarray(images_uint8, np.float32)
    if min(images.shape[1:3]) > FLOW:
        images = np.asarray(pixels.area_resize(images, FLOW))
    return images


def _pairs(images):
    return zip(images, images[1:], strict=False)


def flow(a, b) -> tuple[np.ndarray, np.ndarray]:
    """(motion [2, h, w] (down, right) from a to b in pixels, bool [h, w]: is consistent)."""
    grey = [np.asarray(x, np.float32).mean(-1) / 255 for x in (a, b)]
    forth = np.asarray(skimage.registration.optical_flow_tvl1(*grey))
    back = np.asarray(skimage.registration.optical_flow_tvl1(*grey[::-1]))
    places = np.mgrid[: a.shape[0], : a.shape[1]] + forth
    returned = np.stack([_sample(own, places) for own in back])
    gap = ((forth + returned) ** 2).sum(0)
    consistent = gap < 0.01 * ((forth**2).sum(0) + (returned**2).sum(0)) + 0.5
    limits = np.array(a.shape[:2])[:, None, None] - 1
    return forth, consistent & ((places >= 0) & (places <= limits)).all(0)


def warp_rmse(a, b, motion, consistent) -> float:
    """Root mean square difference of a [h, w, 3] and b brought back; NaN where nothing counts."""
    places = np.mgrid[: a.shape[0], : a.shape[1]] + motion
    brought = np.stack([_sample(b[..., i], places) for i in range(3)], -1)
    difference = ((a - brought) ** 2).mean(-1)[consistent]
    return float(np.sqrt(difference.mean())) if difference.size else float('nan')


def _sample(values, places):
    return scipy.ndimage.map_coordinates(values, places, order=1, mode='nearest')
