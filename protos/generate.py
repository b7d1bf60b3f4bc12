"""Writes the stubs next to `genba_agent.proto`: `python -m protos.generate [FOLDER]`.

The stubs are checked in, because a device has no protoc. They are made with grpcio-tools 1.51.1,
whose generated code asks for no newer protobuf or grpcio than that and so runs with Debian's
packages on old boards as well as with today's.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

PROTO = "protos/genba_agent.proto"
ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> None:
    """Write the four stub files below `out`/protos.

    Raises RuntimeError where protoc refuses the file.
    """
    from grpc_tools import protoc

    scripts = Path(sysconfig.get_path("scripts"))
    well_known = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--mypy_out=quiet:{out}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--mypy_grpc_out=quiet:{out}",
            str(ROOT / PROTO),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status} on {PROTO}")
    shutil.rmtree(out / "protos" / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
