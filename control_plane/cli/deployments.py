"""`tritonfleet deploy` and `undeploy`: declaring what should serve, through the REST API.

`wanted_options` has what may be asked of it, `settling` waits for it, `changes` are those of one that is there.
"""

from http import HTTPStatus
from typing import Annotated, Any

import typer

from control_plane.cli import changes, completion, output, settling
from control_plane.cli import wanted_options as asked
from control_plane.cli.client import DEFAULT_URL, ApiError, ControlPlaneClient, Token, Url, deployment_path


def deploy(
    model: Annotated[
        str,
        typer.Argument(
            help="The model to serve: a package of the repository, often an ensemble.", autocompletion=completion.models
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="The deployment's name (default: the model's).",
            show_default=False,
            autocompletion=completion.deployments,
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Version to pin (default: the newest).", show_default=False)
    ] = None,
    redeploy: Annotated[
        bool, typer.Option("--redeploy", help="Pin an existing deployment again, to the newest versions.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="With --redeploy: move the deployments that share its models, too.")
    ] = False,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            help="A precision that will do (fp32, fp16, bf16, int8, fp8), again for the next best; 'default' is each "
            "version's most precise.",
            show_default=False,
            autocompletion=completion.precisions,
        ),
    ] = None,
    allow_unproven: Annotated[
        bool | None,
        typer.Option(
            "--allow-unproven/--no-allow-unproven", help="Load engines that were never run.", show_default=False
        ),
    ] = None,
    split: asked.Split = None,
    replicas: asked.ReplicasOption = None,
    max_replicas: asked.MaxReplicas = None,
    pool: asked.Pools = None,
    instances: asked.Instances = None,
    priority: asked.Priority = None,
    owner: asked.Owner = None,
    isolation: asked.IsolationOption = None,
    drift: asked.DriftOption = None,
    require_capability: asked.Capabilities = None,
    require_memory: asked.Memory = None,
    require_mig: asked.MigProfile = None,
    spread: asked.Spread = None,
    label: asked.Labels = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Store what no server can hold at present; it is placed once one can.")
    ] = False,
    dry_run: settling.DryRun = False,
    wait: settling.Wait = 300,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Have a model served, with everything it needs, and wait until it is.

    The versions of the model and of its members are pinned: a later build changes nothing until --redeploy, which keeps
    everything that is not given again. With --split and --redeploy the versions are those of the split.

    Example: tritonfleet deploy text_embedding --replicas 2 --precision int8 --precision fp32
    """
    if redeploy and version:
        raise typer.BadParameter("--redeploy pins what the deployment was created with: leave --version out.")
    if together and not redeploy:
        raise typer.BadParameter("--together says how to --redeploy: give both.")
    if split and version:
        raise typer.BadParameter("--split names the versions: leave --version out.")
    wishes = asked.wishes(precision, allow_unproven)
    versions = asked.split_versions(split)
    wanted = asked.wanted(
        bounds=(replicas, max_replicas),
        pools=pool,
        requirements=(require_capability, require_memory, require_mig, label),
        instances=instances,
        priority=priority,
        owner=owner,
        isolation=isolation,
        spread=spread,
        drift=drift,
    )
    chosen = name or model.lower().replace(".", "-")
    query = {**({"together": "true"} if together else {}), **({"anyway": "true"} if anyway else {})}
    query |= settling.REHEARSE if dry_run else {}
    first_wait_s = 0 if dry_run else settling.first_wait(wait)
    with ControlPlaneClient(url, token) as client, output.Spinner(f"deploying {chosen}") as spinner:
        if redeploy:
            present = client.get(deployment_path(chosen)) if wanted.needs_present else None
            changed = {**wishes, **wanted.body(present["needs"] if present is not None else None)}
            method, path = "POST", f"{deployment_path(chosen)}/redeploy"
            if versions is not None:
                method, path, changed = "PATCH", deployment_path(chosen), {"versions": versions, **changed}
            revision = present["revision"] if present is not None else None
            body = client.change(method, path, changed or None, first_wait_s, revision=revision, **query)
        else:
            pinned = {"version": version} if versions is None else {"versions": versions}
            new = {"name": chosen, "model": model, **pinned, **wishes, **wanted.body()}
            body = _create(client, new, first_wait_s, query)
        if dry_run:
            settling.show_rehearsal(body, as_json=as_json)
            return
        body = settling.until_settled(client, body, wait, spinner)
    settling.report(body, wait, as_json=as_json)


def undeploy(
    name: changes.Name,
    dry_run: settling.DryRun = False,
    wait: settling.Wait = 60,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Stop serving a deployment. Models that another deployment needs stay loaded.

    Example: tritonfleet undeploy text_embedding
    """
    with ControlPlaneClient(url, token) as client, output.Spinner(f"undeploying {name}"):
        if dry_run:
            body = client.delete(deployment_path(name), 0, **settling.REHEARSE)
            settling.show_rehearsal(body, as_json=as_json)
            return
        left = client.delete(deployment_path(name), wait)
    still = list(left["still_loaded"]) if left else []
    if as_json:
        output.print_json({"name": name, "still_loaded": still})
    else:
        output.show(f"{name} is gone" + (f"; still being unloaded: {', '.join(still)}" if still else ""))


def _create(client: ControlPlaneClient, new: dict[str, Any], wait_s: float, query: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    try:
        return client.post("/v1/deployments", new, wait_s, **query)
    except ApiError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        step = (
            f"pin it again to the newest versions (tritonfleet deploy {new['model']} --name {new['name']} --redeploy), "
            f"remove it (tritonfleet undeploy {new['name']}), or take another --name"
        )
        raise ApiError(error.status, error.title, error.causes, step) from error
