"""The options that a job may set on a runtime, "name=value" with known names and values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from device_agent.errors import ModelRejectedError


def read_options(
    runtime: str, given: Sequence[str], known: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The value of every known option: the given one, or else the first of those it may have.

    Raises ModelRejectedError for an unknown name or value and for one that is set twice.
    """
    values = {name: allowed[0] for name, allowed in known.items()}
    seen = set()
    for text in given:
        name, _, value = text.partition("=")
        if name not in known or value not in known[name]:
            offered = ", ".join(f"{key}={'|'.join(known[key])}" for key in known)
            raise ModelRejectedError(
                f"the runtime {runtime} has no option {text!r}: it knows {offered}"
            )
        if name in seen:
            raise ModelRejectedError(f"the option {name} is set twice: set it once")
        seen.add(name)
        values[name] = value
    return values
