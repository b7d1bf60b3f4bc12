"""The program in a bundle: one file, put together from the parts that stand beside this one."""

import ast
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from host.export.forms import Runtime

InputKind = Literal["image", "signal"]

_FOLDER = Path(__file__).parent


@lru_cache
def program(runtime: Runtime, kind: InputKind) -> str:
    """`run.py` for models of a runtime that read images or signals.

    It needs numpy, the runtime, and for images Pillow; Python 3.9 or newer.
    """
    parts = [_Part(f"run_{kind}"), _Part(f"run_{runtime}"), _Part("run")]
    head = [parts[-1].docstring, *_groups(line for part in parts for line in part.imports)]
    # An import that has another to fall back on.
    head += [text for part in parts for text in part.tries]
    body = [text for part in parts for text in part.functions]
    return "\n\n".join(head) + "\n\n\n" + "\n\n\n".join([*body, parts[-1].end]) + "\n"


class _Part:
    """A module of this folder, cut at its statements."""

    def __init__(self, name: str) -> None:
        self._source = (_FOLDER / f"{name}.py").read_text(encoding="utf-8")
        self._body = ast.parse(self._source).body
        self.docstring = self._text(self._body[0])
        self.imports = self._texts(ast.Import) + self._texts(ast.ImportFrom)
        self.tries = self._texts(ast.Try)
        self.functions = self._texts(ast.FunctionDef)
        self.end = self._text(self._body[-1])

    def _texts(self, kind: type[ast.stmt]) -> list[str]:
        return [self._text(node) for node in self._body if isinstance(node, kind)]

    def _text(self, node: ast.stmt) -> str:
        """As it is written, comments within it included."""
        lines = self._source.splitlines()
        return "\n".join(lines[node.lineno - 1 : node.end_lineno])


def _groups(imports: Iterable[str]) -> list[str]:
    """The standard library, then the rest, each sorted; what is of genba itself is left out."""

    def is_standard(line: str) -> bool:
        return line.split()[1] in sys.stdlib_module_names

    wanted = {line for line in imports if not line.startswith("from host.")}
    ordered = sorted(wanted, key=lambda line: (line.startswith("from"), line.lower()))
    groups = ([x for x in ordered if is_standard(x)], [x for x in ordered if not is_standard(x)])
    return ["\n".join(group) for group in groups]
