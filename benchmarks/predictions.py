"""Tables of docs/scaling.md: facts of compiled programs, and step times predicted from them.

The times are not measured. All assumptions are constants of this file.
"""

from typing import NamedTuple

import abstract
import counts
from abstract import GENERATORS, METHODS


class Machine(NamedTuple):
    name: str
    flops: float  # per second, at the default precision of float32 products
    memory: float  # bytes
    memory_rate: float  # bytes per second
    near: int  # devices connected by the faster network
    ring_near: float  # bytes per second that a device sends in a ring of at most `near` devices
    ring_far: float  # in a larger ring


MACHINES = (
    # bfloat16 passes; a ring is one axis of the torus, 45 GB/s per link and direction, both used.
    Machine('TPU v5e', 197e12, 16e9, 819e9, 256, 90e9, 90e9),
    # TF32 without sparsity; NVLink in one direction; 8 x 400 Gbit/s per node for all of its rings.
    Machine('H100 SXM', 495e12, 80e9, 3.35e12, 8, 450e9, 400e9),
)
FRACTIONS = (0.4, 0.2)  # of the peak rate, in products and convolutions
# Memory traffic of a kept feature map, in units of its size: written, read by the next layer, read
# twice in the backward pass, its gradient written and read.
PASSES = 6
# Memory traffic of Adam, in units of the parameters: parameters, gradient and two moments read, all
# but the gradient written.
ADAM = 7


class Predicted(NamedTuple):
    computing: float  # seconds
    sending: float

    @property
    def apart(self) -> float:
        return self.computing + self.sending

    @property
    def overlapped(self) -> float:
        return max(self.computing, self.sending)


def predict(machine, facts, kept, sizes, microbatches, fraction) -> Predicted:
    """The time of one step. facts: of the program of one microbatch; kept: bytes, see abstract."""
    data, fsdp = sizes
    products = microbatches * facts['flops'] / (fraction * machine.flops)
    traffic = microbatches * PASSES * kept
    traffic += ADAM * facts['tuned'] * (microbatches if facts['each'] else 1)
    near = data * fsdp <= machine.near
    # fsdp is within the faster network. In a larger mesh its groups share the links between nodes,
    # each for a part of the gradients.
    rate = machine.ring_near if near else machine.ring_far
    if not near:
        rate /= fsdp
    ring = facts['ring']
    once = (ring.get('data', 0) + ring.get('data, fsdp', 0)) / rate
    each = microbatches * ring.get('fsdp', 0) / machine.ring_near
    return Predicted(max(products, traffic / machine.memory_rate), once + each)


def tables(facts_of: dict) -> str:
    """Markdown; facts_of: the content of scaling.json, {program: facts}."""
    kept = {
        (generator, method): abstract.kept_bytes(make(), abstract.settings(method))
        for generator, make in GENERATORS.items()
        for method in METHODS
    }
    programs = [(*_parsed(name), facts) for name, facts in facts_of.items()]
    parts = [_programs(programs, kept), _counts(programs), _identities(programs)]
    parts += [_predictions(programs, kept, machine) for machine in MACHINES]
    return '\n\n'.join(parts)


def _parsed(name):
    generator, method, sizes, identities, resident = name.split('; ')
    return generator, method, tuple(map(int, sizes.split(','))), int(identities), int(resident)


def _weak(programs):
    """The programs with one identity on each device, in the order of the tables."""
    rows = [p for p in programs if p[3] == p[2][0] * p[2][1] and p[4] == 0]
    order = list(GENERATORS), list(METHODS)
    return sorted(rows, key=lambda p: (order[0].index(p[0]), order[1].index(p[1]), p[2][::-1]))


def _table(columns, rows) -> str:
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def _mb(size) -> str:
    return f'{size / 1e6:.0f}' if size >= 1e6 else f'{size / 1e6:.4f}'


def _programs(programs, kept) -> str:
    rows, last = [], None
    for generator, method, sizes, _, _, facts in _weak(programs):
        sent = {kind: 0 for kind in ('all-reduce data', 'all-gather fsdp', 'reduce-scatter fsdp')}
        other = 0
        for kind, size in facts['collectives'].items():
            if kind in sent:
                sent[kind] = size
            else:
                other += size
        label = f'{generator}, {method}'
        rows.append(
            [
                label if label != last else '',
                f'{sizes[0]} x {sizes[1]}',
                f'{facts["flops"] / 1e9:.0f}',
                _mb(facts['arguments']),
                _mb(facts['temporary']),
                _mb(kept[generator, method]),
                *(_mb(size) if size else '0' for size in sent.values()),
                other,
            ]
        )
        last = label
    columns = ['', 'data x fsdp', 'GFLOP', 'arguments', 'temporary', 'at least']
    return _table([*columns, 'all-reduce', 'all-gather', 'reduce-scatter', 'other, bytes'], rows)


def _counts(programs) -> str:
    rows = []
    for generator, method, sizes, _, _, facts in _weak(programs):
        if sizes == (1, 1):
            by_hand = '' if generator.startswith('embedded') else _by_hand(method)
            rows.append(
                [
                    f'{generator}, {method}',
                    f'{facts["flops"] / 1e9:.1f}',
                    by_hand,
                    f'{facts["flops_xla"] / 1e9:.1f}',
                ]
            )
    return _table(['GFLOP', 'jaxpr', 'by hand', 'XLA, loops once'], rows)


def _by_hand(method) -> str:
    return f'{counts.config_f_step(1024, method == "shared, regularised") / 1e9:.1f}'


def _identities(programs) -> str:
    """config-f, shared, on one device; bytes of arguments from shapes, equal to XLA's count."""
    generator, mesh = GENERATORS['config-f, 1024²'](), abstract.one_device()
    temporary = {
        resident: facts['temporary']
        for name, method, sizes, _, resident, facts in programs
        if name.startswith('config-f') and method == 'shared' and sizes == (1, 1)
    }
    rows = []
    for identities in (8, 64, 512):
        row = [identities]
        for resident in (0, 1):
            settings = abstract.settings('shared', resident=resident)
            step = abstract.tuning_step(generator, settings, mesh, identities)
            arguments = abstract.argument_bytes(step)
            row += [_mb(arguments), f'{(arguments + temporary[resident]) / 1e9:.2f} GB']
        rows.append(row)
    on_device, from_host = (_mb(temporary[i]) for i in (0, 1))
    columns = ['identities', 'all on the device: arguments', f'and temporary, {on_device}']
    return _table([*columns, 'from the host: arguments', f'and temporary, {from_host}'], rows)


def _predictions(programs, kept, machine) -> str:
    rows, last, alone = [], None, {}
    for generator, method, sizes, _, _, facts in _weak(programs):
        label = f'{generator}, {method}'
        each = method == 'one each'
        tuned = facts['params'] / (sizes[0] * sizes[1] if each else sizes[1])
        facts = facts | {'each': each, 'tuned': tuned}
        cells = [label if label != last else '', f'{sizes[0]} x {sizes[1]}']
        last = label
        for microbatches in (1, 4):
            times = [
                predict(machine, facts, kept[generator, method], sizes, microbatches, fraction)
                for fraction in FRACTIONS
            ]
            first = alone.setdefault((label, microbatches), times[0])
            if microbatches == 1:
                cells += [' to '.join(f'{1e3 * x.computing:.1f}' for x in times)]
                cells += [f'{1e3 * times[0].sending:.2f}']
            cells += [f'{1e3 * times[0].apart:.1f}, {1e3 * times[0].overlapped:.1f}']
            apart, overlapped = first.apart / times[0].apart, first.apart / times[0].overlapped
            cells += [f'{apart:.0%}, {overlapped:.0%}']
        rows.append(cells)
    columns = ['data x fsdp', 'computing, ms', 'sending, ms', 'step, ms', 'efficiency']
    return _table([machine.name, *columns, '4 each: step, ms', 'efficiency'], rows)
