"""The `tritonfleet` command: its subcommands, and the one place where errors become messages and exit codes.

Exit codes: 0 done; 1 failed (the message says why); 2 wrong usage; 3 no control plane or server answers; 4 `build` did
its part and another machine has to do the rest; 130 Ctrl-C; 143 SIGTERM, save for `serve`, which both end with 0.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from builders.errors import BuildError
from control_plane.cli import (
    agent,
    build,
    changes,
    completion,
    demo,
    deployments,
    endpoints,
    gpus,
    import_model,
    infer,
    measure,
    operations,
    output,
    placement,
    plan,
    serve,
    servers,
    signature,
    status,
    verify,
    watch,
)
from control_plane.cli.client import ApiError, UnreachableError
from control_plane.errors import ControlPlaneError, ServerUnreachableError
from control_plane.settings import CLIENT_URL_VARIABLE

FAILED, UNREACHABLE, TERMINATED = 1, 3, 143

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Build models into a Triton model repository, and keep a fleet of NVIDIA Triton servers serving them.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no control plane or server answers. "
    "First steps: tritonfleet demo",
)
app.command("build")(build.command)
app.command("publish")(build.publish)
app.command("import")(import_model.command)
app.command("verify")(verify.command)
app.command("measure")(measure.command)
app.command("verify-signature")(signature.verify)
app.add_typer(signature.keys, name="key")
app.command("serve")(serve.command)
app.command("agent")(agent.agent)
app.command("certificates")(agent.certificates)
app.command("deploy")(deployments.deploy)
app.command("undeploy")(deployments.undeploy)
app.command("scale")(changes.scale)
app.command("rollback")(changes.rollback)
app.command("revisions")(changes.revisions)
app.command("status")(status.status)
app.command("plan")(plan.plan)
app.command("explain")(plan.explain)
app.command("operations")(operations.operations)
app.command("cancel")(operations.cancel)
app.command("watch")(watch.watch)
app.command("endpoints")(endpoints.endpoints)
app.command("gpus")(gpus.gpus)
app.add_typer(servers.servers, name="server")
app.add_typer(placement.placement, name="placement")
app.command("infer")(infer.command)
app.command("demo")(demo.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`sys.argv` where nothing is given); ends in SystemExit with the exit code.

    Every expected error ends in one message and its exit code, never in a traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    completion.join_bash_words(os.environ)
    try:
        app(arguments, prog_name="tritonfleet")
    except ApiError as error:
        output.print_error(error.title, error.causes, error.next_step)
        sys.exit(FAILED)
    except UnreachableError as error:
        output.print_error(
            str(error), next_step=f"start one with `tritonfleet serve`, or set --url or {CLIENT_URL_VARIABLE}"
        )
        sys.exit(UNREACHABLE)
    except ServerUnreachableError as error:
        output.print_error(str(error), next_step="tritonfleet status shows which servers answer")
        sys.exit(UNREACHABLE)
    except (BuildError, ControlPlaneError) as error:
        output.print_error(str(error))
        sys.exit(FAILED)
    except OSError as error:
        output.print_error(str(error))
        sys.exit(FAILED)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """End like after Ctrl-C, so that what was begun is cleared up: staged files, temporary folders, servers."""
    sys.exit(TERMINATED)
