"""What can go wrong between a trained network and a bundle."""

from host.errors import GenbaError


class ExportError(GenbaError):
    """A model cannot be exported, loaded or packed."""
