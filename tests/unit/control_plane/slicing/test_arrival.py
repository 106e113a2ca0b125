"""One arrival: the place that is taken, who moves for it, and what is said where there is none."""

from control_plane.mig import Placement, SliceKind, products
from control_plane.slicing import (
    Choice,
    Create,
    Destroy,
    Domain,
    Fleet,
    FleetGpu,
    GpuId,
    Place,
    Rejection,
    Remove,
    ReplicaId,
    Seat,
    Slice,
    Wanted,
    after,
)
from control_plane.slicing.arrival import Arrival, place_arrival
from control_plane.slicing.board import Board
from control_plane.slicing.explaining import explain
from control_plane.slicing.planning import plan_slices

H100 = products()["h100-80gb"]


def wanted(name: str, *profiles: str, group: str = "", spread: Domain = Domain.NONE, move_cost: float = 1.0) -> Wanted:
    choices = tuple(Choice(SliceKind(H100.name, it)) for it in profiles)
    return Wanted(ReplicaId(name), choices, group, spread, move_cost=move_cost)


def gpu(name: str, node: str = "", **held: tuple[str, int]) -> FleetGpu:
    slices = [Slice(Placement(start, profile), ReplicaId(replica)) for replica, (profile, start) in held.items()]
    return FleetGpu(GpuId(name), H100, tuple(sorted(slices, key=lambda it: it.placement)), node)


def seat(name: str, profile: str, start: int) -> Seat:
    return Seat(GpuId(name), Placement(start, profile))


def board_of(fleet: Fleet, *asked: Wanted) -> Board:
    return Board(fleet, {it.id: it for it in asked})


def test_a_small_slice_goes_where_it_closes_the_least() -> None:
    """The eighth memory slice has no compute of its own: 1g at 6 leaves both halves whole but for the second."""
    fleet = Fleet.of([gpu("a", half=("3g", 0)), gpu("b")])
    board = board_of(fleet, wanted("half", "3g"), wanted("big", "4g"))
    answer = place_arrival(board, wanted("new", "1g"))
    assert isinstance(answer, Arrival)
    assert answer.seat.gpu == "a", "the other GPU stays whole for a 4g"


def test_an_empty_slice_that_fits_is_taken_as_it_is() -> None:
    fleet = Fleet.of([FleetGpu(GpuId("a"), H100, (Slice(Placement(2, "1g")), Slice(Placement(4, "3g"))))])
    answer = place_arrival(board_of(fleet), wanted("new", "3g"))
    assert isinstance(answer, Arrival)
    assert answer.steps == (Place(seat("a", "3g", 4), ReplicaId("new"), answer.steps[0].reason),)


def test_an_empty_slice_in_the_way_goes() -> None:
    fleet = Fleet.of([FleetGpu(GpuId("a"), H100, (Slice(Placement(2, "1g")),))])
    answer = place_arrival(board_of(fleet), wanted("new", "7g"))
    assert isinstance(answer, Arrival)
    assert [type(it) for it in answer.steps] == [Destroy, Create, Place]


def test_one_that_stands_in_the_way_moves_first() -> None:
    fleet = Fleet.of([gpu("a", small=("1g", 0)), gpu("b", half=("3g", 0), other=("2g", 4))])
    asked = (wanted("small", "1g"), wanted("half", "3g"), wanted("other", "2g"))
    board = board_of(fleet, *asked)
    answer = place_arrival(board, wanted("new", "7g"))
    assert isinstance(answer, Arrival)
    assert answer.moved == ("small",)
    assert [type(it) for it in answer.steps] == [Create, Place, Remove, Destroy, Create, Place]
    assert answer.steps[1] == Place(seat("b", "1g", 6), ReplicaId("small"), "It makes room for new.", moved=True)
    assert after(fleet, answer.steps).by_id[GpuId("a")].geometry == (Placement(0, "7g"),)


def test_one_in_the_way_has_another_move_for_it() -> None:
    fleet = Fleet.of([gpu("one", a=("1g", 0), guard=("1g", 2), double=("1g.2x", 6))])
    stays = wanted("a", "1g", move_cost=5.0)
    asked = [stays, wanted("guard", "1g"), wanted("double", "1g.2x"), wanted("new", "3g")]
    plan = plan_slices(fleet, asked)
    assert plan.rejected == ()
    places = {"a": ("1g", 0), "guard": ("1g", 1), "double": ("1g.2x", 2), "new": ("3g", 4)}
    assert plan.seats == {name: seat("one", profile, start) for name, (profile, start) in places.items()}
    assert sorted(plan.moved) == ["double", "guard"]
    (rejected,) = plan_slices(fleet, asked, most_moves=1).rejected
    assert rejected.remedy == ("one 3g.40gb more, free by moving guard to one (1g.10gb) and double to one (1g.20gb)")


def test_without_moves_it_is_rejected_and_the_board_is_as_it_was() -> None:
    fleet = Fleet.of([gpu("a", small=("1g", 0)), gpu("b", half=("3g", 0), other=("2g", 4))])
    board = board_of(fleet, wanted("small", "1g"), wanted("half", "3g"), wanted("other", "2g"))
    before = dict(board.seats)
    answer = place_arrival(board, wanted("new", "7g"), most_moves=0)
    assert isinstance(answer, Rejection)
    assert answer.reason == "no 7g.80gb of h100-80gb is free"
    assert board.seats == before


def test_replicas_of_a_group_are_kept_apart() -> None:
    fleet = Fleet.of([gpu("a", node="n1", one=("1g", 0)), gpu("b", node="n1"), gpu("c", node="n2")])
    asked = [wanted(it, "1g", group="g", spread=Domain.NODE) for it in ("one", "two", "three")]
    plan = plan_slices(fleet, asked)
    assert plan.seats[ReplicaId("two" if ReplicaId("two") in plan.seats else "three")].gpu == "c"
    (rejected,) = plan.rejected
    assert "holds another replica of g" in rejected.reason
    assert rejected.remedy == "one 1g.10gb of h100-80gb more on another node, which no moves can free"


def test_a_slice_kept_warm_is_given_up_for_one_that_is_worth_more() -> None:
    fleet = Fleet.of([gpu("a", warm=("7g", 0))])
    warm = Wanted(ReplicaId("warm"), (Choice(SliceKind(H100.name, "7g")),), value=0.1, move_cost=0.0)
    plan = plan_slices(fleet, [warm, wanted("new", "3g")])
    assert plan.seats == {"new": seat("a", "3g", 4)} or plan.seats == {"new": seat("a", "3g", 0)}
    assert [(it.replica, it.reason) for it in plan.rejected] == [("warm", "its room is needed for new")]
    assert after(fleet, plan.steps).seats[ReplicaId("new")] == (plan.seats[ReplicaId("new")],)


def test_what_a_failed_gpu_held_is_placed_anew_before_newcomers() -> None:
    broken = FleetGpu(GpuId("a"), H100, (Slice(Placement(0, "7g"), ReplicaId("old")),), usable=False)
    plan = plan_slices(Fleet.of([broken, gpu("b")]), [wanted("old", "7g"), wanted("a-newcomer", "7g")])
    assert plan.seats == {"old": seat("b", "7g", 0)}
    assert plan.moved == ()


def test_a_changed_rate_moves_a_replica_to_a_larger_slice_before_it_leaves_the_small_one() -> None:
    fleet = Fleet.of([gpu("a", busy=("1g", 0))])
    plan = plan_slices(fleet, [wanted("busy", "2g", "3g")])
    assert [type(it) for it in plan.steps] == [Create, Place, Remove, Destroy]
    assert plan.moved == ("busy",)
    assert plan_slices(fleet, [wanted("busy", "2g")], most_moves=0).steps == ()


def test_a_rejection_names_the_moves_that_would_admit_it() -> None:
    fleet = Fleet.of([gpu("a", small=("1g", 0)), gpu("b", half=("3g", 0), other=("2g", 4))])
    asked = [wanted("small", "1g"), wanted("half", "3g"), wanted("other", "2g"), wanted("new", "7g")]
    (rejected,) = plan_slices(fleet, asked, most_moves=0).rejected
    assert rejected.remedy == "one 7g.80gb more, free by moving small to b (1g.10gb)"


def test_an_explanation_tells_each_gpu_apart() -> None:
    l4 = FleetGpu(GpuId("l4"), products()["l4-24gb"])
    full = gpu("full", big=("7g", 0))
    failed = FleetGpu(GpuId("failed"), H100, usable=False)
    fleet = Fleet.of([gpu("a", here=("3g", 0), mate=("3g", 4)), gpu("empty"), full, l4, failed])
    asked = [wanted("here", "3g"), wanted("mate", "3g"), wanted("big", "7g")]
    answer = explain(fleet, asked, ReplicaId("here"))
    assert answer.seat == seat("a", "3g", 0)
    assert answer.reason.startswith("3g.40gb can hold it")
    assert {it.gpu: it.reason for it in answer.elsewhere} == {
        "empty": "would take it, and is empty: one GPU more would be in use",
        "failed": "cannot be used",
        "full": "has no room for 3g.40gb: holds big on 7g.80gb",
        "l4": "is a l4-24gb; it needs h100-80gb",
    }
