"""The generated part of the benchmark set: faces out of the generator's domain, with known truth.

A face of mobile_stylegan_ffhq is rendered from a known w, and one thing is done to it that the
generator does not make (out_of_domain.py). So the code, the picture without the change and the
pixels of the change are known.

    pictures/NAME.png   the changed picture, what is inverted
    clean/NAME.png      the picture of w itself
    masks/NAME.png      white where the change is
    pivots.npz          names [n], w [n, 1, w_dim], as --config.start takes it
    record.json         the seed, the changes with their numbers, SHA-256 of the pictures; last

The same seed gives the same faces and changes on every machine; the generator's pictures may
differ in the last bit between processors.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np

from jaxinv import latents, pixels, rendering
from jaxinv.data import discover, images, out_of_domain
from jaxinv.io import atomic_path, cache_dir, read_json, sha256, write_atomically
from jaxinv.runtime import console, locks, places
from jaxinv.weights import assets, zoo

GENERATOR = 'mobile_stylegan_ffhq'
SEED = 2024
PER_CHANGE = 4  # faces of each of out_of_domain.CHANGES
TRUNCATION_PSI = 0.7
FORMAT = 1  # to be raised when the faces or the changes become others
FOLDERS = PICTURES, CLEAN, MASKS = 'pictures', 'clean', 'masks'
RECORD, PIVOTS = 'record.json', 'pivots.npz'


def names(count: int) -> list[str]:
    """generated_00_occluder, generated_01_hat, ...: the changes take turns."""
    kinds = tuple(out_of_domain.CHANGES)
    return [f'generated_{i:02}_{kinds[i % len(kinds)]}' for i in range(count)]


def find() -> list[tuple[str, pathlib.Path]]:
    """(name, file) of the set's faces, in the cache folder; they are made if they are missing.

    Raises assets.AssetError if the generator's weights cannot be had.
    """
    place = folder()
    if not complete(place):
        places.check_cache()
        place.parent.mkdir(parents=True, exist_ok=True)
        with locks.locked(place.with_suffix('.lock')):
            if not complete(place):  # another process was not making them meanwhile
                generator, weights = zoo.load_named(GENERATOR)
                count = PER_CHANGE * len(out_of_domain.CHANGES)
                console.say(f'Making {count} faces of the benchmark set ...', flush=True)
                make(place, generator, weights, count)
    found = read_json(place / RECORD)['faces']
    return [(f['name'], discover.AlignedFile(place / PICTURES / f'{f["name"]}.png')) for f in found]


def folder() -> pathlib.Path:
    """Where `find` keeps them; another one for other faces, changes or weights."""
    sources = assets.PACKAGES['random-face'].members
    facts = [FORMAT, SEED, PER_CHANGE, TRUNCATION_PSI, list(out_of_domain.CHANGES), sources]
    version = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache_dir() / 'benchmark' / f'generated-{version[:12]}'


def complete(place: pathlib.Path) -> bool:
    """True if a folder holds what its record lists."""
    record = read_json(place / RECORD)
    try:
        return all(
            sha256(place / kind / f'{face["name"]}.png') == face['sha256'][kind]
            for face in record['faces']
            for kind in FOLDERS
        ) and (sha256(place / PIVOTS) == record['pivots_sha256'])
    except (OSError, LookupError, TypeError):
        return False


def make(
    place: pathlib.Path, generator, weights, count: int, seed: int = SEED, log: Callable = print
) -> None:
    """Writes `count` faces of a generator with an aligned domain into a folder, see above.

    A face and its change depend on the seed and its index alone, not on `count`.
    """
    w = sample(generator, weights, count, seed)
    faces = []
    for start in range(0, count, rendering.BATCH):
        clean = pixels.to_uint8(rendering.render(generator, weights, w[start:][: rendering.BATCH]))
        for i, picture in enumerate(clean, start=start):
            name = names(count)[i]
            change = out_of_domain.change(i, picture, np.random.default_rng([seed, i]))
            made = (change.image_uint8, picture, np.where(change.mask, 255, 0).astype(np.uint8))
            digests = {}
            for kind, pixels_uint8 in zip(FOLDERS, made, strict=True):
                path = place / kind / f'{name}.png'
                images.save(path, pixels_uint8)
                digests[kind] = sha256(path)
            faces.append(
                {
                    'name': name,
                    'change': change.kind,
                    **change.facts,
                    'changed': round(float(change.mask.mean()), 4),
                    'sha256': digests,
                }
            )
    with atomic_path(place / PIVOTS) as path, open(path, 'wb') as file:
        np.savez(file, names=np.array(names(count), str), w=w)
    record = {
        'generator': generator.spec.name,
        'resolution': generator.spec.resolution,
        'seed': seed,
        'truncation_psi': TRUNCATION_PSI,
        'pivots_sha256': sha256(place / PIVOTS),
        'faces': faces,
    }
    write_atomically(place / RECORD, json.dumps(record, indent=1) + '\n')


def sample(generator, weights, count: int, seed: int) -> np.ndarray:
    """The codes w [count, 1, w_dim] of the faces: truncated samples."""
    spec = generator.spec
    z = latents.sample_z(seed, count, spec.z_dim, spec.z_truncation)
    # One by one: products of another number of rows may be rounded otherwise.
    rows = [np.asarray(generator.map(weights, z[i : i + 1])) for i in range(count)]
    w_avg = np.asarray(weights['buffers']['w_avg'])
    return latents.truncate(np.stack(rows), w_avg, TRUNCATION_PSI)
