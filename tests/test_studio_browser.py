"""The studio in a browser: Chromium, driven by Playwright, with the tiny generator."""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import zipfile

import limits
import numpy as np
import PIL.Image
import pytest
import studio_run

from jaxinv import generators

ROOT = pathlib.Path(__file__).parent.parent
BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
MISSING = [
    name for name in ('playwright', 'starlette', 'uvicorn') if not importlib.util.find_spec(name)
]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not BROWSER, reason='no Chromium is installed (apt-get install chromium)'),
    pytest.mark.skipif(bool(MISSING), reason=f'pip install {" ".join(MISSING)}'),
]
MILLISECONDS = 600_000  # for what compiles on a busy machine
AUDIT, FOCUS = (
    (ROOT / 'tests' / 'data' / f'studio_{name}.js').read_text() for name in ('audit', 'focus')
)
HOSTILE = '<img src=x onerror=document.title=1>.jpg'


@contextlib.contextmanager
def studio(folder, *options):
    """The command, and the address that it prints."""
    command = [sys.executable, '-m', 'jaxinv.studio', '--port=0', f'--folder={folder}', *options]
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[-1]
            assert address.startswith('http://127.0.0.1:'), address
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(limits.SECONDS) in (0, 130, -signal.SIGINT)


@pytest.fixture(scope='module')
def directions(tmp_path_factory):
    file = tmp_path_factory.mktemp('directions') / 'own.npz'
    return studio_run.directions(file, generators.make('tiny').spec)


@pytest.fixture(scope='module')
def address(tmp_path_factory, directions):
    folder = tmp_path_factory.mktemp('studio')
    with studio(folder, '--config=pti_multi_id:test', f'--directions={directions}') as found:
        yield found


@pytest.fixture(scope='module')
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def session(chromium):
    """A browser without a history; its pages note what they complain of."""
    context = chromium.new_context(accept_downloads=True)
    context.set_default_timeout(MILLISECONDS)
    faults = []
    context.on('weberror', lambda error: faults.append(str(error.error)))
    context.on(
        'console', lambda message: faults.append(message.text) if message.type == 'error' else None
    )
    yield context
    context.close()
    assert not faults, faults


def shown(page, expected):
    """Waits for the picture, in full quality, of an edit whose steps are as `expected`."""
    page.locator(f'#after[data-draft="false"][data-shown{expected}]').wait_for()


def pixels(page):
    """The picture on the page, as a small array."""
    data = page.evaluate(
        """() => {
          const canvas = document.createElement('canvas');
          canvas.width = canvas.height = 32;
          const context = canvas.getContext('2d');
          context.drawImage(document.getElementById('after'), 0, 0, 32, 32);
          return [...context.getImageData(0, 0, 32, 32).data];
        }"""
    )
    return np.array(data, float).reshape(32, 32, 4)[..., :3]


def test_a_photograph_goes_all_the_way(address, session, tmp_path):
    photograph = tmp_path / HOSTILE
    shutil.copy(studio_run.HOPPER, photograph)
    (tmp_path / 'notes.jpg').write_text('no photograph')
    page = session.new_page()
    page.goto(address)
    page.set_input_files('#files', [photograph, tmp_path / 'notes.jpg'])
    page.get_by_role('checkbox', name='Face 1 of').wait_for()
    page.locator('.card .bad', has_text='not an image').wait_for()
    assert page.locator('.card .name', has_text=HOSTILE).count() == 1
    assert page.title() == 'jaxinv studio'

    # Reload in the middle of the inversion, stop, resume, a second tab.
    page.get_by_role('button', name='Invert 1 face').click()
    page.locator('#runs progress').wait_for()
    page.reload()
    page.locator('#runs', has_text=re.compile('Step 1 of 2')).wait_for()
    page.get_by_role('button', name='Stop:').click()
    page.get_by_role('button', name='Resume:').wait_for()
    assert 'Stopped' in page.inner_text('#runs')
    page.get_by_role('button', name='Resume:').click()
    tab = session.new_page()
    tab.goto(address)
    tab.locator('#runs', has_text='Finished').wait_for()
    tab.close()
    page.locator('#runs', has_text='Finished').wait_for()

    # A slider by keyboard, undo and redo.
    page.get_by_role('button', name='Edit:').click()
    shown(page, '="[]"')
    before = pixels(page)
    page.get_by_role('slider', name='warm').focus()
    page.keyboard.press('PageUp')
    shown(page, '*="warm"')
    after = pixels(page)
    assert np.abs(after - before).mean() > 1
    page.keyboard.press('Control+z')
    shown(page, '="[]"')
    assert np.abs(pixels(page) - before).mean() < 0.5
    page.get_by_role('button', name='Redo').click()
    shown(page, '*="warm"')
    assert np.abs(pixels(page) - after).mean() < 0.5

    # The edit is still there after a reload.
    page.reload()
    shown(page, '*="warm"')
    assert 'warm' in page.inner_text('#steps')

    # Paint the upper half with the mouse: the lower one stays.
    page.get_by_role('radio', name='Paint a region').check()
    page.locator('#brush-size').fill('32')
    page.locator('#overlay').scroll_into_view_if_needed()
    box = page.locator('#overlay').bounding_box()
    side = box['width']
    page.mouse.move(box['x'] + 0.05 * side, box['y'] + 0.05 * side)
    page.mouse.down()
    page.mouse.move(box['x'] + 0.95 * side, box['y'] + 0.05 * side, steps=12)
    page.mouse.up()
    page.locator('input[value="mask"]:checked').wait_for()
    page.locator('#after:not([data-region=""])').wait_for()
    assert np.abs(pixels(page)[-4:] - before[-4:]).mean() < 2
    assert np.abs(pixels(page)[:4] - before[:4]).mean() > 1

    # Two points by keyboard, dragged.
    page.get_by_role('radio', name='Drag points').check()
    page.locator('#overlay').focus()
    for key in ('Enter', 'Shift+ArrowRight', 'Enter'):
        page.keyboard.press(key)
    page.locator('#drag-steps').fill('3')
    page.get_by_role('button', name='Drag', exact=True).click()
    page.locator('#drag-state', has_text='Done').wait_for()
    assert 'Drag 1' in page.inner_text('#steps')
    shown(page, '*="found:"')

    # Put back, and save.
    page.get_by_role('button', name='Put back into the photograph').click()
    page.locator('#pasted').wait_for()
    page.locator('#kind').select_option('png')
    with page.expect_download() as download:
        page.get_by_role('button', name='Save the photograph').click()
    with PIL.Image.open(download.value.path()) as own, PIL.Image.open(studio_run.HOPPER) as given:
        assert own.size == given.size
    assert re.fullmatch(r'[\w.-]+_edited\.png', download.value.suggested_filename)
    with (
        page.expect_download(lambda own: own.suggested_filename.endswith('.json')) as download,
        page.expect_download(lambda own: own.suggested_filename.endswith('_region.png')),
    ):
        page.get_by_role('button', name='Save the edit').click()
    saved = json.loads(pathlib.Path(download.value.path()).read_text())
    assert [step['name'] for step in saved['steps']] == ['warm', 'Drag 1']
    assert saved['region'].endswith('_region.png')
    with page.expect_download(lambda own: own.suggested_filename.endswith('.zip')) as download:
        page.get_by_role('link', name='Folder of the run').click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert any(name.endswith('generator.safetensors') for name in names)
        assert any('/preview/' in name for name in names)  # the pictures on the way


@pytest.fixture(scope='module')
def of_a_run(tmp_path_factory, tiny, directions):
    folder = tmp_path_factory.mktemp('run')
    run = studio_run.write(folder / 'run', tiny)
    with studio(folder / 'studio', f'--directions={directions}', str(run)) as found:
        yield found


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_fits_and_can_be_read(chromium, of_a_run, width, scheme):
    context = chromium.new_context(viewport={'width': width, 'height': 800}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(of_a_run)
    shown(page, '="[]"')
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    found = page.evaluate(AUDIT)
    assert found['unnamed'] == []
    assert found['contrast'] >= 4.5
    # Each press of Tab moves to something that can be seen.
    seen = []
    for _ in range(60):
        page.keyboard.press('Tab')
        seen.append(page.evaluate(FOCUS))
    assert all(own['outlined'] for own in seen if own['name']), seen
    names = {own['name'] for own in seen}
    assert {'hold', 'split', 'slider-own_warm', 'compare', 'paste'} <= names
    context.close()
