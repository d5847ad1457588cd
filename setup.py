"""Packaging. configs/ and converters/ are installed as jaxinv.configs and jaxinv.converters."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

setuptools.setup(
    name='jaxinv',
    version='0.1.0',
    description='GAN inversion and editing of real photographs in JAX/Flax: PTI and SAM',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=[
        'jaxinv',
        *(f'jaxinv.{name}' for name in setuptools.find_packages('jaxinv')),
        'jaxinv.configs',
        'jaxinv.converters',
    ],
    package_dir={'jaxinv.configs': 'configs', 'jaxinv.converters': 'converters'},
    package_data={
        'jaxinv': [
            'data/*.json',
            'data/encoders/*',
            'directions/*',
            'report/templates/*',
            'studio/static/*',
        ]
    },
    entry_points={
        'console_scripts': [
            'jaxinv = jaxinv.launch:run',
            'jaxinv-convert = jaxinv.convert:run',
            'jaxinv-studio = jaxinv.studio.command:run',
        ],
    },
    install_requires=[
        # The methods.
        'jax>=0.10',
        'flax>=0.12',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12',
        'numpy>=1.26',
        'ml_dtypes>=0.4',
        'scipy>=1.13',
        'lpips-j>=0.0.6',  # loads the weights of LPIPS-VGG (jaxinv/weights/networks.py)
        # Weights.
        'h5py>=3.11',
        'huggingface_hub>=0.27',
        'onnx>=1.17',  # parses files of networks (jaxinv/converters/onnx_file.py)
        'tflite>=2.18',  # the same for TensorFlow Lite
        # Launching.
        'absl-py>=2.1',
        'ml_collections>=1.1',
        'filelock>=3.15',
        'PyYAML>=6.0',
        # Photographs, faces and attributes.
        'Pillow>=11',
        'dlib-bin>=20.0',
        'onnxruntime>=1.20',
        'matplotlib>=3.9',  # contains the portrait of Grace Hopper; colour maps
        'scikit-image>=0.24',  # superpixels; contains the portrait of Eileen Collins
        'tifffile>=2024.8',  # TIFF pictures of floats, and large ones
        # Results.
        'jinja2>=3.1',
        'markupsafe>=2.1',
        'safetensors>=0.5',
        'tensorboardX>=2.6',
    ],
    extras_require={
        # For HEIC and AVIF photographs.
        'heif': ['pillow-heif>=0.18'],
        # For --config=pti_video; 36 MB, with FFmpeg and x264.
        'video': ['av>=18'],
        # For jaxinv-studio.
        'studio': ['starlette>=1.0', 'uvicorn>=0.35'],
        # For --config.data.tfds; 220 MB.
        'tfds': ['tensorflow-datasets>=4.9.7', 'array_record>=0.5'],
        # For --config.segments.how=torchvision or transformers; torch takes gigabytes.
        'torchvision': ['torch>=2.6', 'torchvision>=0.21'],
        'transformers': ['torch>=2.6', 'transformers>=4.50'],
        'test': [
            'pytest>=8',
            'pytest-xdist>=3.6',
            'setuptools',  # not in environments of Python 3.12 and later
            'hypothesis>=6',
            'av>=18',
            'PyYAML',
            'ruff>=0.9',
            'nbformat>=5.10',
            'nbclient>=0.10',
            'ipykernel>=6.29',
            'starlette>=1.0',
            'uvicorn>=0.35',
            'httpx2>=2.0',  # starlette's test client
        ],
    },
)
