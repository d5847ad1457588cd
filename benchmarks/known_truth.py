"""Reconstructions of the generated benchmark set beside what is known of it.

    python benchmarks/known_truth.py FOLDER/generated

FOLDER/generated: a table of benchmarks/results.sh. For each method, means over the pictures:
LPIPS (VGG, 256 pixels) to the given picture and to the clean one, the same within the mask of the
change alone (MSE of pixels in [0, 1]), and the distance of the code's mean row from the true w, in
units of the spread of W. A method that reproduces an occluder is near the given picture; one that
finds the face below it is near the clean one.
"""

import argparse
import pathlib

import numpy as np
import PIL.Image
from results_pictures import read, reconstructions, runs_of, target_of

import jaxinv
from jaxinv import latents, pixels
from jaxinv.data import benchmark_faces as faces
from jaxinv.inversion import code_files
from jaxinv.io import cache_dir, read_json


def truth_of(names: list[str]) -> pathlib.Path:
    """The folder of the set that holds these pictures."""
    for folder in sorted((cache_dir() / 'benchmark').glob('generated-*')):
        if all((folder / faces.CLEAN / f'{name}.png').is_file() for name in names):
            return folder
    raise SystemExit('The generated set is not in the cache; run benchmarks/results.sh again.')


def mse_within(a, b, masks) -> float:
    """MSE of pixels in [0, 1] where masks are set, the mean over the pictures that have one."""
    wrong = (a.astype(np.float64) - b) ** 2 / 255**2
    return float(np.mean([x[mask].mean() for x, mask in zip(wrong, masks, strict=True)
                          if mask.any()]))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path, help='of the table')
    args = parser.parse_args()
    runs = runs_of(args.folder)
    config = read_json(next(iter(runs.values())) / 'run.json')['config']
    generator, weights = jaxinv.load_generator(config['generator'], config['resolution'])
    statistics = latents.w_statistics(generator, weights)
    names = list(read_json(next(iter(runs.values())) / 'metrics.json')['identities'])
    folder = truth_of(names)
    clean = np.stack([read(folder / faces.CLEAN / f'{name}.png') for name in names])
    masks = np.stack([
        np.asarray(PIL.Image.open(folder / faces.MASKS / f'{name}.png').convert('L')) > 127
        for name in names
    ])  # fmt: skip
    known, w = code_files.load_pivots(folder)
    w = w[[list(known).index(name) for name in names]].mean(1)
    print(f'{len(names)} pictures: {", ".join(names)}')
    print(
        '| | LPIPS vgg, given | LPIPS vgg, clean | MSE in the change, given | clean | to true w |'
    )
    print('|---|---|---|---|---|---|')
    for method, run in runs.items():
        files = reconstructions(run, names)
        given = np.stack([read(target_of(file)) for file in files])
        made = np.stack([read(file) for file in files])
        images = pixels.to_float(made, numpy=np)
        to = [jaxinv.evaluate(target, images)['lpips_vgg'].mean() for target in (given, clean)]
        within = [mse_within(made, target, masks) for target in (given, clean)]
        found, codes = code_files.load_pivots(run)
        if (run / code_files.CODES).is_file():  # of SAM and its baselines
            codes = np.asarray(code_files.load_codes(run)[0].w_plus)
        codes = codes[[list(found).index(name) for name in names]].mean(1)
        away = np.mean(np.linalg.norm(codes - w, axis=1)) / float(statistics.std)
        figures = [f'{x:.3f}' for x in to] + [f'{x:.4f}' for x in within] + [f'{away:.2f}']
        print(f'| {method} | {" | ".join(figures)} |', flush=True)


if __name__ == '__main__':
    main()
