r"""Communication, memory and FLOPs of tuning on many devices, from compiled programs.

    python benchmarks/scaling.py compile --out=docs/scaling.json [--devices=1,8] [--only=TEXT]
    python benchmarks/scaling.py tables docs/scaling.json

compile starts one process for each number of virtual CPU devices and skips programs that are in
OUT. Each program is one microbatch with one identity on each device. It is not run, so its machine
code is not optimised, which would take most of the time; XLA's passes on the HLO are the usual
ones. tables prints the tables of docs/scaling.md.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import time

import abstract
import collectives
import counts
import jax
import numpy as np
import predictions
from jax.sharding import Mesh

# Machine code is not optimised; the scheduler is that of real steps.
OPTIONS = {
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
    'xla_cpu_enable_concurrency_optimized_scheduler': False,
}


def cases(devices: int):
    """Programs to compile: (generator, method, (data, fsdp), identities, tune.resident)."""
    for generator in abstract.GENERATORS:
        for method in abstract.METHODS:
            yield generator, method, (devices, 1), devices, 0
        if devices > 1:
            yield generator, 'shared, regularised', (devices // 4, 4), devices, 0
    if devices == 1:
        yield 'config-f, 1024²', 'shared', (1, 1), 512, 1


def compiled(generator, method, sizes, identities, resident) -> dict:
    """FLOPs, bytes of memory and bytes of communication of one program."""
    devices = np.array(jax.devices()[: sizes[0] * sizes[1]]).reshape(sizes)
    mesh = Mesh(devices, ('data', 'fsdp'))
    settings = abstract.settings(method, resident=resident)
    start = time.perf_counter()
    step = abstract.tuning_step(abstract.GENERATORS[generator](), settings, mesh, identities)
    program = step.compile(**OPTIONS)
    memory = program.memory_analysis()
    sent, by_ring = collections.Counter(), collections.Counter()
    for message in collectives.read(program.as_text()):
        axis = collectives.axis(message, mesh.shape)
        sent[f'{message.kind} {axis}'] += message.bytes
        by_ring[axis] += message.sent(mesh.size)
    return {
        'params': sum(4 * int(np.prod(x.shape)) for x in jax.tree.leaves(step.params)),
        'flops': counts.of_function(step.function, step.arguments),
        'flops_xla': program.cost_analysis()['flops'],
        'arguments': memory.argument_size_in_bytes,
        'outputs': memory.output_size_in_bytes,
        'in_place': memory.alias_size_in_bytes,
        'temporary': memory.temp_size_in_bytes,
        'collectives': dict(sent),
        'ring': dict(by_ring),
        'seconds': round(time.perf_counter() - start, 1),
    }


def name(generator, method, sizes, identities, resident) -> str:
    return f'{generator}; {method}; {sizes[0]},{sizes[1]}; {identities}; {resident}'


def compile_all(out: pathlib.Path, devices, only: str) -> None:
    facts = json.loads(out.read_text()) if out.exists() else {}
    for count in devices:
        wanted = [case for case in cases(count) if only in name(*case) and name(*case) not in facts]
        if not wanted:
            continue
        environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(count)}
        command = [sys.executable, __file__, 'child', json.dumps(wanted)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                facts |= json.loads(line)
                out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + '\n')
                print(line[:70], flush=True)
        if child.returncode:
            sys.exit(child.returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('compile')
    command.add_argument('--out', type=pathlib.Path, required=True)
    command.add_argument('--devices', default='1,8,64,256')
    command.add_argument('--only', default='', help='only programs whose name contains this text')
    commands.add_parser('tables').add_argument('file', type=pathlib.Path)
    commands.add_parser('child').add_argument('cases')
    given = parser.parse_args()
    if given.command == 'compile':
        compile_all(given.out, [int(n) for n in given.devices.split(',')], given.only)
    elif given.command == 'child':
        for case in json.loads(given.cases):
            case[2] = tuple(case[2])
            print(json.dumps({name(*case): compiled(*case)}), flush=True)
    else:
        print(predictions.tables(json.loads(given.file.read_text())))


if __name__ == '__main__':
    main()
