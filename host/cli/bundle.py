"""`genba bundle`: what is shipped, who signed it, and whether somebody changed it."""

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.console import note, print_json
from host.cli.pictures import LanguageOption
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from host.export.signing import PublicKey
    from host.export.verification import Verification, Voucher

bundle_app = typer.Typer(no_args_is_help=True)

_HARMFUL = frozenset({"Cc", "Cf", "Cs"})
"""The Unicode categories of controls, of what is not seen, and of halves of characters."""

FileArgument = Annotated[Path, typer.Argument(metavar="BUNDLE.zip", help="The bundle.")]


class DamagedBundleError(GenbaError):
    """A bundle is not what its manifest says."""


class UntrustedBundleError(GenbaError):
    """A bundle is intact, but not signed by whom it should be."""


@bundle_app.command("create")
def create(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    *,
    finalist: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="How a finalist's key begins.", show_default="all"),
    ] = None,
    device_class: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="A device class, such as x86_64-onnx.",
            show_default="all",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder.", show_default="that of the study"),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write the bundles of a study's finalists again, from what the store holds."""
    from host.export.bundle import write_bundle
    from host.export.signing import signing_key
    from host.study.shipping import bundle_contents, shippable

    with opened(workspace) as (found, store):
        study_id = store.studies.by_name(study).id
        wanted = _chosen(study, shippable(store, study), finalist, device_class)
        folder = found.root / "studies" / study / "bundles" if out is None else out.absolute()
        signer = signing_key(found.pki_folder)
        written = []
        for key, name in wanted:
            bundle = write_bundle(folder, bundle_contents(store, study, key, name), signer)
            store.bundles.add(study_id, bundle.path, bundle.manifest_sha256)
            written.append((key, name, bundle))
    if as_json:
        print_json(
            [
                {
                    "finalist": key,
                    "device_class": name,
                    "path": str(bundle.path),
                    "manifest_sha256": bundle.manifest_sha256,
                }
                for key, name, bundle in written
            ]
        )
        return
    for key, name, bundle in written:
        print(f"{bundle.path}: finalist {key[:8]} for {name}")


@bundle_app.command("verify")
def verify(
    file: FileArgument,
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="PUBLIC.pem",
            help="Accept the signature of this key only.",
            show_default="the key of this workspace",
        ),
    ] = None,
    any_signer: Annotated[
        bool, typer.Option("--any-signer", help="Accept whoever signed it, or nobody.")
    ] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Check every file of a bundle against its manifest, and whose signature the manifest has.

    Ends with 1 where something was changed, or where the signature is of a key that nothing here
    vouches for.
    """
    from host.export.verification import verify_bundle

    trusted = _trusted(key, workspace)
    found = verify_bundle(file)
    voucher = found.vouched_by(trusted)
    accepted = found.intact and (voucher is not None or any_signer)
    if as_json:
        print_json(_record(file, found, voucher, accepted=accepted))
    if not found.intact:
        raise DamagedBundleError(f"{file} is not intact: {'; '.join(found.problems)}")
    who = _who(found, voucher, key)
    if not accepted:
        raise UntrustedBundleError(
            f"{file} is intact, but {who}: name its maker's public key with --key, or accept that"
            " with --any-signer"
        )
    if not as_json:
        print(f"{file}: intact, {found.files} files match the manifest; {who}")


@bundle_app.command("show")
def show(
    file: FileArgument, *, language: LanguageOption = "en", as_json: JsonOption = False
) -> None:
    """Show what a bundle says of itself: the model card, or the manifest as JSON."""
    from host.export.bundle import read_manifest, read_model_card
    from host.export.verification import verify_bundle

    found = verify_bundle(file)
    if not found.intact:
        note(f"{file} is not intact, so anybody may have written this: {found.problems[0]}")
    if as_json:
        manifest = read_manifest(file)
        print(_harmless(json.dumps(manifest, ensure_ascii=False, indent=2)))
    else:
        print(_harmless(read_model_card(file, language)), end="")


@bundle_app.command("key")
def key(
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pem", help="Where to write the key.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show the public key of this workspace, with which others verify its bundles."""
    from host.export.files import write_whole
    from host.export.signing import signing_key
    from host.workspace import Workspace

    found = Workspace.find(Path.cwd(), workspace)
    public = signing_key(found.pki_folder).public
    if out is not None:
        write_whole(out, public.pem)
    if as_json:
        pem = public.pem.decode()
        print_json({"algorithm": "Ed25519", "fingerprint": public.fingerprint, "pem": pem})
        return
    print(f"fingerprint {public.fingerprint} (SHA-256 of the key in DER)")
    print(public.pem.decode() if out is None else f"wrote {out}", end="" if out is None else "\n")


def _chosen(
    study: str,
    shippable: Sequence[tuple[str, str]],
    prefix: str | None,
    device_class: str | None,
) -> list[tuple[str, str]]:
    """Those of the pairs of finalist and device class that were asked for."""
    if not shippable:
        raise UsageError(
            f"the study {study} has no finalist yet: go on with `genba search resume {study}`"
        )
    keys = list(dict.fromkeys(key for key, _ in shippable))
    wanted = [key for key in keys if key.startswith(prefix or "")]
    if prefix is not None and len(wanted) != 1:
        known = ", ".join(key[:12] for key in keys)
        many = "several finalists begin" if wanted else "no finalist begins"
        raise UsageError(f'{many} with "{prefix}": {study} has {known}')
    classes = list(dict.fromkeys(name for _, name in shippable))
    if device_class is not None and device_class not in classes:
        raise UsageError(
            f'no device of {study} is of the class "{device_class}": it has {", ".join(classes)}'
        )
    return [
        (key, name) for key, name in shippable if key in wanted and device_class in (None, name)
    ]


def _trusted(key: Path | None, workspace: Path | None) -> "Mapping[Voucher, PublicKey]":
    """The key that was named, else that of the workspace, if there is one."""
    from host.export.signing import PublicKey, known_public_key
    from host.workspace import ENVIRONMENT_VARIABLE, Workspace, WorkspaceError

    if key is not None:
        return {"key": PublicKey.read(key)}
    try:
        found = Workspace.find(Path.cwd(), workspace)
    except WorkspaceError:
        if workspace is not None or os.environ.get(ENVIRONMENT_VARIABLE):
            raise
        return {}
    own = known_public_key(found.pki_folder)
    return {} if own is None else {"workspace": own}


def _who(found: "Verification", voucher: "Voucher | None", key: Path | None) -> str:
    if found.signer is None:
        return f"nobody signed it ({found.schema} has no signature)"
    fingerprint = f"fingerprint {found.signer.fingerprint}"
    if voucher == "workspace":
        return f"signed by the key of this workspace ({fingerprint})"
    if voucher == "key":
        return f"signed by the key in {key} ({fingerprint})"
    if key is not None:
        return f"signed by another key than that in {key} ({fingerprint})"
    return f"signed by a key that nothing here vouches for ({fingerprint})"


def _record(
    file: Path, found: "Verification", voucher: "Voucher | None", *, accepted: bool
) -> dict[str, Any]:
    return {
        "file": str(file),
        "accepted": accepted,
        "intact": found.intact,
        "problems": list(found.problems),
        "schema": found.schema,
        "files": found.files,
        "signer": None if found.signer is None else found.signer.fingerprint,
        "vouched_by": voucher,
    }


def _harmless(text: str) -> str:
    """The text without what could steer a terminal, or what none can write."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in _HARMFUL else "\ufffd" for c in text
    )
