"""What the agent has to do beside a job, at moments at which it does not disturb it."""

from __future__ import annotations

from typing import Protocol


class Attention(Protocol):
    """Called from the thread that waits for a worker."""

    def alive(self) -> None:
        """About once a second while a job goes on; must return at once and use no network."""

    def between_blocks(self) -> None:
        """While the worker stands still between two timed blocks and waits for this to return."""


class Inattentive:
    """Has nothing else to do."""

    def alive(self) -> None:
        """Do nothing."""

    def between_blocks(self) -> None:
        """Do nothing."""
