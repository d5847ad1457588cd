"""The task `fit_directions`: sample, render, measure, fit, choose, validate; see its config.

Writes directions.npz ({name: [1, w_dim]}, unit length), directions.json (recipe and validation),
pictures of every direction, and metrics.json last. Every chunk of measured faces is saved in
state/, so that an interrupted run goes on from there and ends with the same numbers.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxinv import latents, settings
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import direction_regression
from jaxinv.experiments import sampling as labs
from jaxinv.experiments.sampling import Lab
from jaxinv.io import atomic_path, write_atomically
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress

# Seeds, relative to the run's, of the faces of each part: none is used twice.
FIT, CHOOSE, VALIDATE, GANSPACE = range(4)


class Direction(NamedTuple):
    name: str
    target: str  # attribute
    kind: str  # of direction_fit.COSTS
    vector: np.ndarray  # [w_dim], length 1
    strengths: np.ndarray  # lengths in W to try


def run(config, path, *, overwrite: bool = False, log=print, lab: Lab | None = None) -> None:
    """Runs the task into the folder `path`, or goes on with it.

    lab: the real generator and measurements if None. Raises JaxinvError.
    """
    path = pathlib.Path(path)
    settings.check(config)
    with workdir.claim(path, {'config': settings.record_of(config)}, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / "directions.npz"} (--overwrite runs it again).')
            return
        lab = lab or labs.real_lab(config)
        names = measured_names(config)
        samples = collect(config, lab, path / 'state' / 'samples', log)
        missing = set(names) - samples.keys()
        if missing:
            raise JaxinvError(
                f'{sorted(missing)} of config.attributes and config.controls are not measured; '
                f'known: {", ".join(sorted(samples.keys() - {"w", "embedding"}))}.'
            )
        known = np.isfinite(np.stack([samples[name] for name in names])).all(0)
        known &= np.isfinite(samples['embedding']).all(1)
        log(f'{int(known.sum())} of {len(known)} samples show a face that could be measured.')
        if known.sum() < 10:
            raise JaxinvError(
                f'only {int(known.sum())} of {len(known)} samples show a face; at least 10 are '
                'needed, so raise config.samples.num or lower config.truncation_psi.'
            )
        samples = {key: values[known] for key, values in samples.items()}
        deviations = {name: float(samples[name].std()) for name in names}

        candidates, fit_record = fit(config, samples, deviations)
        tried = sweep(config, lab, candidates, CHOOSE, path / 'state' / 'choose', log)
        chosen, prices = choose(candidates, tried, deviations)
        final = [rescale(d, config.validate.deviations, config, fit_record) for d in chosen]
        swept = sweep(config, lab, final, VALIDATE, path / 'state' / 'validate', log)

        arrays = {d.name: d.vector for d in final}
        entries = {d.name: _entry(d, swept[d.name], deviations) for d in final}
        for name, vector, std in ganspace(config, lab):
            arrays[name] = vector
            entries[name] = {'kind': 'ganspace', 'std': std, 'strengths': [-2 * std, 2 * std]}
        record = {
            'unit': 'a strength is the length moved in W; every direction has length 1',
            'generator': lab.generator.spec.name,
            'w_probe': latents.mapping_fingerprint(lab.generator, lab.weights)
            .astype(float)
            .round(4)
            .tolist(),
            'directions': entries,
            'recipe': {
                'config': config.to_dict(),
                'faces_measured': int(known.sum()),
                'standard_deviations': deviations,
                'r2_held_out': fit_record['r2'],
                'r2_identity_embedding': fit_record['r2_identity'],
                'price_of_each_kind': prices,
            },
        }
        show(config, lab, final, path, log)
        _write(path, arrays, record)
    log(_summary(record, path))


# --- Sampling and measuring -----------------------------------------------------------------------


def collect(config, lab: Lab, folder: pathlib.Path, log) -> dict[str, np.ndarray]:
    """Measured samples {'w': [n, d], 'embedding': [n, e], attribute: [n], ...}, chunk by chunk."""
    w = sample_w(config, lab, FIT, config.samples.num)

    def work(start: int, stop: int) -> dict[str, np.ndarray]:
        return {'w': w[start:stop], **labs.measure(lab, w[start:stop])}

    return labs.in_chunks(
        len(w), config.samples.chunk, folder, work, Progress('sample', len(w), log)
    )


def sweep(config, lab: Lab, directions: list[Direction], stream: int, folder, log):
    """{direction name: Effect} from moving fresh faces along every direction."""
    part = {CHOOSE: config.choose, VALIDATE: config.validate}[stream]
    w = sample_w(config, lab, stream, part.num)
    moves = np.concatenate([np.outer(d.strengths, d.vector) for d in directions])
    moves = np.concatenate([np.zeros((1, w.shape[1])), moves]).astype(np.float32)

    def work(start: int, stop: int) -> dict[str, np.ndarray]:
        count = stop - start
        moved = (w[start:stop, None] + moves).reshape(-1, w.shape[1])
        measured = labs.measure(lab, moved)
        measured = {k: v.reshape(count, len(moves), *v.shape[1:]) for k, v in measured.items()}
        embedding = measured.pop('embedding')
        distance = np.linalg.norm(embedding - embedding[:, :1], axis=-1)
        return {**measured, 'distance': distance}

    stage = {CHOOSE: 'choose', VALIDATE: 'validate'}[stream]
    chunk = max(1, config.samples.chunk // len(moves))
    table = labs.in_chunks(len(w), chunk, folder, work, Progress(stage, len(w), log))
    distance = table.pop('distance')
    base = {name: values[:, 0] for name, values in table.items()}
    results, start = {}, 1
    for d in directions:
        own = slice(start, start + len(d.strengths))
        start += len(d.strengths)
        edited = {name: values[:, own] for name, values in table.items()}
        results[d.name] = direction_regression.effect(
            d.strengths, base, edited, distance[:, own], d.target
        )
    return results


def sample_w(config, lab: Lab, stream: int, num: int) -> np.ndarray:
    """Truncated latents [num, w_dim]; the first ones are the same whatever `num` is."""
    z = latents.sample_z(config.seed + stream, num, lab.generator.spec.z_dim)
    mapped = labs.map_z(lab, z)
    w_avg = np.asarray(lab.weights['buffers']['w_avg'])
    return np.asarray(latents.truncate(mapped, w_avg, config.truncation_psi), np.float32)


# --- Fitting and choosing -------------------------------------------------------------------------


def fit(config, samples, deviations) -> tuple[list[Direction], dict[str, Any]]:
    """Candidates of every kind for every attribute, and what the regressions were worth."""
    names = measured_names(config)
    w = samples['w'].astype(np.float64)
    standardised = np.stack([samples[n] / deviations[n] for n in names], axis=1)
    attributes = direction_regression.ridge(w, standardised)
    embedding = direction_regression.ridge(w, samples['embedding'])
    covariance = np.cov(w, rowvar=False)
    record = {
        'coefficients': attributes.coefficients,
        'r2': dict(zip(names, map(float, attributes.r2), strict=True)),
        'r2_identity': float(embedding.r2.mean()),
    }
    candidates = []
    for kind in config.choose.kinds:
        cost = direction_regression.COSTS[kind](covariance, embedding.coefficients.T)
        for i, target in enumerate(config.attributes):
            vector = direction_regression.direction(attributes.coefficients, i, cost)
            candidate = Direction(f'{target}/{kind}', target, kind, vector, np.zeros(0))
            candidates.append(rescale(candidate, config.choose.deviations, config, record))
    return candidates, record


def measured_names(config) -> tuple[str, ...]:
    """What a direction moves or must leave alone; the attributes come first."""
    return (*config.attributes, *config.controls)


def rescale(direction: Direction, deviations, config, record) -> Direction:
    """With the strengths at which the regression predicts these changes (standard deviations)."""
    i = tuple(config.attributes).index(direction.target)
    slope = float(record['coefficients'][:, i] @ direction.vector)
    # Two digits are plenty, and make strengths that people can read and type.
    strengths = [float(f'{x / slope:.2g}') for x in deviations]
    return direction._replace(strengths=np.array(strengths))


def choose(candidates, tried, deviations) -> tuple[list[Direction], dict[str, dict[str, float]]]:
    """The cheapest candidate of every attribute, under the attribute's own name; all prices."""
    best: dict[str, tuple[float, Direction]] = {}
    prices: dict[str, dict[str, float]] = {}
    for c in candidates:
        cost = direction_regression.price(tried[c.name], c.target, c.strengths, deviations)
        prices.setdefault(c.target, {})[c.kind] = cost
        if c.target not in best or cost < best[c.target][0]:
            best[c.target] = (cost, c)
    return [c._replace(name=c.target) for _, c in best.values()], prices


def ganspace(config, lab: Lab) -> Iterator[tuple[str, np.ndarray, float]]:
    """(name, component, standard deviation) of the principal components of W, untruncated."""
    if not config.ganspace.components:
        return
    spec = lab.generator.spec
    w = labs.map_z(lab, latents.sample_z(config.seed + GANSPACE, config.ganspace.num, spec.z_dim))
    components, std = direction_regression.principal_components(w, config.ganspace.components)
    for i, (component, deviation) in enumerate(zip(components, std, strict=True)):
        yield f'pc{i}', component, float(f'{deviation:.4g}')


# --- Results --------------------------------------------------------------------------------------


def show(config, lab: Lab, directions: list[Direction], path: pathlib.Path, log) -> None:
    """NAME.png for every direction: a row per fresh face, columns by strength."""
    w = sample_w(config, lab, VALIDATE, config.validate.shown)
    for d in directions:
        strengths = np.sort(np.append(d.strengths, 0.0))
        rows = []
        for code in w:
            moved = (code + np.outer(strengths, d.vector)).astype(np.float32)
            rows.append(
                [
                    p
                    for batch in labs.parts_of(moved, labs.RENDER_BATCH)
                    for p in labs.render(lab, batch)
                ]
            )
        sheet = grid.grid(rows, None, [f'{d.name} {s:+g}' for s in strengths], cell=256)
        images.save(path / f'{d.name}.png', sheet)


def _entry(direction: Direction, result: direction_regression.Effect, deviations) -> dict[str, Any]:
    strengths = direction.strengths
    typical = float(np.abs(strengths).max())
    return {
        'kind': 'attribute',
        'fit': direction.kind,
        'strengths': [-typical, typical],
        **result._asdict(),
        'price': direction_regression.price(result, direction.target, strengths, deviations),
    }


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    with atomic_path(path / 'directions.npz') as scratch:
        np.savez(scratch, **{k: v.astype(np.float32)[None] for k, v in arrays.items()})
    text = json.dumps(_rounded(record), indent=1, allow_nan=False) + '\n'
    write_atomically(path / 'directions.json', text.encode())
    write_atomically(path / 'metrics.json', text.encode())  # last: the run is finished


def _rounded(value: Any) -> Any:
    """Four significant digits, and null for what is not finite."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.4g}') if np.isfinite(value) else None
    return value


def _summary(record: dict[str, Any], path: pathlib.Path) -> str:
    lines = []
    for name, entry in record['directions'].items():
        if entry['kind'] == 'attribute':
            changes = ', '.join(f'{k} {v:+.3g}' for k, v in entry['per_unit'].items())
            identity = ', '.join(f'{k}: {v:.2f}' for k, v in entry['identity_distance'].items())
            lines.append(
                f'{name:<6} correlation {entry["correlation"]:.3f}  per unit {changes}  '
                f'identity distance {identity}'
            )
    return '\n'.join([*lines, f'Open {path}; use as {path / "directions.npz"}:NAME=STRENGTH'])
