"""Which devices of a study are there: who is waited for, and who is given up."""

import time
from collections.abc import Callable, Iterator, Sequence

from host.device import Device
from host.errors import GenbaError
from host.job import Job
from host.measurement import Outcome
from host.store.store import Store
from host.store.wait import Waiting, wait_for_outcomes
from host.study.report import Reporter

OFFLINE_GRACE_SECONDS = 3.0


class LostDeviceError(GenbaError):
    """Devices have stayed away for longer than a study waits."""

    def __init__(self, devices: Sequence[Device], seconds: float) -> None:
        names = ", ".join(device.name for device in devices)
        super().__init__(
            f"{names} has been offline for {seconds / 60:.0f} minutes, longer than the study waits"
        )
        self.devices = tuple(devices)


class Attendance:
    """Waits for outcomes, says once who is away, and gives up who stays away too long.

    What was asked of a device that is given up is withdrawn; `lost` holds it by its id.
    """

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost: dict[str, Device] = {}
        self._store = store
        self._reporter = reporter
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._since: dict[str, float] = {}
        self._said = ""
        self._refusals: dict[str, str] = {}

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Each job with its outcome as the outcomes come; none of a device that is lost."""
        left = {job.id: job for job in jobs}
        while self._without_lost(left):
            try:
                waiting = wait_for_outcomes(self._store, list(left.values()), on_wait=self.say)
                for job, outcome in waiting:
                    del left[job.id]
                    yield job, outcome
            except LostDeviceError as error:
                self.give_up(error)

    def give_up(self, error: LostDeviceError) -> None:
        """Go on without devices, and say so."""
        self.lost |= {device.id: device for device in error.devices}
        self._reporter.say(
            f"{error}: it goes on with what is known of them. When they are back, the same command "
            "measures what is missing"
        )

    def say(self, waiting: Waiting) -> None:
        """Say who is offline, and who is not ready and why; each thing once.

        Raises LostDeviceError for those who stay away too long.
        """
        for job_id, why in waiting.not_ready.items():
            if self._refusals.get(job_id) != why:
                self._refusals[job_id] = why
                self._reporter.say(f"a device is not ready, {why}; it is asked again")
        now = self._clock()
        away = {device.id: device for device in waiting.offline}
        self._since = {name: self._since.get(name, now) for name in away}
        if not away:
            if self._said:
                self._reporter.say("all devices are online again")
            self._said = ""
            return
        self._say_away(list(away.values()), now - min(self._since.values()))
        gone = [d for key, d in away.items() if now - self._since[key] >= self._patience_seconds]
        if gone:
            raise LostDeviceError(gone, self._patience_seconds)

    def _say_away(self, devices: Sequence[Device], seconds: float) -> None:
        names = ", ".join(device.name for device in devices)
        # A device that was told to come back a moment ago is not worth a message.
        if names != self._said and seconds >= OFFLINE_GRACE_SECONDS:
            self._said = names
            self._reporter.say(
                f"waiting for {names}: offline. Start `genba-agent run` there, or stop with "
                "Ctrl-C; nothing is lost, and the same command goes on from here"
            )

    def _without_lost(self, left: dict[str, Job]) -> bool:
        """Withdraw what lost devices were asked; whether anything is left."""
        gone = [job.id for job in left.values() if job.device_id in self.lost]
        if gone:
            self._store.jobs.cancel(gone)
        for job_id in gone:
            del left[job_id]
        return bool(left)
