"""Encoders equal the official code's figures, load from its files, and start a projection."""

import functools
import json
import pathlib

import encoder_figures
import jax
import jax.numpy as jnp
import numpy as np
import pickle_writer
import pytest
import recipe

import jaxinv
from jaxinv import convert, latents
from jaxinv.converters import encoders as converter
from jaxinv.converters import tables
from jaxinv.errors import JaxinvError
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import encode
from jaxinv.networks import encoders
from jaxinv.weights.encoders import load_encoder, local_file, packaged_encoders, save_encoder

FIGURES = pathlib.Path(__file__).parent / 'data' / 'encoders.npz'
LIMIT = 2e-5  # relative L2, of the figures' tolerances
LONG, EXHAUSTIVE = pytest.mark.long, pytest.mark.exhaustive


@functools.cache
def figures():
    with np.load(FIGURES) as arrays:
        return dict(arrays)


def entries(model):
    return json.loads(str(figures()[f'{model}/entries']))


@functools.cache
def official(model='e4e_64'):
    """The plain data of a whole official file."""
    return encoder_figures.checkpoint(model, entries(model), figures()['in/latent_avg'])


def compared(model, arrays):
    """The number of figures that agree."""
    count = 0
    for name, array in arrays.items():
        whole, sample = (figures().get(f'{model}/{name}{end}') for end in ('', '/sample'))
        if whole is None and sample is None:
            continue
        found = array if sample is None else recipe.sampled(array)
        wanted = np.float64(whole if sample is None else sample)
        assert np.linalg.norm(found - wanted) <= LIMIT * np.linalg.norm(wanted), name
        exact = figures().get(f'f64/{model}/{name}/stats')
        if exact is not None:
            stats = recipe.statistics(np.asarray(array, np.float64))
            np.testing.assert_allclose(stats, exact, rtol=2e-4, atol=1e-6)
        count += 1
    return count


@pytest.mark.parametrize(
    'model',
    [pytest.param('e4e_64', marks=LONG), pytest.param('psp_64', marks=EXHAUSTIVE), 'w_64'],
)
def test_codes_features_and_stages_equal_the_official_ones(model):
    arrays = encoder_figures.compute(model, entries(model), figures())
    assert compared(model, arrays) == {'e4e_64': 12, 'psp_64': 2, 'w_64': 2}[model]


@pytest.mark.long
def test_identities_equal_arcfaces():
    model = encoder_figures.IDENTITY
    assert compared(model, encoder_figures.compute(model, entries(model), figures())) == 3


@pytest.mark.exhaustive
@pytest.mark.parametrize('model', [*encoder_figures.MODELS, encoder_figures.IDENTITY])
def test_in_float64_only_the_figures_own_rounding_is_left(model):
    with jax.enable_x64(True):
        arrays = encoder_figures.compute(model, entries(model), figures(), jnp.float64)
    compared(model, arrays)
    for name, array in arrays.items():
        exact = figures().get(f'f64/{model}/{name}/stats')
        if exact is not None:
            np.testing.assert_allclose(recipe.statistics(array), exact, rtol=1e-9, atol=1e-12)


# --- Files ----------------------------------------------------------------------------------------


def write(path, content):
    arrays = pickle_writer.tensors(content['state_dict'])
    average = (
        {}
        if content.get('latent_avg') is None
        else {'latent_avg': pickle_writer.tensor(content['latent_avg'])}
    )
    data = {'state_dict': arrays, 'opts': content['opts'], **average}
    path.write_bytes(pickle_writer.torch_zip(data))
    return path


@pytest.fixture(scope='module')
def w_file(tmp_path_factory):
    """A whole file of the smallest encoder, in the official layout."""
    content = official('w_64') | {'latent_avg': figures()['in/latent_avg']}
    return write(tmp_path_factory.mktemp('files') / 'w.pt', content)


def test_an_official_file_loads_and_is_kept(w_file, tmp_path):
    found = load_encoder(w_file)
    assert found.spec == encoders.Spec('w', 10)
    save_encoder(tmp_path / 'copy.safetensors', found)
    again = load_encoder(tmp_path / 'copy.safetensors')
    assert again.spec == found.spec
    jax.tree.map(np.testing.assert_array_equal, again.weights, found.weights)
    np.testing.assert_array_equal(again.average, found.average)
    images = jnp.zeros([2, 256, 256, 3])
    assert encoders.encode(again, images).shape == (2, 10, 512)
    assert jaxinv.load_encoder is load_encoder


def test_the_command_describes_and_writes_an_encoder(w_file, tmp_path, capsys):
    def run(*arguments):
        convert.FLAGS.unparse_flags()
        for flag in ('to', 'which', 'overwrite'):
            convert.FLAGS[flag].unparse()
        convert.main(['converters', *map(str, arguments), '--which=encoder'])

    path = tmp_path / 'own.safetensors'
    run(w_file, path)
    printed = capsys.readouterr().out
    assert 'w encoder' in printed and '10 rows of W+' in printed and f'Written: {path}' in printed
    assert load_encoder(path).spec == encoders.Spec('w', 10)
    for destination, message in (
        (path, 'exists already'),
        (tmp_path / 'folder', 'should end in .safetensors'),
    ):
        with pytest.raises(SystemExit):
            run(w_file, destination)
        assert message in capsys.readouterr().err


WRONG = {
    'no encoder': (lambda c: c.update(state_dict={'a': np.zeros(2, np.float32)}), 'no encoder'),
    'missing': (lambda c: c['state_dict'].pop('encoder.linear.bias'), 'Missing array: linear.bias'),
    'misshapen': (
        lambda c: c['state_dict'].update({'encoder.linear.bias': np.zeros(3, np.float32)}),
        "'linear.bias' has the shape",
    ),
    'not finite': (
        lambda c: c['state_dict'].update({'encoder.linear.bias': np.full(512, np.nan, 'f4')}),
        'not finite',
    ),
    'no average': (lambda c: c.update(latent_avg=None), 'how many rows'),
    'average of other rows': (
        lambda c: c.update(latent_avg=np.zeros([10, 3], np.float32)),
        'latent_avg has the shape',
    ),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_files_that_are_no_encoder_get_a_sentence(wrong):
    change, message = WRONG[wrong]
    content = official('w_64')
    content = content | {'state_dict': dict(content['state_dict']), 'opts': {}}
    change(content)
    with pytest.raises(tables.ConversionError, match=message):
        converter.convert(content, None if wrong == 'no encoder' else 'w')


@pytest.mark.long
def test_the_kind_is_said_where_the_arrays_do_not_say_it():
    content = official() | {'opts': {}}
    with pytest.raises(tables.ConversionError, match='does not say which encoder it is'):
        converter.convert(content)
    assert converter.convert(content, 'psp').spec.kind == 'psp'
    with pytest.raises(tables.ConversionError, match="kind is 'resnet'"):
        converter.convert(content, 'resnet')
    with pytest.raises(tables.ConversionError, match='takes 3 channels; a restyle_e4e'):
        converter.convert(content, 'restyle_e4e')
    with pytest.raises(JaxinvError, match='no file .*absent'):
        load_encoder('absent.pt')


@pytest.mark.parametrize(
    'record', ['[]', '{"kind": "e4e"}', '{"kind":"e4e","num_ws":10000000,"from_average":true}']
)
def test_own_headers_are_checked(record, w_file, tmp_path):
    import safetensors.numpy

    path = tmp_path / 'a.safetensors'
    safetensors.numpy.save_file({'a': np.zeros(2, np.float32)}, path, {'jaxinv_encoder': record})
    with pytest.raises(JaxinvError, match='a.safetensors: Its header is not the record'):
        load_encoder(path)


# --- Codes of a generator -------------------------------------------------------------------------


@pytest.fixture(scope='module')
def generator():
    """A random StyleGAN2 of 64 pixels, whose W+ the figures' encoders have."""
    made = stylegan2(64, channel_base=512, channel_max=16, mapping_layers=2)
    return made, jax.jit(made.init)(jax.random.key(0))


def restyle(kind, generator):
    """A ReStyle encoder with seeded weights; small codes."""
    spec = encoders.Spec(kind, generator.spec.num_ws)
    weights = {}
    for name, shape in encoders.shapes(spec).items():
        values = recipe.normal(name, shape)
        if name.endswith('running_var'):
            values = 1 + 0.1 * np.abs(values)
        elif len(shape) > 1:
            values = values / np.sqrt(np.prod(shape[:-1]))
        elif name.endswith('.weight') and 'linear' not in name:
            values = 1 + 0.1 * values
        weights[name] = jnp.asarray(0.1 * values if 'linear' in name else values)
    return encoders.Encoder(spec, weights, jnp.zeros([spec.num_ws, encoders.WIDTH]))


def images(count, size=64):
    return np.random.RandomState(0).randint(0, 255, [count, size, size, 3]).astype(np.uint8)


@pytest.mark.exhaustive
def test_the_number_of_refinements_is_a_setting(generator):
    made, weights = generator
    encoder, found = restyle('restyle_e4e', made), []
    near = latents.WStatistics(jnp.zeros(512), jnp.float32(1e4))
    for passes in (1, 2):
        found.append(
            jaxinv.project(
                made, weights, images(1), start=encoder, num_steps=0, refinements=passes,
                statistics=near, lpips={'vgg': {}},
            ).w
        )  # fmt: skip
    codes = encode.encode(encoder, made, weights, images(1), steps=2)
    np.testing.assert_array_equal(found[1], codes)
    assert np.abs(found[0] - codes).max() > 1e-3


@pytest.mark.parametrize(
    'kind',
    [pytest.param('restyle_e4e', marks=EXHAUSTIVE), pytest.param('restyle_psp', marks=EXHAUSTIVE)],
)
def test_refinements_add_what_the_encoder_sees_beside_the_last_image(kind, generator):
    made, weights = generator
    encoder, pictures = restyle(kind, made), jnp.asarray(images(1), jnp.float32) / 127.5 - 1
    steps = encoders.refine(encoder, pictures, lambda w: made.synthesize(weights, w)[0], 2)
    codes = jnp.zeros([1, made.spec.num_ws, encoders.WIDTH])
    resized = encoders.area_resize(pictures, encoders.SIZE)
    for found in steps:
        before = encoders.area_resize(made.synthesize(weights, codes)[0], encoders.SIZE)
        both = jnp.concatenate([resized, before], -1)
        codes = codes + encoders.differences(encoder.spec, encoder.weights, both)
        np.testing.assert_allclose(found, codes, rtol=1e-4, atol=1e-4)
    with pytest.raises(JaxinvError, match='use refine'):
        encoders.encode(encoder, pictures)


def test_codes_are_the_pivots_without_a_search(w_file, generator):
    made, weights = generator
    encoder, pictures = load_encoder(w_file), images(2)
    codes = encode.encode(encoder, made, weights, pictures)
    assert codes.shape == (2, 10, 512)
    near = latents.WStatistics(jnp.zeros(512), jnp.float32(1e4))
    given = jaxinv.project(
        made, weights, pictures, start=encoder, num_steps=0, statistics=near, lpips={'vgg': {}}
    )
    np.testing.assert_array_equal(given.w, codes)


@pytest.mark.long
def test_a_projection_starts_at_an_encoders_codes(w_file, generator):
    made, weights = generator
    encoder, pictures = load_encoder(w_file), images(2)
    codes = encode.encode(encoder, made, weights, pictures)
    # Its random weights put codes anywhere; a spread of W as wide as that makes them near.
    near = latents.WStatistics(jnp.zeros(512), jnp.float32(1e4))
    project = functools.partial(
        jaxinv.project, made, weights, pictures, statistics=near, verbose=False
    )
    for space, rows in (('w', codes.mean(1, keepdims=True)), ('w_plus', codes)):
        quiet = {'num_steps': 1, 'learning_rate': 0.0, 'initial_noise_factor': 0.0}
        found = project(start=encoder, space=space, **quiet)
        np.testing.assert_allclose(found.w, rows, rtol=1e-5, atol=1e-5)
        again = project(start=f'encoder:{w_file}', space=space, **quiet)
        np.testing.assert_array_equal(again.w, found.w)
        with_codes = project(start=codes, space=space, **quiet)
        np.testing.assert_array_equal(with_codes.w, found.w)


def test_codes_far_from_w_are_named_and_left(w_file, generator):
    made, weights = generator
    mean = jnp.full([512], 0.5)
    lines = []
    codes = encode.start_codes(
        load_encoder(w_file), made, weights, images(2),
        latents.WStatistics(mean, jnp.float32(1e-3)), lines.append,
    )  # fmt: skip
    np.testing.assert_array_equal(codes, np.broadcast_to(0.5, (2, 10, 512)))
    assert len(lines) == 2 and 'image_0: the encoder' in lines[0]


def test_starts_that_do_not_fit_get_a_sentence(w_file, generator, tiny):
    made, weights = generator
    with pytest.raises(JaxinvError, match='it was trained for another generator'):
        jaxinv.project(*tiny, images(1, 32), start=load_encoder(w_file), num_steps=0)
    with pytest.raises(JaxinvError, match='pivot.num_steps is 0'):
        jaxinv.project(made, weights, images(1), num_steps=0)
    with pytest.raises(JaxinvError, match="it can be '' or 'encoder:PATH'"):
        jaxinv.project(made, weights, images(1), start='mean', num_steps=0)
    with pytest.raises(JaxinvError, match='start has the shape'):
        jaxinv.project(made, weights, images(1), start=np.zeros([2, 1, 512]), num_steps=0)


# --- Baselines of SAM -----------------------------------------------------------------------------


@pytest.mark.long
def test_encoders_are_baselines_of_sam(tiny, compact, tmp_path):
    generator, weights = tiny
    pictures = images(2, 32)
    codes = encode.encode(compact, generator, weights, pictures)
    save_encoder(tmp_path / 'e.safetensors', compact)
    run = functools.partial(
        jaxinv.invert_sam,
        generator,
        weights,
        pictures,
        verbose=False,
        lpips={'alex': {}, 'vgg': {}},
    )
    found = run(method='encoder', start=compact)
    np.testing.assert_array_equal(found.codes.w_plus, codes)
    assert found.codes.offsets == {} and found.history == []
    pivot = {'start': f'encoder:{tmp_path / "e.safetensors"}'}
    np.testing.assert_array_equal(run(method='encoder', pivot=pivot).codes.w_plus, codes)
    hybrid = run(
        method='hybrid', pivot=pivot, num_steps=1, learning_rate=0.0, lpips='auto',
        prior={'num_samples': 100},
    )  # fmt: skip
    np.testing.assert_allclose(hybrid.codes.w_plus, codes, rtol=1e-6)
    far = run(method='encoder', start=compact._replace(average=compact.average + 1e6))
    assert np.abs(far.codes.w_plus).min() > 1e5  # a baseline's codes are reported as they are
    for method in ('e4e', 'restyle'):
        with pytest.raises(
            JaxinvError, match="the encoder of pivot.start is of the kind 'compact'"
        ):
            run(method=method, pivot=pivot)
    with pytest.raises(JaxinvError, match='which needs an encoder; give pivot.start=encoder:PATH'):
        run(method='hybrid')


def test_given_codes_and_an_encoders_baseline_exclude_each_other():
    with pytest.raises(JaxinvError, match='leave start out'):
        jaxinv.settings_for('sam:hybrid').replace(start='run').check()


def test_the_packaged_encoder_finds_codes_of_faces_that_it_has_not_seen(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (name,) = packaged_encoders()
    assert name == 'mobile_stylegan_ffhq' and local_file(name).stat().st_size < 10e6
    encoder = load_encoder(name)
    made, weights = jaxinv.load_generator(name, 512)
    mean = np.asarray(weights['buffers']['w_avg'])
    z = latents.sample_z(123456, 8, made.spec.z_dim)
    w = mean + 0.7 * (np.asarray(made.map(weights, z)) - mean)
    codes = encode.encode(encoder, made, weights, jaxinv.render(made, weights, w[:, None]))
    assert codes.shape == (8, made.spec.num_ws, made.spec.w_dim)
    explained = 1 - np.sum((codes[:, 0] - w) ** 2) / np.sum((w - mean) ** 2)
    assert explained > 0.4
    (tmp_path / name).write_text('a file of the user with this name goes first')
    with pytest.raises(JaxinvError, match=f'{name} is not a pickle'):
        load_encoder(name)
    with pytest.raises(JaxinvError, match=f'or a name: {name} '):
        load_encoder('other')
