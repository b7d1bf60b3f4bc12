"""The cost models of this machine, fitted as `genba device calibrate` does: same Calibrator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from host.calibration.specimens import MobileCandidate, Specimen, SpecimenKind, mobile_candidates
from host.measurement import Measurement

MEASUREMENTS = 30
_POOL, _SEED = 300, 5


@dataclass(frozen=True, eq=False)
class TfliteSpecimen:
    """A specimen for LiteRT: what `write` writes, instead of an ONNX file."""

    name: str
    kind: SpecimenKind
    write: Callable[[], bytes]

    @cached_property
    def kernels(self) -> KernelGraph:
        """What LiteRT executes."""
        from cost_models.tflite_graph import kernels_from_tflite

        return kernels_from_tflite(self.write())

    def onnx(self) -> bytes:
        """There is none: LiteRT reads .tflite alone."""
        raise NotImplementedError


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
    micro, candidates = _specimens(runtime)
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


def _specimens(runtime: str) -> tuple[Sequence[Specimen], Sequence[Specimen]]:
    candidates = mobile_candidates(_POOL, seed=_SEED)
    if runtime == "onnx":
        return micrographs(), (*small_networks(), *candidates)
    from benchmarks.arbitrary_onnx.tflite_micro import micro_files

    micro = [TfliteSpecimen(name, "micro-graph", write) for name, write in micro_files().items()]
    return micro, [_as_tflite(each) for each in candidates]


def _as_tflite(candidate: MobileCandidate) -> TfliteSpecimen:
    from benchmarks.arbitrary_onnx.tflite_file import tflite_bytes

    return TfliteSpecimen(candidate.name, "candidate", lambda: tflite_bytes(candidate.network))


def _job(specimen: Specimen, threads: int, folder: Path) -> Job:
    # Names hold signs that file systems do not like, and repeat none.
    stem = "".join(sign if sign.isalnum() else "-" for sign in specimen.name)
    tflite = isinstance(specimen, TfliteSpecimen)
    path = folder / f"{stem}{'.tflite' if tflite else '.onnx'}"
    if not path.exists():
        path.write_bytes(
            specimen.write() if isinstance(specimen, TfliteSpecimen) else specimen.onnx()
        )
    return Job(specimen.name, path, {}, threads)
