"""A request for pictures to Targets. Unusable pictures are skipped with a reason, never fatal.

targets = load_images('demo', resolution=512)
targets.names, targets.images       # ['grace_hopper', 'eileen_collins'], [2, 512, 512, 3]
"""

import importlib.util
import os
import pathlib
from collections.abc import Callable, Sequence

from jaxinv.data import benchmark, discover, tfds
from jaxinv.data.reader import read_all
from jaxinv.data.targets import AlignOptions, DataError, NoImages, Targets, check, collect
from jaxinv.io import expanded, read_json
from jaxinv.types import Generator, GeneratorSpec

ALIGNED_DOMAINS = ('ffhq', 'faces')  # of GeneratorSpec.domain: aligned as FFHQ
_DEMO = (  # name, package, file in it: public domain (US Navy; NASA)
    ('grace_hopper', 'matplotlib', 'mpl-data/sample_data/grace_hopper.jpg'),
    ('eileen_collins', 'skimage', 'data/astronaut.png'),
)
_NO_REQUEST = "none were asked for; give 'demo', a folder, or files"


def load_images(
    source: str | os.PathLike | Sequence[str | os.PathLike],
    generator: Generator | None = None,
    *,
    resolution: int | None = None,
    faces: str = 'largest',
    align: str = 'auto',
    fit: str = 'auto',
    aligned: bool = False,
    log: Callable | None = None,
) -> Targets:
    """Reads pictures, aligns them as a generator expects, and names them.

    source: 'demo' (two portraits that are installed with matplotlib and scikit-image), 'benchmark'
      (docs/benchmark_set.md), a file, a folder (searched with its subfolders), a pattern such as
      'photos/*.jpg', or several of these in a list or separated by commas.
    generator: the targets get its resolution and the alignment of its domain.
    resolution: pixels a side; needed without a generator, and must not differ from its own.
    faces: 'largest', or 'all' for every face of every picture, named NAME_1, NAME_2, ...
    align: 'face' = FFHQ's alignment by 68 landmarks (Karras et al. 2019, appendix C), 'none' =
      pictures of any shape, made square as `fit` says, 'auto' = 'face' without a generator and for
      generators of aligned faces, else 'none'.
    fit: 'crop', 'pad', 'stretch' or a shape such as '4:3', see jaxinv/data/crop.py; 'auto' = '4:3'
      for generators of cars, else 'crop'.
    aligned: True = pictures are aligned square crops already, and are only resized. Others are
      skipped: cropping, padding or stretching would misplace the face.
    log: called like print, log(text, flush=True), with lines of progress; None = silent.

    Returns Targets: `.images` float32 [n, h, w, 3] in [-1, 1], `.names`, `.skipped`. Raises
    NoImages if no picture can be used, DataError for an option that is not allowed.
    """
    own = None if generator is None else generator.spec.resolution
    if resolution is None and own is None:
        raise DataError('resolution is None; give it in pixels, or give the generator.')
    if resolution is not None and own is not None and resolution != own:
        raise DataError(
            f'resolution is {resolution} and {generator.spec.name} makes {own} pixels; leave '
            'resolution out.'
        )
    resolution = own if resolution is None else resolution
    options = AlignOptions(resolution, faces, aligned, align, fit)
    domain, name = ('ffhq', '') if own is None else (generator.spec.domain, generator.spec.name)
    return load(find(source), _resolve(options, domain, name, log), discover.describe(source), log)


def load_for(settings, spec: GeneratorSpec, log=print, reader=read_all) -> Targets:
    """The targets of config.data for the generator of this spec. Raises NoImages, DataError.

    reader: read_all, or prefetch.read_distributed in a run of several processes.
    """
    listing, request = find_for(settings)
    return load(listing, align_options(settings, spec, log), request, log, reader)


def load(
    listing: discover.Listing, options: AlignOptions, request: str, log=None, reader=read_all
) -> Targets:
    """The targets in the pictures of a listing. Raises NoImages.

    request: the request in words, for the message; reader: see load_for.
    """
    targets, reasons = reader(listing.files, options, log)
    skipped = listing.skipped + reasons
    if not targets:
        wanted = {'face': 'face', 'none': 'picture'}[options.align]
        wanted = 'square picture' if options.aligned else wanted
        raise NoImages(nothing_left(request, listing.files, skipped, wanted))
    return collect(targets, skipped)


def find(source) -> discover.Listing:
    """The pictures of load_images' `source`, not yet opened. Raises DataError.

    Those of 'benchmark' are fetched or made if they are missing.
    """
    if benchmark.is_request(source):
        return benchmark.find(source)
    return _demo() if isinstance(source, str) and source == 'demo' else discover.find(source)


def find_for(settings) -> tuple[discover.Listing, str]:
    """The pictures of config.data, not yet opened, and the request in words. Raises DataError."""
    if not settings.tfds:
        return find(settings.images), discover.describe(settings.images)
    if settings.images != 'demo':
        raise DataError(
            f'data.images is {settings.images!r} and data.tfds is {settings.tfds!r}; give one of '
            'them.'
        )
    return tfds.find(settings.tfds), settings.tfds


def align_options(settings, spec: GeneratorSpec, log=print) -> AlignOptions:
    """The options of config.data for the generator of this spec; 'auto' follows its domain.

    Raises DataError for an option that is not allowed.
    """
    options = AlignOptions(
        spec.resolution,
        settings.faces,
        settings.aligned,
        settings.align,
        settings.fit,
        _chosen(getattr(settings, 'face_list', '')),
    )
    return _resolve(options, spec.domain, spec.name, log)


def _resolve(options: AlignOptions, domain: str, name: str, log) -> AlignOptions:
    align, fit = options.align, options.fit
    if align == 'auto':
        align = 'face' if domain in ALIGNED_DOMAINS else 'none'
        if align == 'none' and not domain and not options.aligned and log:
            log(
                f'The domain of {name} is unknown, so pictures are cropped and not aligned by '
                'faces; if its faces are aligned as in FFHQ, give --config.data.align=face.'
            )
    if fit == 'auto':
        fit = '4:3' if domain == 'cars' else 'crop'
    options = options._replace(align=align, fit=fit)
    check(options)
    return options


def _chosen(file: str):
    """AlignOptions.chosen of a face_list; None without one. Raises DataError."""
    if not file:
        return None
    found = read_json(expanded(file))
    rows = found.items() if isinstance(found, dict) else ()
    if not rows or not all(
        isinstance(own, list) and all(type(i) is int and i > 0 for i in own) for _, own in rows
    ):
        raise DataError(
            f'data.face_list is {file!r}; a JSON file such as {{"photo.jpg": [1, 3]}} is needed.'
        )
    return tuple((name, tuple(own)) for name, own in rows)


def _demo() -> discover.Listing:
    listing = discover.Listing([], [])
    for name, package, member in _DEMO:
        spec = importlib.util.find_spec(package)
        path = pathlib.Path(spec.origin).parent / member if spec and spec.origin else None
        if path is not None and path.is_file():
            listing.files.append((name, path))
        else:
            reason = f'The demo portrait {name} is a file of {package}, which is not installed.'
            listing.skipped.append({'file': member, 'reason': reason})
    return listing


def nothing_left(request: str, files, skipped: list[dict], wanted: str) -> str:
    """The message of NoImages: one sentence with the first three reasons.

    files: of the listing, empty if none was found. wanted: the noun for a usable picture.
    """
    reasons = []
    for entry in skipped[:3]:
        reason = entry['reason'].rstrip('.')
        inside = reason.startswith(('No ', 'The '))
        reasons.append(reason[0].lower() + reason[1:] if inside else reason)
    if len(skipped) > 3:
        reasons.append(f'and {len(skipped) - 3} more')
    why = '; '.join(reasons)
    if not files:
        return f'There are no images: {why or _NO_REQUEST}.'
    return f'No usable {wanted} was found in {request}: {why}.'
