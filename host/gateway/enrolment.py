"""The service that devices meet first; anybody on the network may call it."""

import logging

from host.gateway.gate import Bounds, Gate
from host.gateway.ledger import Ledger
from host.gateway.messages import facts_from_pb
from host.gateway.refusals import Context, address_of, unary
from host.pki import CertificateAuthority, hash_secret, read_csr, spki_sha256
from host.store import Store
from protos import genba_agent_pb2 as pb

_BOUNDS = Bounds(inside=4, waiting=200, waiting_bytes=16 * 1024 * 1024, of_one=204)
_log = logging.getLogger("genba.gateway")


class EnrolmentServicer:
    """First contact: a token for a certificate."""

    def __init__(
        self, store: Store, ledger: Ledger, authority: CertificateAuthority, gateway_port: int
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._authority = authority
        self._gateway_port = gateway_port
        self._gate = Gate("enrolments", _BOUNDS)

    @unary
    async def Enroll(  # noqa: N802 - named by the protocol
        self, request: pb.EnrollRequest, context: Context
    ) -> pb.EnrollReply:
        peer = address_of(context)
        async with self._gate.pass_through("", request.ByteSize()):
            csr = await self._ledger.calculate(read_csr, request.csr_pem)
            facts = facts_from_pb(request.facts)
            device = await self._ledger.write(
                self._store.devices.enrol,
                hash_secret(request.token_secret),
                spki_sha256(csr),
                facts,
                peer=peer,
            )
            certificate = await self._ledger.calculate(
                self._authority.sign_device, csr, device.name
            )
        _log.info("%s enrolled from %s", device.name, peer)
        return pb.EnrollReply(
            device_id=device.id,
            device_name=device.name,
            certificate_pem=certificate,
            ca_pem=self._authority.certificate_pem,
            gateway_port=self._gateway_port,
        )
