"""Calibrating the cost models of a device, and what is kept of it."""
