"""Linear directions in W for measured attributes, and principal components. NumPy only.

Symbols: w [n, d] latents; a [n, m] attributes in units of their standard deviation; B [d, m] the
regression coefficients, a ~ w B; J [e, d] the same for an identity embedding, e(w) ~ J w; C [d, d]
the covariance of w.

The direction of attribute i changes this attribute and no other one in the linear model, at the
least cost:

    v = argmin v' M v   subject to   B' v = unit vector i,    v = M^-1 B (B' M^-1 B)^-1 e_i,

scaled to length 1. M = identity matrix is InterFaceGAN's conditional manipulation (Shen et al.
2020, section 3.3: the coefficient with the others projected out). Other matrices M, in `COSTS`,
penalise improbable codes or a change of identity.
"""

from typing import NamedTuple

import numpy as np

HOLDOUT = 0.2  # fraction of the samples on which penalties are chosen
DISTANCE_POWER = 0.6  # identity distance ~ strength ** 0.6; measured: 0.5 to 0.65


class Regression(NamedTuple):
    coefficients: np.ndarray  # [d, m]
    r2: np.ndarray  # [m], on held-out samples
    penalty: np.ndarray  # [m], chosen on them, in units of the mean eigenvalue of C


def ridge(w: np.ndarray, a: np.ndarray) -> Regression:
    """Ridge regression of each column of a [n, m] on w [n, d].

    The penalty of a column is the one of a grid with the least error on the last fifth of the
    samples; the coefficients are refitted on all samples. Raises ValueError for fewer than 10.
    """
    w, a = np.asarray(w, np.float64), np.asarray(a, np.float64)
    train = max(2, round(len(w) * (1 - HOLDOUT)))
    if len(w) - train < 2:
        raise ValueError(f'{len(w)} samples are too few for a regression; at least 10 are needed.')
    grid = np.logspace(-5, 2, 29)
    fits = _ridge_path(w[:train], a[:train], grid)  # [g, d, m]
    x = w[train:] - w[:train].mean(0)
    y = a[train:] - a[:train].mean(0)
    error = ((y - x @ fits) ** 2).mean(1)  # [g, m]
    best = error.argmin(0)
    everything = _ridge_path(w, a, grid)
    columns = np.arange(a.shape[1])
    r2 = 1 - error[best, columns] / np.maximum(y.var(0), 1e-12)
    return Regression(everything[best, :, columns].T, r2, grid[best])


def _ridge_path(w: np.ndarray, a: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Coefficients [len(penalties), d, m]."""
    x, y = w - w.mean(0), a - a.mean(0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    unit = (s**2).sum() / x.shape[1]
    projected = u.T @ y
    return np.stack([vt.T @ ((s / (s**2 + p * unit))[:, None] * projected) for p in penalties])


def _plain(covariance, jacobian):
    return np.eye(len(covariance))


def _likely(covariance, jacobian):
    """Inverse covariance of W, shrunk; mean eigenvalue 1: moves to improbable codes cost more."""
    scale = np.trace(covariance) / len(covariance)
    shrunk = covariance / scale + 0.02 * np.eye(len(covariance))
    inverse = np.linalg.inv(shrunk)
    return inverse / np.trace(inverse) * len(inverse)


def _identity(covariance, jacobian):
    """Squared change of the identity embedding, mean eigenvalue 1, plus 10 times squared length.

    The length term bounds the penalty on age, which changes much of what the embedding measures.
    """
    gram = jacobian.T @ jacobian
    return gram / np.trace(gram) * len(gram) + 10 * np.eye(len(gram))


def _identity_likely(covariance, jacobian):
    return _identity(covariance, jacobian) + 10 * _likely(covariance, jacobian)


def _mild(covariance, jacobian):
    return _identity_likely(covariance, jacobian) + 20 * (
        np.eye(len(covariance)) + _likely(covariance, jacobian)
    )


COSTS = {
    'plain': _plain,
    'likely': _likely,
    'identity': _identity,
    'identity_likely': _identity_likely,
    'mild': _mild,
}


def direction(coefficients: np.ndarray, i: int, cost: np.ndarray) -> np.ndarray:
    """The unit-length direction [d] of attribute i for M = cost [d, d]; equation above."""
    b = np.asarray(coefficients, np.float64)
    solved = np.linalg.solve(cost, b)  # M^-1 B
    v = solved @ np.linalg.solve(b.T @ solved, np.eye(b.shape[1])[i])
    return v / np.linalg.norm(v)


def principal_components(w: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """GANSpace (Härkönen et al. 2020): unit components [count, d] of w and their std [count].

    Signs are arbitrary, so the largest coordinate of each is made positive.
    """
    x = np.asarray(w, np.float64)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    components = vectors[:, ::-1][:, :count].T
    largest = components[np.arange(len(components)), np.abs(components).argmax(1)]
    return components * np.sign(largest)[:, None], np.sqrt(np.maximum(values[::-1][:count], 0))


class Effect(NamedTuple):
    """Measured effect of moving faces along one direction by several strengths."""

    correlation: float  # of the strength and the attribute's change in the same face
    correlation_raw: float  # of the strength and the attribute, over all faces
    per_unit: dict[str, float]  # slope of each attribute, in its unit, per length 1 in W
    identity_distance: dict[str, float]  # mean at each strength
    same_person: dict[str, float]  # fraction of faces below the threshold at each strength
    lost: float  # fraction of edited pictures without a detected face


def effect(
    strengths: np.ndarray,  # [s]
    base: dict[str, np.ndarray],  # {attribute: [n]} of the unedited faces
    edited: dict[str, np.ndarray],  # {attribute: [n, s]}
    distance: np.ndarray,  # [n, s], of the edited to the unedited face
    target: str,
    same_person: float = 0.6,
) -> Effect:
    """The Effect of a sweep; each figure leaves out faces that were not detected (NaN)."""
    strengths = np.asarray(strengths, np.float64)
    x = np.concatenate([[0.0], strengths])
    everything = {k: np.concatenate([base[k][:, None], edited[k]], axis=1) for k in base}
    changes = {k: v - v[:, :1] for k, v in everything.items()}
    per_unit = {}
    for name, change in changes.items():
        steps, moved = np.broadcast_to(x, change.shape), np.isfinite(change)
        norm = (steps[moved] ** 2).sum()
        per_unit[name] = float((steps[moved] * change[moved]).sum() / norm) if norm else np.nan
    detected = np.isfinite(base[target])
    return Effect(
        correlation=_correlation(x, changes[target]),
        correlation_raw=_correlation(x, everything[target]),
        per_unit=per_unit,
        identity_distance={f'{s:g}': _mean(d) for s, d in zip(strengths, distance.T, strict=True)},
        same_person={
            f'{s:g}': _mean(np.where(np.isfinite(d), d < same_person, np.nan))
            for s, d in zip(strengths, distance.T, strict=True)
        },
        lost=float(np.isnan(edited[target][detected]).mean()) if detected.any() else 1.0,
    )


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float('nan')


def _correlation(x: np.ndarray, values: np.ndarray) -> float:
    x = np.broadcast_to(x, values.shape)
    known = np.isfinite(values)
    if known.sum() < 3 or np.ptp(values[known]) == 0:
        return float('nan')
    return float(np.corrcoef(x[known], values[known])[0, 1])


def price(
    result: Effect,
    target: str,
    strengths: np.ndarray,
    deviations: dict[str, float],
    same_person: float = 0.6,
    free: tuple[str, ...] = (),
) -> float:
    """The price of changing the attribute by one standard deviation; the least one is chosen.

    Identity distance in units of the same-person threshold, plus the unwanted changes of all
    other attributes but the `free` ones in standard deviations. Infinite if the attribute does not
    increase.
    """
    gain = result.per_unit[target] / deviations[target]  # per length in W
    if not gain > 0:
        return float('inf')
    moved = gain * float(np.abs(strengths).mean())
    distance = np.nanmean(list(result.identity_distance.values()))
    # Scaled to one standard deviation by the power law: a linear scaling would favour directions
    # measured at large strengths.
    identity = distance / same_person * moved**-DISTANCE_POWER
    others = [
        abs(v) / deviations[k]
        for k, v in result.per_unit.items()
        if k != target and k not in free and np.isfinite(v)
    ]
    return float(identity + sum(others) / gain)


def reach(
    strengths: np.ndarray, distances: np.ndarray, changes: np.ndarray, limit: float
) -> tuple[float, float]:
    """(least, largest) strength of the calibrated range.

    A side ends where the mean identity distance reaches `limit`, or at the last tested strength up
    to which the mean change rises. strengths [s], both signs; distances and changes [s]. Between
    tested strengths the distance is a power of the strength, with DISTANCE_POWER below the
    smallest; never beyond the largest tested one. 0 on a side that was not tested, or where the
    change does not rise.
    """
    ends = []
    for sign in (-1, 1):
        own = sorted(
            (abs(s), d, sign * c)
            for s, d, c in zip(strengths, distances, changes, strict=True)
            if s * sign > 0 and np.isfinite(d)
        )
        end, last, low, reached = 0.0, 0.0, 0.0, False
        for s, d, change in own:
            if not reached and change > last and d > limit:
                power = np.log(d / low) / np.log(s / end) if end else DISTANCE_POWER
                start, base = (end, low) if end else (s, d)
                end, reached = start * (limit / base) ** (1 / max(power, 1e-3)), True
            if reached or not change > last:
                break
            end, low, last = s, d, change
        ends.append(sign * float(end))
    return ends[0], ends[1]
