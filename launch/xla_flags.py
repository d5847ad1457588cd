"""Flags for XLA that make GPUs compute while they communicate; `--xla-flags=overlap` of a launcher.

They are a choice, not a default: none was measured here (no machine with several GPUs), what they
gain depends on the network, and XLA stops at a flag that its version does not know. These are known
to jaxlib 0.10 (tests/test_launchers.py). Values and reasons are those of JAX's and NVIDIA's pages:

  [jax]     docs.jax.dev/en/latest/gpu_performance_tips.html
  [nvidia]  docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance
  [xla]     the flag's own description and default, xla/debug_options_flags.cc

Left out, since they would do nothing here:
  xla_gpu_enable_async_collectives          gone; collectives are asynchronous by default [xla]
  xla_gpu_enable_highest_priority_async_stream   the default already [xla]
  xla_gpu_enable_pipelined_*, while_loop_double_buffering   move collectives between the turns of a
      loop on the device; a step of jaxinv is one program without such a loop (jaxinv/optimize/loop.py)
"""

from typing import NamedTuple


class Flag(NamedTuple):
    name: str
    value: str
    why: str
    source: str


MIB = 2**20
OVERLAP = (
    Flag(
        'xla_gpu_enable_latency_hiding_scheduler',
        'true',
        'orders operations so that collectives run while there is something to compute; off by '
        'default. In shared tuning the gradients of late layers can travel during the backward '
        'pass of the early ones.',
        '[jax], [nvidia]',
    ),
    Flag(
        'xla_gpu_all_reduce_combine_threshold_bytes',
        str(16 * MIB),
        'gradients are sent together up to this size, 30 MiB by default. All of a small generator '
        'in one parcel could only leave when the last gradient is there, with nothing left to hide '
        'behind; 16 MiB make two parcels of the embedded one (29 MB) and seven of config-f '
        '(113 MB), each still large enough to use the network well.',
        '[jax], [xla]; the size is a reckoning, to be tried',
    ),
    Flag(
        'xla_gpu_reduce_scatter_combine_threshold_bytes',
        str(16 * MIB),
        'the same for gradients along fsdp.',
        '[jax], [xla]',
    ),
    Flag(
        'xla_gpu_all_gather_combine_threshold_bytes',
        str(16 * MIB),
        'the same for parameters along fsdp: the first layers can begin before the last ones have '
        'come.',
        '[jax], [xla]',
    ),
)
CHOICES = {'none': (), 'overlap': OVERLAP}


def add_option(parser) -> None:
    parser.add_argument(
        '--xla-flags', choices=sorted(CHOICES), default='none', help='see launch/xla_flags.py'
    )


def text(choice: str, before: str = '') -> str:
    """The value of XLA_FLAGS; `before` is what it holds already."""
    flags = [f'--{flag.name}={flag.value}' for flag in CHOICES[choice]]
    return ' '.join(filter(None, [before, *flags]))
