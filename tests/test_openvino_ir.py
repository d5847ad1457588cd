"""The IR reader: what a good file gives, and the one sentence each bad file gets."""

import numpy as np
import pytest

from jaxinv.converters import mobile_stylegan, openvino_ir, tables

VALUES = np.arange(6, dtype='<f4').reshape(2, 3)


def layer(name, shape='2, 3', offset=0, size=24, element_type='f32', kind='Const'):
    return (
        f'<layer name="{name}" type="{kind}"><data element_type="{element_type}" shape="{shape}" '
        f'offset="{offset}" size="{size}"/></layer>'
    )


def write(folder, layers, head='<net name="n" version="10">', tail='</net>', data=None):
    path = folder / 'n.xml'
    path.write_text(f'{head}<layers>{layers}</layers>{tail}')
    (folder / 'n.bin').write_bytes(VALUES.tobytes() if data is None else data)
    return path


def test_constants_come_in_network_order_with_type_and_shape(tmp_path):
    layers = (
        layer('z')
        + '<layer name="relu" type="ReLU"/>'
        + layer('a', shape='', offset=4, size=4)
        + layer('h', shape='2', offset=0, size=4, element_type='f16')
    )
    network = openvino_ir.read(write(tmp_path, layers))
    assert [(one.name, one.type) for one in network.layers] == [
        ('z', 'Const'),
        ('relu', 'ReLU'),
        ('a', 'Const'),
        ('h', 'Const'),
    ]
    assert list(network.constants) == ['z', 'a', 'h']
    np.testing.assert_array_equal(network.constants['z'], VALUES)
    assert network.constants['a'].shape == () and network.constants['a'] == 1
    assert network.constants['h'].dtype == np.float16


@pytest.mark.parametrize(
    ('layers', 'options', 'message'),
    [
        (layer('a', offset=4), {}, "constant 'a' ends at byte 28 and n.bin has 24"),
        (layer('a', offset=-4), {}, 'before the file'),
        (layer('a', size=20), {}, 'cannot be 20 bytes'),
        (layer('a', shape='-2, -3'), {}, 'cannot be 24 bytes'),
        (layer('a', shape='two'), {}, 'no integer'),
        (layer('a', offset='1e3'), {}, 'no integer'),
        (layer('a', element_type='i4'), {}, "element type 'i4'; known: f64"),
        (layer('a') + layer('a'), {}, "two constants named 'a'"),
        ('<layer name="a" type="Const"/>', {}, 'no element_type and no offset'),
        ('', {}, 'lists no layers'),
        (layer('a'), {'head': '<net name="n" version="11">'}, "version='11'"),
        (layer('a'), {'head': '<model>', 'tail': '</model>'}, '<model version=None>'),
        (layer('a'), {'tail': ''}, 'not well-formed'),
        (
            layer('&b;'),
            {'head': '<!DOCTYPE n [<!ENTITY b "bbbb">]><net version="10">'},
            'document type',
        ),
        (layer('a'), {'data': b''}, 'n.bin has 0'),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path, layers, options, message):
    path = write(tmp_path, layers, **options)
    with pytest.raises(openvino_ir.OpenVINOError) as error:
        openvino_ir.read(path)
    assert message in str(error.value)
    assert '\n' not in str(error.value) and str(error.value).endswith('.')


def test_an_encoding_cannot_hide_a_document_type(tmp_path):
    path = write(tmp_path, layer('a'))
    path.write_bytes('<!DOCTYPE n [<!ENTITY b "b">]><net version="10"/>'.encode('utf-16'))
    with pytest.raises(openvino_ir.OpenVINOError, match='not UTF-8'):
        openvino_ir.read(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(openvino_ir.OpenVINOError, match='n.xml cannot be read'):
        openvino_ir.read(tmp_path / 'n.xml')
    path = write(tmp_path, layer('a'))
    (tmp_path / 'n.bin').unlink()
    with pytest.raises(openvino_ir.OpenVINOError, match='n.bin cannot be read'):
        openvino_ir.read(path)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ({'a': VALUES}, 'Missing array: b'),
        ({'a': VALUES, 'b': VALUES, 'c': VALUES}, 'Unexpected array: c'),
        ({'a': VALUES, 'b': VALUES.T}, "'b' gives y/z the shape \\[3, 2\\]; it must be \\[2, 3\\]"),
    ],
)
def test_conversion_names_the_array_that_is_wrong(source, message):
    table = {'x': ('a', np.negative), 'y/z': ('b', lambda a: a)}
    with pytest.raises(tables.ConversionError, match=message):
        tables.apply(table, source, {'x': VALUES, 'y/z': VALUES})


def test_conversion_wants_every_target(tmp_path):
    with pytest.raises(tables.ConversionError, match='Missing weight: w'):
        tables.apply({'x': ('a', np.negative)}, {'a': VALUES}, {'x': VALUES, 'w': VALUES})


def test_wavelet_bands_are_blocks_after_conversion():
    # LL of two channels, then (LH, HL, HH) of each.
    names = np.array(['ll0', 'll1', 'lh0', 'hl0', 'hh0', 'lh1', 'hl1', 'hh1'])
    assert list(mobile_stylegan._bands(names)) == [
        'll0', 'll1', 'lh0', 'lh1', 'hl0', 'hl1', 'hh0', 'hh1'
    ]  # fmt: skip
