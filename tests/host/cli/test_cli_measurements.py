"""`genba measurements`: list, show and compare what was measured before."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from host.__main__ import main
from host.device import Device
from host.measurement import Measurement, ModelRun, Reason, Verdict
from host.report.measurement import Named, measurement_block, measurements_table
from host.report.measurement_lines import milliseconds
from host.store import Store
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.conftest import Fleet

WARNED = Verdict("WARN", (Reason("BUSY", "WARN", "34 % of the CPU is taken by other programs"),))
PNG = b"\x89PNG"


@pytest.fixture
def keep(
    plant_store: Store, make_measurement: Callable[..., Measurement], fleet: "Fleet"
) -> Callable[..., None]:
    """Stores a measurement of a model on a device, as if the device had reported it."""

    def kept(device: Device, name: str, latency_seconds: float, **changes: Any) -> None:
        blob = plant_store.blobs.put(name.encode())
        run = ModelRun(blob.sha256, blob.size_bytes)
        spec = replace(fleet.spec(name.encode()), run=run)
        job = plant_store.jobs.submit(
            device.id, spec, purpose=f"test {latency_seconds}", label=name
        )
        lease = plant_store.jobs.claim(device.id, "session", 60.0)
        assert lease is not None
        made = make_measurement(device.id, blob.sha256, latency_seconds)
        key = f"{job.id}:{lease.attempt}"
        plant_store.jobs.report(
            device.id, job.id, lease.attempt, key, replace(made, run=run, **changes)
        )

    return kept


def test_before_anything_was_measured_it_says_how(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measurements", "list"]) == 0
    assert "genba measure MODEL --device NAME" in capsys.readouterr().out

    assert main(["measurements", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_list_is_newest_first_and_can_be_of_one_device(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk, press = enrol("kiosk"), enrol("press")
    keep(kiosk, "a.onnx", 0.010)
    keep(press, "b.onnx", 0.020)
    keep(kiosk, "c[1].onnx", 0.030, verdict=WARNED)

    assert main(["measurements", "list", "--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert main(["measurements", "list", "--device", "kiosk", "--limit", "1", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert main(["measurements", "list"]) == 0
    table = capsys.readouterr().out

    assert [r["model"] for r in everything] == ["c[1].onnx", "b.onnx", "a.onnx"]
    assert [r["number"] for r in everything] == [3, 2, 1]
    assert [(r["model"], r["verdict"], r["verdict_codes"]) for r in rows] == [
        ("c[1].onnx", "WARN", "BUSY")
    ]
    assert "c[1].onnx" in table
    assert "[29.97, 30.03]" in table
    assert "press" in table


def test_measurements_of_a_removed_device_are_kept(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")
    keep(device, "a.onnx", 0.010)
    plant_store.devices.remove("kiosk")

    main(["measurements", "list", "--json"])

    assert json.loads(capsys.readouterr().out)[0]["device"] == f"removed device {device.id[:8]}"


@pytest.mark.parametrize("arguments", [["show", "7"], ["compare", "7", "8"]], ids=" ".join)
def test_an_unknown_number_ends_with_2(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code = main(["measurements", *arguments])

    assert code == 2
    assert "there is no measurement 7" in capsys.readouterr().err


def test_show_tells_all_of_it_in_japanese_too_and_draws_the_samples(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep(enrol("kiosk"), "a.onnx", 0.010, verdict=WARNED)
    picture = tmp_path / "samples.png"

    assert main(["measurements", "show", "1", "--output", str(picture)]) == 0
    english = capsys.readouterr().out
    assert main(["measurements", "show", "1", "--lang", "ja"]) == 0
    japanese = capsys.readouterr().out
    assert main(["measurements", "show", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)

    assert "a.onnx on kiosk · measurement 1" in english
    assert "BUSY: 34 % of the CPU" in english
    assert "30.0 mJ an inference net of idle" in english
    assert "kiosk での a.onnx · 測定 1" in japanese
    assert "推論時間" in japanese
    assert record["energies"][0]["net_low_joules"] == 0.028
    assert picture.read_bytes().startswith(PNG)


def test_samples_are_printed_one_a_line_with_what_disturbed_them(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    make_measurement: Callable[..., Measurement],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (process,) = make_measurement("d", "0" * 64).processes
    first, *others = process.blocks
    delayed = replace(first, run_delay_seconds=(0.009, *(0.0,) * 30))
    disturbed = replace(process, blocks=(delayed, *others))
    keep(enrol("kiosk"), "a.onnx", 0.010, processes=(disturbed,))

    assert main(["measurements", "show", "1", "--samples"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert main(["measurements", "show", "1", "--samples", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)

    assert len(rows) == len(plain) == 62
    assert [row["state"] for row in rows[:2]] == ["delayed", "clean"]
    assert float(rows[0]["run_delay_seconds"]) == 0.009
    assert [row["at_seconds"] for row in plain] == sorted(row["at_seconds"] for row in plain)
    assert {row["block"] for row in plain} == {0, 1}


def test_compare_says_whether_the_difference_is_real(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk = enrol("kiosk")
    keep(kiosk, "a.onnx", 0.010)
    keep(kiosk, "b.onnx", 0.012)
    picture = tmp_path / "compared.png"

    assert main(["measurements", "compare", "1", "2", "-o", str(picture)]) == 0
    text = capsys.readouterr().out
    assert main(["measurements", "compare", "1", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)

    assert "The second is really 20.0% slower" in text
    assert "difference +2 ms" in text
    assert record["real"] is True
    assert record["ratio"] == pytest.approx(1.2)
    assert record["ratio_low"] <= record["ratio"] <= record["ratio_high"]
    assert record["first"]["model"] == "a.onnx"
    assert picture.read_bytes().startswith(PNG)


def test_compare_of_two_devices_says_what_forbids_it(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep(enrol("kiosk"), "a.onnx", 0.010)
    keep(enrol("press"), "a.onnx", 0.012)

    main(["measurements", "compare", "1", "2"])

    assert "Not comparable: different devices" in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_is_told_before_it_is_drawn(
    enrol: Callable[[str], Device],
    keep: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep(enrol("kiosk"), "a.onnx", 0.010)

    codes = [
        main(["measurements", "show", "1", "-o", "samples.gif"]),
        main(["measurements", "compare", "1", "1", "-o", "no/such.png"]),
    ]

    assert codes == [2, 2]
    error = capsys.readouterr().err
    assert "must end with .png" in error
    assert "there is no folder no" in error


@pytest.fixture
def long_names(make_measurement: Callable[..., Measurement]) -> Sequence[Named]:
    made = make_measurement("d" * 32, "0" * 64, verdict=WARNED)
    model = "mobilenetv2_1.0-int8-quantised-candidate-of-the-painting-line.onnx"
    return [Named(made, model, "painting-line-panel-3", 12_345)]


@pytest.mark.parametrize("width", [80, 120])
def test_no_table_is_wider_than_the_terminal_and_no_figure_is_cut(
    long_names: Sequence[Named], width: int
) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width)

    console.print(measurements_table(long_names))
    for language in ("en", "ja"):
        console.print(measurement_block(long_names[0], language))

    text = file.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "…" not in text
    assert "12345" in text
    low, high = long_names[0].measurement.latency_interval_seconds
    assert f"[{milliseconds(low)}, {milliseconds(high)}]" in text
