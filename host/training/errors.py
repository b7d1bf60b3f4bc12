"""What stops a training."""

from host.errors import GenbaError


class TrainingError(GenbaError):
    """A training cannot go on."""


class DivergedError(TrainingError):
    """The loss is not finite: this network does not train with these settings."""
