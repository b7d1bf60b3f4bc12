from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import AlreadyRunningError, DamagedStateError, NotEnrolledError
from device_agent.scan_limits import ScanLimits
from device_agent.sensors.base import PowerSettings
from device_agent.state import Home, Identity, Limits

IDENTITY = Identity("0123", "press-3", "plant-server", 7443, b"key", b"certificate", b"ca")


@pytest.fixture
def home(tmp_path: Path) -> Any:
    home = Home(tmp_path / "agent")
    home.create()
    return home


def test_an_identity_is_kept(home: Home) -> None:
    home.save_identity(IDENTITY)

    assert home.is_enrolled()
    assert home.identity() == IDENTITY
    assert home.identity().address == "plant-server:7443"


def test_only_its_user_may_read_the_folder_and_the_key(home: Home) -> None:
    home.save_identity(IDENTITY)

    (key,) = home.path.rglob("key.pem")
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_new_identity_replaces_the_old_one_and_its_key(home: Home) -> None:
    home.save_identity(IDENTITY)
    other = dataclasses.replace(IDENTITY, key_pem=b"other", certificate_pem=b"new")

    home.save_identity(other)

    assert home.identity() == other
    assert len(list(home.path.rglob("key.pem"))) == 1


def test_a_crash_before_the_last_step_leaves_the_old_identity_whole(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.save_identity(IDENTITY)
    other = dataclasses.replace(IDENTITY, key_pem=b"other", certificate_pem=b"new")
    monkeypatch.setattr(Home, "_config_path", home.path / "no-folder" / "config.json")
    with pytest.raises(DamagedStateError):
        home.save_identity(other)
    monkeypatch.undo()

    assert home.identity() == IDENTITY


def test_the_key_is_not_shown_by_accident() -> None:
    assert "b'key'" not in repr(IDENTITY)


def test_a_home_that_was_never_enrolled_says_what_to_do(home: Home) -> None:
    with pytest.raises(NotEnrolledError, match="genba-agent enroll --token"):
        home.identity()


def test_a_home_that_does_not_exist_is_not_enrolled_either(tmp_path: Path) -> None:
    assert not Home(tmp_path / "nowhere").is_enrolled()


@pytest.mark.parametrize("text", ["{", "[]", '{"identity": {}}', '{"identity": 3}', '"x"'])
def test_a_damaged_config_is_named(home: Home, text: str) -> None:
    (home.path / "config.json").write_text(text)

    with pytest.raises(DamagedStateError, match=r"config\.json"):
        home.identity()


def test_a_key_that_is_gone_is_named(home: Home) -> None:
    home.save_identity(IDENTITY)
    (key,) = home.path.rglob("key.pem")
    key.unlink()

    with pytest.raises(DamagedStateError, match=r"key\.pem"):
        home.identity()


def test_an_identity_never_points_outside_the_home(home: Home, tmp_path: Path) -> None:
    home.save_identity(IDENTITY)
    config = json.loads((home.path / "config.json").read_text())
    config["identity"]["folder"] = "../../.."
    (home.path / "config.json").write_text(json.dumps(config))

    with pytest.raises(DamagedStateError):
        home.identity()


def test_limits_are_read_and_survive_enrolment(home: Home) -> None:
    limits = {"worker_address_space_bytes": 1 << 30}
    (home.path / "config.json").write_text(json.dumps({"limits": limits}))

    home.save_identity(IDENTITY)

    assert home.limits() == Limits(worker_address_space_bytes=1 << 30)


@pytest.mark.parametrize(
    "limits",
    [{"cach_bytes": 1}, {"cache_bytes": 0}, {"cache_bytes": "1 GB"}, [], 3, {"cache_bytes": True}],
)
def test_a_limit_that_makes_no_sense_is_refused(home: Home, limits: Any) -> None:
    (home.path / "config.json").write_text(json.dumps({"limits": limits}))

    with pytest.raises(DamagedStateError, match="limits"):
        home.limits()


def test_what_models_may_be_like_is_read(home: Home) -> None:
    models = {"max_nodes": 50_000, "control_flow": True, "domains": ["", "com.plant"]}
    (home.path / "config.json").write_text(json.dumps({"models": models}))

    limits = home.scan_limits()

    assert limits == ScanLimits(max_nodes=50_000, control_flow=True, domains=("", "com.plant"))


def test_where_nobody_said_anything_models_have_the_default_limits(home: Home) -> None:
    assert home.scan_limits() == ScanLimits()


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "models may hold control_flow, domains, max_bytes"),
        ({"max_node": 1}, "models may hold control_flow, domains, max_bytes"),
        ({"max_nodes": 0}, "models.max_nodes must be a positive whole number"),
        ({"max_nodes": True}, "models.max_nodes must be a positive whole number"),
        ({"max_bytes": "1 GB"}, "models.max_bytes must be a positive whole number"),
        ({"max_elements": 1e9}, "models.max_elements must be a positive whole number"),
        ({"control_flow": 1}, "models.control_flow must be true or false"),
        ({"domains": "ai.onnx"}, "models.domains must be a list of domains like"),
        ({"domains": [1]}, "models.domains must be a list of domains like"),
    ],
)
def test_limits_of_models_that_make_no_sense_are_refused(
    home: Home, models: Any, words: str
) -> None:
    (home.path / "config.json").write_text(json.dumps({"models": models}))

    with pytest.raises(DamagedStateError) as refusal:
        home.scan_limits()

    assert words in str(refusal.value)
    assert "config.json cannot be used" in str(refusal.value)


def test_what_a_person_soldered_in_is_read(home: Home) -> None:
    power = {
        "shunt_ohm": {"ina219": 0.1},
        "channels": {"ina3221": ["VDD_IN", "VDD_CPU"]},
        "board_supply": ["ina219@1-0041"],
    }
    (home.path / "config.json").write_text(json.dumps({"power": power}))

    settings = home.power_settings()

    assert settings == PowerSettings(
        {"ina219": 0.1}, {"ina3221": ("VDD_IN", "VDD_CPU")}, ("ina219@1-0041",)
    )


def test_a_board_of_which_nobody_said_anything_has_the_defaults(home: Home) -> None:
    assert home.power_settings() == PowerSettings()


@pytest.mark.parametrize(
    "power",
    [
        [],
        {"shunt": {}},
        {"shunt_ohm": {"ina219": 0}},
        {"shunt_ohm": {"ina219": "0.1"}},
        {"shunt_ohm": {"ina219": True}},
        {"shunt_ohm": {"ina219": float("nan")}},
        {"shunt_ohm": 0.1},
        {"channels": {"ina3221": "VDD_IN"}},
        {"channels": ["VDD_IN"]},
        {"board_supply": "ina219"},
        {"board_supply": [3]},
    ],
)
def test_settings_of_sensors_that_make_no_sense_are_refused(home: Home, power: Any) -> None:
    (home.path / "config.json").write_text(json.dumps({"power": power}))

    with pytest.raises(DamagedStateError, match="power"):
        home.power_settings()


def test_a_home_serves_one_running_agent(home: Home) -> None:
    with home.exclusively(), pytest.raises(AlreadyRunningError), Home(home.path).exclusively():
        pass


def test_a_home_is_free_again_after_its_agent_ended(home: Home) -> None:
    with home.exclusively():
        pass

    with home.exclusively():
        pass


def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DamagedStateError, match="repair it"):
        Home(tmp_path / "file" / "agent").create()


def test_a_relative_home_is_the_same_place_for_workers_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    home = Home(Path("agent"))

    assert home.cache == tmp_path / "agent" / "cache"
