"""`genba bundle`: what is shipped."""

import json
from pathlib import Path
from typing import Annotated

import typer

from host.cli.workspace import JsonOption
from host.errors import GenbaError

bundle_app = typer.Typer(no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="BUNDLE.zip", help="The bundle.")]


class DamagedBundleError(GenbaError):
    """A bundle is not what its manifest says."""


@bundle_app.command("verify")
def verify(file: FileArgument) -> None:
    """Check every file of a bundle against the hashes of its manifest."""
    from host.export.bundle import read_manifest, verify_bundle

    problems = verify_bundle(file)
    if problems:
        raise DamagedBundleError(f"{file} is not intact: {'; '.join(problems)}")
    print(f"{file}: intact, {len(read_manifest(file)['files'])} files match the manifest")


@bundle_app.command("show")
def show(file: FileArgument, *, as_json: JsonOption = False) -> None:
    """Show what a bundle holds: the model card, or the manifest as JSON."""
    from host.export.bundle import read_manifest, read_model_card

    if as_json:
        print(json.dumps(read_manifest(file), ensure_ascii=False, indent=2))
    else:
        print(read_model_card(file), end="")
