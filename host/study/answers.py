"""Whether a form of a finalist answers on a device as it does here.

int8 answers depend on the CPU: without VNNI, onnxruntime's signed kernels saturate. Accuracy is
therefore not assumed on the device; the device is asked.
"""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from host.export.check import Floats, load, logits_of_onnx
from host.job import Job
from host.measurement import ModelRun, Outcome, VerifiedOutputs, VerifySpec
from host.measurement.outputs import BadOutputsError, read_outputs
from host.measurement.verification import Verification, compare_outputs
from host.store.store import Store
from host.store.wait import Waiting, wait_for_outcomes
from host.study.ledger import StudyDevice

MOST_IMAGES = 64
SAME_ANSWERS = 0.97
"""The least share of images on which a device must give the host's answer."""


def agreement_by_device(
    store: Store,
    study_id: int,
    devices: Sequence[StudyDevice],
    model: bytes,
    images: Floats,
    *,
    on_wait: Callable[[Waiting], None],
) -> Mapping[str, float | None]:
    """Share of the images (N, C, H, W) on which each device's largest class is the host's.

    At most MOST_IMAGES are sent. None for a device that could not run them.
    """
    sent = images[:MOST_IMAGES]
    session = load(model)
    expected = {session.get_outputs()[0].name: logits_of_onnx(model, sent)}
    blob = store.blobs.put(model)
    inputs = store.blobs.put(_npz(session.get_inputs()[0].name, sent))
    jobs: dict[str, tuple[Job, str]] = {}
    for device in devices:
        run = ModelRun(blob.sha256, blob.size_bytes, threads=device.config.threads)
        job = store.jobs.submit(
            device.device.id,
            VerifySpec(run, inputs.sha256, inputs.size_bytes),
            study_id=study_id,
            purpose="answers",
            label="answers of a finalist",
        )
        jobs[job.id] = job, device.name
    waiting = wait_for_outcomes(store, [job for job, _ in jobs.values()], on_wait=on_wait)
    return {jobs[job.id][1]: _agreement(store, outcome, expected) for job, outcome in waiting}


def _agreement(store: Store, outcome: Outcome, expected: Mapping[str, Floats]) -> float | None:
    if not isinstance(outcome, VerifiedOutputs):
        return None
    try:
        path = store.blobs.path(outcome.outputs_sha256)
        got = read_outputs(path, max_bytes=10 * sum(array.nbytes for array in expected.values()))
    except BadOutputsError:
        return None
    verified: Verification = compare_outputs(
        expected, got, relative_tolerance=0.0, absolute_tolerance=0.0
    )
    # Other outputs than were expected agree on nothing.
    return verified.top1_agreement or 0.0


def _npz(name: str, images: Floats) -> bytes:
    """The same bytes for the same images, so that asking twice is the same job."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array(entry, images, allow_pickle=False)  # type: ignore[no-untyped-call]
    return stream.getvalue()
