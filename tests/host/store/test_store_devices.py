"""Enrolment, refusals, revocation and sessions, each with its entry in the audit log."""

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host.device import Device, DeviceFacts
from host.errors import GenbaError
from host.job import Lease
from host.store import (
    ExpiredTokenError,
    JobCancelledError,
    KeyInUseError,
    RevokedDeviceError,
    Store,
    UnknownDeviceError,
    UnknownTokenError,
    UsedTokenError,
    wait_for_outcomes,
)

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet

NUMBERS = itertools.count()
SECRET = hashlib.sha256(b"a secret").hexdigest()


def add_token(store: Store, name: str = "press", secret: str = SECRET) -> None:
    store.devices.add_token(name, secret, store.now() + timedelta(minutes=1))


def actions(store: Store) -> list[tuple[str, str, str]]:
    return [(entry.actor, entry.action, entry.subject) for entry in store.audit.entries()]


def claimed(store: Store, device: Device, session: str = "s") -> Lease:
    lease = store.jobs.claim(device.id, session, 60)
    assert lease is not None
    return lease


def together(count: int, do: Callable[[int], object]) -> list[GenbaError]:
    """Do it in that many threads at once; gives the errors."""
    start = threading.Barrier(count)
    errors: list[GenbaError] = []

    def one(number: int) -> None:
        start.wait()
        try:
            do(number)
        except GenbaError as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_a_token_and_its_use_are_noted(store: Store, device_facts: DeviceFacts) -> None:
    add_token(store)

    device = store.devices.enrol(SECRET, "key", device_facts, peer="10.0.0.7")

    token, enrolled = store.audit.entries()
    assert (token.action, token.subject, token.actor) == ("token", "press", store.audit._actor)
    assert (enrolled.action, enrolled.subject, enrolled.actor) == ("enrol", "press", "device press")
    assert enrolled.details == {
        "device_id": device.id,
        "key_sha256": "key",
        "peer": "10.0.0.7",
        "token": token.details["token"],
    }


def test_nobody_makes_a_token_of_the_log(store: Store, device_facts: DeviceFacts) -> None:
    add_token(store)
    store.devices.enrol(SECRET, "key", device_facts)
    with pytest.raises(UsedTokenError):
        store.devices.enrol(SECRET, "key 2", device_facts)

    said = " ".join(str(entry) for entry in store.audit.entries())

    assert "a secret" not in said
    assert SECRET not in said
    assert SECRET[:12] in said


def test_a_used_token_that_is_presented_again_is_shown(
    store: Store, device_facts: DeviceFacts, clock: "FakeClock"
) -> None:
    add_token(store, "line-3")
    store.devices.enrol(SECRET, "key", device_facts, peer="10.0.0.5")
    clock.advance(5)

    with pytest.raises(UsedTokenError):
        store.devices.enrol(SECRET, "other key", device_facts, peer="10.0.0.7")

    [refusal] = store.devices.refusals("line-3")
    assert (refusal.at, refusal.action, refusal.actor) == (clock(), "refuse", "10.0.0.7")
    assert refusal.details == {
        "reason": "used token",
        "peer": "10.0.0.7",
        "token": SECRET[:12],
    }
    assert store.devices.by_name("line-3").spki_sha256 == "key"


def test_expired_and_unknown_tokens_and_foreign_keys_are_noted(
    store: Store, fleet: "Fleet", device_facts: DeviceFacts, clock: "FakeClock"
) -> None:
    fleet.device("kiosk", spki_sha256="key")
    add_token(store)
    with pytest.raises(KeyInUseError):
        store.devices.enrol(SECRET, "key", device_facts)
    clock.advance(60)
    with pytest.raises(ExpiredTokenError):
        store.devices.enrol(SECRET, "key 2", device_facts)
    with pytest.raises(UnknownTokenError):
        store.devices.enrol("f" * 64, "key 2", device_facts, peer="10.0.0.9")

    reasons = [entry.details["reason"] for entry in store.devices.refusals("press")]
    [unknown] = store.devices.refusals("unknown")

    assert reasons == ["key in use", "expired token"]
    assert unknown.details == {"reason": "unknown token", "peer": "10.0.0.9", "token": "f" * 12}
    assert store.audit.verify().problem is None


def test_made_up_tokens_do_not_fill_the_log(
    store: Store, device_facts: DeviceFacts, clock: "FakeClock"
) -> None:
    for second in range(180):
        clock.advance(1)
        with pytest.raises(UnknownTokenError):
            store.devices.enrol(f"{second:064}", "key", device_facts, peer=f"10.0.0.{second}")

    assert len(store.devices.refusals("unknown")) == 3


def test_a_used_token_from_another_machine_is_noted_at_once(
    store: Store, device_facts: DeviceFacts
) -> None:
    add_token(store)
    store.devices.enrol(SECRET, "key", device_facts)

    for peer in ("10.0.0.7", "10.0.0.7", "10.0.0.8", "10.0.0.7"):
        with pytest.raises(UsedTokenError):
            store.devices.enrol(SECRET, "key 2", device_facts, peer=peer)

    assert [e.details["peer"] for e in store.devices.refusals("press")] == ["10.0.0.7", "10.0.0.8"]


def test_a_refused_key_leaves_the_token_as_it_was(
    store: Store, fleet: "Fleet", device_facts: DeviceFacts
) -> None:
    fleet.device("kiosk", spki_sha256="key")
    add_token(store)
    with pytest.raises(KeyInUseError):
        store.devices.enrol(SECRET, "key", device_facts)

    assert store.devices.enrol(SECRET, "key 2", device_facts).name == "press"


def test_a_token_used_by_many_at_once_enrols_one(store: Store, device_facts: DeviceFacts) -> None:
    add_token(store)

    errors = together(8, lambda n: store.devices.enrol(SECRET, f"key {n}", device_facts))

    assert [type(error) for error in errors] == [UsedTokenError] * 7
    assert [device.name for device in store.devices.all()] == ["press"]
    assert len(list(store.audit.entries(action="enrol"))) == 1


def test_tokens_for_one_name_used_at_once_make_one_device(
    store: Store, device_facts: DeviceFacts
) -> None:
    for number in range(8):
        add_token(store, secret=str(number))

    errors = together(8, lambda n: store.devices.enrol(str(n), f"key {n}", device_facts))

    [device] = store.devices.all()
    enrolments = list(store.audit.entries(action="enrol"))
    assert errors == []
    assert {entry.details["device_id"] for entry in enrolments} == {device.id}
    assert enrolments[-1].details["key_sha256"] == device.spki_sha256


def test_one_key_for_many_names_at_once_is_one_device(
    store: Store, device_facts: DeviceFacts
) -> None:
    for number in range(6):
        add_token(store, f"d{number}", str(number))

    errors = together(6, lambda n: store.devices.enrol(str(n), "key", device_facts))

    assert [type(error) for error in errors] == [KeyInUseError] * 5
    assert len(store.devices.all()) == 1


def test_a_revoked_device_stays_but_may_not_connect(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device("kiosk", spki_sha256="key")

    store.devices.revoke("kiosk", reason="stolen")

    assert store.devices.by_spki("key") is None
    assert store.devices.all() == [replace(device, revoked_at=clock())]
    assert store.devices.removed() == []
    *_, entry = store.audit.entries()
    assert (entry.action, entry.subject, entry.actor) == ("revoke", "kiosk", store.audit._actor)
    assert entry.details == {
        "how": "revoked",
        "key_sha256": "key",
        "cancelled_jobs": "0",
        "reason": "stolen",
    }


def test_revocation_cancels_what_the_device_has_not_finished(store: Store, fleet: "Fleet") -> None:
    device, other = fleet.device("kiosk"), fleet.device("press")
    jobs = [store.jobs.submit(device.id, fleet.spec(model)) for model in (b"1", b"2", b"3")]
    others = store.jobs.submit(other.id, fleet.spec(b"1"))
    lease = claimed(store, device)

    cancelled = store.devices.revoke("kiosk")

    assert cancelled == 3
    assert {store.jobs.get(job.id).state for job in jobs} == {"cancelled"}
    assert store.jobs.get(others.id).state == "queued"
    assert store.jobs.renew(device.id, lease.lease_id) is True
    assert store.jobs.leased_blobs(device.id) == set()
    with pytest.raises(UnknownDeviceError):
        store.jobs.claim(device.id, "s", 60)


def test_nothing_is_asked_of_a_revoked_device(store: Store, fleet: "Fleet") -> None:
    device = fleet.device("kiosk")
    store.devices.revoke("kiosk")

    with pytest.raises(RevokedDeviceError, match=r"kiosk was revoked.*genba device enroll kiosk"):
        store.jobs.submit(device.id, fleet.spec())


def test_a_revoked_device_opens_no_session(
    store: Store, fleet: "Fleet", device_facts: DeviceFacts
) -> None:
    device = fleet.device("kiosk")
    store.devices.revoke("kiosk")

    with pytest.raises(RevokedDeviceError):
        store.devices.open_session(device.id, "s", agent_version="1", facts=device_facts)

    assert store.devices.session_of(device.id) is None


def test_whoever_waits_for_a_revoked_device_is_told(store: Store, fleet: "Fleet") -> None:
    device = fleet.device("kiosk")
    job = store.jobs.submit(device.id, fleet.spec())
    store.devices.revoke("kiosk")

    with pytest.raises(JobCancelledError, match="kiosk was revoked while waiting"):
        list(wait_for_outcomes(store, [job]))


def test_revoking_twice_is_revoking_once(store: Store, fleet: "Fleet", clock: "FakeClock") -> None:
    fleet.device("kiosk")
    store.devices.revoke("kiosk")
    revoked_at = clock()
    clock.advance(9)

    assert store.devices.revoke("kiosk") == 0

    assert store.devices.by_name("kiosk").revoked_at == revoked_at
    assert len(list(store.audit.entries(action="revoke"))) == 1


def test_an_unknown_device_is_not_revoked(store: Store, fleet: "Fleet") -> None:
    fleet.device("press")

    for shut_out in (store.devices.revoke, store.devices.remove):
        with pytest.raises(UnknownDeviceError, match="'kiosk': enrolled are press"):
            shut_out("kiosk")


def test_revocation_voids_the_tokens_that_are_still_out(
    store: Store, fleet: "Fleet", device_facts: DeviceFacts
) -> None:
    fleet.device("kiosk")
    add_token(store, "kiosk", "for kiosk")
    add_token(store, "press", "for press")
    store.devices.revoke("kiosk")

    with pytest.raises(ExpiredTokenError):
        store.devices.enrol("for kiosk", "key", device_facts)
    assert store.devices.enrol("for press", "key", device_facts).name == "press"


def test_enrolling_again_after_revocation_keeps_the_history(
    store: Store, fleet: "Fleet", make_measurement: Callable[..., object]
) -> None:
    device = fleet.device("kiosk")
    store.jobs.submit(device.id, fleet.spec())
    lease = claimed(store, device)
    measurement = make_measurement(device.id, fleet.spec().run.model_sha256)
    store.jobs.report(device.id, lease.job.id, 1, "k", measurement)  # type: ignore[arg-type]
    store.devices.revoke("kiosk")

    again = fleet.device("kiosk", spki_sha256="new key")

    assert (again.id, again.revoked_at) == (device.id, None)
    assert store.devices.by_spki("new key") == again
    assert store.devices.by_spki(device.spki_sha256) is None
    assert len(store.measurements.of_device(device.id)) == 1
    assert store.jobs.submit(device.id, fleet.spec(b"another")).state == "queued"


def test_a_revoked_key_may_enrol_again_with_a_new_token(store: Store, fleet: "Fleet") -> None:
    device = fleet.device("kiosk", spki_sha256="key")
    store.devices.revoke("kiosk")

    assert fleet.device("kiosk", spki_sha256="key").id == device.id


def test_a_removal_is_noted_as_one(store: Store, fleet: "Fleet") -> None:
    device = fleet.device("kiosk")
    job = store.jobs.submit(device.id, fleet.spec())

    store.devices.remove("kiosk")

    [entry] = store.audit.entries(action="revoke")
    assert (entry.subject, entry.details["how"]) == ("kiosk", "removed")
    assert entry.details["cancelled_jobs"] == "1"
    assert store.jobs.get(job.id).state == "cancelled"


def test_a_revoked_device_may_be_removed(store: Store, fleet: "Fleet") -> None:
    fleet.device("kiosk")
    store.devices.revoke("kiosk")

    store.devices.remove("kiosk")

    assert store.devices.all() == []
    assert [e.details["how"] for e in store.audit.entries(action="revoke")] == [
        "revoked",
        "removed",
    ]


def test_a_new_session_is_remembered_with_what_the_agent_says(
    store: Store, fleet: "Fleet", device_facts: DeviceFacts, clock: "FakeClock"
) -> None:
    device = fleet.device()
    clock.advance(7)
    facts = replace(device_facts, kernel="6.12")

    ended = store.devices.open_session(device.id, "one", agent_version="2.0", facts=facts)

    seen = store.devices.by_name("kiosk")
    assert ended == 0
    assert store.devices.session_of(device.id) == "one"
    assert (seen.last_seen_at, seen.agent_version, seen.facts) == (clock(), "2.0", facts)


def test_a_new_session_gives_back_what_the_one_before_held(
    store: Store, fleet: "Fleet", device_facts: DeviceFacts
) -> None:
    device = fleet.device()
    store.devices.open_session(device.id, "one", agent_version="1", facts=device_facts)
    job = store.jobs.submit(device.id, fleet.spec())
    claimed(store, device, "one")

    same = store.devices.open_session(device.id, "one", agent_version="1", facts=device_facts)
    held = store.jobs.get(job.id).state
    other = store.devices.open_session(device.id, "two", agent_version="1", facts=device_facts)

    assert (same, held) == (0, "leased")
    assert (other, store.jobs.get(job.id).state) == (1, "queued")
    assert claimed(store, device, "two").attempt == 2


def test_no_session_is_that_of_an_unknown_device(store: Store, device_facts: DeviceFacts) -> None:
    assert store.devices.session_of("nobody") is None
    with pytest.raises(UnknownDeviceError):
        store.devices.open_session("nobody", "s", agent_version="1", facts=device_facts)


def test_a_bundle_is_noted_as_an_export(store: Store) -> None:
    study = store.studies.create("winter", "{}", 1)

    store.bundles.add(study.id, "/tmp/bundle", "b" * 64)

    [entry] = store.audit.entries(action="export")
    assert entry.subject == "winter"
    assert entry.details == {"path": "/tmp/bundle", "manifest_sha256": "b" * 64}


def test_no_job_is_left_open_where_it_is_asked_for_during_revocation(
    store: Store, fleet: "Fleet"
) -> None:
    device = fleet.device("kiosk")
    specs = [fleet.spec(bytes([number])) for number in range(7)]

    def do(number: int) -> None:
        if number == 7:
            store.devices.revoke("kiosk")
        else:
            store.jobs.submit(device.id, specs[number])

    errors = together(8, do)

    assert {type(error) for error in errors} <= {RevokedDeviceError}
    assert store.jobs.waiting(device.id) == 0


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.sampled_from(["token", "enrol", "revoke", "remove"]), max_size=12))
def test_every_sequence_of_acts_leaves_one_device_and_a_whole_chain(
    store: Store, device_facts: DeviceFacts, steps: list[str]
) -> None:
    name = f"d{next(NUMBERS)}"
    tokens: list[str] = []
    for number, step in enumerate(steps):
        try:
            if step == "token":
                tokens.append(f"{name} {number}")
                add_token(store, name, tokens[-1])
            elif step == "enrol" and tokens:
                store.devices.enrol(tokens.pop(), f"{name} {number}", device_facts)
            elif step == "revoke":
                store.devices.revoke(name)
            elif step == "remove":
                store.devices.remove(name)
        except (UnknownDeviceError, ExpiredTokenError):
            continue

    assert len([device for device in store.devices.all() if device.name == name]) <= 1
    assert store.audit.verify().problem is None
