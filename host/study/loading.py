"""Forms of a finalist that the runtimes of a study's devices load, in the versions they have."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from host.export.floor import FloorError, fitted_to
from host.export.forms import ExportedForm, Form, precision_of, runtime_of
from host.export.target import Target
from host.study.ledger import StudyDevice


def loaded_by_all(
    forms: Mapping[Form, ExportedForm],
    devices: Iterable[StudyDevice],
    say: Callable[[str], None],
) -> dict[Form, ExportedForm]:
    """The forms, brought down to what the oldest runtime loads where that changes no answer.

    An int8 form that a device cannot load is left out, and `say` is told why. Raises FloorError for
    a float32 form.
    """
    targets = [target for device in devices if (target := _target(device)) is not None]
    kept: dict[Form, ExportedForm] = {}
    for form, exported in forms.items():
        model = exported.model
        try:
            for target in targets:
                if target.runtime == runtime_of(form):
                    model = fitted_to(model, target).model
        except FloorError as error:
            if precision_of(form) == "fp32":
                raise
            say(f"no {form} form: {error}")
            continue
        kept[form] = replace(exported, model=model)
    return kept


def _target(device: StudyDevice) -> Target | None:
    """None where the device has not said which version it has."""
    facts = device.device.facts
    found = None if facts is None else facts.runtime(device.runtime)
    if found is None or not found.version:
        return None
    name = f"{device.name} ({found.library} {found.version})"
    return Target(name, device.runtime, found.library, found.version)
