"""An open workspace: its devices, and what can be asked of them."""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from host.api.bounds import (
    check_choice,
    check_number,
    check_runtime,
    check_several,
    check_threads,
)
from host.api.measuring import MeasuredModel, OnProgress, await_measured, is_answered
from host.api.ranking import OnProgress as OnRankProgress
from host.api.study import Study, config_of
from host.device import RuntimeName

if TYPE_CHECKING:
    from host.config import StudyConfig
    from host.device import DeviceFacts, Runtime
    from host.gateway.server import RunningGateway
    from host.measurement import InputShape, PresetName, Readiness
    from host.ranking.ranking import Ranking
    from host.report.cost import PredictedModel
    from host.store import Store
    from host.workspace import Workspace

ModelFile = Path | str
_log = logging.getLogger("genba.api")


@dataclass(frozen=True)
class EnrolledDevice:
    """A device of the workspace. `facts` are None until its agent has connected once."""

    name: str
    online: bool
    facts: "DeviceFacts | None"

    @property
    def runtimes(self) -> "tuple[Runtime, ...]":
        """Those that work there."""
        return () if self.facts is None else tuple(r for r in self.facts.runtimes if r.works)


class OpenWorkspace:
    """A workspace in use; leave its `with` block, or close it, to end what it started.

    Sizes are in bytes and times in seconds. A path is a `Path` or a string. Whatever goes wrong is
    a GenbaError whose text is one sentence.
    """

    def __init__(self, workspace: "Workspace", store: "Store", stack: ExitStack) -> None:
        self.root = workspace.root
        self.store = store
        self._workspace = workspace
        self._stack = stack
        self._gateway: RunningGateway | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the gateway, if this workspace runs one, and close the store."""
        self._stack.close()

    def serve(self) -> None:
        """See to it that devices can reach the workspace: `measure` and `Study.run` do so.

        Starts a gateway in this process where none runs anywhere; it ends with the workspace.
        Raises GatewayError.
        """
        from host.gateway.server import ensure_gateway

        if self._gateway is None:
            serving = ensure_gateway(self._workspace, self.store)
            self._gateway = self._stack.enter_context(serving)

    def devices(self) -> list[EnrolledDevice]:
        """The devices that are enrolled and not shut out, by name."""
        found = [device for device in self.store.devices.all() if device.revoked_at is None]
        return [
            EnrolledDevice(device.name, self.store.devices.is_online(device), device.facts)
            for device in sorted(found, key=lambda device: device.name)
        ]

    def measure(  # noqa: PLR0913 - as many wishes as the command has
        self,
        files: Sequence[ModelFile],
        devices: Sequence[str],
        *,
        preset: "PresetName" = "standard",
        runtime: RuntimeName | None = None,
        threads: int = 1,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        energy: bool = False,
        rate_hertz: float | None = None,
        readiness: "Readiness | None" = None,
        again: bool = False,
        timeout_seconds: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[MeasuredModel]:
        """Measure ONNX, TFLite or ncnn files on every device, first all devices of the first file.

        What was measured before in the same way is not measured again, except `again`. A rate
        measures energy also at so many inferences a second. Waits for devices that are offline, at
        most `timeout_seconds`. Raises UsageError, ModelFileError, NoRuntimeError,
        UnknownDeviceError, TimedOutError, JobCancelledError and GatewayError; that a device could
        not measure a model is a result.
        """
        from host.api.asking import Wish, ask, plan_of, purpose_of
        from host.api.model_files import check_model_file, runtime_of
        from host.measurement import PRESETS, Readiness

        check_several("files", files)
        check_several("devices", devices)
        check_choice("preset", preset, list(PRESETS))
        check_runtime(runtime)
        check_threads(threads)
        check_number("rate_hertz", rate_hertz, 0.001, 10_000.0)
        check_number("timeout_seconds", timeout_seconds, 0.0, math.inf)
        paths = list(dict.fromkeys(map(Path, files)))
        for path in paths:
            check_model_file(path, runtime_of(path, runtime))
        targets = [self.store.devices.by_name(name) for name in dict.fromkeys(devices)]
        wish = Wish(
            plan=plan_of(preset, rate_hertz, energy=energy),
            readiness=readiness or Readiness(),
            runtime=runtime,
            threads=threads,
            shapes=_shapes(input_shapes),
            purpose=purpose_of("measure", again=again),
        )
        asked = ask(self.store, paths, targets, wish, _log.warning)
        if not is_answered(self.store, asked):
            self.serve()
        return await_measured(
            self.store,
            asked,
            timeout_seconds=timeout_seconds,
            withdraw=again,
            on_progress=on_progress,
        )

    def predict(
        self,
        files: Sequence[ModelFile],
        device: str,
        *,
        runtime: RuntimeName | None = None,
        threads: int = 1,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> "list[PredictedModel]":
        """What the device's stored cost models say of each file, in the order of the files.

        `forecasts` of each has latency, peak memory, energy and power with intervals, or the
        reason why not. Raises UsageError, ModelFileError, UnknownDeviceError and
        NotCalibratedError.
        """
        from host.api.model_files import runtime_of
        from host.api.predicting import predicted, read_graph

        check_several("files", files)
        check_runtime(runtime)
        check_threads(threads)
        paths = list(dict.fromkeys(map(Path, files)))
        shapes = _shapes(input_shapes)
        graphs = {path: read_graph(path, runtime_of(path, runtime), shapes) for path in paths}
        found = self.store.devices.by_name(device)
        groups = predicted(self.store, found, graphs, runtime=runtime, threads=threads)
        by_graph = {id(one.graph): one for group in groups for one in group}
        return [by_graph[id(graphs[path])] for path in paths]

    def rank(  # noqa: PLR0913 - as many wishes as the command has
        self,
        targets: ModelFile | Sequence[ModelFile],
        *,
        sample: int | None = None,
        proxies: Sequence[str] | None = None,
        ensemble: str | None = None,
        devices: Sequence[str] = (),
        threads: int = 1,
        images: ModelFile | None = None,
        batch_size: int = 32,
        resolution: int | None = None,
        draws: int = 1,
        keep: float | None = None,
        seed: int = 0,
        processes: int = 1,
        on_progress: OnRankProgress | None = None,
    ) -> "Ranking":
        """Rank a sample of a search space, or ONNX files, without training; see `RankRequest`.

        `places` of the ranking are in order, best first, each with its score and what it costs.
        Every score is stored as it comes. More than one of `processes` needs a program that can be
        imported, as `multiprocessing` has it. Raises UsageError, UnknownDeviceError,
        NotCalibratedError and ScoringError.
        """
        from host.api.ranking import RankRequest, check_request, rank_networks
        from host.proxies.choice import judge

        check_several("devices", devices)
        check_several("proxies", proxies)
        names = [targets] if isinstance(targets, str | Path) else targets
        request = RankRequest(
            targets=tuple(map(str, names)),
            ensemble=judge(ensemble, proxies),
            sample=sample,
            keep=keep,
            devices=tuple(devices),
            threads=threads,
            images=None if images is None else str(images),
            batch_size=batch_size,
            resolution=resolution,
            draws=draws,
            seed=seed,
            processes=processes,
        )
        check_request(request)
        return rank_networks(
            self.store, request, say=_log.warning, on_progress=on_progress or _nobody_watches
        )

    def study(self, config: "Path | str | Mapping[str, Any] | StudyConfig") -> Study:
        """A study from its file, its table or its configuration. Raises ConfigError."""
        return Study(self, config_of(config))

    def stored_study(self, name: str) -> Study:
        """A study that ran here before, as it was configured then.

        Raises UnknownStudyError and ConfigError.
        """
        from host.config import stored_study

        return Study(self, stored_study(self.store.studies.by_name(name).config_json))


def open_workspace(path: ModelFile | None = None) -> OpenWorkspace:
    """The workspace in that folder, else that of GENBA_WORKSPACE, else the nearest one upwards.

    Raises WorkspaceError and StoreError.
    """
    from host.workspace import Workspace

    workspace = Workspace.find(Path.cwd(), None if path is None else Path(path))
    with ExitStack() as stack:
        store = stack.enter_context(workspace.open_store())
        return OpenWorkspace(workspace, store, stack.pop_all())


def _shapes(given: Mapping[str, Sequence[int]] | None) -> "tuple[InputShape, ...]":
    from host.measurement import InputShape

    return tuple(InputShape(name, tuple(sizes)) for name, sizes in (given or {}).items())


def _nobody_watches(_what: str, _done: int, _total: int, _share: float) -> None:
    """Nobody asked how far it is."""
