"""Drags on the tuned generator of a run: distances, identity, change outside the mask, step times.

    python -m jaxinv.launch --config=pti_multi_id --workdir=RUN
    python benchmarks/drag.py RUN [--sheet=docs/drag.jpg] [--steps=100] [--feature=F8,F10]
    python benchmarks/drag.py RUN --times

Handles are landmarks of the tuned pictures (dlib's 68; pupils by MediaPipe's 478), and the targets
are so many pixels of 512 away. The generator's feature map steers a drag and tracks its points; how
far landmarks came is measured by the same networks on the result, identity by dlib's embedding.
--times compares a step with one of the projection, alternately.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from absl import app, flags

import jaxinv
from jaxinv import faces, latents, pixels
from jaxinv.faces import mesh
from jaxinv.inversion import drag as drag_lib
from jaxinv.inversion import project
from jaxinv.inversion.project import Pivots
from jaxinv.report import grid
from jaxinv.segmentation import face as face_parts
from jaxinv.settings import Drag, Projection
from jaxinv.weights.networks import load_lpips

_SHEET = flags.DEFINE_string('sheet', '', 'Picture to write; {feature} in it is replaced.')
_STEPS = flags.DEFINE_integer('steps', 100, 'Steps at most.')
_FEATURE = flags.DEFINE_list('feature', '', 'Feature maps to follow.')
_RATE = flags.DEFINE_float('learning_rate', Drag.learning_rate, "Adam's.")
_SPACE = flags.DEFINE_string('space', 'w_plus', "'w_plus' or 'w'.")
_RULES = flags.DEFINE_string('rules', 'paper', "'paper' or 'official'.")
_WEIGHT = flags.DEFINE_float('mask_weight', None, 'lambda, instead of those of DRAGS.')
_ONLY = flags.DEFINE_list('only', '', 'Names of drags.')
_WHO = flags.DEFINE_list('who', '', 'Names of identities.')
_TIMES = flags.DEFINE_boolean('times', False, 'Times of a step instead.')

# Landmarks that a drag moves, by (x, y) in pixels of 512; the part that may move, and lambda.
DRAGS = {
    'wider mouth': ({48: (-14, -8), 54: (14, -8)}, 'lower face', 20),
    'longer chin': ({8: (0, 18)}, 'lower face', 20),
    'head turn': ({30: (30, 0)}, None, 0),
    'gaze': ({'left pupil': (7, 0), 'right pupil': (7, 0)}, 'eyes', 5),
}
PUPILS = {'left pupil': 468, 'right pupil': 473}
MARGIN = 12  # pixels of 512 around the eyes that may move


def handles(picture, keys):
    """Points [k, 2] of landmarks in a uint8 picture: dlib's 68, pupils by MediaPipe's 478."""
    landmarks, pupils = faces.landmarks_aligned(picture), {}
    if landmarks is None:
        return np.full((len(keys), 2), np.nan)
    if not PUPILS.keys().isdisjoint(keys):
        points = mesh.landmarks478(picture[None])[0]
        pupils = {name: points[i, :2] for name, i in PUPILS.items()}
    return np.array([pupils[key] if key in PUPILS else landmarks[key] for key in keys])


def mask_of(part, landmarks, size):
    """float [size, size]: 1 where the drag may move, or None."""
    if part is None:
        return None
    scale = size / 512
    if part == 'eyes':
        inside = face_parts.features(landmarks, (size, size))['eyes']
        far = scipy.ndimage.distance_transform_edt(~inside)
        return np.float32(far <= MARGIN * scale)
    # From below the eyes to below the chin, as wide as the jaw.
    low, high = landmarks[[1, 15], 1].mean(), landmarks[8, 1] + 40 * scale
    mask = np.zeros((size, size), np.float32)
    left, right = landmarks[0, 0] - 10 * scale, landmarks[16, 0] + 10 * scale
    mask[int(low) : int(high), max(int(left), 0) : int(right)] = 1
    return mask


def measure(before, after, mask, points, targets, keys):
    """One identity's row: (landmark's distance before, after, identity distance, change)."""
    far = np.linalg.norm(targets - points, axis=1).mean()
    near = np.linalg.norm(targets - handles(after, keys), axis=1).mean()
    identity = faces.identity_distance(faces.embed(before[None]), faces.embed(after[None]))[0]
    change = np.abs(after.astype(float) - before).mean(-1)
    outside = np.nan if mask is None else change[mask == 0].mean()
    inside = change.mean() if mask is None else change[mask > 0].mean()
    return far, near, identity, inside, outside


def load(run):
    """(generator, weights, pivots) of a run, of the identities of --who."""
    generator, weights, codes = jaxinv.load(run)
    kept = [
        i for i, name in enumerate(codes.names) if _WHO.value in ([], ['']) or name in _WHO.value
    ]
    return generator, weights, Pivots(tuple(codes.names[i] for i in kept), codes.w[kept], {})


def trial(run, feature):
    """Prints a table and returns rows of pictures."""
    generator, weights, codes = load(run)
    size = generator.spec.resolution
    before = pixels.to_uint8(jaxinv.render(generator, weights, codes))
    landmarks = [faces.landmarks_aligned(picture) for picture in before]
    rows = [[picture] for picture in before]
    print('| drag | portrait | steps | tracked: from, to | measured | identity | inside, outside |')
    names = [name for name in DRAGS if _ONLY.value in ([], ['']) or name in _ONLY.value]
    for name in names:
        moves, part, weight = DRAGS[name]
        weight = weight if _WEIGHT.value is None else _WEIGHT.value
        points = [handles(picture, moves) for picture in before]
        ends = [own + np.array(list(moves.values())) * size / 512 for own in points]
        pairs = [np.stack(pair, 1).clip(0, size - 1) for pair in zip(points, ends, strict=True)]
        masks = [mask_of(part, own, size) for own in landmarks]
        result = jaxinv.drag(
            generator, weights, codes, pairs, None if part is None else np.stack(masks),
            steps=_STEPS.value, feature=feature, learning_rate=_RATE.value, space=_SPACE.value,
            rules=_RULES.value, mask_weight=weight,
        )  # fmt: skip
        after = pixels.to_uint8(jaxinv.render(generator, weights, result.w))
        for i, who in enumerate(codes.names):
            tracked = result.distances[i]
            tracked = tracked[np.isfinite(tracked[:, 0])][[0, -1]].mean(1)
            far, near, identity, inside, outside = measure(
                before[i], after[i], masks[i], points[i], ends[i], moves
            )
            print(
                f'| {name} | {who} | {result.steps[i]} | {tracked[0]:.1f}, {tracked[1]:.1f} | '
                f'{far:.1f}, {near:.1f} | {identity:.2f} | {inside:.1f}, {outside:.1f} |',
                flush=True,
            )
            rows[i].append(marked(after[i], points[i], ends[i]))
    return list(codes.names), ['tuned', *names], rows


def marked(picture, points, targets):
    """The picture with handles (red) and targets (blue)."""
    picture = picture.copy()
    radius = max(2, len(picture) // 128)
    for spots, colour in ((points, (230, 40, 40)), (targets, (60, 90, 255))):
        for x, y in np.rint(spots).astype(int):
            area = picture[max(y - radius, 0) : y + radius, max(x - radius, 0) : x + radius]
            area[:] = colour
    return picture


def times(run, rounds=5):
    """Prints the step of a drag (four points, a mask) relative to a step of the projection."""
    generator, weights, codes = load(run)
    spec, b = generator.spec, len(codes.w)
    targets = np.clip(jaxinv.render(generator, weights, codes), -1, 1)
    projector = project.make_projector(generator, Projection(num_steps=100))
    statistics = latents.w_statistics(generator, weights, 600)
    ids, key = np.arange(b, dtype=np.uint32), jax.random.key(0)
    nets = {'vgg': load_lpips('vgg')}
    state, args = projector.prepare(weights, nets, jnp.asarray(targets), ids, statistics, key)
    settings = Drag(feature=_FEATURE.value[0] if _FEATURE.value else '')
    pairs = [((100 * i + 90, 200), (100 * i + 90, 260)) for i in range(4)]
    mask = np.zeros((spec.resolution,) * 2, np.float32)
    mask[100:400, 100:400] = 1
    marks: list[float] = []

    def mark(moment):
        marks.append(time.perf_counter())
        return moment.step < 1 + 2

    ratios = []
    for i in range(rounds + 1):
        state, *_ = jax.block_until_ready(projector.loop.chunk(state, args, key, 1))
        start = time.perf_counter()
        state, *_ = jax.block_until_ready(projector.loop.chunk(state, args, key, 2))
        projection = (time.perf_counter() - start) / 2
        marks.clear()
        jaxinv.drag(generator, weights, codes, pairs, mask, callback=mark, settings=settings)
        dragging = (marks[-1] - marks[1]) / (len(marks) - 2)
        if i:
            ratios.append(dragging / projection)
            print(f'projection {projection:.2f} s, drag {dragging:.2f} s: {ratios[-1]:.2f}')
    feature = drag_lib._feature(spec, settings)[0]
    print(f'{spec.name}, {b} identities, {feature}: median ratio {np.median(ratios):.2f}')


def main(argv):
    if _TIMES.value:
        times(argv[1])
        return
    for feature in _FEATURE.value or ['']:
        print(f'feature {feature or "default"}, {settings_text()}', flush=True)
        names, columns, rows = trial(argv[1], feature)
        if _SHEET.value:
            sheet = grid.grid(rows, names, columns, cell=256)
            sheet.convert('RGB').save(_SHEET.value.format(feature=feature), quality=85)


def settings_text():
    return f'learning rate {_RATE.value:g}, {_SPACE.value}, {_RULES.value}'


if __name__ == '__main__':
    app.run(main)
