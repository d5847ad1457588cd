"""The errors a user can cause and mend."""


class JaxinvError(Exception):
    """Its message is one sentence: the value, what was allowed, what to do. Shown without traceback."""
