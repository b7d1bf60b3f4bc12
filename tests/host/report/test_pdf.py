"""Printing a page by Chromium: real where there is one, and what is said where it fails."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from host.report.pdf import NoBrowserError, PrintError, find_browser, print_pdf
from host.report.study import write_study

chromium = pytest.mark.skipif(
    find_browser() is None, reason="there is no Chromium here: apt install chromium"
)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>t</title><p>推論時間", encoding="utf-8")
    return path


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program that is found as Chromium, in a shell script of its own."""

    def make(script):
        program = tmp_path / "bin" / "chromium"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return make


@chromium
@pytest.mark.slow
def test_a_report_is_printed_on_a4(make, tmp_path):
    page = write_study(make.report(["panel"]), tmp_path, "ja")

    print_pdf(page, tmp_path / "report.pdf")

    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    boxes = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", content)
    assert len(boxes) >= 2
    sizes = {(round(float(width)), round(float(height))) for width, height in boxes}
    assert sizes == {(595, 842)}


def test_without_a_chromium_the_page_stays_and_the_sentence_says_what_to_do(
    page, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoBrowserError, match="install chromium, or open that file in any browser"):
        print_pdf(page, tmp_path / "report.pdf")

    assert page.exists()


def test_a_chromium_that_prints_nothing_is_quoted_and_an_older_pdf_stays(page, tmp_path, stand_in):
    stand_in("echo starting >&2; echo 'no space left' >&2; exit 3")
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(b"%PDF-old")

    with pytest.raises(PrintError, match=r"printed no PDF of .*page.html: no space left"):
        print_pdf(page, pdf)

    assert pdf.read_bytes() == b"%PDF-old"


def test_a_chromium_that_says_nothing_is_known_by_its_code(page, tmp_path, stand_in):
    stand_in("exit 3")

    with pytest.raises(PrintError, match="ended with code 3 and said nothing"):
        print_pdf(page, tmp_path / "report.pdf")


def test_what_is_no_pdf_is_not_taken_for_one(page, tmp_path, stand_in):
    stand_in('for a in "$@"; do case $a in --print-to-pdf=*) echo junk > "${a#*=}";; esac; done')

    with pytest.raises(PrintError, match="printed no PDF"):
        print_pdf(page, tmp_path / "report.pdf")

    assert not (tmp_path / "report.pdf").exists()


def test_a_chromium_that_hangs_is_ended_with_its_children(page, tmp_path, stand_in):
    stand_in(f"sleep 300 & echo $! > {tmp_path}/child; wait")

    with pytest.raises(PrintError, match=r"within 0\.5 s"):
        print_pdf(page, tmp_path / "report.pdf", timeout_seconds=0.5)

    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_the_browser_is_told_to_reach_nobody_and_to_keep_nothing(page, tmp_path, stand_in):
    stand_in(f'printf "%s\\n" "$@" > {tmp_path}/arguments; exit 1')

    with pytest.raises(PrintError):
        print_pdf(page, tmp_path / "report.pdf")

    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in arguments
    assert "--disable-background-networking" in arguments
    assert arguments[-1] == page.as_uri()
    (profile,) = (one for one in arguments if one.startswith("--user-data-dir="))
    assert not Path(profile.partition("=")[2]).exists()  # gone with the printing


PRINTS = 'for a in "$@"; do case $a in --print-to-pdf=*) echo "%PDF-new" > "${a#*=}";; esac; done'


def test_a_whole_pdf_takes_the_place_of_the_older_one_and_leaves_nothing_beside_it(
    page, tmp_path, stand_in
):
    stand_in(PRINTS)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "report.pdf").write_bytes(b"%PDF-old")

    print_pdf(page, folder / "report.pdf")

    assert (folder / "report.pdf").read_bytes() == b"%PDF-new\n"
    assert [path.name for path in folder.iterdir()] == ["report.pdf"]


def test_a_pdf_is_printed_beside_its_name_so_that_it_takes_it_at_once(page, tmp_path, stand_in):
    stand_in(f'printf "%s\\n" "$@" > {tmp_path}/arguments; {PRINTS}')
    (tmp_path / "out").mkdir()

    print_pdf(page, tmp_path / "out" / "report.pdf")

    arguments = (tmp_path / "arguments").read_text().splitlines()
    (printed,) = (one for one in arguments if one.startswith("--print-to-pdf="))
    assert Path(printed.partition("=")[2]).parent.parent == tmp_path / "out"


def test_ctrl_c_ends_chromium_with_its_children(page, tmp_path, stand_in):
    stand_in(
        f"sleep 300 & echo $! > {tmp_path}/started; mv {tmp_path}/started {tmp_path}/child; wait"
    )
    code = (
        "import sys; from pathlib import Path; from host.report.pdf import print_pdf;"
        "print_pdf(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    printing = subprocess.Popen(
        [sys.executable, "-c", code, page, tmp_path / "report.pdf"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "child").exists():
        assert time.monotonic() < deadline, "the stand-in did not start"
        time.sleep(0.02)

    printing.send_signal(signal.SIGINT)

    assert printing.wait(60) != 0
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"
