"""Writes the tables of docs/benchmark_set.md from the register, and a sheet of pictures beside it.

    python benchmarks/benchmark_set.py [--sheet]

The sheet shows every portrait, animals in the public domain, and two generated faces of each
change; it needs the pictures, which are fetched and made.
"""

import pathlib
import re

from absl import app, flags

from jaxinv.data import benchmark

_SHEET = flags.DEFINE_bool('sheet', False, 'Also docs/benchmark_set.jpg.')
DOCS = pathlib.Path(__file__).parent.parent / 'docs'
FREE = ('public domain', 'CC0-1.0')
COLUMNS, CELL = 8, 148
ANIMALS = (
    'cat_chelsea', 'raccoon', 'macaque_selfie', 'dog_retriever', 'chameleon_crest', 'owl_eagle',
    'red_panda', 'giraffe', 'pika', 'kingfisher', 'polar_bear', 'horses',
)  # fmt: skip


def packages_table() -> str:
    packages, pictures = benchmark.register()
    lines = ['| package | version | file | SHA-256 | pictures |', '|---|---|---|---|---|']
    for key, facts in packages.items():
        count = sum(picture.package == key for picture in pictures)
        index = {'pypi': 'PyPI', 'debian': 'Debian'}[facts['index']]
        lines.append(
            f'| {key} ({index}) | {facts["version"]} | `{facts["file"]}` | '
            f'`{facts["sha256"][:16]}` | {count} |'
        )
    return '\n'.join(lines)


def pictures_table(kind: str) -> str:
    head = '| name | picture | pixels | package | licence | author, where the licence is stated |'
    lines = [head.replace(' |', ' | SHA-256 |', 1), '|---|---|---|---|---|---|---|']
    for p in benchmark.register()[1]:
        if p.kind == kind:
            address = p.source.replace('(', '%28').replace(')', '%29')
            lines.append(
                f'| `{p.name}` | `{p.sha256[:12]}` | {p.subject} | {p.size[0]} x {p.size[1]} | '
                f'{p.package} | {p.licence} | [{p.author}]({address}), {p.statement} |'
            )
    return '\n'.join(lines)


def with_tables(page: str) -> str:
    """The page with the tables of the register between their marks."""
    tables = {'packages': packages_table()}
    tables |= {f'{kind}s': pictures_table(kind) for kind in ('portrait', 'animal')}
    for name, table in tables.items():
        mark = f'<!-- {name} -->'
        pattern = re.compile(f'{mark}\n.*?<!-- end -->', re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f'the page has no place {mark} ... <!-- end -->')
        page = pattern.sub(lambda _, m=mark, t=table: f'{m}\n{t}\n<!-- end -->', page)
    return page


def sheet():
    """A picture of the pictures."""
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    from jaxinv.data import benchmark_faces, images, out_of_domain
    from jaxinv.report import grid

    pictures = {picture.name: picture for picture in benchmark.register()[1]}
    files = dict(benchmark.find('benchmark').files)
    wanted = [name for name, picture in pictures.items() if picture.kind == 'portrait']
    wanted += [name for name in ANIMALS if pictures[name].licence in FREE]
    made = benchmark_faces.names(2 * len(out_of_domain.CHANGES))
    cells = []
    for name in [*wanted, *made]:
        picture = images.read(files[name])
        cells.append(np.asarray(PIL.ImageOps.fit(picture, (CELL, CELL), centering=(0.5, 0.3))))
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    grid.grid(rows).save(DOCS / 'benchmark_set.jpg', quality=88)


def main(argv):
    del argv
    path = DOCS / 'benchmark_set.md'
    path.write_text(with_tables(path.read_text(encoding='utf-8')), encoding='utf-8')
    if _SHEET.value:
        sheet()


if __name__ == '__main__':
    app.run(main)
