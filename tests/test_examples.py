"""The notebook runs from top to bottom, here with the tiny random generator."""

import pathlib

import nbclient
import nbformat
import numpy as np
import pytest

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
    nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3').execute()
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
