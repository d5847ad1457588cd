"""How results were made: versions, devices, memory, and how to use them again."""

import importlib.metadata
import pathlib
import platform
import resource
import sys
from typing import Any

import jax

from jaxinv.experiments.session import Session
from jaxinv.optimize.sharding import Sharding
from jaxinv.report import schema, writer
from jaxinv.runtime.progress import duration


def of_run(job: Session, **seeds: int) -> dict[str, Any]:
    """What results.Run says of a run, whatever its method; seeds: more than all methods have."""
    config, targets = job.config, job.targets
    return {
        'names': list(targets.names),
        'targets_uint8': targets.images_uint8,
        'config': config.to_dict(),
        'generator': generator_of(job),
        'versions': versions(),
        'seeds': {'seed': config.seed, 'w_statistics': config.w_statistics.seed} | seeds,
        'sources': targets.sources,
        'skipped': targets.skipped,
        'facts': {'peak memory': f'{peak_memory_gb():.1f} GB', 'devices': devices(job.sharding)},
    }


def generator_of(job: Session) -> dict[str, Any]:
    """Which generator it was."""
    spec, about = job.generator.spec, job.about or {}
    known = {key: about[key] for key in ('kind', 'address', 'sha256') if key in about}
    if job.config.label is not None:
        known['label'] = job.config.label
    return {
        'name': spec.name,
        'resolution': spec.resolution,
        'num_ws': spec.num_ws,
        **known,
    }


def versions() -> dict[str, str]:
    packages = ('jaxinv', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'dlib-bin')
    found = {'python': platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'not installed as a package'
    return found


def devices(sharding: Sharding | None = None) -> str:
    """The devices that a run used, or all there are."""
    used = jax.devices()
    if sharding is not None:
        used = used[:1] if sharding.mesh is None else sharding.mesh.devices.flat
    kinds = {f'{d.device_kind} ({d.platform})' for d in used}
    return f'{len(used)} x {", ".join(sorted(kinds))}'


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far (kilobytes on Linux, bytes on macOS)."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def usage(job: Session) -> str:
    shared = job.config.tune.shared or job.config.tune.num_steps == 0
    where = job.path if shared else job.path / 'generators' / job.targets.names[0]
    return (
        'import jaxinv, numpy as np\n'
        f'generator, weights = jaxinv.load_generator({str(where)!r})\n'
        f"pivots = np.load({str(job.path / 'pivots.npz')!r})['w']\n"
        'images, features = generator.synthesize(weights, pivots)'
    )


def summary(result: writer.Run, path: pathlib.Path) -> str:
    lines = []
    for stage in result.stages:
        means = {name: schema.mean(values) for name, values in stage.metrics.items()}
        shown = [f'{name} {"no face" if x is None else f"{x:.4f}"}' for name, x in means.items()]
        lines.append(f'{stage.name:<6} {"  ".join(shown)}')
    if result.drift:
        shown = [f'{name} {x:.4f}' for name, x in result.drift.metrics.items()]
        lines.append(f'drift of random latents: {"  ".join(shown)}')
    lines.append(f'{duration(sum(result.seconds.values()))} in all. Open {path / "report.html"}')
    return '\n'.join(lines)
