"""CLIP equals transformers' at random weights, and loads from the files of three projects."""

import functools
import io
import json
import pathlib

import clip_figures
import jax
import numpy as np
import pickle_writer
import pytest
import recipe
import safetensors.numpy

import jaxinv
from jaxinv.converters import clip as converter
from jaxinv.converters import safe_pickle, tables
from jaxinv.errors import JaxinvError
from jaxinv.networks import bpe, clip
from jaxinv.weights import download
from jaxinv.weights.clip import FETCH, load_tokenizer, save_clip

HEADS = converter.Options(None, 3, 2)
LIMIT = 1e-4
BYTE_PAIRS = 49_408  # tokens of CLIP's vocabulary


@functools.cache
def figures():
    with np.load(pathlib.Path(__file__).parent / 'data' / 'clip.npz') as arrays:
        return dict(arrays)


@functools.cache
def network(activation='quick_gelu'):
    return converter.convert(
        clip_figures.hugging_face_arrays(), HEADS._replace(activation=activation)
    )


# --- Features -------------------------------------------------------------------------------------


@pytest.mark.parametrize('activation', ['quick_gelu', pytest.param('gelu', marks=pytest.mark.long)])
def test_features_equal_those_of_transformers(activation):
    spec, weights = network(activation)
    text = jax.jit(clip.text_features, static_argnums=0)(spec, weights, clip_figures.tokens())
    image = jax.jit(clip.patch_features, static_argnums=0)(spec, weights, clip_figures.pixels())
    for name, found in (('text', text), ('image', image)):
        wanted = figures()[f'{activation}/{name}']
        assert np.abs(wanted).max() > 1
        np.testing.assert_allclose(found, wanted, atol=LIMIT)


def test_pictures_are_prepared_as_by_transformers():
    """Within one of 256 grey levels, to which the library rounds."""
    picture = np.asarray(clip_figures.picture(), np.float32)[None] / 127.5 - 1
    found = recipe.sampled(clip.prepare(picture, 224)[0])
    level = 1 / 255 / min(clip.DEVIATION)
    assert np.abs(found - figures()['prepared']).max() <= 1.05 * level
    assert np.abs(found - figures()['prepared']).mean() <= 0.35 * level
    with pytest.raises(JaxinvError, match='not square'):
        clip.prepare(picture[:, :100], 224)


def test_what_follows_the_end_of_a_text_does_not_count():
    spec, weights = network()
    tokens = clip_figures.tokens()
    other = np.where(tokens == 0, 7, tokens)
    features = jax.jit(clip.text_features, static_argnums=0)
    found, again = features(spec, weights, tokens), features(spec, weights, other)
    np.testing.assert_allclose(found, again, atol=1e-6)


# --- Tokenizer ------------------------------------------------------------------------------------


def test_200_texts_become_the_tokens_of_transformers():
    tokenizer, texts = load_tokenizer(), clip_figures.texts()
    assert tokenizer.size == BYTE_PAIRS and len(texts) == len(set(texts)) == 200
    wanted = np.split(figures()['tokens'], np.cumsum(figures()['lengths'])[:-1])
    for text, row in zip(texts, wanted, strict=True):
        found = [tokenizer.tokens[bpe.START], *tokenizer.encode(text), tokenizer.tokens[bpe.END]]
        assert found == row.tolist(), text


def test_texts_are_padded_and_long_ones_refused():
    tokenizer = load_tokenizer()
    rows = tokenizer(['a face', 'a face with a beard'])
    assert rows.shape == (2, 77) and rows.dtype == np.int32
    assert rows[0, :4].tolist() == [49406, 320, 1710, 49407] and not rows[0, 4:].any()
    with pytest.raises(JaxinvError, match='has 82 tokens, with start and end; this CLIP reads 77'):
        tokenizer('face ' * 80)
    with pytest.raises(JaxinvError, match='characters'):
        tokenizer('x' * 20_000)


# --- Files ----------------------------------------------------------------------------------------


def same(weights, wanted):
    assert set(weights) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def test_an_archive_of_torchscript_is_read_as_plain_data():
    """As torch.jit.save wrote it, in float16; OpenAI's files are such archives."""
    content = safe_pickle.load(io.BytesIO(figures()['jit'].tobytes()))
    spec, weights = converter.convert(content, HEADS)
    assert spec == clip.Spec(3, 2, 'quick_gelu')
    same(weights, network()[1])


def config_of(activation):
    towers = {
        'vision_config': {'num_attention_heads': 3, 'hidden_act': activation},
        'text_config': {'num_attention_heads': 2, 'hidden_act': activation},
    }
    return json.dumps(towers)


@pytest.fixture(scope='module')
def whole():
    """The arrays of a network with CLIP's vocabulary, in two layouts."""
    return clip_figures.hugging_face_arrays(BYTE_PAIRS), clip_figures.openai_arrays(BYTE_PAIRS)


def test_a_folder_of_hugging_face_loads_and_is_kept(whole, tmp_path):
    folder = tmp_path / 'clip'
    folder.mkdir()
    (folder / 'config.json').write_text(config_of('gelu'))
    extra = {'text_model.embeddings.position_ids': np.arange(20)[None]}
    safetensors.numpy.save_file(whole[0] | extra, folder / 'model.safetensors')
    found = jaxinv.load_clip(folder)
    assert found.spec == clip.Spec(3, 2, 'gelu') and not found.is_random
    wanted = converter.convert(whole[0], HEADS._replace(activation='gelu'))[1]
    same(found.weights, wanted)
    save_clip(tmp_path / 'copy.safetensors', found)  # these values are float16's
    again = jaxinv.load_clip(tmp_path / 'copy.safetensors')
    assert again.spec == found.spec
    same(again.weights, wanted)


def test_files_of_open_clip_need_their_activation(whole, tmp_path):
    path = tmp_path / 'open_clip_pytorch_model.bin'
    arrays = {f'module.{name}': array for name, array in whole[1].items()}
    path.write_bytes(pickle_writer.torch_zip({'state_dict': pickle_writer.tensors(arrays)}))
    with pytest.raises(JaxinvError, match="give activation='quick_gelu'.* or 'gelu'"):
        jaxinv.load_clip(path)
    with pytest.raises(JaxinvError, match="activation is 'relu'; it can be"):
        jaxinv.load_clip(path, 'relu')
    towers = {'vision_cfg': {'width': 24, 'head_width': 8}, 'text_cfg': {'heads': 2}}
    (tmp_path / 'open_clip_config.json').write_text(json.dumps({'model_cfg': towers}))
    found = jaxinv.load_clip(tmp_path)
    assert found.spec == clip.Spec(3, 2, 'gelu')
    same(found.weights, converter.convert(whole[1], HEADS._replace(activation='gelu'))[1])


def test_an_address_on_the_hub_brings_its_config(whole, tmp_path, monkeypatch):
    safetensors.numpy.save_file(whole[0], tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(config_of('quick_gelu'))
    asked = []

    def get(address, log):
        asked.append(address)
        return tmp_path / address.rpartition('/')[2].partition('@')[0]

    monkeypatch.setattr(download, 'get', get)
    found = jaxinv.load_clip('hf://openai/clip/model.safetensors@main#sha256=' + 64 * 'a')
    assert found.spec == clip.Spec(3, 2, 'quick_gelu')
    assert asked[1:] == ['hf://openai/clip/config.json@main']


def test_other_readers_say_what_an_archive_of_torchscript_is(tmp_path):
    path = tmp_path / 'ViT.pt'
    path.write_bytes(figures()['jit'].tobytes())
    with pytest.raises(JaxinvError, match='It holds a TorchScript module, not a generator'):
        jaxinv.load_generator(path)
    with pytest.raises(JaxinvError, match='It holds no encoder'):
        jaxinv.load_encoder(path)


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    arrays = clip_figures.openai_arrays()

    def refused(match, **changes):
        given = {k: v for k, v in (arrays | changes).items() if v is not None}
        with pytest.raises(tables.ConversionError, match=match):
            converter.convert(given, HEADS._replace(activation='gelu'))

    refused('Missing array: ln_final.bias', **{'ln_final.bias': None})
    refused('Unexpected array: logit_bias', logit_bias=np.zeros(()))
    refused(r"'visual.proj' gives .* \[24, 11\]", **{'visual.proj': np.zeros((24, 11), 'f')})
    refused('15 positions', **{'visual.positional_embedding': np.zeros((15, 24), 'f')})
    refused('ln_final.bias.* not finite', **{'ln_final.bias': np.full(16, np.nan, 'f')})
    refused('ResNet', **{'visual.conv1.weight': None, 'visual.layer1.0.conv1.weight': np.zeros(1)})
    safetensors.numpy.save_file(clip_figures.hugging_face_arrays(), tmp_path / 'model.safetensors')
    with pytest.raises(JaxinvError, match='It has 1000 tokens'):
        jaxinv.load_clip(tmp_path / 'model.safetensors', 'gelu')


def test_a_missing_file_comes_with_the_two_lines():
    with pytest.raises(JaxinvError) as caught:
        jaxinv.load_clip('nowhere/ViT-B-32.pt')
    assert all(line in str(caught.value) for line in FETCH)


def test_random_weights_say_so():
    found = jaxinv.load_clip('random')
    assert found.is_random and found.origin == 'random weights'
    for name, shape in clip.shapes(clip.sizes_of(found.weights)).items():
        assert found.weights[name].shape == shape
