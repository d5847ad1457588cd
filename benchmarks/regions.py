"""Edits confined to regions on the tuned generator of a run: seams and what is left of the effect.

    python -m jaxinv.launch --config=pti_multi_id --workdir=RUN
    python benchmarks/regions.py RUN [--sheet=FILE] [--edits=smile=1.2@mouth,age=3@face]

For each feature where the streams are blended ('' = images only, 'cut' = images along the mask
itself): the seam (region_render.seam), the mean change inside the mask relative to that of the same
edit everywhere, and the change outside the soft edge, in levels of 255. Means over the portraits.
"""

import numpy as np
from absl import app, flags

import jaxinv
from jaxinv import edits as edits_lib
from jaxinv import pixels
from jaxinv.inversion import region_render
from jaxinv.report import grid
from jaxinv.segmentation import regions

_SHEET = flags.DEFINE_string('sheet', '', 'Picture to write.')
_EDITS = flags.DEFINE_list(
    'edits', 'smile=1.2@mouth,age=3.4@face,pc0=4@hair,pc2=4@background', 'Edits with regions.'
)
_FEATURES = flags.DEFINE_list('features', 'F4,F6,F8,F10', 'Feature maps.')


def main(argv):
    generator, weights, codes = jaxinv.load(argv[1])
    spec, w = generator.spec, np.asarray(codes.w)
    unedited = jaxinv.render(generator, weights, w)
    rows = [[picture] for picture in pixels.to_uint8(unedited)]
    print('| edit | blend | seam | inside, relative | outside |')
    for edit in edits_lib.parse(_EDITS.value):
        moved = np.asarray(edits_lib.apply(w, edit, spec.num_ws))
        everywhere = jaxinv.render(generator, weights, moved)
        pairs = zip(pixels.to_uint8(unedited), codes.names, strict=True)
        masks = np.stack([regions.mask_of(edit.region, image, name) for image, name in pairs])
        for feature in ['cut', '', *_FEATURES.value]:
            own = {'feature': '', 'feather': 0.0} if feature == 'cut' else {'feature': feature}
            found = region_render.render(generator, weights, w, moved, masks, **own)
            seam = region_render.seam(unedited, everywhere, found.images, found.masks).mean()
            change = 127.5 * np.abs(found.images - found.unedited).mean(-1)
            whole = 127.5 * np.abs(everywhere - unedited).mean(-1)
            inside = change[masks].mean() / whole[masks].mean()
            outside = change[found.masks == 0].max()
            print(
                f'| {edit.name} | {feature or "images"} | {seam:.2f} | {inside:.2f} | '
                f'{outside:.2g} |',
                flush=True,
            )
            if feature == region_render.feature_of(spec, None):
                for row, image in zip(rows, pixels.to_uint8(found.images), strict=True):
                    row.append(image)
    if _SHEET.value:
        names = ['tuned', *(edit.name for edit in edits_lib.parse(_EDITS.value))]
        sheet = grid.grid(rows, list(codes.names), names, cell=256)
        sheet.convert('RGB').save(_SHEET.value, quality=85)


if __name__ == '__main__':
    app.run(main)
