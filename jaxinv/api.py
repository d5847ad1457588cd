"""The notebook's functions that join several rooms: render, evaluate, save and load.

    generator, weights = jaxinv.load_generator('mobile_stylegan_ffhq')
    targets = jaxinv.load_images('photos/', generator)
    pivots = jaxinv.project(generator, weights, targets, num_steps=100, learning_rate=0.1)
    tuned = jaxinv.tune(generator, weights, targets, pivots, num_steps=80)
    images = jaxinv.render(generator, tuned.weights, pivots.w, edit='smile=1.2')
    table = jaxinv.evaluate(targets, images)
    jaxinv.save('folder', generator, tuned.weights, pivots)

Arrays in, NumPy arrays out. Images are float32 [n, h, w, 3], about [-1, 1]. The launcher calls the
same `project`, `tune` and `invert_sam` (jaxinv/inversion) with a folder for checkpoints.
"""

import functools
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import markupsafe
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import faces, generators, metrics, rendering, settings
from jaxinv.data import discover, thumbnails
from jaxinv.data import images as image_files
from jaxinv.errors import JaxinvError
from jaxinv.faces import measures
from jaxinv.inversion import classes, code_files, inputs, region_render, sam_render
from jaxinv.inversion.invert_sam import Inverted
from jaxinv.inversion.project import Pivots
from jaxinv.io import expanded, safe_name
from jaxinv.pixels import to_uint8
from jaxinv.prompts import sources as text_sources
from jaxinv.segmentation import regions
from jaxinv.types import Generator
from jaxinv.weights import card, hub, runs, upload
from jaxinv.weights.addresses import is_address, parse_repository
from jaxinv.weights.load import load_generator, save_generator
from jaxinv.weights.well_known import WELL_KNOWN

GENERATORS = 'generators'  # subfolder with one generator per identity
SHOWN = 8  # codes that a notebook renders


class Saved(NamedTuple):
    """What a folder of `save`, or a work folder, holds."""

    generator: Generator
    weights: Any  # one generator's weights, or a list [n] of them
    codes: Pivots | Inverted | None

    def _repr_html_(self) -> str:
        """The images of the first codes, rendered when a notebook shows the value."""
        codes, weights = self.codes, self.weights
        if codes is None:
            return str(markupsafe.escape(f'{self.generator.spec.name}, without codes'))
        names = codes.names[:SHOWN]
        if isinstance(codes, Inverted):
            if len(codes.names) > SHOWN:
                return codes._repr_html_()
        else:
            codes = codes.w[:SHOWN]
            weights = weights[:SHOWN] if isinstance(weights, list) else weights
        images = render(self.generator, weights, codes)
        return str(thumbnails.table(names, {'reconstruction': images}))


def settings_for(config: str) -> settings.Section:
    """The settings of a config of the command line, as 'pti_multi_id', 'sam' or 'sam:paper'.

    For example jaxinv.project(..., settings=settings_for('pti_multi_id').pivot) takes the quick
    budget of that config. Raises JaxinvError for a name that is none.
    """
    name, _, variant = config.partition(':')
    known = sorted(p.stem for p in _config_files() if not p.stem.startswith('_'))
    if name not in known:
        raise JaxinvError(f'there is no config {name!r}; there are {", ".join(known)}.')
    module = importlib.import_module(f'jaxinv.configs.{name}')
    try:
        values = module.get_config(variant)
    except ValueError as error:
        raise JaxinvError(str(error)) from None
    return settings.of(values, settings.METHODS[values.task].settings)


def _config_files():
    return pathlib.Path(importlib.import_module('jaxinv.configs').__path__[0]).glob('*.py')


def render(
    generator: Generator,
    weights,
    codes,
    edit: str | pathlib.Path | edits_lib.Edit | None = None,
    *,
    region=None,
    measure: Callable | None = None,
    text: settings.TextEdits | Mapping | None = None,
) -> np.ndarray:
    """Images [n, h, w, 3] of codes, edited if `edit` is given.

    weights: of the generator, or a list [n], one for each code (`tune` with shared=False).
    codes: w [n, 1 or num_ws, w_dim]; or what `project` or `invert_sam` returned. For the latter the
      edit acts where the region's space permits it (SAM, section 3.4).
    edit: as in --config.edits, e.g. 'smile=1.2', 'yaw=2,smile=1' (one after the other),
      'direction.npy=1.5', 'smile=2@mouth', 'edit.json'; see jaxinv/edits/__init__.py. Or an Edit of
      jaxinv.edits, as that of `drag`. None = no edit.
    region: where the edit acts: a name or file (segmentation/regions.py), or masks bool [h, w] or
      [n, h, w]; None = as the edit says, else everywhere.
    measure: for strengths in units (yaw=10deg), uint8 images [b, h, w, 3] -> {attribute: [b]};
      None = the measures of jaxinv/faces/measures.py.
    text: for edits 'text:PROMPT=STRENGTH', settings.TextEdits or a dict of them, as
      {'clip': FOLDER, 'directions': FOLDER} (docs/text_edits.md).

    Raises JaxinvError for an edit that is not one edit, that does not fit the generator, or whose
    change in a unit is not reached, and for a region that is not there.
    """
    spec = generator.spec
    several = isinstance(weights, (list, tuple))
    parsed = (
        None
        if edit is None
        else _one_edit(generator, weights[0] if several else weights, edit, text)
    )
    if region is None and parsed is not None:
        region = parsed.region or None
    if region is not None and parsed is None:
        raise JaxinvError('region says where an edit acts, and there is no edit.')
    if isinstance(region, (str, os.PathLike)):
        regions.check(region)
    if isinstance(codes, Inverted):
        moved = [] if parsed is None else [parsed]
        deltas = sam_render.edit_deltas(moved, codes.codes.w_plus, spec)
        images = sam_render.render_each(generator, weights, codes.codes, codes.masks, deltas)
        if region is None:
            return np.stack([own[-1] for own in images])
        images = np.stack([own[[0, -1]] for own in images])
        masks = _masks_of(region, images[:, 0], codes.names)
        pairs = zip(*images.swapaxes(0, 1), masks, strict=True)
        return np.stack([region_render.confine(*pair) for pair in pairs])
    w = np.asarray(codes.w if isinstance(codes, Pivots) else codes, np.float32)
    if w.ndim != 3 or w.shape[1] not in (1, spec.num_ws) or w.shape[2] != spec.w_dim:
        raise JaxinvError(
            f'codes are {list(w.shape)}; {spec.name} takes [n, 1, {spec.w_dim}] (W) or '
            f'[n, {spec.num_ws}, {spec.w_dim}] (W+).'
        )
    if several and len(weights) != len(w):
        raise JaxinvError(f'there are {len(weights)} generators and {len(w)} codes; give one each.')
    masks = None
    if region is not None:
        names = codes.names if isinstance(codes, Pivots) else [f'code {i}' for i in range(len(w))]
        masks = _masks_of(region, render(generator, weights, w), names)
    if not several and (parsed is None or parsed.is_solved):
        return _render_moved(generator, weights, w, parsed, masks)
    each = weights if several else [weights] * len(w)
    images = []
    for i, own in enumerate(each):
        edit, code = parsed, w[i : i + 1]
        if edit is not None and not edit.is_solved:
            images_of = functools.partial(rendering.render, generator, own)
            measured = measure or measures.steering(edit.measured)
            edit = edits_lib.solve(edit, images_of, measured, code, spec).edit
        mask = None if masks is None else masks[i : i + 1]
        images.append(_render_moved(generator, own, code, edit, mask))
    return np.concatenate(images)


def _masks_of(region, images, names) -> np.ndarray:
    """bool [n, h, w] of `render`'s region, in images [n, h, w, 3]."""
    if isinstance(region, (str, os.PathLike)):
        pairs = zip(to_uint8(images), names, strict=True)
        return np.stack([regions.mask_of(region, image, name) for image, name in pairs])
    masks = np.asarray(region)
    masks = np.broadcast_to(masks, images.shape[:3]) if masks.ndim == 2 else masks
    if masks.dtype != bool or masks.shape != images.shape[:3]:
        n, height, width = images.shape[:3]
        raise JaxinvError(
            f'region is {masks.dtype} {list(masks.shape)}; masks are bool [{height}, {width}] or '
            f'[{n}, {height}, {width}].'
        )
    if not masks.any((1, 2)).all():
        raise JaxinvError('region is empty, so the edit would act nowhere.')
    return masks


def _render_moved(generator, weights, w, edit, masks=None):
    if edit is None:
        return rendering.render(generator, weights, w)
    offsets = edits_lib.style_offsets(edit, generator.spec)
    moved = np.asarray(edits_lib.apply(w, edit, generator.spec.num_ws))
    if masks is None:
        return rendering.render(generator, weights, moved, offsets)
    return region_render.render(generator, weights, w, moved, masks, offsets).images


def _one_edit(generator, weights, edit, text) -> edits_lib.Edit:
    if isinstance(edit, edits_lib.Edit):
        edits_lib.check(edit, generator.spec)
        return edit
    space = 'ffhq' if generator.spec.domain == 'ffhq' else ''
    known, mean = classes.embeddings(generator, weights), weights['buffers']['w_avg']
    own = settings.changed(settings.TextEdits(), **text) if isinstance(text, Mapping) else text
    parsed = edits_lib.parse(
        [edit],
        space,
        known,
        mean,
        generator=generator,
        weights=weights,
        sources=text_sources.make(own or settings.TextEdits(), generator, weights),
    )
    if len(parsed) != 1:
        raise JaxinvError(f'edit is {edit!r}, which is {len(parsed)} edits; give one at a time.')
    return parsed[0]


def evaluate(targets, images, *, lpips='auto', identity: bool = False) -> dict[str, np.ndarray]:
    """How close images are to their targets: {'lpips_alex': [n], 'lpips_vgg': ..., ...}.

    targets: what `load_images` returned, or images [n, h, w, 3]; images: [n, h, w, 3].
    lpips: 'auto', a path of weights, or {'alex': weights, 'vgg': weights}.
    identity: adds 'id_distance', the Euclidean distance of dlib's face embeddings; below 0.6 is the
      same person by its authors' count, NaN where no face was found.

    Metrics, their ranges and resolutions: jaxinv/metrics/images.py. Pixels outside `targets.valid`
    do not count. Raises JaxinvError if the shapes differ.
    """
    examples = inputs.examples_of(targets)
    images = np.asarray(images, np.float32)
    if images.shape != examples.images_uint8.shape:
        raise JaxinvError(
            f'images are {list(images.shape)} and targets {list(examples.images_uint8.shape)}; '
            'they must have the same shape [n, h, w, 3].'
        )
    nets = inputs.lpips_weights(lpips, ('alex', 'vgg'))
    table = dict(metrics.evaluate(examples.images, images, nets, valid=examples.valid))
    if identity:
        pair = faces.embed(examples.images_uint8), faces.embed(to_uint8(images))
        table['id_distance'] = faces.identity_distance(*pair)
    return table


def paste_back(
    targets, images, folder=None, *, mask='face', match_colour: bool = True
) -> dict[str, Any]:
    """Puts images back into the photographs they were aligned from.

    targets: what `load_images` returned, aligned by faces; images [n, h, w, 3] of any square size,
      uint8 or float in [-1, 1], one for each target. Several faces of one photograph go into one
      picture, in their order.
    folder: where the pictures are written, under the photographs' names: JPEG (quality 95), WebP or
      PNG, as the photograph, PNG for others. No metadata is written: no place, no camera; colours
      are sRGB, upright.
    mask: 'face', 'crop' (the whole square), or an array [h, w] from 0 to 1; match_colour: shifts
      colours to the photograph's along the seam (jaxinv/faces/paste.py).

    Returns {photograph's file: its path in the folder}; without a folder {file: PIL image}, all in
    memory at once. Raises JaxinvError for targets that were not aligned here, or whose photograph
    is gone.
    """
    images = np.asarray(images)
    images = images if images.dtype == np.uint8 else to_uint8(images)
    if len(images) != len(targets):
        raise JaxinvError(f'there are {len(images)} images for {len(targets)} targets.')
    members: dict[str, list[int]] = {}
    for i, (name, source) in enumerate(zip(targets.names, targets.sources, strict=True)):
        if not source.get('face'):
            raise JaxinvError(
                f'{name} was not aligned by jaxinv, so where it was in its photograph is not known.'
            )
        members.setdefault(source['file'], []).append(i)
    stems = discover.unique_names([pathlib.Path(file).stem for file in members])
    found: dict[str, Any] = {}
    for stem, (file, own) in zip(stems, members.items(), strict=True):
        picture = image_files.read(file)
        for i in own:
            quad = targets.sources[i]['face']['quad']
            picture = faces.paste(picture, images[i], quad, mask=mask, match_colour=match_colour)
        if folder is None:
            found[file] = picture
        else:
            found[file] = expanded(folder) / f'{stem}{image_files.kept_suffix(file)}'
            image_files.save(found[file], picture)
    return found


def save(
    folder, generator: Generator, weights, codes: Pivots | Inverted | None = None
) -> pathlib.Path:
    """Writes a generator and the codes of `project` or `invert_sam` to a folder.

    weights: of the generator (generator/), or a list [n] (generators/NAME/), one for each code. The
    layout is that of a work folder: `load`, `load_generator` and the launcher's --config.start read
    it. Existing files of the same names are replaced, each atomically. Returns the folder.
    """
    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(codes, Inverted):
        code_files.save_codes(folder, codes.names, codes.codes, codes.masks)
        code_files.save_pivots(folder, codes.names, codes.pivots)
    elif codes is not None:
        code_files.save_pivots(folder, codes.names, codes.w)
    if not isinstance(weights, (list, tuple)):
        save_generator(folder / 'generator', generator, weights)
        return folder
    names = _names_of(codes, len(weights))
    for name, own in zip(names, weights, strict=True):
        save_generator(folder / GENERATORS / name, generator, own)
    return folder


def _names_of(codes, count: int) -> list[str]:
    if codes is None or len(codes.names) != count:
        raise JaxinvError(f'there are {count} generators; give the codes of as many identities.')
    return [safe_name(name) for name in codes.names]


def push_to_hub(
    folder,
    repo_id: str,
    *,
    private: bool = True,
    photographs: bool = False,
    licence: str = card.LICENCE,
    log=print,
) -> str:
    """Uploads a run to a model repository of the Hugging Face hub, and returns its address.

    folder: a work folder, or what `save` wrote. repo_id: 'OWNER/NAME', made if it is missing.
    private: False publishes it; an existing public repository is refused otherwise.
    photographs: also uploads report, grid and pictures, which show the photographs. Without them
      generator and codes go there, with the pictures' names; the faces can be drawn from them.
    licence: for the metadata of the model card, an identifier of the hub's.
    log: called with a line for each file and flush=True, before anything is uploaded.

    HF_TOKEN, or `hf auth login`, names the user. `load('hf://OWNER/NAME')` reads it back. Raises
    JaxinvError.
    """
    folder = expanded(folder)
    each = sorted(path for path in folder.glob(f'{GENERATORS}/*') if path.is_dir())
    first = each[0] if each and not (folder / 'generator').is_dir() else _generator_of(folder)
    return upload.push(
        folder,
        repo_id,
        load_generator(first)[0].spec,
        private=private,
        photographs=photographs,
        licence=licence,
        log=log,
    )


def load(folder) -> Saved:
    """The generator and codes that `save`, or a run of the launcher, wrote to a folder.

    folder: or a repository of the hub that `push_to_hub` filled, hf://OWNER/NAME[@REVISION]; of
    that, generators and codes alone are fetched, and nothing in it is executed.

    `codes` is None if there are none, else Pivots, or Inverted of a SAM run; their history is
    empty, and so are an Inverted's prior and regions. A run that tuned nothing names its generator
    (run.json). Raises JaxinvError if there is no generator.
    """
    if is_address(folder):
        folder = hub.fetch_folder(parse_repository(folder), (*upload.RUN_FILES, runs.RECORD))
        _check_base(folder)
    folder = expanded(folder)
    codes = None
    if (folder / code_files.PIVOTS).is_file():
        codes = Pivots(*code_files.load_pivots(folder), {})
        codes = codes._replace(names=tuple(codes.names))
    each = folder / GENERATORS
    if each.is_dir() and not (folder / 'generator').is_dir() and codes is not None:
        opened = [load_generator(each / safe_name(name)) for name in codes.names]
        return Saved(opened[0][0], [own for _, own in opened], codes)
    generator, weights = load_generator(_generator_of(folder))
    if codes is not None and (folder / code_files.CODES).is_file():
        own, masks = code_files.load_codes(folder)
        codes = Inverted(codes.names, codes.w, weights, own, masks, None, None, [])
    return Saved(generator, weights, codes)


def _check_base(folder: pathlib.Path) -> None:
    """Raises JaxinvError if a run from elsewhere names a file of this machine as its generator."""
    base = runs.base_of(folder, 0)
    if base is None or base.source in generators.GENERATORS or base.source in WELL_KNOWN:
        return
    if not is_address(base.source):
        raise JaxinvError(
            f'the run names {base.source!r} as its generator, a file of another machine; open it '
            'there, and save generator and codes together by jaxinv.save.'
        )


def _generator_of(folder: pathlib.Path):
    """What load_generator opens for a folder: itself, or the generator that its run.json names."""
    base = None if (folder / 'generator').is_dir() else runs.base_of(folder, 0)
    return folder if base is None else base.source
