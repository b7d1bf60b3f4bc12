"""The command line as a whole: which commands there are, and how an error ends one."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from host.cli.agent_bundle import agent_bundle
from host.cli.audit import audit_app
from host.cli.bundle import bundle_app
from host.cli.cost import cost_app
from host.cli.data import data_app
from host.cli.device import device_app
from host.cli.evaluate import evaluate
from host.cli.export import export
from host.cli.front import front_app
from host.cli.job import job_app
from host.cli.measure import measure
from host.cli.measurements import measurements_app
from host.cli.proxies import proxies_app
from host.cli.quantize import quantize
from host.cli.rank import rank
from host.cli.report import report
from host.cli.search import search_app
from host.cli.verify import verify
from host.cli.workspace import init, serve
from host.errors import GenbaError

INTERRUPTED = 130  # 128 + SIGINT, as shells say
# Newer versions of typer bring a click of their own: this is the class of whichever it uses.
_CommandLineError: type[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="genba",
    help="Search, measure and ship small neural networks for the hardware that a plant has.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(init)
app.command()(serve)
app.add_typer(device_app, name="device", help="Enrol, list, probe, meter, revoke, remove.")
app.add_typer(job_app, name="job", help="List, show and cancel what devices are asked to do.")
app.command()(measure)
app.add_typer(measurements_app, name="measurements", help="List, show and compare measurements.")
app.command()(verify)
app.command()(evaluate)
app.command()(quantize)
app.command()(export)
app.add_typer(cost_app, name="cost", help="Show, use, validate and exchange cost models.")
app.add_typer(data_app, name="data", help="Check what networks are to be trained on.")
app.command()(rank)
app.add_typer(proxies_app, name="proxies", help="List and explain what ranks networks.")
app.add_typer(search_app, name="search", help="Run and resume studies.")
app.add_typer(front_app, name="front", help="Show what a study found.")
app.command()(report)
app.add_typer(
    bundle_app,
    name="bundle",
    help="Create, verify and show bundles, and the key that signs them.",
)
app.command("agent-bundle")(agent_bundle)
app.add_typer(audit_app, name="audit", help="Show, verify and export who did what.")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"genba {version('genba')}")
        raise typer.Exit


@app.callback()
def genba(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_show_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    """Search, measure and ship small neural networks for the hardware that a plant has."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; print any error as one sentence, and return the exit code."""
    try:
        code = app(args=list(arguments), prog_name="genba", standalone_mode=False)
    except GenbaError as error:
        return _fail(str(error), error.exit_code)
    except _CommandLineError as error:
        return _fail(error.format_message(), error.exit_code)
    except OSError as error:
        # A full disk, a folder without permission: nobody's bug, and nothing a traceback explains.
        return _fail(str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:
        return _fail("stopped by Ctrl-C", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _fail(sentence: str, code: int) -> int:
    if sentence:  # empty where the help was printed instead, because nothing was asked
        print(f"genba: {sentence}", file=sys.stderr)
    return code
