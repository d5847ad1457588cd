"""Pictures of a TensorFlow Datasets set by tfds.data_source: random access without TensorFlow.

The set must be prepared in a format with random access (array_record). The encoded bytes of a
picture are decoded like a file (jaxinv/data/images.py).
"""

import contextlib
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from jaxinv.data import discover, images
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded


class Record:
    """One picture of a set, used like a file. Its text is NAME:SPLIT[NUMBER] or FOLDER:..."""

    def __init__(self, request: str, source: Sequence, feature: str, index: int):
        self._text, self._source = f'{request}[{index}]', source
        self._feature, self._index = feature, index

    def __str__(self) -> str:
        return self._text

    @property
    def name(self) -> str:
        return self._text.rpartition('/')[2]

    def read_bytes(self) -> bytes:
        return self._source[self._index][self._feature]

    def open(self):
        """The picture; raises images.ImageError as images.read does."""
        return images.decode(self.read_bytes(), pathlib.Path(self.name))


def find(request: str) -> discover.Listing:
    """The pictures of 'NAME:SPLIT' or 'FOLDER:SPLIT', in the set's order, not yet read.

    FOLDER contains dataset_info.json. NAME is a set in TFDS_DATA_DIR, else in tfds' own folder;
    nothing is downloaded. SPLIT may be a range, 'train[:500]'. Raises JaxinvError if the request is
    malformed, the packages are missing or the set cannot be opened.
    """
    match = re.fullmatch(r'(.+):([^:/\[\]]+(?:\[[^\[\]]*\])?)', request)
    if match is None:
        raise JaxinvError(f"data.tfds is {request!r}; it must be 'NAME:SPLIT' or 'FOLDER:SPLIT'.")
    name, split = match.groups()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise JaxinvError(
            f'data.tfds needs the packages tensorflow-datasets and array_record ({error}); '
            "pip install 'jaxinv[tfds]'."
        ) from None
    with _errors_in_one_sentence(request):
        folder = expanded(name)
        is_folder = folder.is_dir()
        builder = tfds.builder_from_directory(folder) if is_folder else tfds.builder(name)
        feature = _image_feature(request, builder.info.features, tfds.features.Image)
        decoders = {feature: tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split, decoders=decoders)
        count = len(source)
    stem = re.sub(r'[^\w]+', '_', f'{builder.info.name}_{split}').strip('_')
    digits = len(str(max(count - 1, 0)))
    listing = discover.Listing([], [])
    for i in range(count):
        listing.files.append((f'{stem}_{i:0{digits}}', Record(request, source, feature, i)))
    if not count:
        reason = f'The set {request} holds no pictures.'
        listing.skipped.append({'file': request, 'reason': reason})
    return listing


@contextlib.contextmanager
def _errors_in_one_sentence(request: str):
    """Turns an exception of tfds into a JaxinvError with its first sentence."""
    # Its readers also print and log; standard output is for jaxinv's own lines.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            yield
        except JaxinvError:
            raise
        except Exception as error:  # of many types, which tfds does not document
            text = ' '.join(str(error).strip('"\'').split())
            reason = re.split(r'(?<=\.) ', text)[0].rstrip('.')[:200] or type(error).__name__
            raise JaxinvError(
                f'data.tfds {request!r} cannot be opened ({reason}); it must be prepared already, '
                'with file_format=array_record, and have this split.'
            ) from None


def _image_feature(request: str, features: Any, kind: type) -> str:
    """The name of the feature that holds the picture: 'image', or the only one of its kind."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if 'image' in names:
        return 'image'
    if len(names) == 1:
        return names[0]
    what = f'several pictures an example ({", ".join(names)})' if names else 'no pictures'
    raise JaxinvError(
        f"data.tfds {request!r} has {what}; it must have one, or a feature named 'image'."
    )
