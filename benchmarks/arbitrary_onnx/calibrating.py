"""The cost models of this machine, fitted as `genba device calibrate` does: same Calibrator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.arbitrary_onnx.measurements import Job, Measured, Measurements
from cost_models.kernels import KernelGraph
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nnls import FloatArray
from host.calibration.calibration import Calibrator, LeftOut, Row, Wish
from host.calibration.micrographs import micrographs, small_networks
from host.calibration.specimens import Form, Specimen, mobile_candidates
from host.measurement import Measurement

MEASUREMENTS = 30
_POOL, _SEED = 300, 5


@dataclass(frozen=True)
class Calibrated:
    """Fitted models of one setting, and what they were fitted on."""

    latency: LatencyModel
    memory: PeakMemoryModel
    graphs: tuple[KernelGraph, ...]
    measured: tuple[Measured, ...]
    names: tuple[str, ...]

    @property
    def latencies(self) -> FloatArray:
        """Seconds, in the order of the graphs."""
        return np.array([each.latency_seconds for each in self.measured])


def calibrated(
    runtime: str,
    threads: int,
    folder: Path,
    measurements: Measurements,
    take: Callable[[Sequence[Job]], None],
) -> Calibrated:
    """Choose, measure and fit; model files are written to `folder`.

    `take` has jobs measured that `measurements` does not hold yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    micro, candidates = _specimens("tflite" if runtime == "litert" else "onnx")
    known: dict[str, tuple[Specimen, Measured]] = {}

    def measure(specimens: Sequence[Specimen]) -> Mapping[str, Row | LeftOut]:
        jobs = [_job(specimen, threads, folder) for specimen in specimens]
        take(jobs)
        answers: dict[str, Row | LeftOut] = {}
        for specimen, job in zip(specimens, jobs, strict=True):
            found = measurements.measured(job.key)
            if found is None:
                why = measurements.failed.get(job.key, "not measured")
                answers[specimen.name] = LeftOut(specimen.name, specimen.kind, why)
                continue
            known[specimen.name] = specimen, found
            # The calibrator reads the two figures of a measurement, no more.
            row = Row(specimen.name, specimen.kind, cast("Measurement", found), None)
            answers[specimen.name] = row
        return answers

    wish = Wish(measurements=MEASUREMENTS)
    found = Calibrator(micro, candidates, measure, wish, threads=threads).run()
    fitted = [known[row.name] for row in found.rows]
    return Calibrated(
        found.latency,
        found.memory,
        tuple(specimen.kernels for specimen, _ in fitted),
        tuple(measured for _, measured in fitted),
        tuple(row.name for row in found.rows),
    )


def _specimens(form: Form) -> tuple[Sequence[Specimen], Sequence[Specimen]]:
    candidates = mobile_candidates(_POOL, _SEED, form)
    return micrographs(form), (*small_networks(form), *candidates)


def _job(specimen: Specimen, threads: int, folder: Path) -> Job:
    # Names hold signs that file systems do not like, and repeat none.
    stem = "".join(sign if sign.isalnum() else "-" for sign in specimen.name)
    path = folder / f"{stem}.{specimen.form}"
    path.write_bytes(specimen.model_bytes())
    return Job(specimen.name, path, {}, threads)
