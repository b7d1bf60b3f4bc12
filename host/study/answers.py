"""Whether a form of a finalist answers on a device as it does here.

int8 answers depend on the CPU: without VNNI, onnxruntime's signed kernels saturate. Accuracy is
therefore not assumed on the device; the device is asked.
"""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from host.export.check import Feed, Floats
from host.export.forms import Form, feed_of_form, logits_of_form, runtime_of
from host.job import Job
from host.measurement import Outcome, VerifiedOutputs, VerifySpec
from host.measurement.outputs import BadOutputsError, read_outputs
from host.measurement.verification import compare_outputs
from host.store.store import Store
from host.store.wait import Waiting, wait_for_outcomes
from host.study.ledger import StudyDevice

MOST_IMAGES = 64
SAME_ANSWERS = 0.97
"""The least share of samples on which a device must give the host's answer."""


def agreement_by_device(
    store: Store,
    study_id: int,
    devices: Sequence[StudyDevice],
    form: Form,
    model: bytes,
    inputs: Floats,
    *,
    on_wait: Callable[[Waiting], None],
) -> Mapping[str, float | None]:
    """Share of the normalised samples, images (N, C, H, W) or signals (N, C, L), on which the
    largest class of each device profile is the host's.

    At most MOST_IMAGES are sent, laid out as the file reads them. Profiles of another runtime
    than the form's are not asked; None for one that could not run them. Raises ExportError where
    the file does not answer here.
    """
    sent = inputs[:MOST_IMAGES]
    feed = feed_of_form(form, model, sent)
    expected = {feed.output_name: logits_of_form(form, model, sent)}
    blob, samples = store.blobs.put(model), store.blobs.put(_npz(feed))
    jobs: dict[str, Job] = {}
    names: dict[str, list[str]] = {}
    for device in devices:
        if device.runtime != runtime_of(form):
            continue
        run = device.run(blob.sha256, blob.size_bytes)
        job = store.jobs.submit(
            device.device.id,
            VerifySpec(run, samples.sha256, samples.size_bytes),
            study_id=study_id,
            purpose="answers",
            label="answers of a finalist",
        )
        jobs[job.id] = job
        names.setdefault(job.id, []).append(device.name)
    found: dict[str, float | None] = {}
    for job, outcome in wait_for_outcomes(store, list(jobs.values()), on_wait=on_wait):
        agreement = _agreement(store, outcome, expected)
        found |= dict.fromkeys(names[job.id], agreement)
    return found


def _agreement(store: Store, outcome: Outcome, expected: Mapping[str, Floats]) -> float | None:
    if not isinstance(outcome, VerifiedOutputs):
        return None
    try:
        path = store.blobs.path(outcome.outputs_sha256)
        got = read_outputs(path, max_bytes=10 * sum(array.nbytes for array in expected.values()))
    except BadOutputsError:
        return None
    verified = compare_outputs(expected, got, relative_tolerance=0.0, absolute_tolerance=0.0)
    # Other outputs than were expected agree on nothing.
    return verified.top1_agreement or 0.0


def _npz(feed: Feed) -> bytes:
    """The same bytes for the same samples, so that asking twice is the same job."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
        archive.open(f"{feed.input_name}.npy", "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array(entry, feed.inputs, allow_pickle=False)  # type: ignore[no-untyped-call]
    return stream.getvalue()
