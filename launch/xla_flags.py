"""XLA flags that overlap computation and communication on GPUs: `--xla-flags=overlap`.

Not set by default: they were not measured (there was no machine with several GPUs), their gain
depends on the network, and XLA aborts at a flag that its version does not have. jaxlib 0.10 has
all of them (tests/test_launchers.py). Values and reasons are from the pages of JAX and NVIDIA:

  [jax]     docs.jax.dev/en/latest/gpu_performance_tips.html
  [nvidia]  docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance
  [xla]     the flag's own description and default, xla/debug_options_flags.cc

Left out, because they have no effect here:
  xla_gpu_enable_async_collectives               removed: asynchronous by default [xla]
  xla_gpu_enable_highest_priority_async_stream   true by default [xla]
  xla_gpu_enable_pipelined_*, while_loop_double_buffering
      move collectives between iterations of a loop on the device; a step of jaxinv is a program
      without such a loop (jaxinv/optimize/loop.py)
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
        'schedules collectives in parallel with computation; off by default. In shared tuning the '
        'gradients of late layers can be reduced during the backward pass of early ones.',
        '[jax], [nvidia]',
    ),
    Flag(
        'xla_gpu_all_reduce_combine_threshold_bytes',
        str(16 * MIB),
        'gradients are combined into messages of up to this size, 30 MiB by default. A single '
        'message for a small generator can be sent only after the whole backward pass, without '
        'overlap. 16 MiB gives two messages for the embedded generator (29 MB) and seven for '
        'config-f (113 MB), still large enough for the full bandwidth.',
        '[jax], [xla]; the size is an estimate, not measured',
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
        'the same for parameters along fsdp: the first layers can start before the last ones are '
        'gathered.',
        '[jax], [xla]',
    ),
)
CHOICES = {'none': (), 'overlap': OVERLAP}


def add_option(parser) -> None:
    parser.add_argument(
        '--xla-flags', choices=sorted(CHOICES), default='none', help='see launch/xla_flags.py'
    )


def text(choice: str, before: str = '') -> str:
    """The value of XLA_FLAGS; before: flags that are set already."""
    flags = [f'--{flag.name}={flag.value}' for flag in CHOICES[choice]]
    return ' '.join(filter(None, [before, *flags]))
