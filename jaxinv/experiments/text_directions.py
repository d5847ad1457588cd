"""The task `text_directions`: a generator's table of global directions (StyleCLIP, section 6).

The mean and deviation of every style channel over random codes; then each channel is moved to both
sides in a few pictures, and how CLIP's feature changes is kept. Chunks of channels are saved in
state/; an interrupted run goes on after the last one and gives the same numbers.

  text_directions.safetensors   for --config.text.directions (weights/text_edits.py)
  metrics.json                  written last: the run is finished
"""

import json
import pathlib

import jax
import numpy as np

from jaxinv import latents, rendering, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import sampling, session
from jaxinv.io import write_atomically
from jaxinv.networks import clip as clip_network
from jaxinv.prompts import features, global_directions
from jaxinv.runtime import workdir
from jaxinv.runtime.progress import Progress
from jaxinv.types import GeneratorSpec
from jaxinv.weights.clip import load_clip
from jaxinv.weights.load import open_generator
from jaxinv.weights.text_edits import save_directions

FILE = 'text_directions.safetensors'


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task in the folder `path`, or resumes it there. Raises JaxinvError."""
    path = pathlib.Path(path)
    settings.check(config)
    s = settings.of(config, settings.TextDirections)
    generator, weights, about = open_generator(
        s.generator, s.resolution, which=s.generator_key, log=log
    )
    layers = measured_layers(generator.spec, s)
    network = load_clip(s.clip, s.activation or None, log=log)
    record = {
        'config': settings.record_of(config),
        'clip_probe': global_directions.probe_of(network),
        **session.files_of(config, about),
    }
    with workdir.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / FILE} (--overwrite runs it again).')
            return
        if network.is_random:
            log('clip is random: this table means nothing, and is marked so.', flush=True)
        w = samples(generator, weights, s, 'statistics', s.statistics)
        table = global_directions.statistics(generator, weights, w)
        measured = measure(generator, weights, network, table, layers, s, path, log)
        recorded = {
            'generator': generator.spec.name,
            'w_probe': latents.mapping_fingerprint(generator, weights).astype(float).tolist(),
            'clip': network.origin,
            'clip_probe': record['clip_probe'],
            'random_clip': network.is_random,
            'settings': record['config'],
        }
        found = global_directions.table_of(table, layers, measured, recorded)
        save_directions(path / FILE, found)
        result = summary(found, recorded)
        write_atomically(path / 'metrics.json', (json.dumps(result, indent=1) + '\n').encode())
    random = f' ({clip_network.RANDOM})' if network.is_random else ''
    log(
        f'{result["channels"]} channels of {len(layers)} layers{random}. Use them as '
        f'--config.text.directions={path} --config.edits="(\'text:a face with a beard=3\',)".'
    )


def measured_layers(spec: GeneratorSpec, s: settings.TextDirections) -> tuple:
    """((layer, channels), ...); raises JaxinvError if there are none."""
    features.check_latent(spec)
    layers = tuple(global_directions.layers_of(spec, s.max_size))
    if not layers:
        raise JaxinvError(
            f'{spec.name} has no layers with styles'
            + (f' of at most {s.max_size} pixels; raise max_size.' if s.max_size else '.')
        )
    return layers


def samples(generator, weights, s: settings.TextDirections, name: str, count: int) -> np.ndarray:
    """Truncated codes [count, w_dim] of a random stream of this name."""
    key = latents.stream(s.seed, f'text_directions {name}')
    z = latents.sample_z(int(jax.random.bits(key)), count, generator.spec.z_dim)
    pipeline = sampling.Pipeline(generator, weights, None, None)
    w = sampling.map_z(pipeline, z)
    mean = np.asarray(weights['buffers']['w_avg'])
    return np.asarray(latents.truncate(w, mean, s.truncation_psi), np.float32)


def measure(generator, weights, network, table, layers, s, path, log) -> dict[str, np.ndarray]:
    """{layer: rows of the matrix of its measured channels [m, features]}."""
    codes = samples(generator, weights, s, 'images', s.images)
    counts = [min(count, s.channels or count) for _, count in layers]
    firsts = np.cumsum([0, *(count for _, count in layers)])
    numbers = np.concatenate(
        [np.arange(first, first + count) for first, count in zip(firsts, counts, strict=False)]
    )

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        with rendering.full_precision():
            rows = global_directions.effects(
                generator, weights, network, codes, table, layers,
                numbers[start:stop], s.deviations, s.images_per_pass,
            )  # fmt: skip
        return {'rows': rows}

    progress = Progress('channel', len(numbers), log)
    folder = path / 'state' / 'channels'
    rows = sampling.in_chunks(len(numbers), s.chunk, folder, compute, progress)['rows']
    parts = np.split(rows, np.cumsum(counts)[:-1])
    return {layer: part for (layer, _), part in zip(layers, parts, strict=True)}


def summary(found, recorded) -> dict:
    """What metrics.json holds."""
    moved = {
        layer: int((np.linalg.norm(own.matrix, axis=1) > 0.5).sum())
        for layer, own in found.layers.items()
    }
    return {
        'generator': recorded['generator'],
        'clip': recorded['clip'],
        'random_clip': recorded['random_clip'],
        'channels': sum(moved.values()),
        'channels_of_layers': moved,
    }
