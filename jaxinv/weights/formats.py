"""The formats that jaxinv-convert writes, as its --help shows them."""

from typing import NamedTuple


class Format(NamedTuple):
    """A value of --to."""

    endings: tuple[str, ...]  # of the destination; '' is a folder
    content: str


STATE_DICTS = ('.safetensors', '.npz')
FORMATS = {
    'safetensors': Format(('.safetensors', ''), 'for jaxinv; a folder gets a model card, too'),
    'orbax': Format(('',), 'for jaxinv, by Orbax'),
    'pkl': Format(
        ('.pkl', '.pt', '.safetensors', '.npz'),
        'the file that was tuned, with the new weights',
    ),
    'onnx': Format(('.onnx',), 'graph of w [b, num_ws, w_dim] -> image [b, 3, h, w]'),
    'ada': Format(STATE_DICTS, "state dict for NVIDIA's PyTorch code"),
    'rosinality': Format(STATE_DICTS, "state dict for rosinality's PyTorch code"),
    'pti': Format(('',), "PTI's folders: codes 0.pt, generators model_*.pt"),
    'npy': Format(('',), 'codes in W+ as .npy files'),
}
OF_RUNS = ('pti', 'npy')  # formats of codes
BY_ENDING = {
    '': 'orbax', '.safetensors': 'safetensors', '.onnx': 'onnx', '.pkl': 'pkl', '.pt': 'pkl',
}  # fmt: skip
