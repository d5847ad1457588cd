"""Only JAX's own errors about another process count as a lost peer."""

import jax
import pytest

from jaxinv.runtime import distributed, peer_errors

# As raised by jax 0.10 after another process was killed.
GLOO = (
    'UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection '
    'closed by peer [127.0.0.1]:2960'
)
EAGER = GLOO.replace('all-reduce', 'AllGather')
BARRIER = (
    'DEADLINE_EXCEEDED: Barrier timed out. Id: x::0. ...\n\nRPC: '
    '/xla.coordination.CoordinationService/Barrier '
    "[type.googleapis.com/tensorflow.CoordinationServiceError='']"
)
HEARTBEAT = (
    'UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\nThe tasks '
    'have crashed.'
)
NCCL = (
    'INTERNAL: NCCL operation ncclAllReduce(send, receive, count) failed: remote process exited or '
    'there was a network error'
)


def caused_by(error):
    outer = RuntimeError('The checkpoint was not written.')
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    'error',
    [
        jax.errors.JaxRuntimeError(GLOO),
        ValueError(EAGER),
        jax.errors.JaxRuntimeError(BARRIER),
        jax.errors.JaxRuntimeError(HEARTBEAT),
        jax.errors.JaxRuntimeError(NCCL),
        caused_by(jax.errors.JaxRuntimeError(GLOO)),
    ],
)
def test_errors_of_lost_peers(error):
    assert peer_errors.is_peer_error(error)


@pytest.mark.parametrize(
    'error',
    [
        ConnectionError('Connection reset by peer'),
        ConnectionResetError(104, 'Connection reset by peer'),
        BrokenPipeError(32, 'Broken pipe'),
        OSError('gloo: connection closed by peer'),
        RuntimeError(GLOO),  # not JAX's type
        ValueError('the peer images are unavailable; a connection was expected'),
        ValueError(f'could not evaluate: {EAGER}'),
        jax.errors.JaxRuntimeError('UNAVAILABLE: TPU initialization failed: connection refused'),
        jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate'),
        caused_by(ConnectionError('peer')),
    ],
)
def test_other_errors_keep_their_traceback(error):
    assert not peer_errors.is_peer_error(error)


def test_an_error_that_hides_a_lost_peer_is_its_own():
    try:
        try:
            raise jax.errors.JaxRuntimeError(GLOO)
        except jax.errors.JaxRuntimeError:
            raise ValueError('bad value') from None
    except ValueError as error:
        assert not peer_errors.is_peer_error(error)


def test_the_coordination_service_decides(monkeypatch):
    """Processes that all have the error and all answer are alive."""
    error = jax.errors.JaxRuntimeError(GLOO)
    assert not distributed.lost_peer(error)  # one process has no peers
    monkeypatch.setattr(distributed, 'is_multiprocess', lambda: True)
    barriers = []
    monkeypatch.setattr(distributed, '_barrier', lambda key, timeout: barriers.append(key))
    assert not distributed.lost_peer(error) and len(barriers) == 1
    assert not distributed.lost_peer(ConnectionError('peer')) and len(barriers) == 1

    def unreachable(key, timeout):
        raise jax.errors.JaxRuntimeError(BARRIER)

    monkeypatch.setattr(distributed, '_barrier', unreachable)
    assert distributed.lost_peer(error)
