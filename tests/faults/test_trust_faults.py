"""Callers that are not, or no longer, who they should be."""

import base64
import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from device_agent.enrol import enrol, parse_token
from device_agent.errors import HostAwayError, HostRefusedError, WrongHostError
from device_agent.identity import make_key_pair
from device_agent.state import Home
from device_agent.system import read_facts
from host.measurement import MeasurementFailure
from host.pki import CertificateAuthority, Token
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc
from tests.faults.plant import HOST, Credentials, Simulated, csr_pem, free_ports, wait_until

REFUSED_SECONDS = 5.0


def new_name(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def refused(call):
    """The status and the sentence with which the gateway refuses."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


def serves(plant):
    """The gateway still does its work for others."""
    with plant.simulated(new_name("honest")) as (agent,):
        (job,) = plant.ask(agent.device)
        assert agent.report(agent.claim())
        plant.measured([job])


def knock(plant, credentials):
    """Say hello with these credentials."""
    request = pb.HelloRequest(protocol_min=2, protocol_max=3, session_id=uuid.uuid4().hex)
    with credentials.channel(plant.port) as channel:
        stub = pb_grpc.FleetStub(channel)
        return refused(lambda: stub.Hello(request, timeout=REFUSED_SECONDS))


def self_signed(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "panel")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Credentials(key, pem, authority.certificate_pem)


def test_a_certificate_of_another_authority_is_refused(plant):
    stranger = Credentials.make(CertificateAuthority.make(), "panel", trusted=plant.authority)

    code, _ = knock(plant, stranger)

    assert code is grpc.StatusCode.UNAVAILABLE  # the handshake itself
    serves(plant)


def test_a_certificate_that_signs_itself_is_refused(plant):
    code, _ = knock(plant, self_signed(plant.authority))

    assert code is grpc.StatusCode.UNAVAILABLE
    serves(plant)


def test_the_right_certificate_without_its_key_is_refused(plant):
    _, credentials = plant.device(new_name("copied"))
    other = ec.generate_private_key(ec.SECP256R1())

    code, _ = knock(plant, replace(credentials, key=other))

    assert code is grpc.StatusCode.UNAVAILABLE
    serves(plant)


def test_a_certificate_of_ours_whose_key_is_not_on_the_list_is_refused(plant):
    code, sentence = knock(plant, Credentials.make(plant.authority, "panel"))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "enrol" in sentence
    serves(plant)


@pytest.mark.parametrize("how", ["remove", "revoke"])
def test_a_device_that_is_shut_out_while_it_measures_is_cut_off_and_stops(plant, panel, how):
    name = new_name("lost")
    lost = plant.panel(name)
    lost.start()
    (job,) = plant.ask(lost.device, hold_seconds=20.0)
    wait_until(lost.workers, "the worker")

    getattr(plant.store.devices, how)(name)

    wait_until(lambda: not lost.workers(), "the end of the worker", 10.0)
    assert plant.store.jobs.get(job.id).state == "cancelled"
    wait_until(lambda: lost.said("the host refuses this device"), "the reason", 10.0)
    assert lost.measured() == 0
    lost.stop()
    del plant.panels[name]
    plant.measured(plant.ask(panel.device))


def test_a_device_that_was_revoked_and_enrols_again_keeps_its_history(plant):
    name = new_name("back")
    with plant.simulated(name) as (before,):
        (job,) = plant.ask(before.device)
        lease = before.claim()
        before.report(lease)
        plant.store.devices.revoke(name)

        code, _ = refused(before.claim)
        device, credentials = plant.device(name)
        again = Simulated(device, credentials, plant.port)
        again.hello()
        replayed = again.report(lease)
        again.close()

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert device.id == before.device.id
    assert not replayed
    plant.measured([job])


def token(plant, name, *, seconds=3600.0):
    made = Token.make(HOST, plant.enrolment_port, plant.authority.fingerprint)
    expires_at = plant.store.now() + timedelta(seconds=seconds)
    plant.store.devices.add_token(name, made.secret_sha256, expires_at)
    return made


def enrol_with(text, folder):
    facts = read_facts(runtimes=(), power_sources=())
    return enrol(Home(folder), parse_token(str(text)), facts, make_key_pair=make_key_pair)


def enrol_raw(plant, made):
    """As whoever found the token would, without the product."""
    credentials = grpc.ssl_channel_credentials(plant.authority.certificate_pem)
    options = [("grpc.ssl_target_name_override", "genba-host"), ("grpc.enable_http_proxy", 0)]
    address = f"{HOST}:{plant.enrolment_port}"
    with grpc.secure_channel(address, credentials, options) as channel:
        return pb_grpc.EnrolmentStub(channel).Enroll(
            pb.EnrollRequest(
                token_secret=made.secret,
                csr_pem=csr_pem(ec.generate_private_key(ec.SECP256R1())),
                facts=pb.DeviceFacts(hostname="x", cpu_cores_logical=1, pointer_bits=64),
            ),
            timeout=REFUSED_SECONDS,
        )


def test_an_expired_token_enrols_nobody(plant, tmp_path):
    made = token(plant, new_name("late"), seconds=-1.0)

    with pytest.raises(HostRefusedError, match="expired"):
        enrol_with(made, tmp_path / "agent")

    assert not Home(tmp_path / "agent").is_enrolled()


def test_a_token_presented_again_is_refused_and_noted_and_the_device_keeps_its_place(
    plant, tmp_path
):
    name = new_name("first")
    made = token(plant, name)
    enrol_with(made, tmp_path / "agent")
    device = plant.store.devices.by_name(name)

    code, sentence = refused(lambda: enrol_raw(plant, made))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "used already" in sentence
    assert plant.store.devices.by_name(name).spki_sha256 == device.spki_sha256
    noted = [entry for entry in plant.store.audit.entries() if entry.action == "refuse"]
    assert any(entry.subject == name for entry in noted)


def test_a_token_of_another_host_is_refused_before_its_secret_is_told(plant, tmp_path):
    name = new_name("astray")
    made = token(plant, name)
    # The fingerprint is that of another host; ours listens where the token points to.
    fingerprint = CertificateAuthority.make().fingerprint
    foreign = replace(made, ca_fingerprint=fingerprint)

    with pytest.raises(WrongHostError):
        enrol_with(foreign, tmp_path / "agent")

    # Nobody has used it: it is still good.
    assert enrol_with(made, tmp_path / "other").device_name == name


def test_a_token_is_not_used_up_where_nobody_answers(plant, tmp_path):
    name = new_name("early")
    made = token(plant, name)
    (closed,) = free_ports(1)

    with pytest.raises(HostAwayError):
        enrol_with(replace(made, enrolment_port=closed), tmp_path / "agent")

    assert enrol_with(made, tmp_path / "agent").device_name == name


def test_a_token_with_a_guessed_secret_enrols_nobody(plant):
    guessed = replace(
        token(plant, new_name("safe")), secret=base64.urlsafe_b64encode(bytes(16)).decode()
    )

    code, _ = refused(lambda: enrol_raw(plant, guessed))

    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_a_report_that_is_replayed_changes_nothing(plant):
    with plant.simulated(new_name("twice")) as (agent,):
        (job,) = plant.ask(agent.device)
        lease = agent.claim()
        kept = [agent.report(lease) for _ in range(5)]
        plant.measured([job])

    assert kept == [True, False, False, False, False]


def test_a_report_of_a_lost_attempt_and_one_of_the_next_count_once(plant):
    with plant.simulated(new_name("anew")) as (agent,):
        (job,) = plant.ask(agent.device)
        first = agent.claim()
        agent.session_id = uuid.uuid4().hex
        agent.hello()
        second = agent.claim()
        kept = [agent.report(second), agent.report(first)]
        plant.measured([job])

    assert (first.attempt, second.attempt) == (1, 2)
    assert kept == [True, False]


def test_nobody_reads_reports_or_renews_what_was_lent_to_another_device(plant):
    with plant.simulated(new_name("owner"), new_name("thief")) as (owner, thief):
        (job,) = plant.ask(owner.device)
        lease = owner.claim()

        read, _ = refused(
            lambda: list(
                thief.stub.ReadBlob(
                    pb.BlobRequest(sha256=lease.measure.run.model_sha256), timeout=REFUSED_SECONDS
                )
            )
        )
        told, _ = refused(lambda: thief.report(lease))
        thief.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id), timeout=REFUSED_SECONDS)

        assert read is grpc.StatusCode.PERMISSION_DENIED
        assert told is grpc.StatusCode.NOT_FOUND
        assert owner.report(lease)
        plant.measured([job])


def test_two_agents_with_the_same_identity_cost_time_and_no_measurement(plant):
    name = new_name("twin")
    first = plant.panel(name)
    twin_home = first.home.path.with_name(f"{name}-copy")
    shutil.copytree(first.home.path, twin_home)
    twin = plant.equip_copy(first, twin_home)
    jobs = plant.ask(first.device, 6, hold_seconds=0.2)

    first.start()
    twin.start()
    outcomes = plant.wait_for(jobs)
    twin.stop()

    # Whoever was interrupted three times by the other one has said nothing of the model.
    failed = [o for o in outcomes if isinstance(o, MeasurementFailure)]
    assert all("times while running" in failure.message for failure in failed)
    for job in jobs:
        plant.store.jobs.submit(job.device_id, job.spec)
    plant.measured(jobs)
    assert first.said("another session") + twin.said("another session") > 0
    first.stop()
    # What the twin could not hand over before it was stopped, it hands over when it is back.
    twin.start()
    wait_until(lambda: twin.letters() == 0, "the twin's outcomes")
    twin.stop()
    del plant.panels[name]
