"""The errors a user can cause and mend."""

from jaxinv.text import printable

MAX_MESSAGE = 2000  # characters


class JaxinvError(ValueError):
    """The message is one sentence for the user: the value, what was allowed, what to do.

    The launcher prints it without a traceback. It may hold names from files: control characters
    and bytes that are not UTF-8 are replaced (jaxinv.text).
    """

    def __init__(self, message: object = ''):
        super().__init__(printable(message, MAX_MESSAGE))
