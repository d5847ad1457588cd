"""SAM: every region of an image in the most editable latent space that can reproduce it.

    (3, 4)  f_l = g(f_{l-1}, w_plus) + m_l * delta_f_l     for l = F4, F6, F8, F10
    (5)     L_rec = L2(x, x^) + lambda_LPIPS LPIPS(x, x^)
    (6)     L_W, see sam_prior.py
    (7)     L_F = sum_l ||delta_f_l||^2
    (8)     argmin L_rec + lambda_W L_W + lambda_F L_F     over w_plus and all delta_f

BigGAN-deep: z_plus for w_plus, F2 and F4, and equations 9 and 10 for 6 and 8 (appendix 6.3).

Parmar et al. 2022, arXiv:2206.08357. Feature offsets delta_f start at 0, w_plus at the codes given.
A batch is images, candidate spaces or thresholds; its examples are independent.

Equations 7 and 8 have one lambda_F for sums of squares; the paper gives no value. The number of
values differs between spaces (FFHQ: 131072 in F4, 4194304 in F10), so Search.offsets='mean' divides
each sum by it, as the released code does. That is lambda_F / size for each space.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import latents, optimize
from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam_prior
from jaxinv.networks import lpips
from jaxinv.optimize import schedules
from jaxinv.pixels import area_resize
from jaxinv.settings import Search
from jaxinv.types import Generator, GeneratorSpec

AXES = optimize.BatchAxes(
    variables=True,
    args=dict.fromkeys(('targets', 'target_features', 'masks', 'ids', 'valid'), 0),
)
# By GeneratorSpec.latent, the most editable first; the first needs no mask (6.3: of BigGAN-deep).
SPACES = {'W': ('W+', 'F4', 'F6', 'F8', 'F10'), 'Z': ('Z+', 'F2', 'F4')}


class Codes(NamedTuple):
    w_plus: Any  # [b, num_ws, w_dim]
    offsets: dict[str, Any]  # {'F4': [b, h, w, c], ...}, before masking


def spaces(spec: GeneratorSpec) -> tuple[str, ...]:
    """The latent spaces that a generator has, the most editable first."""
    first, *others = SPACES[spec.latent]
    features = dict(spec.feature_shapes)
    return (first, *(space for space in others if space in features))


# --- Image formation and editing (equations 3 and 4, section 3.4) ---


def synthesize(
    generator: Generator,
    weights,
    codes: Codes,
    masks,  # {'F4': [b, h, w, 1], ...} at the features' sizes, of every space in codes.offsets
    noise='const',
    delta=None,  # [b or 1, k, w_dim]: the edited image instead
    mixing: str = 'with_offsets',
):
    """The image [b, h, w, 3] of the codes, or of their edit by w_plus + delta."""
    deltas = None if delta is None else delta[None]
    return synthesize_edits(generator, weights, codes, masks, deltas, noise, mixing)[-1]


def synthesize_edits(
    generator: Generator,
    weights,
    codes: Codes,
    masks,
    deltas=None,  # [e, b or 1, k, w_dim]
    noise='const',
    mixing: str = 'with_offsets',
):
    """The inverted images and e edits of them in one forward pass, [1 + e, b, h, w, 3].

    Section 3.4: where a region was inverted in a feature space, its feature stays the unedited one,
    and w_plus + delta acts on the layers after it. The unedited and the edited streams are one
    batch, and a tap at each feature carries the masked feature over.

    mixing: 'with_offsets' gives the edited streams the masked offsets first, so that an edit of
    strength 0 is the inversion. 'official' leaves them out, as SAM's code does: they then count
    m^2 instead of m where a soft mask m is between 0 and 1.
    """
    b, num_ws, w_dim = codes.w_plus.shape
    copies = 1 if deltas is None else 1 + len(deltas)

    def tap(mask, offset, x):
        streams = x.reshape(copies, b, *x.shape[1:])
        unedited = streams[0] + mask * offset
        edited = streams[1:]
        if mixing == 'with_offsets':
            edited = edited + (mask * offset)[None]
        edited = (1 - mask)[None] * edited + (mask * unedited)[None]
        # Masks and offsets are float32; the layers after the tap take their precision from x.
        return jnp.concatenate([unedited[None], edited]).reshape(x.shape).astype(x.dtype)

    taps = {
        space: functools.partial(tap, masks[space], offset)
        for space, offset in codes.offsets.items()
    }
    w = codes.w_plus[None]
    if deltas is not None:
        w = jnp.concatenate([w, jnp.broadcast_to(w + deltas, (copies - 1, b, num_ws, w_dim))])
    if isinstance(noise, dict):
        noise = {
            name: jnp.tile(maps, (copies, 1, 1, 1)) if len(maps) > 1 else maps
            for name, maps in noise.items()
        }
    images, _ = generator.synthesize(weights, w.reshape(-1, num_ws, w_dim), noise=noise, taps=taps)
    return images.reshape(copies, b, *images.shape[1:])


def full_masks(spec: GeneratorSpec, chosen) -> dict[str, Any]:
    """Masks of images that lie whole in one space each: `chosen` [b] names, W+ has no mask."""
    shapes = dict(spec.feature_shapes)

    def mask(space):
        # As soft_masks' type to the letter, or the same search would be compiled again.
        return [jnp.full((*shapes[space][:2], 1), c == space, jnp.float32) for c in chosen]

    return {space: jnp.stack(mask(space)) for space in spaces(spec)[1:]}


# --- The search (equations 5 to 8) ---


class Inverter(NamedTuple):
    settings: Search
    loop: optimize.Loop
    prepare: Callable  # see make_inverter
    codes: Callable  # (variables) -> Codes


# Names in Search of the weights of `terms`, in their order.
WEIGHTS = ('l2_weight', 'lpips_weight', 'prior_weight', 'spread_weight', 'offsets_weight')
# Numbers that are arguments of the program, so that a change of them compiles nothing.
_NUMBERS = ('num_steps', 'learning_rate', 'lr_rampdown', 'lr_rampup', *WEIGHTS)


def make_inverter(generator: Generator, settings: Search) -> Inverter:
    """The search for a generator and settings.

    All images, and all settings that differ in numbers only, share a compiled program. The size of
    a crop (Search.padding) makes another one.

    prepare(weights, lpips_weights, targets, masks, w_plus_init, ids, prior, valid=None)
        -> (state, args)
    targets [b, h, w, 3]; masks as in `synthesize`: which spaces have offsets; w_plus_init
    [b or 1, 1 or num_ws, w_dim]; ids [b] as in latents.identity_ids; prior of sam_prior; valid
    [b, h, w, 1], 1 where the target counts and 0 where it is padding, on the host if it is cropped.
    """
    spec, s = generator.spec, settings
    s.check()
    size = min(s.loss_size, spec.resolution)
    shapes = dict(spec.feature_shapes)
    loop = _make_loop(generator, s.replace(**dict.fromkeys((*_NUMBERS, 'batch_per_device'), 0)))

    def prepare(weights, lpips_weights, targets, masks, w_plus_init, ids, prior, valid=None):
        b = len(targets)
        w_plus = jnp.broadcast_to(jnp.asarray(w_plus_init), (b, spec.num_ws, spec.w_dim))
        masks = {space: jnp.asarray(mask) for space, mask in masks.items() if space in shapes}
        offsets = {space: jnp.zeros((b, *shapes[space]), w_plus.dtype) for space in masks}
        targets = area_resize(jnp.asarray(targets), size)
        if valid is not None and s.padding == 'crop':
            top = padded_rows(valid, size)
            targets, valid = targets[:, top : size - top], None
        args = {
            'weights': weights,
            'lpips': lpips_weights,
            'targets': targets,
            'target_features': _features(
                lpips_weights, targets, dtype=generator.spec.compute_dtype
            ),
            'masks': masks,
            'ids': jnp.asarray(ids),
            'prior': prior,
            'numbers': {name: jnp.asarray(float(getattr(s, name))) for name in _NUMBERS},
        }
        if valid is not None:
            args['valid'] = area_resize(jnp.asarray(valid, targets.dtype), size)
        return loop.init({'w_plus': w_plus, 'offsets': offsets}, b), args

    def codes(variables) -> Codes:
        return Codes(variables['w_plus'], variables['offsets'])

    return Inverter(s, loop, prepare, codes)


_features = jax.jit(lpips.features, static_argnames='dtype')


@functools.lru_cache(maxsize=8)
def _make_loop(generator: Generator, s: Search) -> optimize.Loop:
    """The compiled steps; of `s` only what is not a number in _NUMBERS counts."""
    spec = generator.spec
    size = min(s.loss_size, spec.resolution)

    def objective(variables, args, step, key):
        w_plus, offsets = latents.freeze_class(variables['w_plus'], spec), variables['offsets']
        noise = s.noise
        if noise == 'random':
            noise = {
                name: latents.identity_normals(jax.random.fold_in(key, i), args['ids'], step, shape)
                for i, (name, shape) in enumerate(spec.noise_shapes)
            }
        codes = Codes(w_plus, offsets)
        images = synthesize(generator, args['weights'], codes, args['masks'], noise)
        images = area_resize(images, size)
        if s.clamp:
            images = jnp.clip(images, -1, 1)
        rows = args['targets'].shape[1]  # fewer than size if prepare has cropped the padding
        images = images[:, (size - rows) // 2 :][:, :rows]
        found = terms(codes, images, args, s, spec)
        coefficients = [args['numbers'][name] for name in WEIGHTS]
        loss = sum(c * x for c, x in zip(coefficients, found.values(), strict=True))
        return loss.sum(), {'loss': loss, **found}  # a sum: the examples share nothing

    adam = optax.scale_by_adam()

    def gradient(variables, args, step, microbatch, key):
        del microbatch  # there is only one
        return *jax.grad(objective, has_aux=True)(variables, args, step, key), None

    def apply(gradients, variables, opt_state, args, step):
        changes, opt_state = adam.update(gradients, opt_state, variables)
        n = args['numbers']
        ramp = schedules.learning_rate_ramp(step / n['num_steps'], n['lr_rampdown'], n['lr_rampup'])
        changes = optax.tree.scale(-n['learning_rate'] * ramp, changes)
        return optax.apply_updates(variables, changes), opt_state

    update = optimize.Update(gradient, apply)
    return optimize.make_loop(update, adam, s.metrics, axes=AXES, chunk_steps=s.chunk_steps)


def terms(codes: Codes, images, args, s: Search, spec: GeneratorSpec) -> dict[str, jax.Array]:
    """The terms of equations 5 to 7, [b] each, in the order of WEIGHTS.

    images [b, h, w, 3] of the codes, at the size of args['targets']; args: 'targets',
    'target_features', 'lpips' and 'prior' as `make_inverter` prepares them, perhaps 'valid'.
    """
    w_plus, offsets = codes
    l2, distance = reconstruction(images, args, spec.compute_dtype)
    squares = [jnp.sum(x**2, axis=(1, 2, 3)) for x in offsets.values()]
    if s.offsets == 'mean':
        squares = [x / o[0].size for x, o in zip(squares, offsets.values(), strict=True)]
    moving, slope = w_plus[..., : spec.moving_dims], sam_prior.slope_of(spec)
    return {
        'l2': l2,
        f'lpips_{s.lpips_net}': distance,
        'prior': sam_prior.distance(moving, args['prior'], slope),
        'spread': sam_prior.spread(w_plus, s.spread),
        'offsets': sum(squares, jnp.zeros_like(l2)),
    }


def reconstruction(images, args, dtype=None):
    """The two distances of equation 5, [b] each, over the valid pixels if args has 'valid'.

    dtype: of LPIPS's feature maps; None = that of the images.

    Padding is filled with the target, and both distances are divided by the valid share. For L2
    that is the mean over the valid pixels. For LPIPS it is not the distance of cropped images:
    features near the edge of the picture see the padding, and those inside the padding see the
    picture. On 4:3 pictures LPIPS-vgg was 0.870 where the crop of SAM's code has 0.808; that crop
    is Search.padding='crop'.
    """
    share = 1.0
    if 'valid' in args:
        valid = args['valid']
        share = jnp.mean(valid, axis=(1, 2, 3))
        images = valid * images + (1 - valid) * args['targets']
    l2 = jnp.mean((images - args['targets']) ** 2, axis=(1, 2, 3)) / share
    features = lpips.features(args['lpips'], images, dtype)
    return l2, lpips.distance(features, args['target_features']) / share


def padded_rows(valid, size: int) -> int:
    """Rows of padding above, and as many below, of pictures at size x size.

    valid [b, h, w, 1]: 1 inside the pictures. SAM's code crops rows 32 to 224 of 256 for its 4:3
    pictures. Raises JaxinvError unless all pictures have the same padding and it is whole rows,
    equally many above and below.
    """
    valid = np.asarray(valid)
    one = np.asarray(area_resize(jnp.asarray(valid[:1], jnp.float32), size))[0, :, :, 0]
    filled = (one > 1 - 1e-6).all(axis=1)
    top = int(filled.argmax())
    expected = np.zeros_like(filled)
    expected[top : size - top] = True
    if (valid != valid[:1]).any() or (filled != expected).any() or one[~expected].any():
        raise JaxinvError(
            "sam.padding is 'crop', which is for pictures with the same whole rows of padding "
            "above and below, as data.fit='4:3' makes them; use sam.padding='fill'."
        )
    return top
