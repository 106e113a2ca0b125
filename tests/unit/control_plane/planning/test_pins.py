"""Which versions a deployment means."""

from dataclasses import replace

from control_plane.planning import Infeasible, Pinned, conflicts_with, resolve_pins, resolve_together
from control_plane.state import Deployment, ModelName, Pin, Published
from tests.fakes.world import a_built, a_config, a_deployment, a_package, a_repository


def resolve(published: Published, model: str, version: int | None = None) -> list[str] | str:
    answer = resolve_pins(ModelName(model), version, published)
    if isinstance(answer, Infeasible):
        return " ".join(answer.reasons)
    return [f"{pin.model}:{pin.version}" for pin in answer.pins]


def test_the_newest_version_is_pinned() -> None:
    assert resolve(a_repository(a_package("m", (1, 3, 2))), "m") == ["m:3"]


def test_an_asked_version_is_pinned() -> None:
    assert resolve(a_repository(a_package("m", (1, 2))), "m", 1) == ["m:1"]


def test_members_come_before_their_ensemble_ties_by_name() -> None:
    published = a_repository(
        a_package("z", (4,)),
        a_package("a", (2,)),
        a_package("inner", members=("z",)),
        a_package("outer", members=("inner", "a")),
    )
    assert resolve(published, "outer") == ["a:2", "z:4", "inner:1", "outer:1"]


def test_a_step_with_a_version_asks_for_it() -> None:
    published = a_repository(a_package("m", (1, 2)), a_package("e", members=("m:1",)))
    assert resolve(published, "e") == ["m:1", "e:1"]


def test_every_reason_is_told_at_once() -> None:
    published = a_repository(
        a_package("empty", ()),
        a_package("bad", problems=("config.pbtxt:3: no.",)),
        a_package("e", members=("empty", "bad", "gone")),
    )
    text = resolve(published, "e")
    assert "run `tritonfleet build empty`" in text
    assert "config.pbtxt:3: no." in text
    assert "Model 'gone', a member of ensemble 'e', is not in the model repository." in text


def test_an_unknown_model_and_an_unknown_version() -> None:
    assert resolve(Published(), "m") == "Model 'm' is not in the model repository."
    text = resolve(a_repository(a_package("m", (1, 2))), "m", 9)
    assert text == "Model 'm' has no version 9, asked for by the deployment; there are: 1, 2."


def test_two_versions_of_one_member_cannot_be_served() -> None:
    published = a_repository(
        a_package("m", (1, 2)),
        a_package("a", members=("m:1",)),
        a_package("b", members=("m:2",)),
        a_package("e", members=("a", "b")),
    )
    assert "asked for in several versions (1 by ensemble 'a', 2 by ensemble 'b')" in resolve(published, "e")


def test_a_circle_is_told() -> None:
    published = a_repository(a_package("a", members=("b",)), a_package("b", members=("a",)))
    assert "call each other in a circle" in resolve(published, "a")


def test_the_members_are_those_of_the_pinned_version() -> None:
    published = a_repository(
        a_package("old"), a_package("new"), a_built("e", ("old",), ("new",)), a_package("outer", members=("e:1",))
    )
    assert resolve(published, "e") == ["new:1", "e:2"]
    assert resolve(published, "e", 1) == ["old:1", "e:1"]
    assert resolve(published, "outer") == ["old:1", "e:1", "outer:1"]


def test_what_a_version_that_is_not_pinned_asks_for_does_not_count() -> None:
    published = a_repository(
        a_package("m", (1, 2)),
        a_built("inner", ("m:1",), ("m:2",)),
        a_package("side", members=("inner",)),
        a_package("top", members=("inner:1", "side")),
    )
    assert resolve(published, "top") == ["m:1", "inner:1", "side:1", "top:1"]


def test_versions_that_call_each_other_in_a_circle_are_told() -> None:
    published = a_repository(
        a_built("x", ("y:1",), ("z",)), a_built("y", ("z",), ("x:1",)), a_package("z"), a_package("top", members=("y",))
    )
    assert "circle" in resolve(published, "top")


def test_a_draft_that_is_not_built_yet_counts_for_nothing() -> None:
    broken = a_config("e", ("gone",), ("config.pbtxt:3: no.",))
    assert resolve(a_repository(a_package("m"), a_built("e", ("m",), draft=broken)), "e") == ["m:1", "e:1"]


def test_a_conflict_names_both_deployments_and_versions() -> None:
    other = a_deployment("old", ("m", 1))
    assert conflicts_with([Pin(ModelName("m"), 1)], [other]) == ()
    (reason,) = conflicts_with([Pin(ModelName("m"), 2)], [other])
    assert "'old' pins model 'm' at version 1, this one at version 2" in reason


def together(published: Published, deployment: Deployment, *others: Deployment) -> dict[str, list[str]] | str:
    answer = resolve_together(deployment, others, published)
    if isinstance(answer, Infeasible):
        return " ".join(answer.reasons)
    return {name: [f"{pin.model}:{pin.version}" for pin in pinned.pins] for name, pinned in answer.items()}


def test_who_shares_what_moves_moves_too_and_so_on() -> None:
    published = a_repository(
        a_package("m", (1, 2)),
        a_package("n", (1, 2)),
        a_package("o", (1, 2)),
        a_package("e", members=("m",)),
        a_package("f", members=("m", "n")),
        a_package("g", members=("n",)),
    )
    e, f = a_deployment("e", ("m", 1), ("e", 1)), a_deployment("f", ("m", 1), ("n", 1), ("f", 1))
    g, apart = a_deployment("g", ("n", 1), ("g", 1)), a_deployment("o", ("o", 1))
    assert together(published, e, f, g, apart) == {"e": ["m:2", "e:1"], "f": ["m:2", "n:2", "f:1"], "g": ["n:2", "g:1"]}
    assert together(published, apart, e, f, g) == {"o": ["o:2"]}


def test_who_asked_for_a_version_cannot_be_moved_from_it() -> None:
    published = a_repository(a_package("m", (1, 2)), a_package("e", members=("m",)))
    fixed = replace(a_deployment("fixed", ("m", 1)), version=1)
    text = together(published, a_deployment("e", ("m", 1), ("e", 1)), fixed)
    assert "Deployment 'fixed' cannot move with it: Deployment 'e' pins model 'm' at version 2" in text


def test_who_would_move_and_cannot_be_served_is_named() -> None:
    published = a_repository(a_package("m", (1, 2)))
    text = together(published, a_deployment("m", ("m", 1)), a_deployment("e", ("m", 1), ("e", 1)))
    assert text == "Deployment 'e' would move with it: Model 'e' is not in the model repository."


def test_answers_are_values() -> None:
    assert resolve_pins(ModelName("m"), None, a_repository(a_package("m"))) == Pinned((Pin(ModelName("m"), 1),))
