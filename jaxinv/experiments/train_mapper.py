"""The task `train_mapper`: StyleCLIP's latent mapper for one text (section 5).

mapper.safetensors   for edits mapper:FILE=1 (weights/text_edits.py)
mapper.png           held-out codes before and after
metrics.json         written last: the run is finished. Its figures are by the CLIP that the
                     mapper was trained with, so they say that it learnt, not that it is right
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents, pixels, rendering, settings
from jaxinv.converters import array_files
from jaxinv.data import images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import sampling, session
from jaxinv.faces import identity_loss
from jaxinv.io import expanded, write_atomically
from jaxinv.networks import clip as clip_network
from jaxinv.networks import text_mapper
from jaxinv.optimize.runner import LoopTask, Runner
from jaxinv.prompts import features, mapper
from jaxinv.report import grid
from jaxinv.runtime import workdir
from jaxinv.weights.clip import load_clip
from jaxinv.weights.load import open_generator
from jaxinv.weights.text_edits import save_mapper

FILE = 'mapper.safetensors'


def run(config, path, *, overwrite: bool = False, log=print) -> None:
    """Runs the task in the folder `path`, or resumes it there. Raises JaxinvError."""
    path = pathlib.Path(path)
    settings.check(config)
    s = settings.of(config, settings.TrainMapper)
    generator, weights, about = open_generator(
        s.generator, s.resolution, which=s.generator_key, log=log
    )
    features.check_latent(generator.spec)
    network = load_clip(s.clip, s.activation or None, log=log)
    text = features.text_features(network, [s.prompt])[0]
    faces = identity_loss.load(s.identity if s.identity_weight else '', generator.spec)
    record = {
        'config': settings.record_of(config),
        'text_probe': [round(float(x), 5) for x in text[:8]],
        **session.files_of(config, about),
    }
    with workdir.claim(path, record, overwrite) as finished:
        if finished:
            log(f'Finished already: {path / FILE} (--overwrite runs it again).')
            return
        if network.is_random:
            log('clip is random: this mapper means nothing, and is marked so.', flush=True)
        train_on, held_out = codes_of(generator, weights, s)
        args = {'weights': weights, 'clip': network.weights, 'text': jnp.asarray(text)}
        kind = faces.kind if faces else None
        if faces:
            args['faces'] = faces.weights
        spec, trained = train(generator, network.spec, s, kind, args, train_on, path, log)
        recorded = {
            'prompt': s.prompt,
            'generator': generator.spec.name,
            'clip': network.origin,
            'random_clip': network.is_random,
            'identity_network': kind,
        }
        save_mapper(path / FILE, text_mapper.Mapper(spec, trained, recorded))
        result = recorded | judge(generator, network.spec, s, kind, spec, trained, args, held_out)
        show(generator, weights, spec, trained, held_out[: s.shown], recorded, path)
        write_atomically(path / 'metrics.json', (json.dumps(result, indent=1) + '\n').encode())
    random = f' ({clip_network.RANDOM})' if network.is_random else ''
    log(
        f'Distance of CLIP{random} to the text on held-out codes: {result["clip_before"]:.4f}, '
        f'with the mapper {result["clip_after"]:.4f}. Open {path / "mapper.png"}; use as '
        f'mapper:{path / FILE}=1.'
    )


def codes_of(generator, weights, s: settings.TrainMapper) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n, num_ws, w_dim] to train on, and held-out ones. Raises JaxinvError."""
    spec, own = generator.spec, s.samples
    if own.codes:
        file = expanded(own.codes)
        if not file.is_file():
            raise JaxinvError(f'samples.codes: there is no file {file}.')
        arrays, _ = array_files.read(file)
        w = arrays.get('w', arrays.get(''))
        if w is None or w.ndim != 3 or w.shape[1:] not in (
            (1, spec.w_dim), (spec.num_ws, spec.w_dim)
        ):  # fmt: skip
            raise JaxinvError(
                f'samples.codes: {file} needs an array w [n, 1 or {spec.num_ws}, {spec.w_dim}].'
            )
        held = min(own.held_out, len(w) // 5)
        if len(w) < 2 or not held:
            raise JaxinvError(f'samples.codes: {file} has {len(w)} codes; 5 are needed at least.')
    else:
        held = own.held_out
        key = latents.stream(s.seed, 'train_mapper codes')
        z = latents.sample_z(int(jax.random.bits(key)), own.num + held, spec.z_dim)
        w = sampling.map_z(sampling.Pipeline(generator, weights, None, None), z)
        mean = np.asarray(weights['buffers']['w_avg'])
        w = np.asarray(latents.truncate(w, mean, own.truncation_psi))[:, None]
    w = np.asarray(np.broadcast_to(w, (len(w), spec.num_ws, spec.w_dim)), np.float32)
    return w[: len(w) - held], w[len(w) - held :]


def train(generator, clip_spec, s, kind, args, codes, path, log):
    """(Spec, weights on the host) of the trained mapper; resumes from the last checkpoint."""
    loop, start, spec = mapper.make_training(generator, clip_spec, s, kind)
    own = args | {'codes': jnp.asarray(codes)}

    def prepare(which, shard):
        del which, shard  # one example: the mapper
        return start(text_mapper.init(spec.groups, generator.spec.w_dim, s.seed)), own

    key = latents.stream(s.seed, 'train_mapper')
    task = LoopTask(loop, prepare, key, s.num_steps, loop.metric_names)
    variables, _ = Runner(('mapper',), folder=path, log=log).run('mapper', lambda rows: task)
    return spec, jax.tree.map(np.asarray, variables['mapper'])


def judge(generator, clip_spec, s, kind, spec, trained, args, codes) -> dict[str, float]:
    """Means over held-out codes: CLIP's distance before and after, and the size of the move."""

    @jax.jit
    def measured(trained, args, w):
        before = generator.synthesize(args['weights'], w)[0]
        seen = features.image_features(clip_spec, args['clip'], before, s.preparation)
        found = mapper.losses(generator, clip_spec, spec, s, kind, trained, args, w)
        return found | {'before': 1 - seen @ args['text']}

    rows = []
    with rendering.full_precision():
        for start in range(0, len(codes), rendering.BATCH):
            own = codes[start : start + rendering.BATCH]
            padded = np.concatenate([own, np.repeat(own[-1:], rendering.BATCH - len(own), 0)])
            found = measured(trained, args, padded)
            rows.append({k: np.asarray(v)[: len(own)] for k, v in found.items()})
    means = {k: float(np.concatenate([row[k] for row in rows]).mean()) for k in rows[0]}
    result = {
        'held_out': len(codes),
        'clip_before': means['before'],
        'clip_after': means['clip'],
        'l2': means['l2'],
    }
    return result | ({'identity': means['identity']} if 'identity' in means else {})


def show(generator, weights, spec, trained, codes, recorded, path) -> None:
    """Writes mapper.png: a row for each code, before and after."""
    after = np.asarray(mapper.edited(spec, trained, jnp.asarray(codes)))
    pairs = [rendering.render(generator, weights, w) for w in (codes, after)]
    rows = [[pixels.to_uint8(image) for image in pair] for pair in zip(*pairs, strict=True)]
    label = recorded['prompt']
    if recorded['random_clip']:
        label += f' ({clip_network.RANDOM})'
    images.save(path / 'mapper.png', grid.grid(rows, None, ['code', label], cell=256))
