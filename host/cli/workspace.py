"""`genba init` and `genba serve`, and the option with which every command finds its workspace."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from host.gateway.server import Gateway
    from host.store import Store
    from host.workspace import Workspace

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        help="The workspace; otherwise GENBA_WORKSPACE, or the nearest folder with a genba.toml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def opened(workspace: Path | None) -> "Iterator[tuple[Workspace, Store]]":
    """The workspace that the option names, or the nearest one, and its store.

    Raises WorkspaceError and StoreError.
    """
    from host.workspace import Workspace

    found = Workspace.find(Path.cwd(), workspace)
    with found.open_store() as store:
        yield found, store


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    *,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Name or IP address by which devices reach this machine.",
            show_default="this machine's address in its network",
        ),
    ] = None,
    bind: Annotated[
        str, typer.Option(metavar="IP", help="Which address of this machine listens.")
    ] = "0.0.0.0",  # noqa: S104 - devices dial in from the plant's network
    gateway_port: Annotated[int, typer.Option(help="Where enrolled devices dial in.")] = 8443,
    enrolment_port: Annotated[int, typer.Option(help="Where devices enrol.")] = 8444,
) -> None:
    """Make a workspace: settings, store, folder of models, and keys."""
    from pydantic import ValidationError

    from host.workspace import (
        GatewaySettings,
        Workspace,
        WorkspaceError,
        first_complaint,
        own_address,
    )

    try:
        gateway = GatewaySettings(
            address=own_address() if address is None else address,
            bind=bind,
            gateway_port=gateway_port,
            enrolment_port=enrolment_port,
        )
    except ValidationError as error:
        raise WorkspaceError(f"no workspace was made: {first_complaint(error)}") from error
    made = Workspace.create(directory, gateway)
    print(f"Made the workspace {made.root}")
    print(f"Devices will reach it at {gateway.address}; change that in genba.toml")
    folder = shlex.quote(str(directory))
    print(f"Next: genba serve -w {folder}, and genba device enroll NAME -w {folder}")


def serve(
    *,
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="IP",
            help="Which address of this machine listens.",
            show_default="as in genba.toml",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Run the gateway that devices dial in to, until Ctrl-C or SIGTERM."""
    import logging
    from dataclasses import replace

    from host.gateway.server import Listen
    from host.gateway.server import serve as serve_gateway

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with opened(workspace) as (found, store):
        listen = Listen.of(found)
        if bind is not None:
            listen = replace(listen, bind=bind)

        def ready(gateway: "Gateway") -> None:
            print(
                f"Serving {found.root} on {listen.bind}: devices on port {gateway.gateway_port},"
                f" enrolment on port {gateway.enrolment_port}",
                flush=True,
            )

        serve_gateway(found, store, listen, ready)
        print("Stopped")
