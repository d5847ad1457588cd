"""The task `fit_directions`: sample, render, measure, fit, choose, validate; see its config.

Each attribute has a measure that steers and one that judges (jaxinv/faces/measures.py): directions
are fitted and chosen by the first, and their effect is stated by the second. A direction that the
judge does not confirm is left out, and directions.json says why.

Writes directions.npz ({name: [1, w_dim]}, unit length), directions.json (recipe and validation), a
picture of each direction, and metrics.json last. Each chunk of measured faces is saved in state/;
an interrupted run resumes after the last chunk and gives the same numbers.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxinv import edits, latents, settings
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import direction_regression, sampling
from jaxinv.experiments import direction_validation as validation
from jaxinv.experiments.direction_validation import Direction
from jaxinv.experiments.sampling import Pipeline
from jaxinv.faces import measures
from jaxinv.io import atomic_path, write_atomically
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress


def run(
    config, path, *, overwrite: bool = False, log=print, pipeline: Pipeline | None = None
) -> None:
    """Runs or resumes the task in the folder `path`.

    pipeline: None = config.generator and jaxinv's measurements. Raises JaxinvError if fewer than 10
    samples have a face, or config.attributes or config.controls are not measured.
    """
    path = pathlib.Path(path)
    settings.check(config)
    with workdir.claim(path, {'config': settings.record_of(config)}, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / "directions.npz"} (--overwrite runs it again).')
            return
        pipeline = pipeline or sampling.open_pipeline(config)
        table = attributes_of(config, pipeline)
        measured = collect(config, pipeline, path, log)
        wanted = {one for entry in table.values() for one in (entry.steer, entry.judge)}
        missing = wanted - measured.keys()
        if missing:
            raise JaxinvError(
                f'{sorted(missing)} of config.attributes and config.controls are not measured; '
                f'known: {", ".join(sorted(measured.keys() - {"w", "embedding"}))}.'
            )
        samples = {name: measured[entry.steer] for name, entry in table.items()}
        samples |= {'w': measured['w'], 'embedding': measured['embedding']}
        known = np.isfinite(np.stack([samples[name] for name in table])).all(0)
        known &= np.isfinite(samples['embedding']).all(1)
        log(f'{int(known.sum())} of {len(known)} samples have a face that could be measured.')
        if known.sum() < 10:
            raise JaxinvError(
                f'only {int(known.sum())} of {len(known)} samples have a face; at least 10 are '
                'needed, so raise config.samples.num or lower config.truncation_psi.'
            )
        samples = {key: values[known] for key, values in samples.items()}
        deviations = {name: float(samples[name].std()) for name in table}
        judged = {name: measured[entry.judge][known] for name, entry in table.items()}
        agreement = {name: validation.agreement(samples[name], judged[name]) for name in table}
        judged = {name: float(np.nanstd(values)) for name, values in judged.items()}

        packaged = edits.shares_w(pipeline.generator, pipeline.weights)
        kept = set(config.keep) & set(edits.packaged()) if packaged else set()
        candidates, fit_record = fit(config, samples, deviations, table, kept)
        tried = sweep(config, pipeline, candidates, 'choose', path, log)
        steered = {
            d.name: validation.effect_of(d, tried, table, 'steer', pipeline) for d in candidates
        }
        limit = pipeline.same_person[0]
        chosen, prices = choose(candidates, steered, deviations, limit, table)
        final = [rescale(d, config.validate.deviations, fit_record) for d in chosen]
        validated = sweep(config, pipeline, final, 'validate', path, log)

        arrays, entries, left_out = {}, {}, {}
        for d in final:
            entry = validation.entry_of(config, d, validated, table, judged, pipeline)
            reason = validation.refusal(config, entry, d.target, judged)
            (left_out if reason else entries)[d.name] = entry
            if reason:
                entry['reason'] = reason
            else:
                arrays[d.name] = d.vector
        for name, vector, std in ganspace(config, pipeline, packaged):
            arrays[name] = vector
            entries[name] = {'kind': 'ganspace', 'std': std, 'strengths': [-2 * std, 2 * std]}
        fingerprint = latents.mapping_fingerprint(pipeline.generator, pipeline.weights)
        record = {
            'unit': 'a strength is the length moved in W; every direction has length 1',
            'generator': pipeline.generator.spec.name,
            'w_probe': fingerprint.astype(float).round(4).tolist(),
            'directions': entries,
            'not_found': left_out,
            'recipe': {
                'config': config.to_dict(),
                'faces_measured': int(known.sum()),
                'faces_validated': config.validate.num,
                'standard_deviations': deviations,
                'judges_standard_deviations': judged,
                'correlation_of_steering_and_judge': agreement,
                'r2_held_out': fit_record['r2'],
                'r2_identity_embedding': fit_record['r2_identity'],
                'price_of_each_kind': prices,
            },
        }
        show(config, pipeline, [d for d in final if d.name in entries], path)
        _write(path, arrays, record)
    log(_summary(record, path))


# --- Sampling and measuring -----------------------------------------------------------------------


def collect(config, pipeline: Pipeline, path: pathlib.Path, log) -> dict[str, np.ndarray]:
    """Measured samples {'w': [n, d], 'embedding': [n, e], attribute: [n], ...}."""
    w = sample_w(config, pipeline, 'fit', config.samples.num)

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        return {'w': w[start:stop], **sampling.measure(pipeline, w[start:stop])}

    progress = Progress('sample', len(w), log)
    folder = path / 'state' / 'samples'
    return sampling.in_chunks(len(w), config.samples.chunk, folder, compute, progress)


def sweep(config, pipeline: Pipeline, directions: list[Direction], stage: str, path, log):
    """Measures of sampled faces moved along each direction, {direction name: {...}}.

    Each holds 'base' {measure: [n]}, 'edited' {measure: [n, s]} and 'distance' [n, s], of identity.
    stage: 'choose' or 'validate', whose settings give the number of faces; the distances of the
    second are by pipeline.judge.
    """
    w = sample_w(config, pipeline, stage, config[stage].num)
    moves = np.concatenate([np.outer(d.strengths, d.vector) for d in directions])
    moves = np.concatenate([np.zeros((1, w.shape[1])), moves]).astype(np.float32)

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        count = stop - start
        moved = (w[start:stop, None] + moves).reshape(-1, w.shape[1])
        measured = sampling.measure(pipeline, moved, judged=stage == 'validate')
        measured = {k: v.reshape(count, len(moves), *v.shape[1:]) for k, v in measured.items()}
        embedding = measured.pop('embedding')
        distance = np.linalg.norm(embedding - embedding[:, :1], axis=-1)
        return {**measured, 'distance': distance}

    chunk = max(1, config.samples.chunk // len(moves))
    progress = Progress(stage, len(w), log)
    table = sampling.in_chunks(len(w), chunk, path / 'state' / stage, compute, progress)
    distance = table.pop('distance')
    base = {name: values[:, 0] for name, values in table.items()}
    results, start = {}, 1
    for d in directions:
        own = slice(start, start + len(d.strengths))
        start += len(d.strengths)
        edited = {name: values[:, own] for name, values in table.items()}
        results[d.name] = {'base': base, 'edited': edited, 'distance': distance[:, own]}
    return results


def sample_w(config, pipeline: Pipeline, stage: str, num: int) -> np.ndarray:
    """Truncated latents [num, w_dim] of the stage's own random stream.

    A larger `num` keeps the first samples.
    """
    w = _map_samples(config, pipeline, stage, num)
    w_avg = np.asarray(pipeline.weights['buffers']['w_avg'])
    return np.asarray(latents.truncate(w, w_avg, config.truncation_psi), np.float32)


def _map_samples(config, pipeline: Pipeline, stage: str, num: int) -> np.ndarray:
    key = latents.stream(config.seed, f'fit_directions {stage}')
    z = latents.sample_z(int(jax.random.bits(key)), num, pipeline.generator.spec.z_dim)
    return sampling.map_z(pipeline, z)


# --- Fitting and choosing -------------------------------------------------------------------------


def fit(
    config, samples, deviations, table, kept=frozenset()
) -> tuple[list[Direction], dict[str, Any]]:
    """Candidates of each kind for each attribute, and {'coefficients' [d, m], 'r2', ...}.

    kept: attributes whose packaged direction is the only candidate.
    """
    names = tuple(table)
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
    for target in config.attributes or measures.ATTRIBUTES:
        if target in kept:
            vector = np.float64(edits.load_direction(target)[0])
            candidates.append(Direction(f'{target}/kept', target, 'kept', vector, np.zeros(0)))
            continue
        held = [i for i, n in enumerate(names) if n == target or n not in table[target].free]
        coefficients = attributes.coefficients[:, held]
        own = [names[i] for i in held].index(target)
        for kind in config.choose.kinds:
            cost = direction_regression.COSTS[kind](covariance, embedding.coefficients.T)
            vector = direction_regression.direction(coefficients, own, cost)
            candidates.append(Direction(f'{target}/{kind}', target, kind, vector, np.zeros(0)))
    return [rescale(c, config.choose.deviations, record) for c in candidates], record


def attributes_of(config, pipeline: Pipeline) -> dict[str, Any]:
    """{name: measures.Attribute} of the attributes and the controls, in this order.

    Raises JaxinvError for a name that the pipeline does not list.
    """
    names = (*(config.attributes or measures.ATTRIBUTES), *config.controls)
    if pipeline.attributes is None:
        return {name: measures.Attribute(name, name, '') for name in names}
    unknown = [name for name in names if name not in pipeline.attributes]
    if unknown:
        raise JaxinvError(
            f'{unknown} of config.attributes and config.controls are not attributes; there are '
            f'{", ".join(pipeline.attributes)}.'
        )
    return {name: pipeline.attributes[name] for name in names}


def rescale(direction: Direction, deviations, record) -> Direction:
    """The direction with strengths at which the regression predicts these changes.

    deviations: changes of the attribute in units of its standard deviation.
    """
    i = list(record['r2']).index(direction.target)
    slope = float(record['coefficients'][:, i] @ direction.vector)
    # Two significant digits: strengths are typed by hand in --config.edits.
    strengths = [float(f'{x / slope:.2g}') for x in deviations]
    return direction._replace(strengths=np.array(strengths))


def choose(candidates, tried, deviations, same_person, table):
    """The candidate of the lowest price for each attribute, named after it; and all prices.

    tried: {candidate's name: Effect}.
    """
    best: dict[str, tuple[float, Direction]] = {}
    prices: dict[str, dict[str, float]] = {}
    for c in candidates:
        cost = direction_regression.price(
            tried[c.name], c.target, c.strengths, deviations, same_person, table[c.target].free
        )
        prices.setdefault(c.target, {})[c.kind] = cost
        if c.target not in best or cost < best[c.target][0]:
            best[c.target] = (cost, c)
    return [c._replace(name=c.target) for _, c in best.values()], prices


def ganspace(
    config, pipeline: Pipeline, packaged: bool = False
) -> Iterator[tuple[str, np.ndarray, float]]:
    """(name, component, standard deviation) of the principal components of W, untruncated."""
    if not config.ganspace.components:
        return
    known = edits.describe()['directions'] if packaged and config.ganspace.keep else {}
    names = [f'pc{i}' for i in range(config.ganspace.components)]
    if known.keys() >= set(names):
        for name in names:
            yield name, edits.load_direction(name)[0], known[name]['std']
        return
    w = _map_samples(config, pipeline, 'ganspace', config.ganspace.num)
    components, std = direction_regression.principal_components(w, config.ganspace.components)
    for i, (component, deviation) in enumerate(zip(components, std, strict=True)):
        yield f'pc{i}', component, float(f'{deviation:.4g}')


# --- Results --------------------------------------------------------------------------------------


def show(config, pipeline: Pipeline, directions: list[Direction], path: pathlib.Path) -> None:
    """Writes NAME.png for each direction: one row for each face, one column for each strength."""
    w = sample_w(config, pipeline, 'validate', config.validate.shown)
    for d in directions:
        strengths = np.sort(np.append(d.strengths, 0.0))
        moves = np.outer(strengths, d.vector)
        rows = [list(sampling.render(pipeline, np.float32(code + moves))) for code in w]
        sheet = grid.grid(rows, None, [f'{d.name} {s:+g}' for s in strengths], cell=256)
        images.save(path / f'{d.name}.png', sheet)


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    with atomic_path(path / 'directions.npz') as scratch:
        np.savez(scratch, **{k: v.astype(np.float32)[None] for k, v in arrays.items()})
    text = json.dumps(_rounded(record), indent=1, allow_nan=False) + '\n'
    write_atomically(path / 'directions.json', text.encode())
    write_atomically(path / 'metrics.json', text.encode())  # last: marks the run as finished


def _rounded(value: Any) -> Any:
    """Floats with four significant digits; None if they are not finite."""
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
            low, high = entry['strengths']
            lines.append(
                f'{name:<12} {low:+.2g} to {high:+.2g}  correlation {entry["correlation"]:.2f}  '
                f'1: {entry["per_unit"][name]:+.3g} {entry["judge_unit"]} by {entry["judge"]}'
            )
    lines += [f'{name:<12} left out: {e["reason"]}.' for name, e in record['not_found'].items()]
    return '\n'.join([*lines, f'Open {path}; use as {path / "directions.npz"}:NAME=STRENGTH'])
