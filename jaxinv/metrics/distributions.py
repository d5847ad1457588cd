"""Distances between two sets of pictures, from their features [n, d].

  frechet   of the Gaussians with the sets' means and covariances (Dowson and Landau 1982): with the
            features of FID's Inception, FID (Heusel et al. 2017). In units of squared features; 0 =
            the same mean and covariance. Biased upwards in small sets, so compare equal n only.
  kernel    squared maximum mean discrepancy with the cubic polynomial kernel, unbiased (Binkowski
            et al. 2018, equation 4): with FID's Inception, KID. All pairs, no subsets. About 0 for
            sets of one distribution, and can be negative.

A name without its features says nothing: reports call them e.g. frechet_efficientnet_lite0.
"""

import math

import numpy as np

from jaxinv.errors import JaxinvError


def frechet(x, y) -> float:
    """|mean x - mean y|^2 + tr(Cx + Cy - 2 (Cx Cy)^(1/2)) of features [n, d] and [m, d].

    The last trace is the sum of the singular values of A B^T, where Cx = A^T A and Cy = B^T B for
    the centred features divided by sqrt(n - 1): exact for few pictures too, where the covariances
    have no full rank and a matrix square root of their product is unstable. NaN below two pictures.
    """
    x, y = _checked(x, y)
    if min(len(x), len(y)) < 2:
        return math.nan
    shift = x.mean(0) - y.mean(0)
    a, b = (_root(features - features.mean(0)) for features in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.sum(a**2) + np.sum(b**2) - 2 * cross)


def kernel(x, y) -> float:
    """Unbiased squared MMD of features [n, d] and [m, d], kernel (x.y / d + 1)^3.

    Pairs of a picture with itself are left out within each set. NaN below two pictures.
    """
    x, y = _checked(x, y)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return math.nan
    within = [
        (np.sum(own := _cubic(features, features)) - np.trace(own)) / (count * (count - 1))
        for features, count in ((x, n), (y, m))
    ]
    return float(within[0] + within[1] - 2 * np.mean(_cubic(x, y)))


def _cubic(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def _root(centred):
    """A [min(n, d), d] with A^T A = covariance of centred features [n, d]."""
    scaled = centred / math.sqrt(len(centred) - 1)
    return scaled if len(scaled) <= scaled.shape[1] else np.linalg.qr(scaled, mode='r')


def _checked(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise JaxinvError(
            f'features are {list(x.shape)} and {list(y.shape)}; both must be [n, d] with one d.'
        )
    return x, y
