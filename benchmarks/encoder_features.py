"""How much of w a linear layer finds in the features of frozen networks: which to train from.

    python benchmarks/encoder_features.py ENCODER [--num 3000] [--mobilefacenet FILE.tflite]

ENCODER: the work folder of --config=train_encoder, whose samples are read, and completed. For each
set of features, and for some sets together: the share of the variance of w on held-out samples, and
of its visible part (by a linear model of the picture), that ridge regression explains, with
the best of several weights of the penalty. No picture is augmented.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import jaxinv
from jaxinv import latents, pixels
from jaxinv.experiments import encoder_samples, encoder_start
from jaxinv.faces import identity, mesh
from jaxinv.io import read_json
from jaxinv.networks import compact_encoder, efficientnet
from jaxinv.runtime import malloc
from jaxinv.settings.encoders import Samples
from jaxinv.weights import graphs
from jaxinv.weights.networks import load_efficientnet

BATCH = 32
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1)  # in units of the variance of a feature
TOGETHER = (
    ('means', 'grid'),
    ('means', 'grid', 'landmarks'),
    ('means', 'grid', 'sface'),
    ('means', 'grid', 'landmarks', 'blendshapes', 'sface'),
    ('means', 'grid', 'mobilefacenet'),
)


def programs(mobilefacenet: str):
    """{features: jitted (networks, images in [-1, 1]) -> [b, n]}, and the networks."""
    networks = {name: graphs.load(name) for name in ('landmarks478', 'blendshapes', 'sface')}
    networks['efficientnet'] = {
        name: value
        for name, value in load_efficientnet().items()
        if name in efficientnet.shapes(trunk_only=True)
    }

    def trunk(networks, images):
        images = pixels.area_resize(images, compact_encoder.SIZE)
        return efficientnet.trunk(networks['efficientnet'], images)

    def means(networks, images):
        maps = trunk(networks, images)
        return jnp.concatenate([maps[i].mean((1, 2)) for i in compact_encoder.STAGES], 1)

    def points(networks, images):
        return mesh.points_of(networks['landmarks478'], images)[0]

    def scores(networks, images):
        found = mesh.scores_of(networks['blendshapes'], points(networks, images))
        return jax.scipy.special.logit(jnp.clip(found, 1e-4, 1 - 1e-4))

    found = {
        'means': means,
        'grid': lambda networks, images: trunk(networks, images)[-1].reshape(len(images), -1),
        'pixels of 16 x 16': lambda networks, images: pixels.area_resize(images, 16).reshape(
            len(images), -1
        ),
        'landmarks': lambda networks, images: points(networks, images).reshape(len(images), -1),
        'blendshapes': scores,
        'sface': lambda networks, images: identity.embed_of(
            networks['sface'], images, points(networks, images)
        ),
    }
    if mobilefacenet:
        networks['mobilefacenet'] = graphs.read(mobilefacenet)
        size = networks['mobilefacenet'].graph.input_shape

        def embedding(networks, images):
            # The middle of an aligned picture, as in ArcFace's crop of 256 pixels.
            faces = pixels.area_resize(images, 256)[:, 35:223, 32:220]
            faces = jax.image.resize(faces, (len(images), *size[1:]), 'linear')
            pairs = faces.reshape(-1, *size)  # the network's own batch
            made = [networks['mobilefacenet'](pair)[0].reshape(size[0], -1) for pair in pairs]
            return jnp.concatenate(made)

        found['mobilefacenet'] = embedding
    return {name: jax.jit(function) for name, function in found.items()}, networks


def explained(x, y, num: int, visible) -> tuple[float, float, float]:
    """(share of w, share of its visible part, penalty) on the rows from `num` on."""
    centre, spread = x[:num].mean(0), x[:num].std(0) + 1e-6
    x = (x - centre) / spread
    mean = y[:num].mean(0)
    gram, product = x[:num].T @ x[:num], x[:num].T @ (y[:num] - mean)
    best = None
    for penalty in PENALTIES:
        solution = np.linalg.solve(gram + penalty * num * np.eye(len(gram)), product)
        wrong, whole = x[num:] @ solution + mean - y[num:], y[num:] - mean
        shares = [
            1 - np.sum((wrong @ a) ** 2) / np.sum((whole @ a) ** 2)
            for a in (np.eye(y.shape[1]), visible)
        ]
        if best is None or shares[0] > best[0]:
            best = (*shares, penalty)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--num', type=int, default=3000, help='samples to fit on')
    parser.add_argument('--held_out', type=int, default=512)
    parser.add_argument('--mobilefacenet', default='', help='its file, .tflite or .onnx')
    args = parser.parse_args()
    config = read_json(args.folder / 'run.json')['config']
    generator, weights = jaxinv.load_generator(config['generator'], config['resolution'])
    own = Samples(
        num=args.num,
        held_out=args.held_out,
        least_psi=config['samples']['least_psi'],
        perturbation=config['samples']['perturbation'],
    )
    place = encoder_samples.Place(args.folder, args.num)
    dataset = encoder_samples.make(generator, weights, own, config['seed'], place, print)
    statistics = latents.w_statistics(generator, weights)
    train = encoder_samples.Dataset(*(x[: args.num] for x in dataset))
    visible = encoder_start.visible_map(train, statistics)
    functions, networks = programs(args.mobilefacenet)
    features = {}
    for name, function in functions.items():
        parts = []
        for i in range(0, len(dataset.w), BATCH):
            images = dataset.images_uint8[i : i + BATCH]
            images = np.concatenate([images, np.repeat(images[-1:], BATCH - len(images), 0)])
            parts.append(np.asarray(function(networks, pixels.to_float(images))))
        features[name] = np.concatenate(parts)[: len(dataset.w)].astype(np.float64)
        features[name] = compressed(features[name], args.num)
    y = dataset.w.astype(np.float64)
    print(f'{args.num} samples to fit on, {args.held_out} held out')
    print('| features | numbers | of w | of its visible part | penalty |\n|---|---|---|---|---|')
    for names in [(name,) for name in features] + [
        names for names in TOGETHER if set(names) <= set(features)
    ]:
        x = np.concatenate([features[name] for name in names], 1)
        w, seen, penalty = explained(x, y, args.num, visible)
        label = ' + '.join(names)
        print(f'| {label} | {x.shape[1]} | {w:.3f} | {seen:.3f} | {penalty:g} |', flush=True)


def compressed(x, num: int, most: int = 1440):
    """At most `most` principal components of the first `num` rows."""
    if x.shape[1] <= most:
        return x
    mean = x[:num].mean(0)
    values, vectors = np.linalg.eigh((x[:num] - mean).T @ (x[:num] - mean))
    return (x - mean) @ vectors[:, np.argsort(values)[-most:]]


if __name__ == '__main__':
    malloc.restart_with_large_pages()
    main()
