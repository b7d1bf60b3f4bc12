"""`genba agent-bundle`: the agent on a USB stick."""

from pathlib import Path
from typing import Annotated

import typer

from host.cli.console import print_json
from host.cli.workspace import JsonOption

ArchOption = Annotated[
    str,
    typer.Option("--arch", metavar="ARCH", help="armv7l, aarch64, x86_64 or i686: the device's."),
]
PythonOption = Annotated[
    str, typer.Option("--python", metavar="VERSION", help="The device's Python, such as 3.11.")
]
CpuOption = Annotated[
    str,
    typer.Option(
        "--cpu",
        metavar="CPU",
        help="The device's CPU where it is an old one, such as cortex-a9 or core2, or its level"
        " (armv7l: vfpv4, no-vfpv4; x86_64: sse4.1, no-sse4.1). Default: the newer level.",
    ),
]
RuntimeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="onnx, tflite, ncnn or none; may be given again. Default: all that run there.",
    ),
]
WheelsOption = Annotated[
    Path | None,
    typer.Option("--wheels", metavar="DIR", help="Take wheels from this folder, not the network."),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The archive, or its folder.")
]


def agent_bundle(
    *,
    arch: ArchOption,
    python: PythonOption = "3.11",
    cpu: CpuOption = "",
    runtime: RuntimeOption = None,
    wheels: WheelsOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one archive that installs the agent on a device without a network."""
    from host.agent_bundle.bundle import bundle_name, write_agent_bundle
    from host.agent_bundle.recipes import recipe_for
    from host.agent_bundle.wheels import Wheels
    from host.cli.progress import StageClock, reporter

    recipe = recipe_for(arch, python, runtime or (), cpu)
    name = f"{bundle_name(recipe)}.tar.gz"
    path = Path(name) if output is None else output
    if path.is_dir():
        path /= name
    with reporter(StageClock(), as_json=False) as progress:
        bundle = write_agent_bundle(recipe, Wheels(wheels), path, progress.progress)
    if as_json:
        print_json(
            {
                "file": str(bundle.path),
                "size_bytes": bundle.size_bytes,
                "sha256": bundle.sha256,
                "manifest": bundle.manifest,
            }
        )
        return
    packages = [f"{wheel['package']} {wheel['version']}" for wheel in bundle.manifest["wheels"]]
    print(f"{bundle.path}: {bundle.size_bytes / 1e6:.1f} MB, sha256 {bundle.sha256}")
    print(f"  holds {', '.join(packages)}")
    if not recipe.runtimes:
        print("  and no runtime: the agent tells the host what the device is, but measures nothing")
    for name, because in recipe.missing.items():
        print(f"  not {name}: {because.en}")
    if recipe.apt:
        print(f"  the device must have Debian's {', '.join(recipe.apt.values())}")
    print(f"  on the device: tar xzf {path.name} && cd {bundle_name(recipe)} && sudo sh install.sh")
