"""Meters on the plant's network that measure the supply of a device, read by the host."""

from host.meters.base import Meter, MeterError, MeterFacts, MeterUsageError, Quantity, Reading
from host.meters.catalogue import MissingPackageError, masked_options, meter_name, open_meter

__all__ = [
    "Meter",
    "MeterError",
    "MeterFacts",
    "MeterUsageError",
    "MissingPackageError",
    "Quantity",
    "Reading",
    "masked_options",
    "meter_name",
    "open_meter",
]
