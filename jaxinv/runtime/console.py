"""Standard output and error: any text can be printed, and a reader that goes away ends nothing."""

import contextlib
import os
import sys
from collections.abc import Iterator

from jaxinv.text import printable


def protect() -> None:
    """Makes standard output and error replace characters that their encoding does not have.

    A terminal in ASCII, or a log in another locale, then shows '\\u2026' where others show an
    ellipsis.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, 'reconfigure', None)  # not of notebooks and captured streams
        if reconfigure is not None:
            with contextlib.suppress(ValueError, OSError):
                reconfigure(errors='backslashreplace')


def say(text: object = '', flush: bool = False) -> None:
    """Prints a line on standard output: print for a log with words from files.

    Control characters are replaced. If the reader of the output has gone away, as in `| head`, this
    and all later lines are dropped.
    """
    _write(sys.stdout, text, flush)


def complain(text: object) -> None:
    """The same on standard error, at once."""
    _write(sys.stderr, text, True)


def _write(stream, text, flush):
    if stream is None:  # closed before the start
        return
    try:
        print(printable(text, lines=True), file=stream, flush=flush)
    except BrokenPipeError:
        _drop(stream)
    except UnicodeEncodeError:  # of a stream that cannot be reconfigured
        encoding = getattr(stream, 'encoding', None) or 'ascii'
        text = printable(text, lines=True).encode(encoding, 'backslashreplace').decode(encoding)
        print(text, file=stream, flush=flush)


def _drop(stream) -> None:
    """Sends what is still written to the stream nowhere: also the interpreter's last flush."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextlib.contextmanager
def without_reader() -> Iterator[None]:
    """Ends the block quietly where print meets a reader that has gone away, e.g. `--help | head`.

    For text that other packages print; a run uses `say`.
    """
    try:
        yield
    except BrokenPipeError:
        pass
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except (BrokenPipeError, ValueError):
                _drop(stream)
