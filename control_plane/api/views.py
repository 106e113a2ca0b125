"""From the core's frozen state to the API's bodies. Pure; decides nothing."""

from collections.abc import Sequence
from typing import assert_never

from builders.model_config import ModelConfig
from control_plane.actions import Load, Unload
from control_plane.api import schemas
from control_plane.planning import DeploymentStatus, Plan, PlannedAction, TargetOnServer
from control_plane.reconciler import View
from control_plane.state import Deployment, ObservedServer, PublishedModel, ServerCondition


def deployment_body(deployment: Deployment, status: DeploymentStatus) -> schemas.DeploymentBody:
    """Show a deployment with where it stands."""
    return schemas.DeploymentBody(
        name=deployment.name,
        model=deployment.model,
        version=deployment.version,
        pins=[schemas.PinBody(model=pin.model, version=pin.version) for pin in deployment.pins],
        precisions=list(deployment.precisions),
        allow_unproven=deployment.allow_unproven,
        revision=deployment.revision,
        created_at=deployment.created_at,
        updated_at=deployment.updated_at,
        status=_status_body(status),
    )


def server_body(seen: ObservedServer) -> schemas.ServerBody:
    """Show a server. Its admin key is never shown."""
    where = seen.server.endpoints
    rows = sorted(seen.models, key=lambda row: (row.name, row.version))
    return schemas.ServerBody(
        id=seen.server.id,
        condition=seen.condition,
        detail=seen.detail,
        endpoints=schemas.EndpointsBody(http=where.http, grpc=where.grpc, metrics=where.metrics),
        models=[
            schemas.ModelRow(name=row.name, version=row.version, state=row.state, reason=row.reason) for row in rows
        ],
    )


def server_list(view: View) -> schemas.ServerList:
    """Show every server."""
    servers = [server_body(seen) for seen in sorted(view.observed, key=lambda seen: seen.server.id)]
    return schemas.ServerList(observed_at=view.started_at, servers=servers)


def model_body(package: PublishedModel, view: View, deployments: Sequence[Deployment]) -> schemas.ModelBody:
    """Show a package: what is published, where it is ready, and who needs it.

    The config is that of the version deployed, else the newest; what is wrong with the package's draft is told too.
    """
    pinned = {pin.version for entry in deployments for pin in entry.pins if pin.model == package.name}
    shown = package.at(max(pinned, default=package.newest))
    config = shown.config
    targets = view.plan.targets_by_place()
    return schemas.ModelBody(
        name=package.name,
        backend=(config.backend or config.platform) if config is not None else "",
        versions=list(package.versions),
        members=list(shown.members),
        inputs=_tensors(config, inputs=True),
        outputs=_tensors(config, inputs=False),
        problems=list(dict.fromkeys((*shown.problems, *package.draft.problems))),
        warnings=list(shown.warnings),
        ready_on=[
            schemas.ReadyOn(
                server=seen.server.id,
                version=version,
                target=_serving(targets.get((seen.server.id, package.name)), version),
            )
            for seen in sorted(view.observed, key=lambda seen: seen.server.id)
            for version in sorted(seen.ready_versions(package.name))
        ],
        deployments=[entry.name for entry in deployments if any(pin.model == package.name for pin in entry.pins)],
    )


def plan_body(plan: Plan) -> schemas.PlanBody:
    """Show a plan."""
    return schemas.PlanBody(
        actions=[_action_body(step) for step in plan.steps],
        waiting=[schemas.WaitingBody(server=it.server, model=it.model, reason=it.reason) for it in plan.waiting],
        infeasible=[
            schemas.InfeasibleBody(deployment=it.deployment, reasons=list(it.reasons)) for it in plan.infeasible
        ],
    )


def conditions(view: View) -> dict[ServerCondition, int]:
    """Count the servers by condition."""
    return {condition: sum(seen.condition is condition for seen in view.observed) for condition in ServerCondition}


def _status_body(status: DeploymentStatus) -> schemas.DeploymentStatusBody:
    servers = [
        schemas.DeploymentOnServer(
            server=server.server,
            state=server.state,
            reason=server.reason,
            models=[
                schemas.ModelOnServer(
                    model=model.pin.model,
                    version=model.pin.version,
                    state=model.state,
                    reason=model.reason,
                    target=model.target,
                )
                for model in server.models
            ],
        )
        for server in status.servers
    ]
    return schemas.DeploymentStatusBody(state=status.state, reasons=list(status.reasons), servers=servers)


def _serving(choice: TargetOnServer | None, version: int) -> str:
    return choice.serving if choice is not None and choice.version == version else ""


def _tensors(config: ModelConfig | None, *, inputs: bool) -> list[schemas.TensorBody]:
    if config is None:
        return []
    tensors = config.inputs if inputs else config.outputs
    return [schemas.TensorBody(name=it.name, data_type=it.data_type, dims=list(it.dims)) for it in tensors]


def _action_body(step: PlannedAction) -> schemas.ActionBody:
    action = step.action
    match action:
        case Load():
            return schemas.ActionBody(
                kind="load",
                server=action.server,
                model=action.model,
                version=action.version,
                target=action.targets.get(action.model, ""),
                stage=step.stage,
                reason=step.reason,
            )
        case Unload():
            return schemas.ActionBody(
                kind="unload",
                server=action.server,
                model=action.model,
                version=None,
                target="",
                stage=step.stage,
                reason=step.reason,
            )
        case _:
            assert_never(action)
