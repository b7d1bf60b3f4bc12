"""`study.toml`: what one search is to do, checked before anything starts.

People write milliseconds and megabytes here, with the unit in the key; the properties of these
models give seconds and bytes to the rest of the program.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
    restrict: dict[str, list[float | int | str | bool]] = Field(
        default_factory=dict,
        description="Decisions by name, each with the choices to keep: depth = [1, 2] of mobile, "
        'operation = ["none", "nor_conv_3x3"] of nasbench201.',
    )

    @model_validator(mode="after")
    def _fits_the_space(self) -> Self:
        if self.name == "conv1d":
            raise ValueError(
                "conv1d is a space for signals, and the data of a study are images: choose another"
            )
        if self.name != "nasbench201" and self.resolution is not None:
            raise ValueError("resolution belongs to nasbench201; use restrict.resolution = [64]")
        return self


class DataConfig(Section):
    """The images that finalists are trained on, and that proxies look at."""

    folder: str = Field(description="Folder with one sub-folder per class; relative to the file.")
    colour: Literal["auto", "grey", "rgb"] = "auto"
    licence: str = Field("not stated", description="Of the images; goes into the bundle.")


class DeviceConfig(Section):
    """A registered device that the result must fit, and its limits there."""

    name: str
    max_latency_ms: Positive | None = None
    max_peak_memory_mb: Positive | None = Field(
        None, description="Resident memory of the process that runs the model, at its peak."
    )
    threads: Count = 1

    @property
    def max_latency_seconds(self) -> float | None:
        return None if self.max_latency_ms is None else self.max_latency_ms / 1000

    @property
    def max_peak_rss_bytes(self) -> float | None:
        mb = self.max_peak_memory_mb
        return None if mb is None else mb * BYTES_PER_MB


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
    epochs: Count = 10
    patience: Count = 5
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Positive = 2e-3
    max_int8_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, description="Largest loss of accuracy (AUROC with two classes) that int8 may cost."
    )


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
    energy: bool = Field(False, description="Measure the energy of finalists too: minutes each.")


class StudyConfig(Section):
    """One search from start to end."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    devices: Annotated[list[DeviceConfig], Field(min_length=1)]
    space: SpaceConfig = SpaceConfig()
    limits: LimitsConfig = LimitsConfig()
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
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("folder"), str):
        data["folder"] = str((path.parent / data["folder"]).resolve())
    try:
        return StudyConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error)}") from error


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
