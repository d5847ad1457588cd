"""Converts StyleGAN2 and BigGAN-deep checkpoints, exports runs, or prints a summary of a file.

Nothing in a file is executed.

  jaxinv-convert SRC                                     # only prints a summary of SRC
  jaxinv-convert SRC DST                                 # for jaxinv
  jaxinv-convert SRC DST.safetensors --to=rosinality     # for rosinality's PyTorch code
  jaxinv-convert RUN tuned.pkl --to=pkl                  # a copy of the official file, tuned
  jaxinv-convert RUN tuned.onnx --to=onnx                # for onnxruntime
  jaxinv-convert RUN folder --to=pti                     # the folders of PTI
  jaxinv-convert SRC DST.safetensors --which=encoder     # the encoder of an e4e or pSp file

In a checkout also `python -m converters`.

SRC: a checkpoint (.pkl, .pt, .npz, .safetensors) of stylegan2-ada-pytorch, stylegan3's repository,
TensorFlow's StyleGAN2, rosinality/stylegan2-pytorch, PTI, e4e or pSp; a folder with the
pytorch_model.bin and config.json of pytorch-pretrained-biggan; a generator that jaxinv wrote
(a work folder, its generator/, generators/NAME or generator.safetensors); an address https://... or
hf://OWNER/NAME/FILE[@REVISION], either with #sha256=HASH to check it; hf://OWNER/NAME of a run that
jaxinv.push_to_hub uploaded; or one of
{names}.

DST by --to; without it, by the ending of DST:

{table}

pti and npy take a work folder, or one of jaxinv.save. docs/checkpoints.md has the details.
"""

import pathlib
import re
import sys
import textwrap

from absl import flags, logging

from jaxinv.errors import JaxinvError
from jaxinv.runtime import console, places
from jaxinv.weights.formats import FORMATS, OF_RUNS
from jaxinv.weights.well_known import WELL_KNOWN


def _table():
    rows = [
        (f'--to={name}', ', '.join(end or 'a folder' for end in form.endings), form.content)
        for name, form in FORMATS.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return '\n'.join(f'  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}' for a, b, c in rows)


_NAMES = textwrap.fill(', '.join(WELL_KNOWN), 100)
__doc__ = __doc__.format(names=_NAMES, table=_table())

FLAGS = flags.FlagValues()  # not shared with jaxinv.launch
flags.DEFINE_string('to', None, f'{", ".join(FORMATS)}; see above.', FLAGS)
flags.DEFINE_string(
    'base',
    None,
    'For --to=pkl: the checkpoint that SRC was tuned from; by default the generator of the run '
    'that SRC belongs to (run.json).',
    FLAGS,
)
flags.DEFINE_string(
    'which',
    'G_ema',
    "Of several generators in SRC: G_ema = the averaged weights, G = the last step's, or a name in "
    'the file, which an error lists; encoder = the encoder of an e4e, pSp or ReStyle file.',
    FLAGS,
)
flags.DEFINE_bool('overwrite', False, 'Replace DST if it exists.', FLAGS)


def main(argv: list[str]) -> None:
    """Runs the command with the arguments argv[1:]. Raises SystemExit if that fails."""
    rest = [arg for arg in argv if not re.fullmatch(r'--?(help(short|full)?|h)', arg)]
    if len(rest) < len(argv):
        print(f'{__doc__}\n{FLAGS.get_help()}')
        return
    try:
        argv = FLAGS(argv)
    except (flags.Error, ValueError) as error:
        _exit(f'{str(error).strip().splitlines()[-1]} See jaxinv-convert --help.')
    if not 2 <= len(argv) <= 3:
        _exit('give SRC, or SRC and DST; see jaxinv-convert --help.')
    logging.set_verbosity(logging.ERROR)
    try:
        destination = places.expand(argv[2], 'DST') if len(argv) == 3 else None
        places.check_new_cache()
        convert(argv[1], destination)
    except JaxinvError as error:
        _exit(str(error))
    except OSError as error:
        _exit(f'{error.filename or "a file"}: {error.strerror or error}.')
    except MemoryError:
        _exit('there is not enough memory.')
    except KeyboardInterrupt:
        _exit('stopped; the same command resumes a download.', 130)


def convert(source: str, path: pathlib.Path | None, log=console.say) -> None:
    """Prints the summary of `source` and writes it to `path`, unless that is None."""
    # Imported here, so that --help does not wait for JAX.
    from jaxinv.converters import patch
    from jaxinv.weights import export as export_lib
    from jaxinv.weights.load import open_generator

    if FLAGS.which == 'encoder':
        _convert_encoder(source, path, log)
        return
    to = None
    if path is not None:
        to = export_lib.format_of(path, FLAGS.to)
        export_lib.check_free(path, to, FLAGS.overwrite)
    if to in OF_RUNS:
        _convert_codes(source, path, to, log)
        return
    if to == 'pkl':
        base = _base_of(source)
        original = export_lib.original_of(path, base, log)
    generator, weights, about = open_generator(source, which=FLAGS.which, log=log)
    about.pop('fresh', None)
    log(summary(generator.spec, weights, about))
    if to == 'pkl':
        sentences = patch.write(original, path, generator.spec, weights, base.which)
    elif to is not None:
        origin = dict(about.get('origin', about))
        if 'file' in origin:  # without its folders: exports are given away
            origin['file'] = pathlib.Path(origin['file']).name
        sentences = export_lib.write(path, generator, weights, to, origin)
        if to == 'safetensors' and not path.suffix:
            export_lib.write_card(path, source, generator.spec)
    if to is not None:
        log(f'Written: {path} ({to}).')
        for sentence in sentences:
            log(f'  {sentence}')


def _base_of(source):
    """What SRC was tuned from. Raises ExportError if neither --base nor SRC tells."""
    from jaxinv.weights import export, runs

    if FLAGS.base is not None:
        return runs.Base(FLAGS.base, FLAGS.which, None)
    base = runs.base_of(source)
    if base is None:
        raise export.ExportError(
            f'{source} does not say which file it was tuned from, for --to=pkl; name it by '
            '--base=FILE.'
        )
    return base if FLAGS['which'].using_default_value else base._replace(which=FLAGS.which)


def _convert_codes(source, path, to, log):
    """Writes the codes of a run, and for PTI its generators, to the folder `path`."""
    from jaxinv import api
    from jaxinv.inversion import code_exports
    from jaxinv.weights import export as export_lib

    generator, weights, codes = api.load(source)
    if codes is None:
        raise export_lib.ExportError(
            f'{source} holds no codes (pivots.npz); give the folder of a run.'
        )
    export_lib.clear(path)
    sentences = code_exports.notes(codes)
    if to == 'npy':
        code_exports.write_npy(path, generator.spec, codes)
    else:
        sentences += code_exports.write_pti(path, generator, weights, codes)
    log(f'Written: {path} ({to}, {len(codes.names)} codes of {generator.spec.name}).')
    for sentence in sentences:
        log(f'  {sentence}')


def _convert_encoder(source, path, log):
    """Prints what encoder `source` holds and writes it to the .safetensors file `path`."""
    from jaxinv.weights import encoders
    from jaxinv.weights import export as export_lib

    if path is not None:
        if export_lib.format_of(path, FLAGS.to) != 'safetensors':
            raise export_lib.ExportError(f'{path} should end in .safetensors for an encoder.')
        export_lib.check_free(path, 'safetensors', FLAGS.overwrite)
    encoder = encoders.load_encoder(source)
    spec = encoder.spec
    count = sum(array.size for array in encoder.weights.values()) / 1e6
    log(f'{"kind":<14} {spec.kind} encoder')
    log(f'{"codes":<14} {spec.num_ws} rows of W+')
    log(f'{"parameters":<14} {count:.2f} M')
    if path is not None:
        encoders.save_encoder(path, encoder)
        log(f'Written: {path} (safetensors).')


def summary(spec, weights, about) -> str:
    """One line for each property of a generator."""
    import jax

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree)) / 1e6

    buffers = weights['buffers']
    rows = [(key, about[key]) for key in ('kind', 'address', 'file', 'sha256') if key in about]
    for key, value in about.get('origin', {}).items():
        if key in ('kind', 'address', 'sha256'):
            rows.append((f'origin {key}', value))
    rows.append(('resolution', f'{spec.resolution} pixels, {spec.num_ws} rows of W+'))
    rows.append(('z, w', f'{spec.z_dim}, {spec.w_dim} numbers'))
    if spec.family:
        rows += _ROWS[spec.family](dict(spec.arguments))
    rows.append(('classes', spec.label_dim or 'none'))
    rows.append(
        (
            'parameters',
            f'{count(weights["params"]):.2f} M in synthesis, '
            f'{count(buffers.get("mapping", {})):.2f} M in mapping',
        )
    )
    if spec.domain:
        rows.append(('pictures', spec.domain))
    rows += [('note', note) for note in about.get('notes', ())]
    return '\n'.join(f'{name:<14} {value}' for name, value in rows)


def _stylegan2_rows(a):
    sizes = (4 * 2**i for i in range(len(a['channels'])))
    pairs = zip(sizes, a['channels'], strict=True)
    return [
        ('channels', ', '.join(f'{c} at {size}' for size, c in pairs)),
        ('mapping', f'{a["mapping_layers"]} layers'),
        ('architecture', a['architecture']),
        ('conv_clamp', 'none' if a['conv_clamp'] is None else f'{a["conv_clamp"]:g}'),
        ('epsilon', "rosinality's" if a['scaled_epsilon'] else "NVIDIA's"),
    ]


def _biggan_rows(a):
    size, blocks = 4, []
    for up, _, channels in a['layers']:
        size *= 2 if up else 1
        blocks.append(f'{channels * a["channel_width"]} at {size}')
    before = a['attention_position']
    return [
        ('channels', ', '.join(blocks)),
        ('attention', f'before block {before}' if before < len(blocks) else 'none'),
        ('statistics', f'{a["num_statistics"]} rows; truncation {a["truncation"]:g}'),
        ('epsilon', f'{a["epsilon"]:g}'),
    ]


_ROWS = {'stylegan2': _stylegan2_rows, 'biggan_deep': _biggan_rows}


def _exit(message: str, code: int = 1):
    console.complain(f'converters: {message}')
    raise SystemExit(code)


def run() -> None:
    """The command `jaxinv-convert`."""
    console.protect()
    with console.without_reader():
        main(sys.argv)


if __name__ == '__main__':
    run()
