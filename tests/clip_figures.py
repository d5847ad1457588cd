"""A small CLIP with weights by formula, in the layouts of other projects, and inputs for it."""

import numpy as np
import recipe

VOCABULARY = 1000  # tokens; CLIP's own has 49 408
_WIDTH = {'vision_model': (24, 40, 2), 'text_model': (16, 32, 3)}  # width, hidden, layers


def _entries(vocabulary):
    yield 'logit_scale', ()
    yield 'text_projection.weight', (12, 16)
    yield 'visual_projection.weight', (12, 24)
    yield 'vision_model.embeddings.class_embedding', (24,)
    yield 'vision_model.embeddings.patch_embedding.weight', (24, 3, 8, 8)
    yield 'vision_model.embeddings.position_embedding.weight', (17, 24)
    yield 'text_model.embeddings.token_embedding.weight', (vocabulary, 16)
    yield 'text_model.embeddings.position_embedding.weight', (20, 16)
    norms = [('vision_model.pre_layrnorm', 24), ('vision_model.post_layernorm', 24)]
    for tower, (width, hidden, layers) in _WIDTH.items():
        for i in range(layers):
            layer = f'{tower}.encoder.layers.{i}'
            norms += [(f'{layer}.layer_norm1', width), (f'{layer}.layer_norm2', width)]
            for part in 'qkv':
                yield f'{layer}.self_attn.{part}_proj.weight', (width, width)
                yield f'{layer}.self_attn.{part}_proj.bias', (width,)
            for name, rows, columns in (
                ('self_attn.out_proj', width, width),
                ('mlp.fc1', hidden, width),
                ('mlp.fc2', width, hidden),
            ):
                yield f'{layer}.{name}.weight', (rows, columns)
                yield f'{layer}.{name}.bias', (rows,)
    for name, width in [*norms, ('text_model.final_layer_norm', 16)]:
        yield f'{name}.weight', (width,)
        yield f'{name}.bias', (width,)


def hugging_face_arrays(vocabulary=VOCABULARY):
    """{name: float32 array}, values that float16 holds."""
    found = {}
    for name, shape in _entries(vocabulary):
        is_norm = 'norm' in name and name.endswith('weight')
        if len(shape) > 1 and 'embedding.weight' not in name.replace('patch_', ''):
            rule = 'N*sqrt(1/fan_in)'
        else:
            rule = 'N*0.1+1' if is_norm else 'N*0.3'
        values = np.asarray(recipe.weight(name, shape, rule), np.float16)
        found[name] = np.asarray(values, np.float32)
    return found


_RENAMED = {  # parts of Hugging Face's names in OpenAI's, in this order
    'vision_model.embeddings.class_embedding': 'visual.class_embedding',
    'vision_model.embeddings.patch_embedding': 'visual.conv1',
    'vision_model.embeddings.position_embedding.weight': 'visual.positional_embedding',
    'vision_model.pre_layrnorm': 'visual.ln_pre',
    'vision_model.post_layernorm': 'visual.ln_post',
    'vision_model.encoder.layers': 'visual.transformer.resblocks',
    'text_model.embeddings.token_embedding': 'token_embedding',
    'text_model.embeddings.position_embedding.weight': 'positional_embedding',
    'text_model.final_layer_norm': 'ln_final',
    'text_model.encoder.layers': 'transformer.resblocks',
    'self_attn.out_proj': 'attn.out_proj',
    'layer_norm1': 'ln_1',
    'layer_norm2': 'ln_2',
    'mlp.fc1': 'mlp.c_fc',
    'mlp.fc2': 'mlp.c_proj',
}


def openai_arrays(vocabulary=VOCABULARY):
    """The same network under OpenAI's names."""
    given, found = hugging_face_arrays(vocabulary), {}
    for name, array in given.items():
        if name in ('visual_projection.weight', 'text_projection.weight'):
            found[{'v': 'visual.proj', 't': 'text_projection'}[name[0]]] = array.T
            continue
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        if '_proj.' in name and 'self_attn' in name:
            layer, _, part = name.partition('self_attn.')
            joined = f'{layer}attn.in_proj_{part.partition(".")[2]}'
            found.setdefault(joined, []).append((part[0], array))
        else:
            found[name] = array
    for name, value in found.items():
        if isinstance(value, list):
            parts = dict(value)
            found[name] = np.concatenate([parts[part] for part in 'qkv'])
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def tokens():
    """[3, 20], with the highest token at the end of each text."""
    found = np.zeros((3, 20), np.int32)
    rng = np.random.RandomState(0)
    for row, length in zip(found, (3, 11, 20), strict=True):
        row[0] = VOCABULARY - 2
        row[1 : length - 1] = rng.randint(0, 1000, length - 2)
        row[length - 1] = VOCABULARY - 1
    return found


def pixels():
    """[2, 32, 32, 3], as the image tower takes them."""
    return recipe.normal('clip pixels', (2, 32, 32, 3))


def picture():
    """uint8 [256, 256, 3], smooth, so that no bicubic overshoot is clamped."""
    y, x = np.mgrid[0:256, 0:256] / 255
    waves = [np.sin(3 * x + i) * np.cos(5 * y - i) for i in range(3)]
    return np.rint(127.5 + 90 * np.stack(waves, -1)).astype(np.uint8)


_SUBJECTS = 'a face|a person|a man|a woman|a child|a cat|a sports car|an old church'.split('|')
_ENDINGS = [
    'with a beard', 'with blue eyes', 'with an afro hairstyle', 'who smiles', 'in the 1970s',
    "that isn't angry", 'wearing glasses & a hat', '(surprised)', 'at 100% zoom', "we'll see",
    'with curly, purple hair', 'by Vincent van Gogh', 'ANGRY', 'with  two   spaces', 'à la Pixar',
    'as a zombie!!!', 'no. 42', 'half-smiling', 'mit Schnauzbärten', '— side view', 'x' * 60,
    'with\ttabs\nand lines', '#bokeh @night', 'état « naïf »',
]  # fmt: skip
_OTHERS = [
    '', ' ', '日本の顔', 'лицо с бородой', 'وجه', 'चेहरा', '😀 smiling 😀😀', "'s", "o'clock",
    'e\u0301te\u0301', '½ ² ⅷ', '<|endoftext|>', 'a<|startoftext|>b', "you've they're I'm he'd",
]  # fmt: skip


def texts():
    """200 texts."""
    found = [f'{subject} {ending}' for ending in _ENDINGS for subject in _SUBJECTS]
    return (_OTHERS + found)[:200]
