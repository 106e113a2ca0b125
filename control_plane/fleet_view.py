"""What a change is tried out on: the servers that the loop saw last, and those on slices that would be given out."""

from collections.abc import Iterable

from control_plane.deployments import FleetView
from control_plane.reconciler import View
from control_plane.slice_view import planned_servers, rejections_of
from control_plane.slicer import Slicer
from control_plane.state import Deployment, Published


def fleet_view(view: View, slicer: Slicer | None, deployments: Iterable[Deployment], published: Published) -> FleetView:
    """Return what was seen last, with the servers of the slices that would be given out for these deployments."""
    places = view.plan.placement.places()
    if slicer is None:
        return FleetView(view.observed, places)
    wanted = tuple(deployments)
    sliced = slicer.plan_for(wanted, published)
    refused = {it.name: reasons for it in wanted if (reasons := rejections_of(sliced, it.name))}
    return FleetView((*view.observed, *planned_servers(sliced)), places, refused)
