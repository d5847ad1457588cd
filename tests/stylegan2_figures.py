"""Everything that the official StyleGAN2 figures hold, computed by jaxinv.

Keys are the figures' own names without their model's. Works in float32 and, under
jax.enable_x64, in float64: weights and inputs are the same float32 numbers, widened.
"""

import types
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import recipe
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv import latents
from jaxinv.converters import stylegan2 as converter
from jaxinv.generators.stylegan2 import Block, stylegan2

KEY = jax.random.key(1)


class Nvidia(NamedTuple):
    """What was recorded of a model: z, images (of W+ and of the first z), truncated layers."""

    num_z: int = 3
    num_images: int = 2
    cutoff: int = 4
    conv_clamp: float | None = None


class Rosinality(NamedTuple):
    inject: int  # layers of the first code in the mixed image
    num_z: int = 2
    num_images: int = 1


MODELS = {
    'ada32': Nvidia(),
    'ada32c': Nvidia(),
    'ada32res': Nvidia(),
    'ada32orig': Nvidia(),
    'ada32clamp': Nvidia(conv_clamp=0.75),
    'ada256': Nvidia(num_z=2, num_images=1, cutoff=6),
    'ros16': Rosinality(inject=4),
    'ros32': Rosinality(inject=3),
}


def load(name, entries, label=None, dtype=jnp.float32, **changes):
    """A model of MODELS as a namespace. entries: see recipe.state_dict; label: its given classes.

    changes: arguments of stylegan2 other than those its weights ask for.
    """
    source = recipe.state_dict(entries)
    model = MODELS[name]
    if isinstance(model, Rosinality):
        width = source['style.1.weight'].shape[0]
        source['latent_avg'] = recipe.weight('latent_avg', [width], 'N*0.3')
        arguments = converter.rosinality_arguments(source)
        convert, table = converter.convert_rosinality, converter.rosinality_table
    else:
        arguments = converter.nvidia_arguments(source) | {'conv_clamp': model.conv_clamp}
        convert, table = converter.convert_nvidia, converter.nvidia_table
    generator = stylegan2(**arguments | {'name': name} | changes)
    flat = convert(source, flatten_dict(jax.eval_shape(generator.init, KEY), sep='/'))
    spec = generator.spec

    def given(what, *shape):
        return jnp.asarray(recipe.normal(f'input/{name}/{what}', shape), dtype)

    images = model.num_images, 3, spec.resolution, spec.resolution
    return types.SimpleNamespace(
        name=name,
        kind=model,
        generator=generator,
        weights=jax.tree.map(lambda a: jnp.asarray(a, dtype), unflatten_dict(flat, sep='/')),
        source=source,
        entry_of={path: entry for path, (entry, _) in table(flat).items()},
        given=given,
        z=given('z', model.num_z, spec.z_dim),
        label=None if label is None else jnp.asarray(label, dtype),
        w_plus=given('wplus', model.num_images, spec.num_ws, spec.w_dim),
        r=given('r', *images).transpose(0, 2, 3, 1),
    )


def rows(w, spec):
    """w [b, w_dim] -> [b, num_ws, w_dim]."""
    return jnp.broadcast_to(w[:, None], (len(w), spec.num_ws, spec.w_dim))


def synthesize_with_blocks(generator):
    """Like its synthesize, compiled, and what every block makes: {'b4': (x, images so far), ...}.

    The generator gives only the features that can be tapped; the blocks' results are picked up
    from the modules.
    """

    @jax.jit
    def synthesize(weights, w):
        blocks = {}

        def keep(call, args, kwargs, context):
            result = call(*args, **kwargs)
            if isinstance(context.module, Block):
                blocks[context.module.name] = result
            return result

        with nn.intercept_methods(keep):
            images, features = generator.synthesize(weights, w)
        return images, features, blocks

    return synthesize


def forward(model):
    """Mapping, truncation, images and features of an NVIDIA model."""
    spec, kind, weights = model.generator.spec, model.kind, model.weights
    w = model.generator.map(weights, model.z, model.label)
    w_avg = weights['buffers']['w_avg']
    low = latents.truncate(w, w_avg, 0.7)
    first = latents.truncate(rows(w[:1], spec), w_avg, 0.5, kind.cutoff)
    arrays = {
        'map/psi1': w,
        'map/psi0.7': low,
        f'map/psi0.7_cutoff{kind.cutoff}': latents.truncate(rows(w, spec), w_avg, 0.7, kind.cutoff),
    }
    n = kind.num_images
    codes = jnp.concatenate([model.w_plus, rows(low[:n], spec), first])
    images, features, blocks = synthesize_with_blocks(model.generator)(weights, codes)
    none = jax.jit(lambda weights, w: model.generator.synthesize(weights, w, noise='none')[0])
    arrays |= {
        'syn/wplus_const': images[:n],
        'syn/wplus_const_unfused': images[:n],  # NVIDIA's two ways to modulate are one here
        'syn/psi0.7_const': images[n : 2 * n],
        'syn/psi0.7_none': none(weights, codes[n : 2 * n]),
        'full/cutoff_psi0.5_const': images[2 * n :],
    }
    for block, (x, so_far) in blocks.items():
        arrays[f'block/{block}_x'] = x[:n]
        if so_far is not None:
            arrays[f'block/{block}_img'] = so_far[:n]
    for name, (size, *_) in spec.feature_shapes:  # what the generator itself gives
        np.testing.assert_array_equal(features[name][:n], arrays[f'block/b{size}_x'], name)
    return {name: recipe.nchw(a) if a.ndim == 4 else a for name, a in arrays.items()}


def gradients(model):
    """Derivatives of mean(image * r), with respect to W+, z and every parameter.

    The figures of single parameters, grad/param, hold two losses added up: the one of the W+ codes
    and the one that goes through the mapping network. Those of all parameters hold the first.
    """
    w_avg = model.weights['buffers']['w_avg']
    label = None if model.label is None else model.label[:1]

    def loss(params, w, z, share):
        """share: of the loss through the mapping network."""
        weights = {**model.weights, 'params': params}
        codes = w
        if isinstance(model.kind, Nvidia):
            w_z = latents.truncate(model.generator.map(weights, z, label), w_avg, 0.7)
            codes = jnp.concatenate([w, rows(w_z, model.generator.spec)])
        images = model.generator.synthesize(weights, codes)[0]
        of_w = jnp.mean(images[: len(w)] * model.r)
        if isinstance(model.kind, Nvidia):
            return of_w + share * jnp.mean(images[len(w) :] * model.r[:1]), of_w
        return of_w, of_w

    gradient = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    arguments = model.weights['params'], model.w_plus, model.z[:1]
    (of_w, g_w, _), value = gradient(*arguments, 0.0)
    arrays = {'grad/loss': value, 'grad/wplus': g_w}
    if isinstance(model.kind, Nvidia):
        (of_both, _, arrays['grad/z_psi0.7']), _ = gradient(*arguments, 1.0)
    else:
        of_both = of_w
    of_w, of_both = (
        flatten_dict({'params': of_w}, sep='/'),
        flatten_dict({'params': of_both}, sep='/'),
    )
    for path, g in of_both.items():
        arrays[f'grad/param/{model.entry_of[path]}'] = recipe.to_torch(g, path)
    summary = {model.entry_of[path]: mean_rms_maxabs(g) for path, g in of_w.items()}
    return arrays, summary


def mean_rms_maxabs(array):
    array = np.asarray(array, np.float64)
    return np.array([array.mean(), np.sqrt(np.mean(array**2)), np.abs(array).max()])


def rosinality_images(model):
    """Mapping and images of a rosinality model, all with given noise maps but one kind."""
    spec, weights = model.generator.spec, model.weights
    w = model.generator.map(weights, model.z)
    low = rows(latents.truncate(w, weights['buffers']['w_avg'], 0.7), spec)
    mixed = jnp.where(jnp.arange(spec.num_ws)[:, None] < model.kind.inject, w[:1], w[1:])[None]
    synthesize = jax.jit(lambda *args: model.generator.synthesize(*args)[0])
    images = synthesize(weights, jnp.concatenate([model.w_plus, rows(w[:1], spec), mixed, low]))
    maps = {
        layer: model.given(f'noise_{i}', 1, *shape[:2], 1)
        for i, (layer, shape) in enumerate(spec.noise_shapes)
    }
    arrays = {
        'img/wplus': images[:1],
        'img/w_input_is_latent': images[1:2],
        f'img/mix_inject{model.kind.inject}': images[2:3],
        'img/z_psi0.7': images[3:],
        'img/wplus_given_noise': synthesize(weights, model.w_plus, maps),
    }
    return {'map/w': w} | {name: recipe.nchw(a) for name, a in arrays.items()}


def cross_images(model):
    """The same weights as NVIDIA's code runs them: load(..., scaled_epsilon=False)."""
    arrays = rosinality_images(model)
    return {
        'cross/ada_wplus': arrays['img/wplus'],
        'cross/ada_z_psi0.7': arrays['img/z_psi0.7'],
    }
