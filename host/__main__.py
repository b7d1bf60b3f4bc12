"""The command `genba`."""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 11):

    def main(arguments: list[str] | None = None) -> int:  # noqa: ARG001 - as below
        """Say why nothing can be done here; returns 2."""
        sys.stderr.write(
            "genba: the host needs Python 3.11 or newer, and this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}; only genba-agent runs here\n"
        )
        return 2

else:

    def main(arguments: list[str] | None = None) -> int:
        """Run the command line; returns the exit code: 0, 1 failure, 2 usage, 130 Ctrl-C."""
        # What gRPC's core has to say reaches people through our own sentences.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            from host.cli.app import run
        except ModuleNotFoundError as error:
            # A device has the agent's dependencies only.
            sys.stderr.write(
                f"genba: the host's packages are not installed here ({error.name} is missing): "
                "pip install 'genba[host]', or use genba-agent on a device\n"
            )
            return 2

        return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
