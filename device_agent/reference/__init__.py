"""Models that come with the agent: one to compare devices and days by, one that costs nothing.

`device_agent.reference.generate` writes the files; nothing else imports it.
"""

from __future__ import annotations

from pathlib import Path

REFERENCE_FOLDER = Path(__file__).parent
"""Holds reference.onnx, reference.tflite, reference.ncnn, tiny.onnx, tiny.tflite and tiny.ncnn."""

TINY_INPUT, TINY_OUTPUT = [[1.0, 1.0]], [[4.0, 6.0]]
"""What the tiny models make of input "x": the product with [[1, 2], [3, 4]]."""
