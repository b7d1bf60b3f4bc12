"""`genba cost export` and `genba cost import`: cost models as a file."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.cli.calibrating import NameArgument, RuntimeOption
from host.cli.console import local, note
from host.cli.measure import ThreadsOption
from host.cli.workspace import WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.calibration.exchange import Package


class CostFileError(UsageError):
    """A file of cost models cannot be read or written."""


def export_models(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="Where to write them.")],
    *,
    runtime: RuntimeOption = "onnx",
    threads: ThreadsOption = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if there is one.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write the cost models of a device, with all that they were fitted on, as JSON."""
    from host.calibration.exchange import package_of, to_json
    from host.calibration.setting import Setting
    from host.export.files import write_whole

    if file.exists() and not force:
        raise CostFileError(f"{file} is there already: name another file, or say --force")
    if not file.absolute().parent.is_dir():
        raise CostFileError(f"there is no folder {file.parent} for {file.name}: make it first")
    with opened(workspace) as (_, store):
        device = store.devices.by_name(name)
        package = package_of(store, device, Setting.of_device(device, runtime, threads))
        content = to_json(package).encode()
        try:
            write_whole(file, content)
        except OSError as error:
            raise CostFileError(f"{file} cannot be written: {error.strerror or error}") from error
        digest = hashlib.sha256(content).hexdigest()
        details = {"path": str(file.absolute()), "sha256": digest, "models": str(package.setting)}
        store.audit.note("export", device.name, details)
    print(f"Wrote {file}: {_described(package)}")


def import_models(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="As `export` wrote it.")],
    *,
    device: Annotated[str, typer.Option(metavar="NAME", help="Which device takes them over.")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where they are of another version of the runtime."),
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Take over the cost models of a file for a device.

    They become the newest; the models that the device had are kept. Ends with 2 where the file
    does not hold what it should, or is of another version of the runtime than the device has.
    """
    from host.calibration.exchange import ExchangeError, from_json, setting_on, take_over, warnings
    from host.report.cost import NAMES

    content = _read(file)
    try:
        package = from_json(content.decode())
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{file} cannot be used: it is not text") from error
    except ExchangeError as error:
        raise ExchangeError(f"{file} cannot be used: {error}") from error
    with opened(workspace) as (_, store):
        target = store.devices.by_name(device)
        target.require_real("a cost model")
        setting = setting_on(package, target, force=force)
        imported = take_over(store, target, setting, package)
        digest = hashlib.sha256(content).hexdigest()
        details = {"path": str(file.absolute()), "sha256": digest, "models": str(setting)}
        store.audit.note("import", target.name, details)
        doubts = warnings(package, target)
    print(f"{file}: {_described(package)}")
    if setting != package.setting:
        doubts.append(f"they are used for {setting} because of --force")
    for one in imported:
        before = ""
        if one.supersedes is not None:
            before = f", instead of that of {local(one.supersedes)}, which is kept"
        print(
            f"{target.name} has a new model of {NAMES[one.quantity][0]} for {setting}: n = {one.n}"
            f"{before}"
        )
    for doubt in doubts:
        note(doubt)


def _read(file: Path) -> bytes:
    from host.calibration.exchange import MAX_BYTES

    try:
        if file.stat().st_size > MAX_BYTES:
            raise CostFileError(
                f"{file} is larger than {MAX_BYTES // 1_000_000} MB: it is no file of cost models"
            )
        return file.read_bytes()
    except OSError as error:
        raise CostFileError(f"{file} cannot be read: {error.strerror or error}") from error


def _described(package: "Package") -> str:
    from host.report.cost import NAMES

    told = ", ".join(
        f"{NAMES[quantity][0]} (n = {found.model.n}, {local(found.created_at)})"
        for quantity, found in package.models.items()
    )
    cpu = package.origin.cpu_model or "CPU not known"
    return f"models of {package.origin.device} ({cpu}), {package.setting}: {told}"
