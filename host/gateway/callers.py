"""Which device calls: the one whose key the connection has proved."""

from collections.abc import Awaitable, Callable, Mapping

from host.device import Device
from host.gateway.refusals import Context, NotEnrolledError
from host.pki import spki_sha256_of_pem
from host.store import Caller

FRESH_SECONDS = 2.0
"""For how long the list of callers in memory holds after it was last compared with the store."""


class Callers:
    """The devices that have called lately, in memory, so that the store is not asked at every call.

    Where the list was not compared with the store for a while, the store is asked after all.
    """

    def __init__(
        self,
        look_up: Callable[[str], Awaitable[Device | None]],
        monotonic_seconds: Callable[[], float],
    ) -> None:
        """`look_up` finds the device of a key's hash in the store, if it may connect."""
        self._look_up = look_up
        self._now = monotonic_seconds
        self._known: dict[bytes, Device] = {}
        self._fresh_until = self._now()

    async def device(self, context: Context) -> Device:
        """The device that makes a call. Raises NotEnrolledError."""
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if pem is None:
            raise NotEnrolledError("the connection has no client certificate: enrol this device")
        known = self._known.get(pem)
        if known is not None and self._now() < self._fresh_until:
            return known
        device = await self._look_up(spki_sha256_of_pem(bytes(pem)))
        if device is None:
            self._known.pop(pem, None)
            raise NotEnrolledError(
                "this device is not enrolled here, or was revoked or removed: enrol it with a new"
                " token from `genba device enroll NAME`"
            )
        self._known[pem] = device
        return device

    def compare(self, callers: Mapping[str, Caller], read_at: float) -> None:
        """Forget whoever is not on the list that the store gave when the clock showed `read_at`."""
        self._known = {
            pem: device
            for pem, device in self._known.items()
            if device.id in callers and callers[device.id].spki_sha256 == device.spki_sha256
        }
        self._fresh_until = read_at + FRESH_SECONDS
