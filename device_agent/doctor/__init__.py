"""What is missing on this device for good figures, and the command that mends each."""

from __future__ import annotations

from device_agent.doctor import agent, board, cpu, memory, runtimes
from device_agent.doctor.checkup import Check, Patient, State
from device_agent.errors import AgentError
from device_agent.sensors.base import PowerSettings
from device_agent.state import Home

__all__ = ["Check", "Patient", "State", "examine", "usable_settings"]


def examine(patient: Patient) -> tuple[Check, ...]:
    """Look at everything. What this device does not tell is said in its check."""
    looks = (*agent.LOOKS, *runtimes.LOOKS, *cpu.LOOKS, *memory.LOOKS, *board.LOOKS)
    return tuple(check for look in looks for check in look(patient))


def usable_settings(home: Home) -> PowerSettings | None:
    """What config.json says about sensors; None where it is damaged, which a check says."""
    try:
        return home.power_settings()
    except AgentError:
        return None
