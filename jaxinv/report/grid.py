"""A labelled table of pictures as one PIL image."""

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps


def grid(
    rows,
    row_labels=None,
    column_labels=None,
    *,
    cell: int | None = None,  # pixels; None = the size of the first picture
    background=(255, 255, 255),
    ink=(32, 33, 36),
) -> PIL.Image.Image:
    """A labelled table of pictures: rows is a list of lists of uint8 [h, w, 3] (None = blank).

    Rows may have different lengths. Labels stand left of the rows (wrapped) and above the columns.
    Raises ValueError without pictures, and for a number of labels that does not fit.
    """
    rows = [list(row) for row in rows]
    pictures = [picture for row in rows for picture in row if picture is not None]
    if not pictures:
        raise ValueError('grid needs at least one picture.')
    cell = cell or max(np.asarray(pictures[0]).shape[:2])
    columns = max(len(row) for row in rows)
    for labels, count, kind in ((row_labels, len(rows), 'row'), (column_labels, columns, 'column')):
        if labels is not None and len(labels) != count:
            raise ValueError(f'{len(labels)} {kind} labels for {count} {kind}s.')
    font = PIL.ImageFont.load_default(size=max(11, min(34, round(cell * 0.075))))
    gap, margin = max(2, round(cell * 0.02)), max(6, round(cell * 0.06))
    line = round(font.getbbox('Ág')[3] * 1.15)
    left_texts = [_wrap(str(t), font, round(cell * 0.9)) for t in row_labels or ()]
    top_texts = [_wrap(str(t), font, cell - gap) for t in column_labels or ()]
    left = max((font.getlength(t) for text in left_texts for t in text), default=0)
    left = margin + (round(left) + margin if left else 0)
    top = margin + (max(map(len, top_texts)) * line + margin // 2 if top_texts else 0)
    size = (
        left + columns * (cell + gap) - gap + margin,
        top + len(rows) * (cell + gap) - gap + margin,
    )
    sheet = PIL.Image.new('RGB', size, background)
    draw = PIL.ImageDraw.Draw(sheet)

    for j, text in enumerate(top_texts):
        x = left + j * (cell + gap) + cell // 2
        y = top - margin // 2 - line * len(text)
        for k, part in enumerate(text):
            draw.text((x, y + k * line), part, ink, font, anchor='ma')
    for i, row in enumerate(rows):
        y = top + i * (cell + gap)
        if left_texts:
            start = y + cell // 2 - line * len(left_texts[i]) // 2
            for k, part in enumerate(left_texts[i]):
                draw.text((left - margin, start + k * line), part, ink, font, anchor='ra')
        for j, picture in enumerate(row):
            if picture is not None:
                sheet.paste(fit(picture, cell), (left + j * (cell + gap), y))
    return sheet


def fit(picture, cell: int) -> PIL.Image.Image:
    """A picture [h, w, 3] in a square of `cell` pixels, framed in grey where it is not square."""
    image = PIL.Image.fromarray(np.ascontiguousarray(np.asarray(picture, np.uint8)))
    if image.size == (cell, cell):
        return image.convert('RGB')
    image = PIL.ImageOps.contain(image.convert('RGB'), (cell, cell), PIL.Image.Resampling.LANCZOS)
    framed = PIL.Image.new('RGB', (cell, cell), (238, 238, 238))
    framed.paste(image, ((cell - image.width) // 2, (cell - image.height) // 2))
    return framed


def _wrap(text: str, font, width: int, max_lines: int = 3) -> list[str]:
    """Lines broken at spaces, _ and -; words and texts that are too long end in an ellipsis."""
    lines = ['']
    for word in text.replace('_', '_ ').replace('-', '- ').split(' '):
        joined = lines[-1] + ('' if lines[-1].endswith(('_', '-')) or not lines[-1] else ' ') + word
        if font.getlength(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > max_lines:
        lines = lines[: max_lines - 1] + [lines[max_lines - 1] + '…']
    return [_cut(line, font, width) for line in lines]


def _cut(text: str, font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    text = text.rstrip('…')
    while len(text) > 1 and font.getlength(text + '…') > width:
        text = text[:-1]
    return text + '…'
