"""Scores in a file of JSON lines, so that a run that was stopped goes on where it ended."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.proxies.setting import Setting
from host.proxies.base import Proxy

Key = tuple[Setting, str]
"""A setting and the key of the network that was looked at in it."""


class ScoreFileError(ValueError):
    """A file holds no scores; the message says what to do."""


def versioned(proxy: Proxy) -> str:
    """The name of a proxy's scores: those of another version are other scores."""
    return f"{proxy.name}@{proxy.version}"


@dataclass
class ScoreFile:
    """The scores of networks by versioned proxy, in memory and, where there is a path, on disk.

    Each line holds one setting, one network and some scores, null for nan. A line that a stopped
    run left unfinished is dropped.
    """

    path: Path | None = None
    _scores: dict[Key, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def opened(cls, path: Path | None) -> "ScoreFile":
        """The file as it is, or an empty one. Raises ScoreFileError for another kind of file."""
        found = cls(path)
        if path is None or not path.exists():
            return found
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as error:
            raise ScoreFileError(f"cannot read {path}: {error}; name a file of scores") from error
        for number, line in enumerate(lines, start=1):
            # Only a run that is stopped while it writes leaves a line without an end.
            if line.endswith("\n"):
                found._take(line, number)
        return found

    def of(self, setting: Setting, network: str) -> Mapping[str, float]:
        """What is known of a network, by versioned proxy."""
        return self._scores.get((setting, network), {})

    def add(
        self, setting: Setting, network: str, scores: Mapping[str, float], cpu_seconds: float
    ) -> None:
        """Keep scores and write them at once. Raises ScoreFileError where that is impossible."""
        self._scores.setdefault((setting, network), {}).update(scores)
        if self.path is None:
            return
        line = {
            "setting": setting.parts(),
            "network": network,
            "scores": {
                name: value if math.isfinite(value) else None for name, value in scores.items()
            },
            "cpu_seconds": round(cpu_seconds, 4),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_last_line(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise ScoreFileError(f"cannot write {self.path}: {error.strerror}") from error

    def _take(self, line: str, number: int) -> None:
        try:
            found: dict[str, Any] = json.loads(line)
            key = (Setting(**found["setting"]), str(found["network"]))
            scores = {
                str(name): math.nan if value is None else float(value)
                for name, value in found["scores"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScoreFileError(
                f"{self.path}, line {number} holds no scores; name another file by --scores"
            ) from error
        self._scores.setdefault(key, {}).update(scores)


def _end_last_line(path: Path) -> None:
    """Cut off what a stopped run left behind the last whole line."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) == b"\n":
            return
        content = path.read_bytes()
        file.truncate(content.rfind(b"\n") + 1)
