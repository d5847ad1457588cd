"""Results in notebooks: pictures side by side, bounded in size, safe whatever the names are."""

import base64
import html.parser
import io

import numpy as np
import PIL.Image
import pytest

import jaxinv
from jaxinv import api
from jaxinv.data import Targets, thumbnails
from jaxinv.errors import JaxinvError
from jaxinv.inversion.invert_sam import Inverted
from jaxinv.inversion.project import Pivots
from jaxinv.inversion.tune import Tuned
from jaxinv.pixels import to_float, to_uint8

HOSTILE = '<script>alert(1)</script>"\'&\x1b[31m\u202e' + 'x' * 300


class Parsed(html.parser.HTMLParser):
    """Tags, texts and images of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.images, self.alts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == 'img':
            assert set(attributes) == {'src', 'alt', 'style'}
            kind, _, data = attributes['src'].partition('base64,')
            assert kind == 'data:image/jpeg;'
            self.images.append(PIL.Image.open(io.BytesIO(base64.b64decode(data))))
            self.alts.append(attributes['alt'])

    def handle_data(self, data):
        self.texts.append(data)


def pictures(count, size=40, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, 3), np.uint8)


def made_targets(names, size=40):
    return Targets(list(names), pictures(len(names), size), [{}] * len(names), [])


def test_photograph_reconstruction_and_edit_stand_side_by_side():
    targets = made_targets(['Ann', 'Bo'])
    smooth = np.full((2, 40, 40, 3), 0.5, np.float32)
    shown = jaxinv.show(targets, smooth, {'smile=1.2': -smooth})
    page = Parsed(shown._repr_html_())
    assert [t for t in page.texts if t.strip()] == [
        'photograph', 'reconstruction', 'smile=1.2', 'Ann', 'Bo'
    ]  # fmt: skip
    assert page.alts[:3] == ['photograph of Ann', 'reconstruction of Ann', 'smile=1.2 of Ann']
    values = [np.asarray(image).mean() for image in page.images]
    np.testing.assert_allclose(values[1:3], [191, 64], atol=1)
    assert values[0] == pytest.approx(targets.images_uint8[0].mean(), abs=2)
    assert repr(shown) == 'Shown(Ann, Bo: photograph | reconstruction | smile=1.2)'
    assert Parsed(jaxinv.show(to_float(pictures(1), np))._repr_html_()).alts == ['photograph of 1']
    assert len(Parsed(targets._repr_html_()).images) == 2


def test_nothing_is_drawn_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(thumbnails, 'data_uri', None)
    shown = jaxinv.show(made_targets(['Ann']), pictures(1))
    with pytest.raises(TypeError):
        shown._repr_html_()


def test_names_and_labels_are_text_only():
    shown = jaxinv.show(made_targets([HOSTILE]), edits={HOSTILE: pictures(1)})
    page = Parsed(shown._repr_html_())
    assert set(page.tags) <= {'div', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'img'}
    text = ''.join(page.texts) + ''.join(page.alts)
    assert '<script>alert(1)</script>' in text  # as text
    assert '\x1b' not in text and '\u202e' not in text and 'x' * 100 not in text


def test_many_large_pictures_stay_small():
    targets = made_targets([f'n{i}' for i in range(60)], size=100)
    columns = {f'e{i}': targets.images_uint8 for i in range(14)}
    text = jaxinv.show(targets, edits=columns)._repr_html_()
    page = Parsed(text)
    assert len(page.images) == thumbnails.MAX_ROWS * thumbnails.MAX_COLUMNS
    # Noise takes several times the bytes of a photograph.
    assert len(text) < 6 * thumbnails.MAX_BYTES
    assert 'Shown: 24 of 60 pictures, 12 of 15 columns.' in page.texts


def test_what_is_not_finite_is_said():
    broken = np.full((1, 40, 40, 3), np.nan, np.float32)
    page = Parsed(jaxinv.show(pictures(1), broken)._repr_html_())
    assert len(page.images) == 1 and 'not finite' in page.texts


def test_it_is_saved_as_a_page_or_a_picture(tmp_path):
    shown = jaxinv.show(made_targets([HOSTILE]), pictures(1))
    page = shown.save(tmp_path / 'a.html').read_text()
    assert page.count('<script') == 0 and len(Parsed(page).images) == 2
    with PIL.Image.open(shown.save(tmp_path / 'a.png')) as image:
        assert image.width > 2 * 40
    with pytest.raises(JaxinvError, match='should end in'):
        shown.save(tmp_path / 'a.pdf')


@pytest.mark.parametrize(
    'arguments,words',
    [
        ((pictures(2), pictures(1)), 'reconstruction has 1 images for 2 targets'),
        ((pictures(2), None, {'a': pictures(3)}), 'a has 3 images'),
        ((pictures(2)[0],), r'photograph has the shape \[40, 40, 3\]'),
    ],
)
def test_numbers_of_images_must_agree(arguments, words):
    with pytest.raises(JaxinvError, match=words):
        jaxinv.show(*arguments)


def test_results_show_their_last_numbers():
    history = {'loss': np.array([[1.0, 2.0], [0.25, np.nan]]), 'lr': np.array([0.1, 0.05])}
    page = Parsed(Pivots(('Ann', HOSTILE), np.zeros([2, 1, 4]), history)._repr_html_())
    cells = [text for text in page.texts if text.strip()]
    assert cells[:6] == ['Pivots, [2, 1, 4]', 'loss', 'lr', 'Ann', '0.25', '0.05']
    assert cells[7:9] == ['2', '0.05'] and 'script' not in page.tags
    assert 'jaxinv.show(targets, ' in cells[-1]
    assert '<td>2</td><td>2</td>' in Tuned({}, history)._repr_html_()
    none = Inverted(('Ann',), np.zeros([1, 1, 4]), {}, None, {}, None, None, [])
    assert 'Ann' in none._repr_html_()
    assert '24 of 30' in Pivots(('a',) * 30, np.zeros([30, 1, 4]), {})._repr_html_()


@pytest.mark.long
def test_what_was_loaded_renders_its_first_codes(tiny):
    generator, weights = tiny
    codes = np.zeros([9, 1, generator.spec.w_dim], np.float32)
    saved = api.Saved(generator, weights, Pivots(tuple('abcdefghi'), codes, {}))
    page = Parsed(saved._repr_html_())
    assert page.alts == [f'reconstruction of {name}' for name in 'abcdefgh']
    expected = to_uint8(jaxinv.render(generator, weights, codes[:1]))[0]
    assert np.asarray(page.images[0]).mean() == pytest.approx(expected.mean(), abs=3)
    assert saved._replace(codes=None)._repr_html_() == 'tiny, without codes'
