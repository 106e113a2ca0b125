"""Which versions a deployment means."""

from control_plane.planning import Infeasible, Pinned, conflicts_with, resolve_pins
from control_plane.state import ModelName, Pin, Published
from tests.fakes.world import a_deployment, a_package, a_repository


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


def test_a_conflict_names_both_deployments_and_versions() -> None:
    other = a_deployment("old", ("m", 1))
    assert conflicts_with([Pin(ModelName("m"), 1)], [other]) == ()
    (reason,) = conflicts_with([Pin(ModelName("m"), 2)], [other])
    assert "'old' pins model 'm' at version 1, this one at version 2" in reason


def test_answers_are_values() -> None:
    assert resolve_pins(ModelName("m"), None, a_repository(a_package("m"))) == Pinned((Pin(ModelName("m"), 1),))
