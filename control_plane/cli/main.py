"""The `tritonfleet` command: its subcommands, and the one place where errors become messages and exit codes.

Exit codes: 0 done; 1 failed (the message says why); 2 wrong usage; 3 no control plane or server answers; 130 Ctrl-C.
"""

import sys

import typer

from builders.errors import BuildError
from control_plane.cli import build, demo, deployments, infer, output, serve
from control_plane.cli.client import URL_VARIABLE, ApiError, UnreachableError
from control_plane.errors import ControlPlaneError, ServerUnreachableError

FAILED, UNREACHABLE, INTERRUPTED = 1, 3, 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Build models into a Triton model repository, and keep a fleet of NVIDIA Triton servers serving them.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no control plane or server answers. "
    "First steps: tritonfleet demo",
)
app.command("build")(build.command)
app.command("serve")(serve.command)
app.command("deploy")(deployments.deploy)
app.command("undeploy")(deployments.undeploy)
app.command("status")(deployments.status)
app.command("infer")(infer.command)
app.command("demo")(demo.command)


def main() -> None:
    """Run the command line. Every expected error ends in one message and its exit code, never in a traceback."""
    try:
        app()
    except ApiError as error:
        output.print_error(error.title, error.causes, error.next_step)
        sys.exit(FAILED)
    except UnreachableError as error:
        output.print_error(str(error), next_step=f"start one with `tritonfleet serve`, or set --url or {URL_VARIABLE}")
        sys.exit(UNREACHABLE)
    except ServerUnreachableError as error:
        output.print_error(str(error), next_step="tritonfleet status shows which servers answer")
        sys.exit(UNREACHABLE)
    except (BuildError, ControlPlaneError) as error:
        output.print_error(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
