"""`study.toml`: what it may say, and the sentence for what it may not."""

from pathlib import Path
from typing import get_args

import pytest

from host.config import (
    DEFAULT_ENSEMBLE,
    ConfigError,
    SpaceName,
    StudyConfig,
    load_study,
    stored_study,
    study_schema,
)
from host.spaces.base import size
from host.spaces.catalogue import SPACES, space_by_name
from host.study.limits import limits_of
from host.study.run import space_of

MINIMAL = """
name = "line-3"
[data]
folder = "images"
[[devices]]
name = "panel"
max_latency_ms = 20
max_peak_memory_mb = 150
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_a_minimal_file_is_enough_and_units_become_si(tmp_path):
    config = load_study(write(tmp_path, MINIMAL))

    latency, memory = limits_of(config)
    assert latency.quantity == "latency_seconds"
    assert latency.maximum == pytest.approx(0.020)
    assert (memory.quantity, memory.maximum) == ("peak_rss_bytes", 150e6)
    assert config.devices[0].machine == "panel"
    assert config.limits.max_model_bytes is None


def test_the_data_folder_is_taken_from_the_files_own_folder(tmp_path):
    config = load_study(write(tmp_path, MINIMAL))

    assert config.data.folder == str(tmp_path / "images")


def test_labels_and_weights_are_taken_from_the_files_own_folder_too(tmp_path):
    text = MINIMAL.replace('folder = "images"', 'folder = "images"\ntable = "labels.csv"')
    config = load_study(write(tmp_path, text + '[finalists]\nweights = "old.pt"\n'))

    assert config.data.table == str(tmp_path / "labels.csv")
    assert config.finalists.weights == str(tmp_path / "old.pt")


def test_a_limit_on_power_needs_the_rate_of_the_line(tmp_path):
    with pytest.raises(ConfigError, match=r"max_power_w of panel needs rate_hertz in \[line\]"):
        load_study(write(tmp_path, MINIMAL + "max_power_w = 4\n"))

    config = load_study(write(tmp_path, MINIMAL + "max_power_w = 4\n[line]\nrate_hertz = 2\n"))
    assert config.line.rate_hertz == 2


def test_the_effective_configuration_reads_back_as_the_same_study(tmp_path):
    config = load_study(write(tmp_path, MINIMAL + "[space]\nrestrict.width = [0.25, 1]\n"))

    assert stored_study(config.effective_json()) == config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("colour = 1\n" + MINIMAL, "unknown key 'colour'"),
        (MINIMAL + "max_latency = 3\n", r"unknown key 'devices.0.max_latency'"),
        (MINIMAL.replace("20", '"fast"'), r"devices.0.max_latency_ms: .* got 'fast'"),
        (MINIMAL.replace("20", "-1"), r"devices.0.max_latency_ms: .*greater than 0"),
        (MINIMAL.replace('name = "line-3"', ""), "the key 'name' is missing"),
        (MINIMAL.replace("line-3", "a b"), "name: "),
        (MINIMAL + '[[devices]]\nname = "panel"\n', "each name may stand once"),
        (MINIMAL + "[budget]\nmeasurements = 12\ncalibration = 12\n", "more than calibration"),
        (MINIMAL + '[search]\nproxies = ["magic"]\n', "search.proxies.0"),
        (MINIMAL + "[search]\nproxies = []\n", "search.proxies"),
        (MINIMAL + "[space]\nresolution = 64\n", "resolution belongs to nasbench201"),
        (MINIMAL + '[space]\nname = "resnet-lite"\nresolution = 64\n', "resolution belongs"),
        (
            MINIMAL + '[space]\nname = "conv1d"\n',
            'space conv1d and data of kind "signals" go together',
        ),
        (MINIMAL + '[space]\nname = "darts"\n', "space.name: .*'resnet-lite'"),
        ("name = ", "is no TOML file"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key_and_the_reason(tmp_path, change, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_study(write(tmp_path, change))

    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value).replace(str(tmp_path), "") or "TOML" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*nothing\.toml"):
        load_study(tmp_path / "nothing.toml")


def test_several_problems_are_counted(tmp_path):
    with pytest.raises(ConfigError, match=r"and 1 more"):
        load_study(write(tmp_path, "one = 1\ntwo = 2\n" + MINIMAL))


def test_the_names_of_spaces_are_those_of_the_catalogue():
    assert get_args(SpaceName) == tuple(SPACES)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ('name = "resnet-lite"\nrestrict.block = ["plain"]', "resnet-lite"),
        ('name = "nasbench201"\nresolution = 48\nrestrict.operation = ["none", "nor_conv_3x3"]',
         "nasbench201"),
        ("restrict.squeeze = [false]", "mobile"),
    ],
)  # fmt: skip
def test_every_space_for_images_can_be_named_and_restricted(tmp_path, space, name):
    config = load_study(write(tmp_path, MINIMAL + f"[space]\n{space}\n"))

    space = space_of(config)

    assert space.name == name
    assert size(space) < size(space_by_name(name))


def test_the_schema_names_every_section():
    assert set(study_schema()["properties"]) == set(StudyConfig.model_fields)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(MINIMAL, encoding="utf-8-sig")

    assert load_study(path).name == "line-3"


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_limit_is_a_finite_number(tmp_path, value):
    with pytest.raises(ConfigError, match="max_latency_ms"):
        load_study(write(tmp_path, MINIMAL.replace("20", value)))


def test_without_a_choice_the_default_ensemble_is_written_down(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(MINIMAL)

    study = load_study(path)

    assert (study.search.ensemble, study.search.proxies) == (DEFAULT_ENSEMBLE, None)
    assert stored_study(study.effective_json()) == study


def test_proxies_stand_instead_of_an_ensemble(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(MINIMAL + '[search]\nproxies = ["zico", "flops"]\n')

    assert load_study(path).search.ensemble is None

    path.write_text(MINIMAL + '[search]\nproxies = ["zico"]\nensemble = "az_nas"\n')
    with pytest.raises(ConfigError, match="proxies and ensemble exclude each other"):
        load_study(path)
