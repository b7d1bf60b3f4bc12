"""What these programs say in one sentence instead of a traceback."""


class LegacyError(Exception):
    """Something that is needed is missing here, or a step did not work."""
