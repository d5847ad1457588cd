"""The notebook runs from top to bottom, with the tiny random generator; the Space starts."""

import pathlib
import runpy

import limits
import nbclient
import nbformat
import numpy as np
import pytest
import yaml

EXAMPLES = pathlib.Path(__file__).parent.parent / 'examples'


@pytest.mark.long
def test_the_notebook_runs_and_shows_pictures_and_numbers(tmp_path):
    direction = tmp_path / 'mine.npy'
    np.save(direction, np.ones(16, np.float32))
    notebook = nbformat.read(EXAMPLES / 'invert_and_edit.ipynb', as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == 'code')
    settings.source += (
        f"\ngenerator_name, align = 'tiny', 'face'\nproject_steps = tune_steps = 2\n"
        f"edits = ['{direction}=1']\n"
    )
    nbclient.NotebookClient(notebook, timeout=limits.SECONDS, kernel_name='python3').execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 3
    text = ''.join(output.get('text', '') for output in outputs)
    assert 'skipped: []' in text and 'lpips_alex' in text and 'generator' in text


def test_the_notebook_in_the_repository_was_run_and_is_small():
    path = EXAMPLES / 'invert_and_edit.ipynb'
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < 1_000_000
    assert not any(output.output_type == 'error' for cell in cells for output in cell.outputs)


def test_the_space_starts_the_studio_on_the_port_that_it_names():
    space = EXAMPLES / 'space'
    app = runpy.run_path(str(space / 'app.py'))
    metadata = yaml.safe_load((space / 'README.md').read_text().split('---')[1])
    assert metadata['app_port'] == app['PORT'] and metadata['sdk'] == 'docker'
    arguments = app['command']({'SPACE_HOST': 'me-studio.hf.space'})
    assert arguments[0] == 'jaxinv-studio'
    command = pytest.importorskip('jaxinv.studio.command')
    parsed = command.parser().parse_args(arguments[1:])
    assert parsed.port == app['PORT'] and parsed.allow_host == ['me-studio.hf.space']
