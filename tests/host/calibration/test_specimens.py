"""Candidates that a device is calibrated with."""

import pytest

from cost_models.tflite_graph import kernels_from_tflite
from host.calibration.specimens import mobile_candidates
from host.network import tflite_model


def test_the_kernels_of_a_candidate_are_those_of_its_file_and_known_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (candidate,) = mobile_candidates(1, 3, "tflite")
    of_file = kernels_from_tflite(candidate.model_bytes())
    monkeypatch.delattr(tflite_model, "tflite_bytes")

    assert candidate.kernels == of_file
