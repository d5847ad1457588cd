"""One run by several processes on this machine.

  python launch/local.py --processes=2 --devices=4 -- --config=pti_multi_id
  python launch/local.py --processes=8 --devices=1 --kind=gpu -- --config=pti_multi_id

Each line of output begins with the index of its process. Ctrl-C and SIGTERM are sent to all
processes; the third signal kills them. When a process fails, the others get SIGTERM and, after
--grace seconds, SIGKILL. The exit code is that of the first process that failed, else 0.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import common
import xla_flags

NAME = 'local.py'


def make_parser():
    parser = common.parser(__doc__)
    parser.add_argument('--processes', type=common.positive, default=1)
    parser.add_argument(
        '--devices',
        type=common.positive,
        default=1,
        help='of each process: virtual CPU devices, or GPUs that no other process uses',
    )
    parser.add_argument('--kind', choices=('cpu', 'gpu'), default='cpu')
    parser.add_argument(
        '--port', type=common.positive, help='of the coordinator; default: a free one'
    )
    parser.add_argument(
        '--grace', type=float, default=30, help='seconds between SIGTERM and SIGKILL'
    )
    xla_flags.add_option(parser)
    return parser


def main(argv) -> int:
    options, rest = common.parse(make_parser(), argv)
    plans = plan(options, rest)
    if options.dry_run:
        print('\n'.join(common.shell(command, environment) for environment, command in plans))
        return 0
    return run(plans, options.grace)


def plan(options, rest) -> list[tuple[dict[str, str], list[str]]]:
    """(variables to set, command) of each process."""
    plans = []
    port = options.port or free_port()
    for i in range(options.processes):
        flags = xla_flags.text(options.xla_flags, os.environ.get('XLA_FLAGS', ''))
        if options.kind == 'cpu':
            virtual = f'--xla_force_host_platform_device_count={options.devices}'
            environment = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': f'{flags} {virtual}'.strip()}
        else:
            own = range(i * options.devices, (i + 1) * options.devices)
            environment = {'CUDA_VISIBLE_DEVICES': ','.join(map(str, own))}
            environment |= {'XLA_FLAGS': flags} if flags else {}
        command = [sys.executable, '-m', 'jaxinv.launch', *rest]
        if options.processes > 1:
            command += [f'--coordinator=127.0.0.1:{port}']
            command += [f'--num_processes={options.processes}', f'--process_id={i}']
        plans.append((environment, command))
    return plans


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def run(plans, grace: float) -> int:
    """Runs the processes until all have ended; returns the exit code."""
    children, readers, signals = [], [], []

    def forward(number, frame):
        signals.append(number)
        stop(children, signal.SIGKILL if len(signals) > 2 else number)

    # Before the first child starts, so that a signal between two starts reaches all children.
    earlier = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for i, (environment, command) in enumerate(plans):
            if signals:
                break
            # A new session: else the terminal's Ctrl-C would reach the child twice.
            child = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
                errors='replace',
            )
            children.append(child)
            reader = threading.Thread(target=copy_lines, args=(child.stdout, i), daemon=True)
            reader.start()
            readers.append(reader)
        return wait(children, signals, grace)
    finally:
        stop(children, signal.SIGKILL)
        for reader in readers:
            reader.join(timeout=5)
        for number, handler in earlier.items():
            signal.signal(number, handler)


def wait(children, signals, grace) -> int:
    failed, deadline = 0, None
    while any(child.poll() is None for child in children):
        if not failed:
            failed = first_failure(children)
            if failed:
                deadline = time.monotonic() + grace
                if not signals:
                    stop(children, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            common.log(NAME, f'killed the processes that ran {grace:g} s after the failure.')
            stop(children, signal.SIGKILL)
            deadline = float('inf')
        time.sleep(0.05)
    # Without children a signal came before the first start.
    return failed or first_failure(children) or (128 + signals[0] if not children else 0)


def first_failure(children) -> int:
    for i, child in enumerate(children):
        if child.poll():
            code = common.exit_code(child.returncode)
            common.log(NAME, f'process {i} ended with exit code {code}.')
            return code
    return 0


def stop(children, number) -> None:
    for child in children:
        if child.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(child.pid, number)  # with its own children
            else:
                child.send_signal(number)


def copy_lines(stream, i) -> None:
    """Prints the lines of process i until it closes the stream."""
    with stream:
        for line in stream:
            # One write for each line, so that lines of two processes do not mix.
            sys.stdout.write(f'[{i}] {line.rstrip()}\n')
            sys.stdout.flush()


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
