"""What can go wrong on the host, as one family: one clear sentence each, and an exit code."""


class GenbaError(Exception):
    """Something that a person must know; its text is one sentence that says what to do."""

    exit_code = 1


class UsageError(GenbaError):
    """The command, the configuration or the input named in it is wrong."""

    exit_code = 2
