"""The README's Python section runs as printed, with the tiny random generator and few steps."""

import pathlib
import re

import numpy as np
import pytest
from test_experiment import load_config

import jaxinv
from jaxinv import settings

README = pathlib.Path(__file__).parent.parent / 'README.md'


def test_links_of_the_readme_and_the_docs_lead_somewhere():
    for page in [README, *(README.parent / 'docs').glob('*.md')]:
        text = page.read_text(encoding='utf-8')
        for target in re.findall(r'\]\(([^)#]+?)(?:#[^)]*)?\)', text):
            if not target.startswith(('http', 'mailto')):
                assert (page.parent / target).exists(), f'{page.name}: {target}'


def test_commands_of_the_docs_name_keys_of_their_configs():
    folder, checked = README.parent, 0
    for page in [README, *(folder / 'docs').glob('*.md'), *(folder / 'configs').glob('*.py')]:
        for line in page.read_text(encoding='utf-8').replace('\\\n', ' ').splitlines():
            configs = re.findall(r'--config=(\w+)((?::\w+)?)(?=[\s`]|$)', line)
            if len(configs) != 1 or 'NAME' in ''.join(configs[0]):
                continue
            config = load_config(configs[0][0], configs[0][1].removeprefix(':'))
            known = {key.path for key in settings.keys(settings.METHODS[config.task].settings)}
            for key in re.findall(r'--config\.([\w.]+)', line):
                assert key in known or key in settings.RENAMED, f'{page.name}: {line}'
                checked += 1
    assert checked > 100


@pytest.mark.long
def test_the_python_section_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r'```python\n(.*?)```', README.read_text(encoding='utf-8'), re.S)
    monkeypatch.chdir(tmp_path)
    np.save('mine.npy', np.ones(16, np.float32))
    photos = pathlib.Path('photos')
    photos.mkdir()
    for picture in jaxinv.load_images('demo', resolution=64).sources[:1]:
        (photos / 'a.jpg').write_bytes(pathlib.Path(picture['file']).read_bytes())
    replaced = {
        "'mobile_stylegan_ffhq'": "'tiny'",
        "'photos/', generator": "'photos/', generator, align='face'",
        'num_steps=100': 'num_steps=2',
        'num_steps=80': 'num_steps=2',
        "'smile=1.2'": "'mine.npy=1'",
        "'sam'": "'sam:test'",
    }
    for old, new in replaced.items():
        assert old in code, old
        code = code.replace(old, new)
    names = {}
    exec(compile(code, 'README.md', 'exec'), names)
    assert names['targets'].names == ['a'] and names['images'].shape == (1, 32, 32, 3)
    assert names['saved'].codes.names == ('a',) and names['table']['lpips_alex'].shape == (1,)
