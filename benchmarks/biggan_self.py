r"""Self-inversion of BigGAN-deep: generated pictures, inverted from the mean code.

    python benchmarks/biggan_self.py                       # the network of the parity figures
    python benchmarks/biggan_self.py --generator=biggan256 --count=2      # a converted one
    python benchmarks/biggan_self.py --prior 1e-6 1e-4     # other weights of equation 9's prior

Prints PSNR and LPIPS-vgg of inversions into Z, Z+, Z+ with F2 and Z+ with F4, and the prior's
squared distance per dimension of z, whose mean over codes of the generator is 1. Settings that are
not options are those of configs/sam_biggan.py.
"""

import argparse
import pathlib
import tempfile

import checkout
import jax
import numpy as np
import PIL.Image

import jaxinv
from jaxinv import generators, latents, metrics, optimize, pixels
from jaxinv import settings as settings_lib
from jaxinv.configs import sam_biggan
from jaxinv.inversion import classes, invertibility, project, sam, sam_prior
from jaxinv.settings import Prior, Projection, Search
from jaxinv.weights.networks import load_lpips


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--generator', default='', help="'' = the network of the parity figures")
    parser.add_argument('--count', type=int, default=2, help='pictures, each of a different class')
    parser.add_argument('--project', type=int, default=100, help='steps in Z')
    parser.add_argument('--search', type=int, default=200, help='steps in each space')
    parser.add_argument(
        '--prior', type=float, nargs='+', default=[1e-5], help='weights of the prior'
    )
    parser.add_argument('--spaces', nargs='*', help='default: all')
    parser.add_argument(
        '--pictures', default='', help='PNG file to write targets and inversions to'
    )
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        source = options.generator
        if not source:
            write_figures = checkout.tests_module('biggan_folder').write_figures
            source = write_figures(pathlib.Path(folder) / 'biggan')
        conditional, weights = jaxinv.load_generator(source)
    spec, config = conditional.spec, sam_biggan.get_config()
    labels = np.arange(options.count) * 7 % spec.label_dim
    z = latents.sample_z(1, options.count, spec.z_dim, spec.z_truncation)
    made = conditional.map(weights, z, jax.nn.one_hot(labels, spec.label_dim))
    image = jax.jit(lambda weights, w: conditional.synthesize(weights, w)[0])
    targets = image(weights, made[:, None])
    embeddings = classes.embeddings(conditional, weights, labels)
    generator = generators.with_label(conditional, int(labels[0]))

    nets, ids, key = {'vgg': load_lpips('vgg')}, np.arange(options.count), jax.random.key(0)
    statistics = latents.w_statistics(generator, weights)
    start = statistics._replace(mean=latents.with_class(statistics.mean, embeddings))
    settings = settings_lib.of(config, Projection).replace(num_steps=options.project)
    projector = project.make_projector(generator, settings)
    state, args = projector.prepare(weights, {'vgg': nets['vgg']}, targets, ids, start, key)
    state, _ = optimize.run(projector.loop, state, args, key, options.project)
    pivots = state.variables['w']
    prior = sam_prior.statistics(generator, weights, Prior(epsilon=0.0))
    pictures = [targets]

    def show(weight, space, images, w):
        pictures.append(images)
        values = metrics.evaluate(targets, images, nets)
        values = {name: np.asarray(x) for name, x in values.items()}
        z = w[..., : spec.moving_dims]
        distance = sam_prior.distance(z, prior, 1.0).mean() / (z.shape[1] * z.shape[2])
        each = ' '.join(f'{value:.1f}' for value in values['psnr'])
        print(
            f'{weight:>7} {space:<12} {values["psnr"].mean():>6.1f} '
            f'{values["lpips_vgg"].mean():>6.3f}  {each:<24} {distance:>8.2f}',
            flush=True,
        )

    print(f'{"prior":>7} {"space":<12} {"PSNR":>6} {"LPIPS":>6}  {"PSNR of each":<24} distance')
    show('', 'start', image(weights, start.mean[:, None]), start.mean[:, None])
    show('', 'Z', image(weights, pivots), pivots)
    for weight in options.prior:
        search = settings_lib.of(config, Search).replace(
            num_steps=options.search, prior_weight=weight
        )
        given = weights, nets, targets, pivots, ids, prior, search
        for space in options.spaces or sam.spaces(spec):
            measured = invertibility.measure(generator, *given, spaces=(space,))
            name = space if space == 'Z+' else f'Z+ with {space}'
            show(f'{weight:g}', name, measured.images[space], measured.codes.w_plus)
    if options.pictures:
        rows = [np.concatenate(list(pixels.to_uint8(row)), 1) for row in pictures]
        PIL.Image.fromarray(np.concatenate(rows)).save(options.pictures)


if __name__ == '__main__':
    main()
