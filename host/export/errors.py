"""What can go wrong between a trained network and a bundle."""

from host.errors import GenbaError

NO_CALIBRATION = "int8 needs calibration images: give it some of the training images"


class ExportError(GenbaError):
    """A model cannot be exported, loaded or packed."""


class ExportDiffersError(ExportError):
    """An exported file does not answer as the trained network does."""


class NoGainError(ExportError):
    """An int8 form that is not worth having: no smaller, or its answers are too bad."""


def first_line(error: Exception) -> str:
    """What an error of another library says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def no_smaller(before_bytes: int, after_bytes: int) -> NoGainError:
    """Weights that int8 does not shrink."""
    return NoGainError(
        f"int8 made the weights no smaller ({before_bytes} to {after_bytes} bytes): ship the fp32"
        " model"
    )
