"""Recognises errors of JAX which mean that another process of the run has ended.

A collective fails in its transport (Gloo on CPUs, NCCL on GPUs), a barrier in JAX's coordination
service. Other errors with similar words, such as Python's ConnectionError, do not count.
"""

import re

_TRANSPORT = re.compile(
    r'[A-Z_]+: ('
    r'Gloo [\w-]+ failed: '
    r'|NCCL operation [^\n]{1,300} failed: (remote process exited|unhandled system error)'
    r')'
)
_SERVICE = re.compile(
    r'CoordinationServiceError|RPC: /\w+\.(coordination\.)?CoordinationService/'
    r'|unhealthy \(stopped sending heartbeats\)'
)


def is_peer_error(error: BaseException | None) -> bool:
    """True if the error, or one that caused it, is JAX's error for a process that is gone."""
    import jax

    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError):
            if _TRANSPORT.match(text) or _SERVICE.search(text):
                return True
        elif type(error) is ValueError and _TRANSPORT.match(text):  # of eager collectives
            return True
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return False
