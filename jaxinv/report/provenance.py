"""How results were made: settings, generator, LPIPS weights, versions, devices, peak memory."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxinv.runtime import memory
from jaxinv.types import GeneratorSpec

PACKAGES = ('jaxinv', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'dlib-bin')


def of_run(
    *,
    config: Mapping[str, Any],
    spec: GeneratorSpec,
    about: Mapping[str, Any],
    lpips: Mapping[str, str],
    seeds: Mapping[str, int],
    used: Sequence[jax.Device] | None = None,
) -> dict[str, Any]:
    """The fields of schema.Run, and of bulk.BulkRun, that say how a run was made.

    config: nested settings; about: the generator's origin, of weights.load.open_generator; lpips:
    {net: origin of its weights}; used: the devices of the run, None = all.
    """
    return {
        'config': dict(config),
        'generator': generator_of(spec, about, config.get('label')),
        'lpips': dict(lpips),
        'versions': versions(),
        'seeds': dict(seeds),
        'facts': {'devices': devices(used)} | memory.describe(memory.peak_bytes()),
    }


def generator_of(spec: GeneratorSpec, about: Mapping[str, Any], label=None) -> dict[str, Any]:
    """Name, size and origin of the generator."""
    facts = {'name': spec.name, 'resolution': spec.resolution, 'num_ws': spec.num_ws}
    facts |= {key: about[key] for key in ('kind', 'address', 'sha256') if key in about}
    return facts if label is None else facts | {'label': label}


def versions() -> dict[str, str]:
    """{'python': ..., package: version} of what computes results; installed versions, no git."""
    found = {'python': platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'not installed as a package'
    return found


def devices(used: Sequence[jax.Device] | None = None) -> str:
    """'2 x NVIDIA H100 (gpu)': the devices of a run, or all there are."""
    used = jax.devices() if used is None else list(used)
    kinds = {
        d.platform if d.device_kind == d.platform else f'{d.device_kind} ({d.platform})'
        for d in used
    }
    return f'{len(used)} x {", ".join(sorted(kinds))}'


# --- How to use the results -----------------------------------------------------------------------


def usage_of_pivots(source, folder, *, first_only: bool = False) -> str:
    """Python lines that render the pivots in `folder` with the generator from `source`.

    first_only: the generator is that of the first identity alone.
    """
    return (
        'import jaxinv\n'
        'from jaxinv.inversion import code_files\n'
        f'generator, weights = jaxinv.load_generator({str(source)!r})\n'
        f'names, w = code_files.load_pivots({str(folder)!r})\n'
        f'images = jaxinv.render(generator, weights, w{"[:1]" if first_only else ""})'
        "  # edit='smile=1.2': an edit"
    )


def usage_of_codes(source, folder) -> str:
    """Python lines that render SAM's codes in `folder` with the generator from `source`."""
    return (
        'import jaxinv\n'
        'from jaxinv.inversion import code_files, sam\n'
        f'generator, weights = jaxinv.load_generator({str(source)!r})\n'
        f'codes, masks = code_files.load_codes({str(folder)!r})\n'
        'images = sam.synthesize(generator, weights, codes, masks)  # delta=...: an edit'
    )
