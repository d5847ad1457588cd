"""CLIP in other projects' layouts -> weights of networks/clip.py.

OpenAI's .pt is a TorchScript archive: its modules are read as plain data, its code is not.
open_clip's files have OpenAI's names, those of a model with a text tower of its own with `text.`
before some; Hugging Face's have names of their own. All sizes come from the arrays. What they do
not say, the activation and in large models the heads, comes from a config.json or
open_clip_config.json beside them, or from the caller.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.pickle_values import Record, brief, brief_name
from jaxinv.networks import clip

# Heads of open_clip's image towers that are not 64 channels wide, by the tower's width (ViT-H, g
# and bigG); all others of OpenAI's and open_clip's towers have heads of 64 channels.
_HEADS = {1280: 16, 1408: 16, 1664: 16}
_MAX_LAYERS = 96
_UNUSED = (  # no weights: attributes of OpenAI's archives, buffers of Hugging Face's files
    'input_resolution',
    'context_length',
    'vocab_size',
    'attn_mask',
    'position_ids',
)


class Options(NamedTuple):
    """What a file may leave open; None = not known."""

    activation: str | None = None
    image_heads: int | None = None
    text_heads: int | None = None


NOTHING = Options()


class _Layout(NamedTuple):
    """Names of a project's arrays; `{}` is the number of a layer."""

    single: dict[str, tuple[str, Any]]  # our name: (theirs, transform)
    image_block: str
    text_block: str
    block: dict[str, tuple[str, Any]]


def _same(x):
    return x


def _turned(x):
    return x.T


def _patches(x):
    return x.transpose(2, 3, 1, 0)


def _norms(pairs, scale='weight'):
    return {
        f'{ours}/{end}': (f'{theirs}.{part}', _same)
        for ours, theirs in pairs
        for end, part in (('scale', scale), ('bias', 'bias'))
    }


def _dense(pairs):
    return {
        f'{ours}/{end}': (f'{theirs}.{part}', transform)
        for ours, theirs in pairs
        for end, part, transform in (('kernel', 'weight', _turned), ('bias', 'bias', _same))
    }


_OPENAI = _Layout(
    {
        'image/patch/kernel': ('visual.conv1.weight', _patches),
        'image/class': ('visual.class_embedding', _same),
        'image/positions': ('visual.positional_embedding', _same),
        'image/projection': ('visual.proj', _same),
        'text/tokens': ('token_embedding.weight', _same),
        'text/positions': ('positional_embedding', _same),
        'text/projection': ('text_projection', _same),
        'logit_scale': ('logit_scale', np.squeeze),
    }
    | _norms(
        [
            ('image/pre', 'visual.ln_pre'),
            ('image/post', 'visual.ln_post'),
            ('text/final', 'ln_final'),
        ]
    ),
    'visual.transformer.resblocks.{}.',
    'transformer.resblocks.{}.',
    {
        'qkv/kernel': ('attn.in_proj_weight', _turned),
        'qkv/bias': ('attn.in_proj_bias', _same),
    }
    | _norms([('norm_1', 'ln_1'), ('norm_2', 'ln_2')])
    | _dense([('out', 'attn.out_proj'), ('up', 'mlp.c_fc'), ('down', 'mlp.c_proj')]),
)
_HUGGING_FACE = _Layout(
    {
        'image/patch/kernel': ('vision_model.embeddings.patch_embedding.weight', _patches),
        'image/class': ('vision_model.embeddings.class_embedding', _same),
        'image/positions': ('vision_model.embeddings.position_embedding.weight', _same),
        'image/projection': ('visual_projection.weight', _turned),
        'text/tokens': ('text_model.embeddings.token_embedding.weight', _same),
        'text/positions': ('text_model.embeddings.position_embedding.weight', _same),
        'text/projection': ('text_projection.weight', _turned),
        'logit_scale': ('logit_scale', np.squeeze),
    }
    | _norms(
        [
            ('image/pre', 'vision_model.pre_layrnorm'),
            ('image/post', 'vision_model.post_layernorm'),
            ('text/final', 'text_model.final_layer_norm'),
        ]
    ),
    'vision_model.encoder.layers.{}.',
    'text_model.encoder.layers.{}.',
    _norms([('norm_1', 'layer_norm1'), ('norm_2', 'layer_norm2')])
    | _dense(
        [
            ('q', 'self_attn.q_proj'),
            ('k', 'self_attn.k_proj'),
            ('v', 'self_attn.v_proj'),
            ('out', 'self_attn.out_proj'),
            ('up', 'mlp.fc1'),
            ('down', 'mlp.fc2'),
        ]
    ),
)


def convert(content, options: Options = NOTHING) -> tuple[clip.Spec, dict[str, np.ndarray]]:
    """(spec, weights) of a file's plain data (safe_pickle.load, array_files.read).

    Raises tables.ConversionError naming what is missing, unexpected or misshapen.
    """
    is_script = isinstance(content, Record) and content.kind == 'script'
    arrays = _arrays(_flat(content) if is_script else content)
    layout = _HUGGING_FACE if 'visual_projection.weight' in arrays else _OPENAI
    first, _ = layout.single['image/patch/kernel']
    if first not in arrays:
        raise tables.ConversionError(_nothing(arrays))
    tables.check_floats(arrays)
    weights = _converted(layout, arrays)
    if is_script:  # only OpenAI's were released as archives
        options = options._replace(activation=options.activation or 'quick_gelu')
    return _spec(weights, options), weights


def options_of(config) -> Options:
    """What a config.json or open_clip_config.json says; unknown contents say nothing."""
    config = config if isinstance(config, dict) else {}
    model = config.get('model_cfg')
    if isinstance(model, dict):  # open_clip's
        towers = [model.get(name) for name in ('vision_cfg', 'text_cfg')]
        image, text = (tower if isinstance(tower, dict) else {} for tower in towers)
        activation = 'quick_gelu' if model.get('quick_gelu') is True else 'gelu'
        width, head = image.get('width'), image.get('head_width', 64)
        heads = width // head if type(width) is type(head) is int and head > 0 else None
        return Options(activation, heads, _number(text.get('heads')))
    towers = [config.get(name) for name in ('vision_config', 'text_config')]
    if not all(isinstance(tower, dict) for tower in towers):
        return Options()
    # A config lists only what differs from transformers' defaults: 12 and 8 heads, quick_gelu.
    image, text = towers
    activation = image.get('hidden_act', 'quick_gelu')
    if text.get('hidden_act', 'quick_gelu') != activation:
        raise tables.ConversionError('Its towers have different activations.')
    heads = image.get('num_attention_heads', 12), text.get('num_attention_heads', 8)
    return Options(activation, *map(_number, heads))


def _number(value) -> int | None:
    return value if type(value) is int and 0 < value <= 1024 else None


def _flat(record, prefix='') -> dict[str, Any]:
    """{dotted name: value} of the attributes of a module and those in it."""
    found = {}
    for name, value in (record.state or {}).items():
        if not isinstance(name, str):
            continue
        if isinstance(value, Record):
            found |= _flat(value, f'{prefix}{name}.')
        elif isinstance(value, np.ndarray):
            found[prefix + name] = value
    return found


def _arrays(content) -> dict[str, Any]:
    """The arrays of a state dict, at the top or under state_dict, without prefixes."""
    if isinstance(content, Mapping) and isinstance(content.get('state_dict'), Mapping):
        content = content['state_dict']
    if not isinstance(content, Mapping):
        raise tables.ConversionError('It holds no state dict.')
    found = {}
    for name, array in content.items():
        if not isinstance(name, str):
            raise tables.ConversionError(f'It holds {brief_name(name)}, which is no name.')
        name = name.removeprefix('module.').removeprefix('text.')
        if name.split('.')[-1] not in _UNUSED:
            found[name] = array
    return found


def _nothing(arrays) -> str:
    if any(name.startswith('visual.layer1.') for name in arrays):
        return 'It is a CLIP with a ResNet; those with a vision transformer (ViT) are read.'
    shown = ', '.join(map(brief_name, list(arrays)[:5])) or 'nothing'
    return f'It holds {shown}, not a CLIP with a vision transformer in a known layout.'


def _converted(layout, arrays) -> dict[str, np.ndarray]:
    """The arrays under our names, layers stacked."""
    counts = [_count(arrays, block) for block in (layout.image_block, layout.text_block)]
    table = dict(layout.single)
    for tower, block, count in zip(
        ('image', 'text'), (layout.image_block, layout.text_block), counts, strict=True
    ):
        for i in range(count):
            for ours, (theirs, transform) in layout.block.items():
                table[f'{tower}/{i}/{ours}'] = block.format(i) + theirs, transform
    tables.same_names('array', arrays, {name for name, _ in table.values()})
    like = _like(layout, arrays, counts)
    flat = tables.apply(table, arrays, like)
    for tower, count in zip(('image', 'text'), counts, strict=True):
        layers = [
            {ours: flat.pop(f'{tower}/{i}/{ours}') for ours in layout.block} for i in range(count)
        ]
        for layer in layers:
            for end in ('kernel', 'bias'):
                if f'q/{end}' in layer:
                    parts = [layer.pop(f'{part}/{end}') for part in 'qkv']
                    layer[f'qkv/{end}'] = np.concatenate(parts, -1)
        for part in layers[0]:
            flat[f'{tower}/blocks/{part}'] = np.stack([layer[part] for layer in layers])
    return flat


def _count(arrays, block) -> int:
    pattern = re.compile(re.escape(block).replace(r'\{\}', r'(\d{1,3})') + '.*')
    found = {int(match[1]) for name in arrays if (match := pattern.fullmatch(name))}
    if not found or max(found) >= _MAX_LAYERS:
        raise tables.ConversionError(
            f'It has {max(found, default=-1) + 1} layers {block.format("...")}*; 1 to '
            f'{_MAX_LAYERS} are possible.'
        )
    return max(found) + 1


def _like(layout, arrays, counts):
    """{our name: an object with the shape that it must have}, from the sizes of a few arrays."""

    def shape(ours, axes):
        name = layout.single[ours][0]
        given = np.shape(arrays[name])
        if len(given) != axes or 0 in given:
            raise tables.ConversionError(f'Array {name!r} has the shape {list(given)}.')
        return given

    width, _, patch, _ = shape('image/patch/kernel', 4)
    places = shape('image/positions', 2)[0]
    grid = math.isqrt(max(places - 1, 0))
    if grid < 1 or grid**2 + 1 != places:
        raise tables.ConversionError(f'It has {places} positions; a square of patches and one more '
                                     'are needed.')  # fmt: skip
    vocabulary, text_width = shape('text/tokens', 2)
    context, _ = shape('text/positions', 2)
    features = shape('text/projection', 2)
    features = features[0] if layout is _HUGGING_FACE else features[1]
    hidden = []
    for block in (layout.image_block, layout.text_block):
        name = block.format(0) + layout.block['up/bias'][0]
        hidden.append(np.size(arrays[name]))
    image = clip.Tower(width, counts[0], hidden[0])
    text = clip.Tower(text_width, counts[1], hidden[1])
    sizes = clip.Sizes(image, text, patch, grid, context, vocabulary, features)
    like = {n: s for n, s in clip.shapes(sizes).items() if '/blocks/' not in n}
    for tower, size in (('image', image), ('text', text)):
        parts = clip.block_shapes(size.width, size.hidden)
        if layout is _HUGGING_FACE:
            del parts['qkv/kernel'], parts['qkv/bias']
            for part in 'qkv':
                parts[f'{part}/kernel'] = (size.width, size.width)
                parts[f'{part}/bias'] = (size.width,)
        for i in range(size.layers):
            like |= {f'{tower}/{i}/{part}': own for part, own in parts.items()}
    return {name: np.broadcast_to(np.float32(0), own) for name, own in like.items()}


def _spec(weights, options: Options) -> clip.Spec:
    if options.activation is None:
        raise tables.ConversionError(
            "It does not say which activation it has; give activation='quick_gelu' (OpenAI's, and "
            "open_clip's of that name) or 'gelu' (most others of open_clip)."
        )
    if options.activation not in clip.ACTIVATIONS:
        raise tables.ConversionError(
            f'Its activation is {brief(options.activation)}; it can be '
            f'{", ".join(clip.ACTIVATIONS)}.'
        )
    sizes = clip.sizes_of(weights)
    heads = (
        options.image_heads or _HEADS.get(sizes.image.width, max(sizes.image.width // 64, 1)),
        options.text_heads or max(sizes.text.width // 64, 1),
    )
    for width, count in zip((sizes.image.width, sizes.text.width), heads, strict=True):
        if width % count:
            raise tables.ConversionError(f'{count} heads do not divide a width of {width}.')
    return clip.Spec(*heads, options.activation)
