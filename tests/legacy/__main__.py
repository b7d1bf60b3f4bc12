"""`python -m tests.legacy`: the agent on old machines, shown under emulation.

Builds what is missing below .legacy-roots, installs the agent on each board from its offline
bundle alone, enrols it with a real host of this machine over mTLS, and prints what worked. Ends
with 1 where something that should work does not, and with 2 where this machine cannot show it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.legacy import roots
from tests.legacy.boards import BOARDS, board
from tests.legacy.errors import LegacyError
from tests.legacy.memory import show_memory
from tests.legacy.plant import Plant
from tests.legacy.showing import show
from tests.legacy.table import Line, print_table, record


def main() -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args()
    began = time.monotonic()
    try:
        roots.require_machine()
        boards = [board(name) for name in arguments.boards] or list(BOARDS)
        with roots.emulation(), tempfile.TemporaryDirectory(prefix="genba-legacy-") as folder:
            plant = Plant(Path(folder) / "plant")
            with plant.served():
                with ThreadPoolExecutor(arguments.jobs) as pool:
                    lines: list[Line] = list(pool.map(lambda one: show(one, plant, _say), boards))
                # Alone, because it looks at what the agent does while nothing is asked of it.
                memory = None if arguments.no_memory else show_memory(plant, _say)
    except LegacyError as error:
        print(f"legacy: {error}", file=sys.stderr)
        return 2
    finally:
        if not arguments.keep:
            shutil.rmtree(roots.STORE / "runs", ignore_errors=True)
    seconds = time.monotonic() - began
    print_table(lines, seconds)
    if memory is not None:
        print(memory.sentence)
    if arguments.json is not None:
        told = record(lines, seconds, None if memory is None else memory.record())
        arguments.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    good = all(line.is_whole for line in lines) and (memory is None or memory.is_good)
    return 0 if good else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.legacy", description=__doc__)
    names = ", ".join(one.name for one in BOARDS)
    parser.add_argument("boards", nargs="*", metavar="BOARD", help=f"of {names}; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="boards at a time (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it for programs too")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory limit out")
    parser.add_argument("--keep", action="store_true", help="keep logs and installed agents")
    return parser


if __name__ == "__main__":
    sys.exit(main())
