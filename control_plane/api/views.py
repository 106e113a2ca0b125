"""From the core's frozen state to the API's bodies. Pure; decides nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import assert_never

from builders.model_config import ModelConfig
from control_plane.actions import Load, Restart, Unload
from control_plane.api import deployment_schemas, operation_schemas, plan_schemas, schemas, server_schemas
from control_plane.api.wanted_schemas import wanted_body
from control_plane.operations import Operation, Step
from control_plane.planning import (
    Broken,
    DeploymentState,
    DeploymentStatus,
    Endpoint,
    Plan,
    PlannedAction,
    TargetOnServer,
    quarantined,
    wanted_replicas,
)
from control_plane.reconciler import View
from control_plane.state import Deployment, ObservedModel, ObservedServer, Pin, PublishedModel, ServerCondition


def deployment_body(deployment: Deployment, status: DeploymentStatus) -> deployment_schemas.DeploymentBody:
    """Show a deployment with where it stands."""
    return deployment_schemas.DeploymentBody(**dict(revision_body(deployment)), status=_status_body(status))


def revision_body(deployment: Deployment) -> deployment_schemas.RevisionBody:
    """Show a deployment as it was written."""
    return deployment_schemas.RevisionBody(
        name=deployment.name,
        model=deployment.model,
        version=deployment.version,
        pins=_pins(deployment.pins),
        others=[
            deployment_schemas.TrackBody(version=track.version, share=track.share, pins=_pins(track.pins))
            for track in deployment.others
        ],
        precisions=list(deployment.precisions),
        allow_unproven=deployment.allow_unproven,
        needs=wanted_body(deployment.needs),
        revision=deployment.revision,
        created_at=deployment.created_at,
        updated_at=deployment.updated_at,
    )


def _pins(pins: Iterable[Pin]) -> list[deployment_schemas.PinBody]:
    return [deployment_schemas.PinBody(model=pin.model, version=pin.version) for pin in pins]


def endpoint_bodies(endpoints: Iterable[Endpoint]) -> list[deployment_schemas.EndpointBody]:
    """Show where clients are to go."""
    return [
        deployment_schemas.EndpointBody(
            server=it.server,
            http=it.addresses.http,
            grpc=it.addresses.grpc,
            deployment=it.deployment,
            version=it.version,
            weight=round(it.weight, 6),
        )
        for it in endpoints
    ]


def operation_body(operation: Operation) -> operation_schemas.OperationBody:
    """Show an operation with its steps."""
    fields = {it.name for it in dataclass_fields(Operation)} - {"steps"}
    of_step = [it.name for it in dataclass_fields(Step)]
    steps = [operation_schemas.StepBody(**{name: getattr(step, name) for name in of_step}) for step in operation.steps]
    return operation_schemas.OperationBody(**{name: getattr(operation, name) for name in fields}, steps=steps)


def explanation(deployment: Deployment, view: View) -> deployment_schemas.Explanation:
    """Tell in words why each replica of a deployment is where it is, or why it is nowhere."""
    status = view.status_of(deployment)
    states = {server.server: server for server in status.servers}
    tracks = deployment.tracks
    replicas = [
        deployment_schemas.ReplicaExplained(
            server=it.server,
            version=tracks[it.track].pinned,
            why_here=it.reason,
            state=states[it.server].state,
            reason=states[it.server].reason,
        )
        for it in view.plan.placement.of(deployment.name)
        if it.track < len(tracks) and it.server in states
    ]
    models = {pin.model for pin in deployment.all_pins}
    servers = {it.server for it in replicas}
    waiting = [
        f"Server '{it.server}', model '{it.model}': {it.reason}"
        for it in view.plan.waiting
        if it.model in models and it.server in servers
    ]
    serving = sum(it.state is DeploymentState.SERVING for it in replicas)
    wanted = wanted_replicas(deployment)
    asked = "one on every server" if wanted is None else f"{wanted} asked for"
    return deployment_schemas.Explanation(
        deployment=deployment.name,
        summary=f"{status.state.value}: {serving} of {len(replicas)} replicas serve ({asked}).",
        replicas=replicas,
        missing=list(status.reasons),
        waiting=waiting,
    )


def server_body(seen: ObservedServer, view: View | None = None) -> server_schemas.ServerBody:
    """Show a server. Its admin key is never shown."""
    server, where = seen.server, seen.server.endpoints
    rows = sorted(seen.models, key=lambda row: (row.name, row.version))
    kept = quarantined(view.records.values()) if view is not None else {}
    return server_schemas.ServerBody(
        id=server.id,
        source=server.source,
        condition=seen.condition,
        detail=seen.detail,
        since=seen.since,
        pool=server.pool,
        labels=dict(sorted(server.labels.items())),
        devices=[server_schemas.DeviceBody(**asdict(device)) for device in server.devices],
        memory_bytes=server.memory_bytes,
        memory_used_bytes=seen.memory_used_bytes,
        memory_missing_bytes=seen.memory_missing_bytes,
        backends=sorted(seen.backends),
        lacks=sorted(seen.lacks),
        triton_version=seen.triton_version,
        endpoints=server_schemas.EndpointsBody(http=where.http, grpc=where.grpc, metrics=where.metrics),
        models=[_row_body(row, view.broken.get((server.id, row.name)) if view is not None else None) for row in rows],
        quarantined={model: why for (place, model), why in sorted(kept.items()) if place == server.id},
    )


def _row_body(row: ObservedModel, broken: Broken | None) -> server_schemas.ModelRow:
    reason = row.reason
    if broken is not None and broken.version == row.version:
        reason = f"answers READY and serves nobody: {broken.reason}"
    return server_schemas.ModelRow(
        name=row.name, version=row.version, state=row.state, reason=reason, instances=row.instances
    )


def server_list(view: View, problems: Iterable[str]) -> server_schemas.ServerList:
    """Show every server, and what is wrong with how they are found."""
    servers = [server_body(seen, view) for seen in sorted(view.observed, key=lambda seen: seen.server.id)]
    return server_schemas.ServerList(observed_at=view.started_at, servers=servers, problems=list(problems))


def model_body(package: PublishedModel, view: View, deployments: Sequence[Deployment]) -> schemas.ModelBody:
    """Show a package: what is published, where it is ready, and who needs it.

    The config is that of the version deployed, else the newest; what is wrong with the package's draft is told too.
    """
    pinned = {pin.version for entry in deployments for pin in entry.all_pins if pin.model == package.name}
    shown = package.at(max(pinned, default=package.newest))
    config = shown.config
    targets = view.plan.targets_by_place
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
        deployments=[entry.name for entry in deployments if any(pin.model == package.name for pin in entry.all_pins)],
    )


def plan_body(plan: Plan) -> plan_schemas.PlanBody:
    """Show a plan."""
    return plan_schemas.PlanBody(
        actions=[_action_body(step) for step in plan.steps],
        waiting=[plan_schemas.WaitingBody(server=it.server, model=it.model, reason=it.reason) for it in plan.waiting],
        infeasible=[
            plan_schemas.InfeasibleBody(deployment=it.deployment, reasons=list(it.reasons)) for it in plan.infeasible
        ],
        placement=[
            plan_schemas.AssignmentBody(server=it.server, deployment=it.deployment, reason=it.reason)
            for it in plan.placement.assignments
        ],
    )


def conditions(view: View) -> dict[ServerCondition, int]:
    """Count the servers by condition."""
    return {condition: sum(seen.condition is condition for seen in view.observed) for condition in ServerCondition}


def _status_body(status: DeploymentStatus) -> deployment_schemas.DeploymentStatusBody:
    servers = [
        deployment_schemas.DeploymentOnServer(
            server=server.server,
            state=server.state,
            reason=server.reason,
            models=[
                deployment_schemas.ModelOnServer(
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
    return deployment_schemas.DeploymentStatusBody(state=status.state, reasons=list(status.reasons), servers=servers)


def _serving(choice: TargetOnServer | None, version: int) -> str:
    return choice.serving if choice is not None and choice.version == version else ""


def _tensors(config: ModelConfig | None, *, inputs: bool) -> list[schemas.TensorBody]:
    if config is None:
        return []
    tensors = config.inputs if inputs else config.outputs
    return [schemas.TensorBody(name=it.name, data_type=it.data_type, dims=list(it.dims)) for it in tensors]


def _action_body(step: PlannedAction) -> plan_schemas.ActionBody:
    action, version, target = step.action, None, ""
    if isinstance(action, Load):
        version, target = action.version, action.setting(action.model).target
    return plan_schemas.ActionBody(
        kind=_kind(step),
        server=action.server,
        model=action.model,
        version=version,
        target=target,
        stage=step.stage,
        reason=step.reason,
    )


def _kind(step: PlannedAction) -> plan_schemas.ActionKind:
    match step.action:
        case Load():
            return step.kind
        case Unload():
            return "unload"
        case Restart():
            return "restart"
        case _:
            assert_never(step.action)
