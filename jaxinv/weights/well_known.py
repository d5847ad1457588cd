"""Names for checkpoints on the servers of their authors.

The addresses are those in the projects' documentation. None was tried: jaxinv was developed without
a network. All networks are NVIDIA's, for non-commercial use (docs/checkpoints.md).
"""

from typing import NamedTuple

_ADA = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/'
_SOURCES = _ADA + 'transfer-learning-source-nets/'
_CONFIG_F = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/stylegan2-{}-config-f.pkl'
_NGC = 'https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/stylegan2-'


class WellKnown(NamedTuple):
    address: str
    about: str  # what the pictures show, and their size
    domain: str = ''  # GeneratorSpec.domain


WELL_KNOWN = {
    # stylegan2-ada-pytorch
    'ffhq': WellKnown(_ADA + 'ffhq.pkl', 'FFHQ faces, 1024 px', 'faces'),
    'metfaces': WellKnown(_ADA + 'metfaces.pkl', 'faces in paintings, 1024 px', 'faces'),
    'afhqcat': WellKnown(_ADA + 'afhqcat.pkl', 'cats (AFHQ), 512 px'),
    'afhqdog': WellKnown(_ADA + 'afhqdog.pkl', 'dogs (AFHQ), 512 px'),
    'afhqwild': WellKnown(_ADA + 'afhqwild.pkl', 'wild animals (AFHQ), 512 px'),
    'cifar10': WellKnown(_ADA + 'cifar10.pkl', 'CIFAR-10, 32 px, ten classes'),
    'brecahad': WellKnown(_ADA + 'brecahad.pkl', 'tissue sections, 512 px'),
    'ffhq256': WellKnown(
        _SOURCES + 'ffhq-res256-mirror-paper256-noaug.pkl', 'FFHQ, 256 px', 'faces'
    ),
    'ffhq512': WellKnown(
        _SOURCES + 'ffhq-res512-mirror-stylegan2-noaug.pkl', 'FFHQ, 512 px', 'faces'
    ),
    # stylegan3's repository
    'afhqv2': WellKnown(_NGC + 'afhqv2-512x512.pkl', 'animals (AFHQ v2), 512 px'),
    'celebahq256': WellKnown(_NGC + 'celebahq-256x256.pkl', 'CelebA-HQ, 256 px'),
    # the TensorFlow code of StyleGAN2
    'ffhq_config_f': WellKnown(_CONFIG_F.format('ffhq'), 'FFHQ faces, 1024 px', 'faces'),
    'car': WellKnown(_CONFIG_F.format('car'), 'LSUN cars, 512 px with bars', 'cars'),
    'horse': WellKnown(_CONFIG_F.format('horse'), 'LSUN horses, 256 px'),
    'cat': WellKnown(_CONFIG_F.format('cat'), 'LSUN cats, 256 px'),
    'church': WellKnown(_CONFIG_F.format('church'), 'LSUN churches, 256 px'),
}
