r"""Self-inversion of BigGAN-deep: pictures that the generator made, found again from the mean code.

    python benchmarks/biggan_self.py                       # a small network, seeded random weights
    python benchmarks/biggan_self.py --prior 1e-6 1e-4     # other weights of equation 9's prior
    python benchmarks/biggan_self.py --generator=biggan256 --count=2

Prints the PSNR of inversions into Z, Z+, Z+ with F2 and Z+ with F4, and the prior's distance for a
number of z, which is 1 on average for codes that the generator makes.
"""

import argparse
import pathlib
import sys
import tempfile

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import biggan_folder  # noqa: E402

import jaxinv  # noqa: E402
from jaxinv import classes, generators, invertibility, latents, metrics, optimize  # noqa: E402
from jaxinv.inversion import project, sam, sam_prior  # noqa: E402
from jaxinv.networks import lpips  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--generator', default='', help="a converted one; '' = the tests' own")
    parser.add_argument('--count', type=int, default=4, help='pictures, each of another class')
    parser.add_argument('--project', type=int, default=150, help='steps in Z')
    parser.add_argument('--search', type=int, default=300, help='steps in each space')
    parser.add_argument('--prior', type=float, nargs='+', default=[1e-5], help='its weights')
    parser.add_argument('--spread', type=float, default=1e-5)
    parser.add_argument('--offsets', type=float, default=1e-6)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        source = options.generator or biggan_folder.write(pathlib.Path(folder) / 'biggan')
        conditional, weights = jaxinv.load_generator(source)
    spec = conditional.spec
    labels = np.arange(options.count) * 7 % spec.label_dim
    z = latents.sample_z(1, options.count, spec.z_dim, spec.z_truncation)
    made = conditional.map(weights, z, jax.nn.one_hot(labels, spec.label_dim))
    targets = jax.jit(conditional.synthesize)(weights, made[:, None])[0]
    embeddings = classes.embeddings(conditional, weights, labels)
    generator = generators.with_label(conditional, int(labels[0]))

    nets, ids, key = {'vgg': lpips.load('vgg')}, np.arange(options.count), jax.random.key(0)
    statistics = latents.w_statistics(generator, weights)
    start = statistics._replace(mean=latents.with_rest(statistics.mean, embeddings))
    settings = project.Settings(num_steps=options.project, learning_rate=0.1)
    projector = project.make_projector(generator, settings)
    state, args = projector.prepare(weights, nets['vgg'], targets, ids, start, key)
    state, _ = optimize.run(projector.loop, state, args, key, options.project)
    pivots = state.variables['w']
    image = jax.jit(generator.synthesize)
    print(f'{"prior":>7} {"space":<12} {"PSNR":>6}  {"each":<28} {"distance":>8}')
    prior = sam_prior.statistics(generator, weights, sam_prior.Settings(epsilon=0.0))
    show('', 'start', image(weights, start.mean[:, None])[0], targets, start.mean[:, None], prior)
    show('', 'Z', image(weights, pivots)[0], targets, pivots, prior)
    for weight in options.prior:
        search = sam.Settings(
            num_steps=options.search,
            prior_weight=weight,
            spread_weight=options.spread,
            offsets_weight=options.offsets,
        )
        given = weights, nets, targets, pivots, ids, prior, search
        found = invertibility.measure(generator, *given)
        for i, (space, images) in enumerate(found.images.items()):
            own = found.codes.w_plus[i * options.count : (i + 1) * options.count]
            name = space if space == 'Z+' else f'Z+ with {space}'
            show(f'{weight:g}', name, images, targets, own, prior)


def show(weight, space, images, targets, w, prior):
    psnr = np.asarray(metrics.psnr(images, targets))
    z = w[..., : len(prior.mean)]
    distance = sam_prior.distance(z, prior, 1.0).mean() / (z.shape[1] * z.shape[2])
    each = ' '.join(f'{value:.1f}' for value in psnr)
    print(f'{weight:>7} {space:<12} {psnr.mean():>6.1f}  {each:<28} {distance:>8.2f}', flush=True)


if __name__ == '__main__':
    main()
