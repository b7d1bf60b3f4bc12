"""A stored configuration as the text of a `study.toml` again."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def toml_text(config: Mapping[str, Any]) -> str:
    """TOML of plain values; keys that are None are left out, as TOML has no word for them."""
    plain = {key: value for key, value in config.items() if not _is_table(value)}
    lines = [*_pairs(plain)]
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{_key(key)}]", *_pairs(value)]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{_key(key)}]]", *_pairs(item)]
    return "\n".join(lines).strip() + "\n"


def _is_table(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping)


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if value is not None:
            yield f"{_key(key)} = {_inline(value)}"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_pairs(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(item) for item in value if item is not None) + "]"
    if isinstance(value, str):
        return _string(value)
    return json.dumps(value)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "a").replace("_", "a").isalnum()
    return key if bare else _string(key)


def _string(value: str) -> str:
    # JSON escapes as TOML wants it, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
