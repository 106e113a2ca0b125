"""From what the slicer saw and plans to the bodies that show it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from control_plane.api import placement_schemas as schemas
from control_plane.mig import Placement, Product, illegality
from control_plane.mig.drawing import Bar, Row, svg, text_line
from control_plane.slice_view import SliceView
from control_plane.slicing import Cost, Fleet, FleetGpu, GpuId, Rejection, after
from control_plane.slicing.explaining import Explanation, name
from control_plane.slicing.planning import SlicePlan
from control_plane.slicing.records import NodeGpu, SliceRecord
from control_plane.slicing.steps import Place, Remove, Step

if TYPE_CHECKING:
    from control_plane.slicing.defragmenting import Defragmentation
    from control_plane.slicing.whole import Optimised


def placement_body(view: SliceView) -> schemas.PlacementBody:
    """Show every GPU as it is."""
    records: dict[GpuId, list[SliceRecord]] = {}
    for it in view.records:
        records.setdefault(it.seat.gpu, []).append(it)
    return schemas.PlacementBody(
        gpus=[_gpu(it, records.get(GpuId(it.gpu.uuid), [])) for it in view.gpus],
        rejected=_rejected(view.plan.rejected),
        problems=dict(view.problems),
        away=dict(view.away),
        moves_left=view.moves_left,
        cost=_cost(view.plan.cost),
    )


def plan_body(view: SliceView, plan: SlicePlan, found: "Optimised | None" = None) -> schemas.SlicePlanBody:
    """Show a plan; `found` is what the optimiser says of it."""
    before, then = view.fleet, after(view.fleet, plan.steps)
    changed = [gpu for gpu in before.gpus if then.by_id[gpu.id] != gpu]
    return schemas.SlicePlanBody(
        steps=[_step(view.fleet, it) for it in plan.steps],
        moved=list(plan.moved),
        rejected=_rejected(plan.rejected),
        geometries=[
            schemas.GeometryBody(
                gpu=gpu.id, before=text_line(_row(gpu)), after=text_line(_row(then.by_id[gpu.id], gpu))
            )
            for gpu in changed
        ],
        cost=_cost(plan.cost),
        bound=found.bound if found is not None else None,
        gap=found.gap if found is not None else None,
    )


def defragmentation_body(view: SliceView, found: "Defragmentation") -> schemas.DefragmentationBody:
    """Show what tidying up would free."""
    products: dict[str, Product] = {it.gpu.product.name: it.gpu.product for it in view.gpus}
    room = [
        schemas.RoomBody(
            product=kind.product,
            profile=name(products[kind.product], kind.profile),
            before=count,
            after=found.room_after[kind],
        )
        for kind, count in sorted(found.room_before.items())
        if found.room_after[kind] != count
    ]
    return schemas.DefragmentationBody(
        empty_before=found.empty_before,
        empty_after=found.empty_after,
        room=room,
        plan=plan_body(view, found.optimised.plan, found.optimised),
    )


def explained(fleet: Fleet, it: Explanation) -> schemas.ReplicaExplainedBody:
    """Show why a replica is where it is."""
    seat = it.seat
    return schemas.ReplicaExplainedBody(
        replica=it.replica,
        gpu=seat.gpu if seat is not None else None,
        profile=name(fleet.by_id[seat.gpu].product, seat.placement.profile) if seat is not None else "",
        start=seat.placement.start if seat is not None else None,
        reason=it.reason,
        elsewhere=[schemas.ElsewhereBody(gpu=other.gpu, reason=other.reason) for other in it.elsewhere],
        remedy=it.remedy,
    )


def drawing(view: SliceView, plan: SlicePlan) -> str:
    """Return an SVG of every GPU, before and after a plan; one column where nothing changes."""
    before, then = view.fleet, after(view.fleet, plan.steps)
    columns = [("now", [_row(gpu) for gpu in before.gpus])]
    if then != before:
        columns.append(("after the plan", [_row(gpu, before.by_id[gpu.id]) for gpu in then.gpus]))
    return svg(columns)


def _gpu(it: NodeGpu, records: Iterable[SliceRecord]) -> schemas.GpuBody:
    gpu, product = it.gpu, it.gpu.product
    cut = {instance.placement: instance for instance in gpu.instances}
    slices: list[schemas.SliceBody] = []
    bars: list[Bar] = []
    held: dict[Placement, SliceRecord] = {record.seat.placement: record for record in records}
    for placement in sorted(cut.keys() | held.keys()):
        record, instance = held.get(placement), cut.get(placement)
        body = _slice(product, placement, record)
        if record is None and instance is not None and instance.processes:
            body = body.model_copy(update={"state": "foreign", "reason": f"pids {_pids(instance.processes)}"})
        elif record is not None and not record.leaving:
            running = instance is not None and bool(instance.processes)
            body = body.model_copy(update={"state": "running" if running else "being_made"})
        slices.append(body)
        if instance is not None or all(not _overlap(product, placement, other) for other in cut):
            bars.append(Bar(placement, body.replica, "" if body.state == "running" else body.state.replace("_", " ")))
    profiles = [
        profile.name
        for profile in sorted(product.profiles.values(), key=lambda it: (-it.memory_slices, -it.g, it.key))
        if any(
            not illegality(product, [*(cut.keys() | held.keys()), Placement(s, profile.key)]) for s in profile.starts
        )
    ]
    return schemas.GpuBody(
        uuid=gpu.uuid,
        product=product.name,
        compute_capability=product.compute_capability,
        node=it.node,
        zone=it.zone,
        unusable=it.unusable,
        slices=slices,
        free=profiles if not it.unusable else [],
        drawing=text_line(Row(gpu.uuid, product, tuple(bars))),
    )


def _slice(product: Product, placement: Placement, record: SliceRecord | None) -> schemas.SliceBody:
    profile = product.profiles[placement.profile]
    return schemas.SliceBody(
        profile=profile.name,
        start=placement.start,
        memory_slices=profile.memory_slices,
        server=record.server if record is not None else "",
        replica=record.replica if record is not None else "",
        deployment=record.deployment if record is not None else "",
        state="leaving" if record is not None and record.leaving else "empty",
        reason=record.leaving if record is not None else "",
    )


def _overlap(product: Product, one: Placement, other: Placement) -> bool:
    return bool(illegality(product, [one, other]))


def _row(gpu: FleetGpu, before: FleetGpu | None = None) -> Row:
    known = {(it.placement, it.replica) for it in (before or gpu).slices}
    bars = (Bar(it.placement, it.replica or "", "", (it.placement, it.replica) not in known) for it in gpu.slices)
    return Row(f"{gpu.node} {gpu.product.name} {gpu.id[-6:]}", gpu.product, tuple(bars))


def _step(fleet: Fleet, step: Step) -> schemas.StepBody:
    product = fleet.by_id[step.seat.gpu].product
    return schemas.StepBody(
        step=type(step).__name__.lower(),
        gpu=step.seat.gpu,
        profile=name(product, step.seat.placement.profile),
        start=step.seat.placement.start,
        replica=step.replica if isinstance(step, Place | Remove) else "",
        reason=step.reason,
    )


def _rejected(rejected: Iterable[Rejection]) -> list[schemas.RejectedBody]:
    return [schemas.RejectedBody(replica=it.replica, reason=it.reason, remedy=it.remedy) for it in rejected]


def _cost(cost: Cost) -> schemas.CostBody:
    parts: Mapping[str, float] = {
        "rejection": cost.rejection,
        "gpus": cost.gpus,
        "moves": cost.moves,
        "risk": cost.risk,
        "fragmentation": cost.fragmentation,
    }
    return schemas.CostBody(**{key: round(value, 6) for key, value in parts.items()}, total=round(cost.total, 6))


def _pids(pids: Iterable[int]) -> str:
    return ", ".join(map(str, pids))
