"""What `genba measure` prints: each result as it arrives, for people, programs or spreadsheets."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from host.cli.console import note, print_json_line, table_console
from host.cli.pictures import write_picture
from host.errors import GenbaError
from host.measurement import Measurement, MeasurementFailure, Profile

if TYPE_CHECKING:
    from host.api.asking import Asked
    from host.measurement import FailureKind, Outcome
    from host.report.measurement_texts import Language
    from host.report.profile_plots import NamedProfile
    from host.store import Store

Form = Literal["text", "json", "csv"]
_ONCE_MORE = " (--again tries once more)"
_HINTS: "dict[FailureKind, str]" = {
    "not_ready": " (the same command tries again; --on-busy flag measures a busy device too)",
    "worker_crashed": _ONCE_MORE,
    "timeout": _ONCE_MORE,
    "resource": _ONCE_MORE,
}


class NotMeasuredError(GenbaError):
    """A device could not do what was asked of it."""


class RejectedError(GenbaError):
    """A figure came back that must not be used, and the caller wanted to know."""


class Results:
    """Prints results and remembers what to say in the end."""

    def __init__(self, form: Form, language: "Language") -> None:
        self._form = form
        self._language = language
        self._asked = 0
        self._failures: list[str] = []
        self._rejected: list[str] = []
        self._profiles: list[NamedProfile] = []

    def begin(self, asked: int) -> None:
        """So many results will come."""
        self._asked = asked
        if self._form == "csv":
            from host.report.records import CSV_COLUMNS

            self._write_csv(CSV_COLUMNS)

    def show(self, store: "Store", one: "Asked", outcome: "Outcome") -> None:
        """Print one result."""
        match outcome:
            case Measurement():
                self._show_measurement(store, one, outcome)
            case Profile():
                self._show_profile(one, outcome)
            case MeasurementFailure():
                self._show_failure(one, outcome)
            case _:
                raise NotMeasuredError(
                    f"job {one.job.id} has a result of another kind ({type(outcome).__name__})"
                )

    def draw_profiles(self, path: Path) -> None:
        """Write the picture of all profiles that came; without any it says so."""
        from host.report.profile_plots import profiles_figure

        if not self._profiles:
            note(f"{path} was not written: there is no profile to draw")
            return
        write_picture(path, profiles_figure(self._profiles, self._language))

    def end(self, *, strict: bool) -> None:
        """Raises NotMeasuredError where something failed, else RejectedError if `strict`."""
        if self._failures:
            if self._asked == 1:
                raise NotMeasuredError(self._failures[0])
            raise NotMeasuredError(f"{len(self._failures)} of {self._asked} failed, as said above")
        if strict and self._rejected:
            raise RejectedError(
                f"not to be used, because the verdict is REJECT: {', '.join(self._rejected)}"
            )

    def _show_measurement(self, store: "Store", one: "Asked", measurement: Measurement) -> None:
        from host.report.measurement import Named, measurement_block
        from host.report.records import csv_fields, measurement_record

        number = store.measurements.number_of(one.job.id)
        named = Named(measurement, one.model, one.device.name, number)
        if measurement.verdict.level == "REJECT":
            self._rejected.append(named.title())
        if self._form == "text":
            table_console().print(measurement_block(named, self._language))
        elif self._form == "json":
            print_json_line(measurement_record(named))
        else:
            self._write_csv(csv_fields(measurement_record(named)))

    def _show_profile(self, one: "Asked", profile: Profile) -> None:
        from host.report.profile import profile_table
        from host.report.profile_plots import NamedProfile
        from host.report.records import profile_record

        self._profiles.append(NamedProfile(profile, one.model, one.device.name))
        if self._form == "text":
            table = profile_table(profile, one.model, one.device.name, self._language)
            table_console().print(table)
        else:
            print_json_line(profile_record(profile, one.model, one.device.name))

    def _show_failure(self, one: "Asked", failure: MeasurementFailure) -> None:
        from host.report.records import csv_fields, failure_record

        sentence = failure_sentence(one, failure)
        self._failures.append(sentence)
        record = failure_record(failure, one.model, one.device.name)
        if self._form == "json":
            print_json_line(record)
        elif self._form == "csv":
            self._write_csv(csv_fields(record))
        if self._asked > 1:
            note(sentence)

    def _write_csv(self, fields: Sequence[str]) -> None:
        csv.writer(sys.stdout).writerow(fields)  # RFC 4180: quoted where needed, CRLF
        sys.stdout.flush()


def failure_sentence(one: "Asked", failure: MeasurementFailure) -> str:
    """What the device could not do, why, and what to do about it."""
    kind, message = failure.kind.replace("_", " "), failure.message.rstrip(".")
    hint = _HINTS.get(failure.kind, "")
    return f"{one.device.name} failed at {one.doing}: {kind}: {message}{hint}"
