"""`study.toml`: what one search is to do, checked before anything starts.

People write milliseconds and megabytes here, with the unit in the key; the properties of these
models give seconds and bytes to the rest of the program.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from host.device import RuntimeName
from host.errors import UsageError

BYTES_PER_MB = 1_000_000
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class ConfigError(UsageError):
    """A configuration that cannot be used; says which key, and what is wrong with it."""


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


SpaceName = Literal["nasbench201", "mobile", "resnet-lite", "conv1d"]


class SpaceConfig(Section):
    """Where candidates come from."""

    name: SpaceName = "mobile"
    resolution: Count | None = Field(
        None, description="Side of the square input; only for nasbench201 (default 32)."
    )
    refine: bool = Field(
        True,
        description="Leave out of mobile what the cost model of a calibrated device calls dear: "
        "squeeze-and-excite, hard-swish.",
    )
    restrict: dict[str, list[float | int | str | bool]] = Field(
        default_factory=dict,
        description="Decisions by name, each with the choices to keep: depth = [1, 2] of mobile, "
        'operation = ["none", "nor_conv_3x3"] of nasbench201.',
    )

    @model_validator(mode="after")
    def _fits_the_space(self) -> Self:
        if self.name != "nasbench201" and self.resolution is not None:
            raise ValueError("resolution belongs to nasbench201; use restrict.resolution = [64]")
        return self


class DataConfig(Section):
    """What finalists are trained on, and what proxies look at."""

    folder: str = Field(description="Folder with one sub-folder per class; relative to the file.")
    kind: Literal["auto", "images", "signals"] = "auto"
    table: str | None = Field(
        None, description="CSV with the columns path and label, and group and split if there are."
    )
    columns: dict[Literal["path", "label", "group", "split"], str] = Field(
        default_factory=dict, description="What the columns of the table are called."
    )
    channels: list[str] | None = Field(
        None, description="Columns of recordings that are read (default: all)."
    )
    group: str | None = Field(
        None,
        description="Regular expression on the path whose first group tells shots of one part: "
        "they stay in one part of the data.",
    )
    colour: Literal["auto", "grey", "rgb"] = "auto"
    window: Count | None = Field(None, description="Samples in a window; signals only.")
    step: Count | None = Field(None, description="Samples between windows; default: the window.")
    defect_class: str | None = Field(
        None, description="With two classes: the one that inspection is to find."
    )
    cost_of_miss: Positive = Field(10.0, description="Of a defect that passes, in any unit.")
    cost_of_false_alarm: Positive = Field(1.0, description="Of a good part that is stopped.")
    max_false_alarms: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Share of good parts that may be stopped, for which recall is told."
    )
    licence: str = Field("not stated", description="Of the data; goes into the bundle.")


class DeviceConfig(Section):
    """A device profile that the result must fit: a registered device, how it runs models, and its
    limits. One device may stand in several profiles.
    """

    name: str = Field(description="Of the profile; of the registered device too, unless said.")
    device: str | None = Field(None, description="The registered device (default: name).")
    runtime: RuntimeName = "onnx"
    threads: Count = 1
    max_latency_ms: Positive | None = Field(None, description="Of the median latency.")
    max_latency_p90_ms: Positive | None = Field(
        None, description="Of the latency that nine of ten inferences keep."
    )
    max_peak_memory_mb: Positive | None = Field(
        None, description="Resident memory of the process that runs the model, at its peak."
    )
    max_energy_mj: Positive | None = Field(
        None, description="Of one inference, what the device draws at idle included."
    )
    max_power_w: Positive | None = Field(
        None, description="Mean power of the device at the rate of [line]."
    )

    @property
    def machine(self) -> str:
        """The name of the registered device."""
        return self.name if self.device is None else self.device


class LineConfig(Section):
    """How the line will use the network."""

    rate_hertz: Positive | None = Field(
        None, description="Inferences a second; every device must keep up with it."
    )


class LimitsConfig(Section):
    """Limits that hold on every device."""

    max_model_mb: Positive | None = Field(None, description="Size of the float32 ONNX file.")

    @property
    def max_model_bytes(self) -> float | None:
        return None if self.max_model_mb is None else self.max_model_mb * BYTES_PER_MB


ProxyName = Literal[
    "parameters",
    "flops",
    "layers",
    "depth",
    "nn_mass",
    "nn_degree",
    "l2_norm",
    "naswot",
    "linear_regions",
    "swap",
    "meco",
    "zen",
    "az_expressivity",
    "az_progressivity",
    "response_variance",
    "gradient_balance",
    "az_trainability",
    "synflow",
    "log_synflow",
    "jacob_cov",
    "epe_nas",
    "grad_norm",
    "plain",
    "snip",
    "fisher",
    "zico",
    "grasp",
    "gradsign",
    "ntk_condition",
    "vkdnw",
]
EnsembleName = Literal["genba", "synflow_az", "az_nas", "vkdnw_agg", "te_nas"]
DEFAULT_ENSEMBLE: EnsembleName = "genba"


class SearchConfig(Section):
    """How candidates are ranked and bred."""

    proxies: Annotated[list[ProxyName], Field(min_length=1)] | None = Field(
        None, description="Their ranks are combined: the sum of log(rank / N)."
    )
    ensemble: EnsembleName | None = Field(
        None, description='A combination of proxies by name, instead of proxies (default "genba").'
    )
    batch_size: Annotated[int, Field(ge=8)] = 32
    population: Annotated[int, Field(ge=8)] = 24
    patience: Count = Field(
        5, description="Generations without a gain of the front's hypervolume that end the search."
    )
    min_gain: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="The least gain of the hypervolume that counts, relative."
    )

    @model_validator(mode="before")
    @classmethod
    def _has_a_default(cls, table: Any) -> Any:
        # Written into the effective configuration: a study keeps what it was started with.
        keys = ("proxies", "ensemble")
        if isinstance(table, dict) and all(table.get(key) is None for key in keys):
            return table | {"ensemble": DEFAULT_ENSEMBLE}
        return table

    @model_validator(mode="after")
    def _has_one_of_both(self) -> Self:
        if self.proxies is not None and self.ensemble is not None:
            raise ValueError("proxies and ensemble exclude each other: leave one of them out")
        return self


class BudgetConfig(Section):
    """What may be spent."""

    candidates: Annotated[int, Field(ge=20)] = Field(200, description="Candidates to score.")
    measurements: Annotated[int, Field(ge=12)] = Field(
        24, description="Candidates to measure on each device, those for calibration included."
    )
    calibration: Annotated[int, Field(ge=10)] = Field(
        12, description="The first of them, chosen D-optimally to fit the cost models."
    )
    device_minutes: Positive | None = Field(
        None, description="Time that the search may use devices, of all of them together."
    )
    minutes: Positive | None = Field(
        None,
        description="Time from start to end, stops left out: half of it for the search, the rest "
        "for the finalists.",
    )
    epochs: Count | None = Field(None, description="Epochs of training, all candidates together.")

    @property
    def device_seconds(self) -> float | None:
        return None if self.device_minutes is None else 60 * self.device_minutes

    @property
    def seconds(self) -> float | None:
        return None if self.minutes is None else 60 * self.minutes

    @model_validator(mode="after")
    def _calibration_fits(self) -> Self:
        if self.calibration >= self.measurements:
            raise ValueError("measurements must be more than calibration")
        if self.calibration > self.candidates:
            raise ValueError("candidates must be at least as many as calibration")
        return self


class FinalistsConfig(Section):
    """How the chosen few are trained and shipped."""

    count: Annotated[int, Field(ge=1, le=20)] = 2
    trials: Annotated[int, Field(ge=1, le=60)] | None = Field(
        None,
        description="Candidates of the front that training begins with; the better half or third "
        "goes on at every round (default: three for each finalist).",
    )
    epochs: Count = 27
    halving: Annotated[int, Field(ge=2, le=8)] = Field(
        3, description="One in so many candidates goes on, for so many times the epochs."
    )
    patience: Count = 10
    batch_size: Annotated[int, Field(ge=2)] = 16
    learning_rate: Positive = 4e-3
    flips: bool = Field(True, description="Mirrored images show the same class.")
    quarter_turns: bool = Field(True, description="So do images turned by quarters.")
    distillation: bool = Field(
        False, description="Smaller finalists also learn from the best one's answers."
    )
    weights: str | None = Field(
        None, description="Local file of weights to start from; relative to the study's file."
    )
    max_int8_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, description="Largest loss of accuracy (AUROC with two classes) that int8 may cost."
    )

    @property
    def first_round(self) -> int:
        """How many candidates training begins with."""
        return 3 * self.count if self.trials is None else max(self.trials, self.count)


Preset = Literal["quick", "standard", "thorough"]


class MeasuringConfig(Section):
    """How carefully devices measure: `genba measure --preset` knows the same words."""

    search: Preset = Field("quick", description="For candidates, of which there are many.")
    finalists: Preset = Field("standard", description="For finalists, whose figures are quoted.")
    on_busy: Literal["flag", "refuse"] = Field(
        "flag",
        description="What a device does that other programs keep busy: measure and say so in the "
        "verdict, or wait until it is quiet.",
    )
    offline_minutes: Positive = Field(
        240.0, description="How long to wait for a device that is offline before going on without."
    )
    energy: bool = Field(False, description="Measure the energy of finalists too: minutes each.")


class StudyConfig(Section):
    """One search from start to end."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    devices: Annotated[list[DeviceConfig], Field(min_length=1)]
    space: SpaceConfig = SpaceConfig()
    limits: LimitsConfig = LimitsConfig()
    line: LineConfig = LineConfig()
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig = BudgetConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    measuring: MeasuringConfig = MeasuringConfig()

    @model_validator(mode="after")
    def _devices_are_named_once(self) -> Self:
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError(f"devices: each name may stand once, got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _power_has_a_rate(self) -> Self:
        limited = [device.name for device in self.devices if device.max_power_w is not None]
        if limited and self.line.rate_hertz is None:
            raise ValueError(
                f"max_power_w of {limited[0]} needs rate_hertz in [line]: power depends on how "
                "often the network is asked"
            )
        return self

    @model_validator(mode="after")
    def _data_fit_the_space(self) -> Self:
        if (self.space.name == "conv1d") != (self.data.kind == "signals"):
            raise ValueError(
                'space conv1d and data of kind "signals" go together: signals have no other '
                "space, and images cannot be read by this one"
            )
        return self

    def effective_json(self) -> str:
        """Every value that is in force, defaults included."""
        return self.model_dump_json()


def load_study(path: Path) -> StudyConfig:
    """Read a study; a relative data folder is taken from the file's own folder.

    Raises ConfigError where the file is missing, no TOML, or does not fit the schema.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}: name the study.toml to run") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    return study_of(table, path.parent, said=str(path))


def study_of(table: Mapping[str, Any], folder: Path, *, said: str) -> StudyConfig:
    """A study from the table of its file; relative paths in it are taken from the folder.

    Raises ConfigError, which calls the table as `said`, where it does not fit the schema.
    """
    absolute = dict(table)
    for section, key in (("data", "folder"), ("data", "table"), ("finalists", "weights")):
        values = absolute.get(section)
        if isinstance(values, Mapping) and isinstance(values.get(key), str):
            absolute[section] = {**values, key: str((folder / values[key]).resolve())}
    try:
        return StudyConfig.model_validate(absolute)
    except ValidationError as error:
        raise ConfigError(f"{said}: {_sentence(error)}") from error


def stored_study(effective_json: str) -> StudyConfig:
    """A study from the effective configuration that was stored. Raises ConfigError."""
    try:
        return StudyConfig.model_validate_json(effective_json)
    except ValidationError as error:
        raise ConfigError(
            f"the stored configuration is of another version of genba: {_sentence(error)}"
        ) from error


def study_schema() -> dict[str, Any]:
    """The JSON schema of `study.toml`."""
    return StudyConfig.model_json_schema()


def _sentence(error: ValidationError) -> str:
    """One problem, by its key; the rest are counted.

    A key that is unknown comes first: misspelt, it makes another one missing.
    """
    problems = error.errors(include_url=False)
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    match first["type"]:
        case "extra_forbidden":
            text = f"unknown key {key!r}: remove it or correct its name"
        case "missing":
            text = f"the key {key!r} is missing"
        case _:
            text = f"{key}: {first['msg'].removeprefix('Value error, ')}"
            if not isinstance(first["input"], dict | list):
                text += f", got {first['input']!r}"
    more = len(problems) - 1
    return text + (f" (and {more} more)" if more else "")
