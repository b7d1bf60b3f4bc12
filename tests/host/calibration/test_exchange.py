"""Cost models as a file: the same predictions elsewhere, and nothing that was tampered with."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host.calibration.exchange import (
    ExchangeError,
    OtherRuntimeError,
    from_json,
    package_of,
    setting_on,
    take_over,
    to_json,
    warnings,
)
from host.calibration.prediction import NotCalibratedError, Predictor
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.device import NoRuntimeError, Runtime

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)


@pytest.fixture
def exported(store, fleet, fit_models):
    """The text of the models of a device named panel."""
    device = fleet.device("panel")
    fit_models(store, device.id, ONE, watts=4.0)
    return to_json(package_of(store, device, ONE))


def with_facts(device, **changes):
    return replace(device, facts=replace(device.facts, **changes))


def test_the_models_predict_the_same_on_the_device_that_took_them_over(store, fleet, exported):
    press = fleet.device("press")
    graphs = [one.kernels for one in mobile_candidates(3, seed=50)]
    panel = store.devices.by_name("panel")

    imported = take_over(store, press, ONE, from_json(exported))

    predicted = [Predictor.of(store, device, ONE).predict(graphs) for device in (panel, press)]
    assert predicted[0] == predicted[1]
    assert [one.quantity for one in imported] == [
        "latency_seconds",
        "peak_rss_bytes",
        "energy_joules",
        "power_watts",
    ]
    assert {one.supersedes for one in imported} == {None}


def test_all_of_it_comes_back(store, exported):
    package = from_json(exported)
    panel = store.devices.by_name("panel")

    assert package.setting == ONE
    assert package.origin.device == "panel"
    assert package.origin.cpu_model == panel.facts.cpu_model
    assert package.exported_at == store.now()
    latency = package.models["latency_seconds"]
    assert len(latency.examples) == latency.model.n
    assert {example.measurement for example in latency.examples} == {None}
    assert package.models["energy_joules"].source == "rapl"
    assert to_json(package) == exported


def test_what_a_device_had_before_is_kept_and_named(store, fleet, clock, fit_models, exported):
    press = fleet.device("press")
    fit_models(store, press.id, ONE, slowness=3.0)
    before = store.now()
    clock.advance(60)

    imported = take_over(store, press, ONE, from_json(exported))

    supersedes = {one.quantity: one.supersedes for one in imported}
    assert supersedes["latency_seconds"] == supersedes["peak_rss_bytes"] == before
    assert supersedes["power_watts"] is None
    newest = {row.target: row.id for row in store.cost_models.newest(press.id)}
    assert newest[ONE.target("latency_seconds")] == imported[0].id
    assert imported[0].id > 2


def test_a_device_without_models_exports_nothing(store, fleet):
    with pytest.raises(NotCalibratedError):
        package_of(store, fleet.device(), ONE)


def test_another_cpu_is_a_warning_and_the_same_is_none(fleet, exported):
    press = fleet.device("press")
    package = from_json(exported)

    assert warnings(package, press) == []
    (said,) = warnings(package, with_facts(press, cpu_model="ARMv7"))
    assert "ARMv7" in said
    assert "genba cost validate press" in said


def test_another_version_of_the_runtime_is_refused_unless_forced(fleet, exported):
    newer = Runtime("onnx", "onnxruntime", "1.24.0", works=True, why_not="")
    press = with_facts(fleet.device("press"), runtimes=(newer,))
    package = from_json(exported)

    with pytest.raises(OtherRuntimeError, match=r"1\.23\.2.*press has .*1\.24\.0.*--force"):
        setting_on(package, press, force=False)
    assert setting_on(package, press, force=True) == replace(ONE, version="1.24.0")


def test_a_device_without_the_runtime_takes_nothing_over(fleet, exported):
    press = with_facts(fleet.device("press"), runtimes=())

    with pytest.raises(NoRuntimeError, match="press cannot run ONNX models"):
        setting_on(from_json(exported), press, force=True)


def spoilt(text, *path, value):
    """The text with another value at a place of it."""
    content = json.loads(text)
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(content)


MODEL = ("models", "latency_seconds", "model")


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("format",), "something", "no file of cost models"),
        (("version",), 2, "version 2 of the format"),
        (("version",), "1", "version '1' of the format"),
        (("exported_at",), "yesterday", "damaged"),
        (("exported_at",), 7, "damaged"),
        (("device",), None, "damaged"),
        (("device", "cpu_model"), 7, "cpu_model is not a line of text"),
        (("device", "device"), "a\nb", "device is not a line of text"),
        (("setting", "threads"), 0, "no number of threads"),
        (("setting", "threads"), True, "no number of threads"),
        (("setting", "threads"), 1.5, "no number of threads"),
        (("setting", "library"), "", "names no runtime"),
        (("setting", "library"), "a b", "names no runtime"),
        (("setting", "version"), "1" * 80, "names no runtime"),
        (("models",), {}, "holds no model"),
        (("models",), [], "damaged"),
        (("models", "latency_days"), {}, "'latency_days'"),
        (("models", "latency_seconds", "examples"), [], "0 networks for"),
        (("models", "latency_seconds", "examples", 0, "model_sha256"), "abc", "no SHA-256"),
        (("models", "latency_seconds", "examples", 0, "name"), None, "name is not a line"),
        (("models", "latency_seconds", "created_at"), "", "damaged"),
        (MODEL, 7, "latency_seconds cannot be used"),
        ((*MODEL, "version"), 1, "version 1"),
        ((*MODEL, "features"), ["a"], "features"),
        ((*MODEL, "measured", 0), -1.0, "latency_seconds cannot be used"),
        ((*MODEL, "measured", 0), 0, "latency_seconds cannot be used"),
        ((*MODEL, "measured", 0), 1e400, "no JSON"),
        ((*MODEL, "measured", 0), math.nan, "no JSON"),
        ((*MODEL, "measured", 0), "1", "latency_seconds cannot be used"),
        ((*MODEL, "measured", 0), 10**400, "latency_seconds cannot be used"),
        ((*MODEL, "rows", 0, 0), -1, "latency_seconds cannot be used"),
        ((*MODEL, "rows", 0), [1.0], "latency_seconds cannot be used"),
        ((*MODEL, "coefficients", 0), 1e300, "does not predict what it was fitted on"),
        ((*MODEL, "coefficients"), None, "latency_seconds cannot be used"),
        ((*MODEL, "threads"), 2, "2 threads"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused_in_a_sentence(exported, path, value, why):
    with pytest.raises(ExchangeError, match=why) as said:
        from_json(spoilt(exported, *path, value=value))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("text", ["", "7", "[]", "null", "{", "[" * 100_000, '{"format": NaN}'])
def test_other_text_is_refused(text):
    with pytest.raises(ExchangeError):
        from_json(text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_was_cut_or_changed_is_refused_or_harmless(exported, data):
    text = exported.strip()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(
        st.sampled_from([text[:place], text[:place] + "7" + text[place + 1 :], text[:place] * 2])
    )

    try:
        package = from_json(changed)
    except ExchangeError:
        pass
    else:
        (candidate,) = mobile_candidates(1, seed=3)
        for found in package.models.values():
            (prediction,) = found.model.predict([candidate.kernels])
            assert 0 < prediction.value < math.inf
