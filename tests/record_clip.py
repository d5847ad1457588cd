"""Writes data/clip.npz: what transformers' CLIP makes of small inputs, at random weights.

    python tests/record_clip.py bpe_simple_vocab_16e6.txt.gz      # with torch and transformers

The weights are those of recipe.py, so that only figures are kept. `jit` is a TorchScript archive
of the same arrays under OpenAI's names, as torch.jit.save writes it.
"""

import gzip
import io
import json
import pathlib
import sys
import tempfile

import clip_figures
import numpy as np
import recipe
import torch
import transformers
from PIL import Image

from jaxinv.networks import bpe


def model(activation):
    config = transformers.CLIPConfig(
        vision_config={
            'hidden_size': 24, 'intermediate_size': 40, 'num_hidden_layers': 2,
            'num_attention_heads': 3, 'image_size': 32, 'patch_size': 8, 'hidden_act': activation,
        },
        text_config={
            'hidden_size': 16, 'intermediate_size': 32, 'num_hidden_layers': 3,
            'num_attention_heads': 2, 'vocab_size': clip_figures.VOCABULARY,
            'max_position_embeddings': 20, 'hidden_act': activation,
            'eos_token_id': clip_figures.VOCABULARY - 1,
            'bos_token_id': clip_figures.VOCABULARY - 2,
        },
        projection_dim=12,
    )  # fmt: skip
    network = transformers.CLIPModel(config).eval()
    arrays = clip_figures.hugging_face_arrays()
    found = {n: tuple(x.shape) for n, x in network.state_dict().items() if 'position_ids' not in n}
    assert found == {name: array.shape for name, array in arrays.items()}
    network.load_state_dict({n: torch.tensor(x) for n, x in arrays.items()}, strict=False)
    return network


class Bag(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def script(arrays):
    """A scripted module tree whose parameters have these dotted names."""
    root = Bag()
    for name, array in arrays.items():
        *parents, last = name.split('.')
        node = root
        for part in parents:
            if part not in node._modules:
                node.add_module(part, Bag())
            node = node._modules[part]
        node.register_parameter(last, torch.nn.Parameter(torch.tensor(array).half()))
    root.register_buffer('context_length', torch.tensor(20))
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(root), file)
    return np.frombuffer(file.getvalue(), np.uint8)


def tokenizer(merges_gz):
    lines = gzip.open(merges_gz).read().decode().split('\n')[1:48895]
    merges = [tuple(line.split()) for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        own = bpe.Tokenizer(merges)
        pathlib.Path(folder, 'vocab.json').write_text(json.dumps(own.tokens))
        text = '#version: 0.2\n' + '\n'.join(lines) + '\n'
        pathlib.Path(folder, 'merges.txt').write_text(text)
        return transformers.CLIPTokenizer.from_pretrained(folder)


def main(merges_gz):
    figures = {}
    for activation in ('quick_gelu', 'gelu'):
        network = model(activation)
        tokens = torch.tensor(clip_figures.tokens(), dtype=torch.long)
        pixels = torch.tensor(clip_figures.pixels().transpose(0, 3, 1, 2))
        with torch.no_grad():
            text = network.text_projection(network.text_model(tokens).pooler_output)
            image = network.visual_projection(network.vision_model(pixels).pooler_output)
        figures[f'{activation}/text'] = text.numpy()
        figures[f'{activation}/image'] = image.numpy()
    openai = clip_figures.openai_arrays()
    figures['jit'] = script({n: a for n, a in openai.items()})
    own = tokenizer(merges_gz)
    rows = [own(text)['input_ids'] for text in clip_figures.texts()]
    figures['tokens'] = np.array(sum(rows, []), np.int32)
    figures['lengths'] = np.array([len(row) for row in rows], np.int32)
    picture = Image.fromarray(clip_figures.picture())
    made = transformers.CLIPImageProcessorPil()(picture, return_tensors='np')['pixel_values'][0]
    figures['prepared'] = recipe.sampled(made.transpose(1, 2, 0))
    versions = f'torch {torch.__version__}, transformers {transformers.__version__}'
    figures['versions'] = np.array(versions)
    path = pathlib.Path(__file__).parent / 'data' / 'clip.npz'
    np.savez_compressed(path, **figures)
    print(path, path.stat().st_size, {k: v.shape for k, v in figures.items()})


if __name__ == '__main__':
    main(sys.argv[1])
