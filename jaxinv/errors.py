"""The errors a user can cause and mend."""


class JaxinvError(ValueError):
    """The message is one sentence for the user: the value, what was allowed, what to do.

    The launcher prints it without a traceback.
    """
