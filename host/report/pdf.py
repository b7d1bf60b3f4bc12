"""A page as PDF, printed by the Chromium of this machine, which may reach no other machine."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from host.errors import GenbaError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_SECONDS = 120.0
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class NoBrowserError(GenbaError):
    """There is no Chromium on this machine."""


class PrintError(GenbaError):
    """Chromium has not printed the page."""


def find_browser() -> Path | None:
    """The first Chromium on the PATH, by its usual names."""
    found = (shutil.which(name) for name in BROWSERS)
    return next((Path(path) for path in found if path is not None), None)


def print_pdf(page: Path, pdf: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Print an HTML file. What stood at the path of the PDF is replaced only by a whole PDF.

    Raises NoBrowserError and PrintError.
    """
    browser = find_browser()
    if browser is None:
        raise NoBrowserError(
            f"there is no Chromium on this machine, so {page} stays the only report: install"
            " chromium, or open that file in any browser and print it"
        )
    # Beside the PDF, because only within one file system a file takes its name at once.
    with tempfile.TemporaryDirectory(prefix="genba-pdf-", dir=pdf.parent.resolve()) as folder:
        printed = Path(folder) / "page.pdf"
        command = [
            str(browser),
            *_FLAGS,
            # As root Chromium has no sandbox, and does not start when told to have one.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={printed}",
            page.resolve().as_uri(),
        ]
        said = _run(command, timeout_seconds)
        if not printed.is_file() or not printed.read_bytes().startswith(b"%PDF-"):
            raise PrintError(f"{browser.name} has printed no PDF of {page}: {said}")
        printed.replace(pdf)


def _run(command: Sequence[str], timeout_seconds: float) -> str:
    """The last that a browser said; its children end with it, and both with whatever ends the
    wait. Raises PrintError when too slow.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=timeout_seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise PrintError(
            f"{Path(command[0]).name} has not printed the page within {timeout_seconds:g} s"
        ) from error
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with code {process.returncode} and said nothing"
