"""Pictures of a TensorFlow Datasets set, by tfds.data_source: random access, without TensorFlow.

The set must have been prepared in a format with random access (array_record). Pictures are taken
as the bytes that the set holds and read as files are (images.py).
"""

import contextlib
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from jaxinv.data import discover, images
from jaxinv.errors import JaxinvError


class Record:
    """A picture of a set; its text is FOLDER:SPLIT[NUMBER], or NAME:..."""

    def __init__(self, asked: str, source: Sequence, feature: str, index: int):
        self._text, self._source = f'{asked}[{index}]', source
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


def find(asked: str) -> discover.Found:
    """The pictures of 'NAME:SPLIT' or 'FOLDER:SPLIT', in their order, not yet read.

    FOLDER has a dataset_info.json; NAME is looked for in TFDS_DATA_DIR, else where tfds keeps its
    sets, and is never downloaded. SPLIT may be a part, 'train[:500]'. Raises JaxinvError.
    """
    match = re.fullmatch(r'(.+):([^:/\[\]]+(?:\[[^\[\]]*\])?)', asked)
    if match is None:
        raise JaxinvError(f"data.tfds is {asked!r}; it must be 'NAME:SPLIT' or 'FOLDER:SPLIT'.")
    name, split = match.groups()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise JaxinvError(
            f'data.tfds needs the packages tensorflow-datasets and array_record ({error}); '
            "pip install 'jaxinv[tfds]'."
        ) from None
    with _one_sentence(asked):
        is_folder = pathlib.Path(name).expanduser().is_dir()
        place = pathlib.Path(name).expanduser()
        builder = tfds.builder_from_directory(place) if is_folder else tfds.builder(name)
        feature = _picture_of(asked, builder.info.features, tfds.features.Image)
        decoders = {feature: tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split, decoders=decoders)
        count = len(source)
    stem = re.sub(r'[^\w]+', '_', f'{builder.info.name}_{split}').strip('_')
    digits = len(str(max(count - 1, 0)))
    found = discover.Found([], [])
    for i in range(count):
        found.files.append((f'{stem}_{i:0{digits}}', Record(asked, source, feature, i)))
    if not count:
        found.skipped.append({'file': asked, 'reason': f'The set {asked} holds no pictures.'})
    return found


@contextlib.contextmanager
def _one_sentence(asked: str):
    """What tfds raises, as a JaxinvError with its first sentence."""
    # Its reader of array records and its list of sets print and log much that is no news.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            yield
        except JaxinvError:
            raise
        except Exception as error:  # of many kinds
            text = ' '.join(str(error).strip('"\'').split())
            reason = re.split(r'(?<=\.) ', text)[0].rstrip('.')[:200] or type(error).__name__
            raise JaxinvError(
                f'data.tfds {asked!r} cannot be opened ({reason}); it must be prepared already, '
                'with file_format=array_record, and have this split.'
            ) from None


def _picture_of(asked: str, features: Any, kind: type) -> str:
    """The name of the feature that is a picture."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if 'image' in names:
        return 'image'
    if len(names) == 1:
        return names[0]
    what = f'several pictures an example ({", ".join(names)})' if names else 'no pictures'
    raise JaxinvError(f"data.tfds {asked!r} has {what}; it must have one, or one called 'image'.")
