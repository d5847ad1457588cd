"""Bulk mode of SAM's methods with one generator for all pictures: as an ordinary run, resumable."""

import html
import json
import re
import sys

import jax
import limits
import numpy as np
import PIL.Image
import pytest
from test_bulk import NAMES, records_of, stamps, write_picture
from test_distributed import launched, said
from test_experiment import load_config

import jaxinv
from jaxinv import data, latents, pixels
from jaxinv.errors import JaxinvError
from jaxinv.experiments import method_runs, sam
from jaxinv.inversion import code_files
from jaxinv.inversion.project import project
from jaxinv.runtime import distributed

pytestmark = pytest.mark.long


def config_of(folder, method='pti_sam', **changes):
    config = load_config('sam', f'{method},test')
    config.data.images, config.data.align, config.data.fit = str(folder), 'none', 'pad'
    config.invertibility.spaces, config.edits = ('W+', 'F6'), ()
    config.update_from_flattened_dict({'group': 2} | changes)
    return config


def run(config, work):
    lines = []
    sam.run(config, work, log=lambda text, **_: lines.append(text))
    return lines


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Five pictures, one of them wide, and a text file with the name of one."""
    folder = tmp_path_factory.mktemp('inputs')
    for seed, name in enumerate(NAMES):
        write_picture(folder, name, seed)
    with PIL.Image.open(folder / f'{NAMES[1]}.png') as picture:
        picture.resize((96, 48)).save(folder / f'{NAMES[1]}.png')
    (folder / 'bad.png').write_text('not a picture')
    return folder


@pytest.fixture(scope='module')
def finished(inputs, tmp_path_factory):
    """(config, work folder) of a finished run."""
    work = tmp_path_factory.mktemp('run') / 'work'
    config = config_of(inputs)
    run(config, work)
    return config, work


def assert_same_numbers(records, others, rtol):
    assert list(records) == list(others)
    for name, record in records.items():
        for stage, values in record.get('metrics', {}).items():
            for metric, value in values.items():
                other = others[name]['metrics'][stage][metric]
                assert value is other is None or value == pytest.approx(other, rel=rtol), metric


def test_numbers_are_those_of_an_ordinary_run(finished, inputs, tmp_path):
    _, work = finished
    once = tmp_path / 'once'
    run(config_of(inputs, group=0), once)
    found = json.loads((once / 'metrics.json').read_text())['identities']
    records = records_of(work)
    used = {name: record for name, record in records.items() if 'metrics' in record}
    assert list(used) == list(NAMES) and 'not an image' in records['bad']['skipped']
    assert_same_numbers(used, {name: {'metrics': own} for name, own in found.items()}, 2e-3)
    assert list(used[NAMES[0]]['metrics']) == ['W', 'PTI', 'PTI+SAM']
    first, second = (jaxinv.load_generator(folder)[1] for folder in (work, once))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), first, second)
    names, pivots = code_files.load_pivots(work)
    np.testing.assert_allclose(pivots, code_files.pivots_for(once, names), atol=1e-4)


def test_what_is_left_in_the_folder(finished, inputs):
    config, work = finished
    assert {p.name for p in (work / 'tuning').iterdir()} >= {'manifest.jsonl', 'seconds.json'}
    assert not any((work / 'tuning' / n).exists() for n in ('identities', 'generator', 'state'))
    assert not list(work.glob('identities/*/generator*'))
    page = (work / 'report.html').read_text()
    assert 'not an image' in page and 'identities/ada/' in page
    exec(html.unescape(re.search(r'<pre>(.*?)</pre>', page, re.DOTALL)[1]), found := {})
    assert found['images'].shape == (1, 32, 32, 3)
    with PIL.Image.open(work / 'identities' / 'ada' / 'PTI+SAM.png') as saved:
        image = np.clip((np.asarray(found['images'])[0] + 1) * 127.5, 0, 255)
        np.testing.assert_allclose(image, np.asarray(saved, np.float32), atol=1)
    for record in records_of(work).values():
        if 'skipped' not in record:
            assert {'project', 'tune', 'invert'} <= set(record['seconds'])
    # The numbers of the last stage are those that a table of methods takes.
    made = method_runs.made_of(work, list(NAMES))
    assert all(made[name].file.is_file() and made[name].seconds > 0 for name in NAMES)
    before = stamps(work)
    assert any('Finished already' in line for line in run(config, work))
    assert stamps(work) == before


@pytest.mark.exhaustive
def test_it_resumes_in_the_tuning_and_in_a_group(finished, tmp_path, monkeypatch):
    config, straight = finished
    work, calls = tmp_path / 'work', []

    def stop_if(condition):
        def stop():
            calls.append(1)
            if condition():
                raise distributed.Preempted

        monkeypatch.setattr(distributed, 'raise_if_preempted', stop)
        with pytest.raises(distributed.Preempted):
            run(config, work)
        monkeypatch.undo()

    stop_if(lambda: len(calls) == 5)  # three batches of pictures are read; in the projection
    assert not (work / 'pivots.npz').exists() and (work / 'tuning' / 'state').is_dir()
    stop_if(lambda: list(work.glob('identities/*/codes.npz')))
    assert (work / 'pivots.npz').exists() and not (work / 'metrics.json').exists()
    left = {p: t for p, t in stamps(work).items() if p.name == 'codes.npz'}
    lines = run(config, work)
    assert not any(line.startswith(('project ', 'tune ')) for line in lines)
    assert {p: t for p, t in stamps(work).items() if p in left} == left
    assert_same_numbers(records_of(work), records_of(straight), 1e-5)
    weights = [jaxinv.load_generator(folder)[1] for folder in (straight, work)]
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_other_pictures_are_another_run(finished, inputs):
    config, work = finished
    write_picture(inputs, 'zoe', 9)
    try:
        with pytest.raises(JaxinvError, match='zoe.png'):
            run(config, work)
    finally:
        (inputs / 'zoe.png').unlink()
    assert any('Finished already' in line for line in run(config, work))


@pytest.mark.parametrize('method', ['pti'])
def test_the_tuned_pivots_alone(finished, inputs, tmp_path, method):
    """The method pti, with a projection that is not finite: it costs a line."""
    target = data.load_images(inputs / 'dot.png', resolution=32, align='none')
    bad, normal = latents.identity_ids(target.images_uint8)[0], pixels.to_float

    def to_float(images_uint8, *numpy):
        targets = np.array(normal(images_uint8, *numpy))
        targets[latents.identity_ids(images_uint8) == bad] = np.nan
        return targets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[project.__module__], 'to_float', to_float)
        run(config_of(inputs, method), tmp_path / 'work')
    records = records_of(tmp_path / 'work')
    assert 'nan or infinite' in records['dot']['skipped']
    for name in set(NAMES) - {'dot'}:
        assert list(records[name]['metrics']) == ['W', 'PTI']
    names, w = code_files.load_pivots(tmp_path / 'work')
    assert 'dot' not in names and len(w) == 4


@pytest.mark.exhaustive
def test_two_processes(finished, inputs, tmp_path):
    _, alone = finished
    work = tmp_path / 'work'
    options = [f'--config.data.images={inputs}', '--config.data.align=none', '--config.group=2']
    options += ['--config.edits=()', '--config.data.fit=pad']
    options += ["--config.invertibility.spaces=('W+','F6')"]
    with launched(2, work, *options, config='sam:pti_sam,test') as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(work)
    assert_same_numbers(records_of(alone), records_of(work), 1e-2)
