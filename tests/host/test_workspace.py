"""Workspaces: made once, found from inside, and clear about what is wrong."""

import stat
from pathlib import Path

import pytest

from host.workspace import GatewaySettings, Workspace, WorkspaceError


def test_a_made_workspace_opens_as_it_was_made(tmp_path: Path) -> None:
    settings = GatewaySettings(address="fd00::1", bind="127.0.0.1", gateway_port=9443)

    made = Workspace.create(tmp_path / "plant", settings)

    opened = Workspace.open(made.root)
    assert opened == made
    assert opened.settings.gateway == settings
    assert stat.S_IMODE(opened.pki_folder.stat().st_mode) == 0o700
    with opened.open_store() as store:
        assert store.devices.all() == []


@pytest.mark.parametrize("there", ["genba.toml", "genba.db", "blobs", "pki"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")

    with pytest.raises(WorkspaceError, match=there):
        Workspace.create(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(WorkspaceError, match="no workspace can be made"):
        Workspace.create(tmp_path / "file" / "plant")


def test_a_folder_that_is_none_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="genba init DIR"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize(
    ("toml", "because"),
    [
        ("[gateway", "cannot be read"),
        ("", "the key gateway is missing"),
        ("[gateway]", "the key gateway.address is missing"),
        ("[gateway]\naddress = 'a'\nprot = 1", "the key gateway.prot is unknown"),
        ("colour = 1\n[gateway]\naddress = 'a'", "the key colour is unknown"),
        ("[gateway]\naddress = 'a:8443'", "the key gateway.address is wrong: .*must not contain"),
        ("[gateway]\naddress = 'http://a'", "the key gateway.address is wrong"),
        ("[gateway]\naddress = 7", "the key gateway.address is wrong"),
        ("[gateway]\naddress = 'a'\ngateway_port = '8443'", "gateway.gateway_port is wrong"),
        ("[gateway]\naddress = 'a'\nenrolment_port = 70000", "gateway.enrolment_port is wrong"),
        ("[gateway]\naddress = 'a'\n[store]\npath = 'x'", "the key store.path is unknown"),
    ],
)
def test_wrong_settings_name_the_key(tmp_path: Path, toml: str, because: str) -> None:
    (tmp_path / "genba.toml").write_text(toml)

    with pytest.raises(WorkspaceError, match=because):
        Workspace.open(tmp_path)


def test_settings_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "genba.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(WorkspaceError, match="cannot be read"):
        Workspace.open(tmp_path)


def test_a_workspace_is_found_from_inside(workspace: Workspace) -> None:
    inside = workspace.root / "studies" / "one"
    inside.mkdir(parents=True)

    assert Workspace.find(inside, environment={}).root == workspace.root


def test_the_option_wins_over_the_environment_and_that_over_the_folder(
    workspace: Workspace, tmp_path: Path
) -> None:
    one = Workspace.create(tmp_path / "one", GatewaySettings(address="a"))
    two = Workspace.create(tmp_path / "two", GatewaySettings(address="a"))
    environment = {"GENBA_WORKSPACE": str(two.root)}

    by_option = Workspace.find(workspace.root, one.root, environment)
    by_environment = Workspace.find(workspace.root, None, environment)

    assert (by_option.root, by_environment.root) == (one.root, two.root)


def test_nothing_found_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="--workspace or GENBA_WORKSPACE"):
        Workspace.find(tmp_path, environment={})
