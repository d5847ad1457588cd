"""Everything that the official BigGAN-deep figures hold, computed by jaxinv.

Keys are the figures' own names without their model's. Works in float32 and, under
jax.enable_x64, in float64: weights and inputs are the same float32 numbers, widened.
"""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import recipe
from flax.traverse_util import unflatten_dict

from jaxinv import latents
from jaxinv.converters import biggan as converter
from jaxinv.converters import biggan_config
from jaxinv.generators.biggan_deep import Attention, Block, PlainNorm, biggan_deep

NAME = 'bigdeep128'
TRUNCATIONS = (0.4, 0.5, 1.0, 0.73, 0.735, 0.14, 0.58)
CONFIG = {
    'output_dim': 128,
    'z_dim': 128,
    'class_embed_dim': 128,
    'channel_width': 16,
    'num_classes': 10,
    'layers': [
        [False, 16, 16],
        [True, 16, 16],
        [False, 16, 16],
        [True, 16, 8],
        [False, 8, 8],
        [True, 8, 4],
        [False, 4, 4],
        [True, 4, 2],
        [False, 2, 2],
        [True, 2, 1],
    ],
    'attention_layer_position': 8,
    'eps': 0.0001,
    'n_stats': 51,
}


def load(entries, figures, dtype=jnp.float32):
    """The model as a namespace. entries: see recipe.state_dict."""
    source = recipe.state_dict(entries)
    arguments = converter.arguments(source, biggan_config.checked(CONFIG))
    flat = converter.convert(source, arguments)
    generator = biggan_deep(**arguments, name=NAME)

    def given(what, *shape):
        return jnp.asarray(recipe.normal(f'input/{NAME}/{what}', shape), dtype)

    return types.SimpleNamespace(
        source=source,
        arguments=arguments,
        generator=generator,
        weights=jax.tree.map(lambda a: jnp.asarray(a, dtype), unflatten_dict(flat, sep='/')),
        label=jnp.asarray(figures[f'{NAME}/in/class'], dtype),
        soft_label=jnp.asarray(figures[f'{NAME}/in/soft_class'], dtype),
        z=jnp.clip(given('z', 2, generator.spec.z_dim), -2, 2),
        emb=given('emb', 1, generator.spec.z_dim),
        r=given('r', 1, 3, 128, 128).transpose(0, 2, 3, 1),
    )


def generator_at(model, truncation, mode='official'):
    return biggan_deep(**model.arguments, truncation=truncation, truncation_mode=mode)


def divisors(model, names):
    """By which the spectral norm divides, in the order of the figure's names."""
    _, found = converter.fold(model.source)
    assert set(found) == set(names)
    return np.array([found[name] for name in names])


def images(model, truncation, mode='official', label=None, z=None):
    generator = generator_at(model, truncation, mode)
    z = model.z * truncation if z is None else z
    w = generator.map(model.weights, z, model.label if label is None else label)
    return recipe.nchw(jax.jit(generator.synthesize)(model.weights, w[:, None])[0])


def forward(model, truncation):
    """Image and what every layer makes, by the figures' names."""
    generator = generator_at(model, truncation)
    names = ['gen_z', *(f'layer{i}' for i in range(len(model.arguments['layers']) + 1)), 'final_bn']
    names[1 + model.arguments['attention_position']] += '_attn'

    @jax.jit
    def synthesize(weights, w):
        results = []

        def keep(call, args, kwargs, context):
            result = call(*args, **kwargs)
            module = context.module
            if isinstance(module, Block | Attention | PlainNorm) or module.name == 'gen_z':
                results.append(result)
            return result

        with nn.intercept_methods(keep):
            images, _ = generator.synthesize(weights, w)
        return images, results

    w = generator.map(model.weights, model.z * truncation, model.label)
    image, results = synthesize(model.weights, w[:, None])
    arrays = {n: recipe.nchw(a) if a.ndim == 4 else a for n, a in zip(names, results, strict=True)}
    arrays['img'] = recipe.nchw(image)
    return {f't{truncation}/{name}': np.asarray(array) for name, array in arrays.items()}


def gradients(model):
    """Derivatives of mean(image * r) at the first truncation, by z and by the embedding."""
    generator = generator_at(model, TRUNCATIONS[0])

    @jax.jit
    def gradient(weights, z, emb):
        def loss(z, emb):
            image = generator.synthesize(weights, jnp.concatenate([z, emb], -1)[:, None])[0]
            return jnp.mean(image * model.r), image

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(z, emb)

    (value, image), (g_z, g_emb) = gradient(model.weights, model.z[:1], model.emb)
    return {'grad/loss': value, 'grad/z': g_z, 'grad/emb': g_emb, 'grad/img': recipe.nchw(image)}


def rest(model):
    """Embedding, soft class, and the sampler of truncated codes."""
    generator = model.generator
    arrays = {
        'embed': generator.map(model.weights, model.z, model.label)[:, generator.spec.z_dim :],
        'soft/t1.0_img': images(model, 1.0, label=model.soft_label, z=model.z[:1]),
    }
    for seed in (0, 7):
        z = latents.sample_z(seed, 2, generator.spec.z_dim, truncation=0.4)
        arrays[f'truncated_noise_t0.4_seed{seed}'] = z
    return arrays


def compute(entries, figures, dtype):
    """All of it: {figure's name without its model's: array}."""
    model = load(entries, figures, dtype)
    names = [str(name) for name in figures[f'{NAME}/sigma/names']]
    arrays = {'sigma/value': divisors(model, names)} | gradients(model) | rest(model)
    for truncation in TRUNCATIONS:
        arrays |= forward(model, truncation)
    return arrays
