r"""Programs compiled for TPUs that are not there: memory, FLOPs, bytes, collectives, compile time.

    pip install libtpu                                           # of the version that jax asks for
    pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt      # for h100, of jax's version
    python benchmarks/tpu_programs.py compile --out=FILE [--only=TEXT] [--chips=1,8]
    python benchmarks/tpu_programs.py tables FILE

libtpu compiles ahead of time for a topology (jax.experimental.topologies). Nothing is run, and no
array of a generator's size is allocated. Each program is one microbatch with one identity on each
chip, or four where its name says so; FLOPs and bytes are then those of one of them. A process
compiles one program; programs that are in OUT are skipped. FLOPs and bytes are XLA's counts of the
optimised program; the roofline time is the larger of FLOPs by the chip's peak and bytes by its
memory rate. For GPUs XLA counts neither. One program takes 20 to 60 s of processor time at the
effort O1.
"""

import argparse
import collections
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from typing import NamedTuple

COMMUNICATING = ('shared, regularised',)  # of the programs, compiled for several chips


# The description of a GPU that XLA compiles for without one: NVIDIA's figures of an H100 SXM.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 1 patch: 1 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Chip(NamedTuple):
    topologies: dict[int, str]  # chips: name of a topology that has at least so many
    flops: float  # per second, bfloat16
    memory_rate: float  # bytes per second
    memory: float  # bytes


# Peaks by Google Cloud's pages of each version; memory rates the same.
CHIPS = {
    'v5e': Chip({1: 'v5e:2x2', 8: 'v5e:2x4', 64: 'v5e:8x8', 256: 'v5e:16x16'}, 197e12, 819e9, 16e9),
    'v5p': Chip(
        {1: 'v5p:2x2x1', 8: 'v5p:2x2x2', 64: 'v5p:4x4x4', 256: 'v5p:4x8x8'}, 459e12, 2765e9, 95e9
    ),
    'v6e': Chip(
        {1: 'v6e:2x2', 8: 'v6e:2x4', 64: 'v6e:8x8', 256: 'v6e:16x16'}, 918e12, 1640e9, 32e9
    ),
}
GPUS = {'h100': Chip({1: '1x1x1'}, 989e12, 3352e9, 80e9)}
GENERATORS = ('embedded, 512²', 'config-f, 1024²')
# Program: (method of `abstract`, dtype of feature maps, remat, identities of a microbatch)
PROGRAMS = {
    'projection': ('projection', 'float32', False, 1),
    'shared': ('shared', 'float32', False, 1),
    'shared, regularised': ('shared, regularised', 'float32', False, 1),
    'shared, regularised, bfloat16': ('shared, regularised', 'bfloat16', False, 1),
    'shared, regularised, bfloat16, microbatch 4': ('shared, regularised', 'bfloat16', False, 4),
    'shared, regularised, remat': ('shared, regularised', 'float32', True, 1),
    'one each': ('one each', 'float32', False, 1),
    'SAM': ('SAM', 'float32', False, 1),
}


def cases(chips: list[int]):
    """(chip, number of chips, generator, program)"""
    for chip in CHIPS | GPUS:
        for count in chips if chip in CHIPS else [n for n in chips if n == 1]:
            for generator in GENERATORS:
                for program in PROGRAMS if count == 1 else COMMUNICATING:
                    yield chip, count, generator, program
            if count == 1:
                yield chip, count, 'BigGAN-deep, 256²', 'SAM'


def name_of(case) -> str:
    return '; '.join(map(str, case))


def compiled(chip: str, count: int, generator: str, program: str, level: str) -> dict:
    """The facts of one program."""
    import abstract
    import collectives
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh

    from jaxinv import generators
    from jaxinv.optimize import sharded_step

    jax.config.update('jax_optimization_level', level)
    method, dtype, remat, microbatch = PROGRAMS[program]
    if chip in GPUS:
        topology = topologies.get_topology_desc(
            platform='cuda', topology=GPUS[chip].topologies[1], target_config=H100
        )
    else:
        topology = topologies.get_topology_desc(CHIPS[chip].topologies[count], platform='tpu')
    mesh = Mesh(np.array(topology.devices[:count]).reshape(count, 1), sharded_step.AXES)
    made = generators.with_computing(abstract.ALL_GENERATORS[generator](), dtype, remat)
    step = abstract.step_of(method, made, mesh, count * microbatch, microbatch=microbatch)
    times = resource.getrusage(resource.RUSAGE_SELF)
    begin, used = time.perf_counter(), times.ru_utime + times.ru_stime
    lowered = jax.jit(step.function, donate_argnums=0).lower(*step.arguments)
    traced = time.perf_counter() - begin
    executable = lowered.compile()
    times = resource.getrusage(resource.RUSAGE_SELF)
    memory, cost = executable.memory_analysis(), executable.cost_analysis() or {}
    sent = collections.Counter()
    for message in collectives.read(executable.as_text()):
        sent[message.kind] += message.bytes
    return {
        'microbatch': microbatch,
        'flops': cost.get('flops', 0.0) / microbatch,
        'bytes': cost.get('bytes accessed', 0.0) / microbatch,
        'arguments': memory.argument_size_in_bytes,
        'temporary': memory.temp_size_in_bytes,
        'collectives': dict(sent),
        'instructions': executable.as_text().count('\n'),
        'seconds': round(time.perf_counter() - begin, 1),
        'trace_seconds': round(traced, 1),
        'processor_seconds': round(times.ru_utime + times.ru_stime - used, 1),
    }


def compile_all(out: pathlib.Path, chips: list[int], only: str, level: str) -> None:
    facts = json.loads(out.read_text()) if out.exists() else {}
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1'}
    for case in cases(chips):
        name = f'{name_of(case)}; {level}'
        if only not in name or name in facts:
            continue
        command = [sys.executable, __file__, 'child', json.dumps([*case, level])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ['no message'])[-1][:300]
            facts[name] = {'error': reason}
        else:
            facts[name] = json.loads(done.stdout.splitlines()[-1])
        out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + '\n')
        print(name, facts[name], flush=True)


def tables(facts: dict) -> str:
    """Markdown."""
    columns = ['chip', 'chips', 'generator', 'program', 'level', 'GFLOP', 'GB moved']
    columns += [
        'arguments, MB',
        'temporary, MB',
        'fit',
        'sent, MB',
        'products, ms',
        'memory, ms',
        'compile, s',
    ]
    lines = [columns, ['---'] * len(columns)]
    for name, found in facts.items():
        chip, count, generator, program, level = name.split('; ')
        row = [chip, count, generator, program, level]
        if 'error' in found:
            lines.append([*row, found['error'], *[''] * (len(columns) - 6)])
            continue
        limits = (CHIPS | GPUS)[chip]
        # Identities a microbatch that the memory holds, by proportion.
        each = found['temporary'] / found.get('microbatch', 1)
        fit = int((limits.memory - found['arguments']) // each)
        sent = sum(found['collectives'].values())
        counts, bounds = ['', ''], ['', '']
        if found['bytes']:  # XLA counts nothing for GPUs
            counts = [f'{found["flops"] / 1e9:.0f}', f'{found["bytes"] / 1e9:.1f}']
            bounds = found['flops'] / limits.flops, found['bytes'] / limits.memory_rate
            bounds = [f'{1e3 * seconds:.1f}' for seconds in bounds]
        row += counts
        row += [f'{found["arguments"] / 1e6:.0f}', f'{found["temporary"] / 1e6:.0f}']
        row += [str(fit), f'{sent / 1e6:.0f}', *bounds, f'{found["processor_seconds"]:.0f}']
        lines.append(row)
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('compile')
    command.add_argument('--out', type=pathlib.Path, required=True)
    command.add_argument('--chips', default='1,8,64,256')
    command.add_argument('--only', default='', help='only programs whose name contains this text')
    command.add_argument('--level', default='O1', help="of XLA's effort, jax_optimization_level")
    commands.add_parser('tables').add_argument('file', type=pathlib.Path)
    commands.add_parser('child').add_argument('case')
    given = parser.parse_args()
    if given.command == 'compile':
        compile_all(given.out, [int(n) for n in given.chips.split(',')], given.only, given.level)
    elif given.command == 'child':
        print(json.dumps(compiled(*json.loads(given.case))))
    else:
        print(tables(json.loads(given.file.read_text())))


if __name__ == '__main__':
    main()
