"""What models will take on a device, by its stored cost models."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from host.api.model_files import ModelFileError, read_model_file, runtime_of
from host.device import RuntimeName

if TYPE_CHECKING:
    from cost_models.kernels import KernelGraph
    from host.device import Device
    from host.measurement import InputShape
    from host.report.cost import PredictedModel
    from host.store import Store


def read_graph(
    path: Path, runtime: RuntimeName, shapes: "Sequence[InputShape]" = ()
) -> "KernelGraph":
    """What the runtime will execute of a model's file. Raises ModelFileError."""
    from cost_models.program import GraphError, UnknownShapeError

    if runtime == "ncnn":
        raise ModelFileError(
            f"{path}: cost models read ONNX and TFLite files: predict the .onnx file of the same "
            "network"
        )
    data = read_model_file(path)
    given = {shape.name: shape.sizes for shape in shapes}
    try:
        if runtime == "onnx":
            from cost_models.onnx_graph import kernels_from_onnx

            return kernels_from_onnx(data, input_shapes=given)
        from cost_models.tflite_graph import kernels_from_tflite

        return kernels_from_tflite(data, input_shapes=given)
    except UnknownShapeError as error:
        raise ModelFileError(f"{path}: {error} (--input-shape NAME=1,3,224,224)") from error
    except GraphError as error:
        raise ModelFileError(f"{path}: {error}") from error


def predicted(
    store: "Store",
    device: "Device",
    graphs: "Mapping[Path, KernelGraph]",
    *,
    runtime: RuntimeName | None,
    threads: int,
) -> "Iterator[list[PredictedModel]]":
    """The files of each runtime, in the order of the files. Raises NotCalibratedError."""
    from host.calibration.prediction import Predictor
    from host.calibration.setting import Setting
    from host.report.cost import PredictedModel

    by_runtime: dict[RuntimeName, list[Path]] = {}
    for file in graphs:
        by_runtime.setdefault(runtime_of(file, runtime), []).append(file)
    for name, files in by_runtime.items():
        predictor = Predictor.of(store, device, Setting.of_device(device, name, threads))
        found = predictor.predict([graphs[file] for file in files])
        yield [
            PredictedModel(file.name, predictor, graphs[file], forecasts)
            for file, forecasts in zip(files, found, strict=True)
        ]
