"""A control plane as a process of its own, for the tests that kill one: settings from the environment."""

import asyncio
import sys

from control_plane.bootstrap import RunningControlPlane, serve
from control_plane.errors import ControlPlaneError
from control_plane.settings import load_settings


def started(running: RunningControlPlane) -> None:
    """Say where it answers."""
    sys.stdout.write(f"{running.url}\n")
    sys.stdout.flush()


def main() -> int:
    """Serve until a signal comes."""
    try:
        asyncio.run(serve(load_settings(), started))
    except ControlPlaneError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
