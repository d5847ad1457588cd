"""A comparison killed in the middle and resumed, beside one that was not: results and memory.

    python benchmarks/killed_run.py FOLDER [--pictures=200] [--methods w pti]

Makes generated faces (truncation_psi 0.7, seed 0), runs --config=evaluate on them by `w` and `pti`
with a tiny budget in groups, and again with SIGKILL after half of the pictures of the last method
and a second start. Prints how the numbers and pixels differ (a picture that is tuned again after
the kill has other neighbours in its batch, which is rounding), and the largest resident set
of each process. FOLDER keeps the results; a rerun goes on with what is missing.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image

GROUP = 10  # pictures of a group
STEP = 'pivot.num_steps=1&pivot.alex_fraction=1'
METHODS = {
    'w': f'w?{STEP}',
    'pti': f'pti?{STEP}&tune.num_steps=1&locality.weight=0&drift.num_samples=1&tune.save=bfloat16',
}
# Of the numbers, those that time and memory make.
OWN = ('seconds', 'memory', 'provenance', 'usage', 'time')


def make_pictures(folder: pathlib.Path, count: int, name: str, resolution: int):
    import jaxinv
    from jaxinv import latents, pixels
    from jaxinv.data import images

    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(count) if not (folder / f'face{i:04}.png').exists()]
    if not missing:
        return
    generator, weights = jaxinv.load_generator(name, resolution)
    z = latents.sample_z(0, count, generator.spec.z_dim)
    w = latents.truncate(generator.map(weights, z), weights['buffers']['w_avg'], 0.7)
    for i in missing:
        made = pixels.to_uint8(jaxinv.render(generator, weights, np.asarray(w)[i : i + 1, None]))
        images.save(folder / f'face{i:04}.png', made[0])


def command(pictures, work, methods, name, resolution) -> list[str]:
    rows = ','.join(f'{method}={METHODS[method]}' for method in methods)
    return [
        sys.executable, '-m', 'jaxinv.launch', '--config=evaluate', f'--workdir={work}',
        f'--config.data.images={pictures}', '--config.data.align=none',
        f'--config.generator={name}', f'--config.resolution={resolution}',
        f'--config.methods={rows}', f'--config.group={GROUP}',
        "--config.measure.images=('lpips_alex_256','psnr_unit')",
        '--config.measure.identity=()', '--config.measure.sets=()',
    ]  # fmt: skip


def finished_pictures(work, method: str) -> int:
    """Of a method."""
    manifests = list(work.glob(f'methods/{method}-*/manifest.jsonl'))
    return sum(len(path.read_text().splitlines()) for path in manifests)


def run(line, work, log, method='', kill_after=None) -> float:
    """Runs the command; returns the largest resident set in GB. kill_after: pictures of method."""
    with open(log, 'ab') as output:
        process = subprocess.Popen(line, stdout=output, stderr=output)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if kill_after is not None and finished_pictures(work, method) >= kill_after:
            process.send_signal(signal.SIGKILL)
            kill_after = None
        time.sleep(0.2)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        sys.exit(f'{" ".join(line)} ended with {code}; see {log}.')
    print(f'{log.stem}: ended with {code}, {usage.ru_maxrss / 2**20:.2f} GB at most', flush=True)
    return usage.ru_maxrss / 2**20


def numbers(value, path='') -> dict[str, float]:
    """{place: number} of a JSON value, without those that time and memory make."""
    if isinstance(value, dict):
        parts = [(f'{path}/{k}', v) for k, v in value.items() if not any(o in k for o in OWN)]
    elif isinstance(value, list):
        parts = [(f'{path}/{i}', v) for i, v in enumerate(value)]
    else:
        return {path: float(value)} if isinstance(value, int | float) else {}
    return {k: x for name, v in parts for k, x in numbers(v, name).items()}


def compare(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Prints how the results of two runs differ; whether their files are the same ones."""
    found = [
        {
            str(path.relative_to(work)): path
            for path in sorted(work.rglob('*'))
            if path.suffix == '.png' or path.parent.parent == work / 'measured'
        }
        for work in (one, other)
    ]
    lacking = found[0].keys() ^ found[1].keys()
    equal, levels, pixels, largest, count = 0, 0, 0, 0.0, 0
    for name in sorted(found[0].keys() & found[1].keys()):
        pair = [files[name] for files in found]
        equal += pair[0].read_bytes() == pair[1].read_bytes()
        if name.endswith('.png'):
            a, b = (np.asarray(PIL.Image.open(path), np.int16) for path in pair)
            levels = max(levels, int(np.abs(a - b).max()))
            pixels += int((a != b).sum())
        else:
            a, b = (numbers(json.loads(path.read_text())) for path in pair)
            lacking |= {f'{name}: {key}' for key in a.keys() ^ b.keys()}
            count += len(a)
            largest = max([largest, *(abs(a[k] - b[k]) for k in a.keys() & b.keys())])
    print(f'{len(found[0])} files, {equal} equal to the byte; {len(lacking)} in one run only')
    print(f'pixels: {pixels} values differ, by {levels} levels of 255 at most')
    print(f'{count} numbers: they differ by {largest:.2g} at most')
    for name in sorted(lacking)[:20]:
        print(f'  {name}')
    return not lacking


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--pictures', type=int, default=200)
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument('--generator', default='mobile_stylegan_ffhq')
    parser.add_argument('--resolution', type=int, default=512)
    args = parser.parse_args()
    pictures = args.folder / f'pictures{args.pictures}'
    make_pictures(pictures, args.pictures, args.generator, args.resolution)
    works = {name: args.folder / name for name in ('whole', 'killed')}
    own = args.methods, args.generator, args.resolution
    last = args.methods[-1]
    run(command(pictures, works['whole'], *own), works['whole'], args.folder / 'whole.log')
    line = command(pictures, works['killed'], *own)
    if finished_pictures(works['killed'], last) < args.pictures // 2:
        half = args.pictures // 2
        run(line, works['killed'], args.folder / 'killed_first.log', last, half)
    done = finished_pictures(works['killed'], last)
    print(f'{done} pictures were finished by {last} before the second start.', flush=True)
    run(line, works['killed'], args.folder / 'killed_second.log')
    sys.exit(not compare(*works.values()))


if __name__ == '__main__':
    main()
