"""Standard output that may be closed by its reader, as by `| head`."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator

CLOSED = 141  # exit code: 128 + SIGPIPE, as of other commands in a pipe


def is_closed(error: BaseException) -> bool:
    """True if the error means that the reader of standard output has closed it.

    Then everything printed later is dropped, so that the interpreter's exit raises no second error.
    """
    if not isinstance(error, BrokenPipeError) or not hasattr(select, 'poll'):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # reports errors alone
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


@contextlib.contextmanager
def exit_if_closed() -> Iterator[None]:
    """Raises SystemExit(CLOSED) instead of BrokenPipeError if standard output is closed."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        if not is_closed(error):
            raise
        raise SystemExit(CLOSED) from None
