"""The control plane killed over real tritonservers that live on: it converges, the journal tells all, nothing twice.

What a kill leaves behind is a tritonserver in the middle of a load that nobody waits for any more. Its index shows that
as LOADING, or not at all where the same version stays up meanwhile: instances that change in place. A load that is sent
once more then waits for the first one, and finds nothing to do (measured on Triton 2.51).
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.outliving_servers import IDS, Gate, Row, Site, index, outliving_site, publish
from tests.small_models import answer, ensemble

STATES = ("done", "failed", "cancelled")
SEED, WITHIN_S = 20260101, 1.5
"""The sample: each kill within so many seconds of the request, or of the start that it follows, chosen by this seed."""


@dataclass(frozen=True, slots=True)
class Change:
    """An operation on two servers that is cut by `kills`, the later ones while the control plane recovers.

    `starts` are the instances that start on each server for it; afterwards the ensemble multiplies by `factor`.
    """

    kind: str
    ask: Callable[[Site], None]
    starts: dict[str, int]
    factor: float
    kills: int
    before: Callable[[Site], None] = field(default=lambda _: None)


def _publish(site: Site) -> None:
    publish(site.settings.model_repository, "double", 4.0, version=2)


def _share(site: Site) -> None:
    """Have a member of the ensemble in a deployment of its own: of an ensemble there is nothing to scale."""
    site.ask("", {"name": "t", "model": "triple"})
    site.rest("d", "t")
    site.started()


CHANGES = (
    Change("deploy", lambda it: it.ask("", {"name": "d", "model": "sixfold"}), {"double": 1, "triple": 1}, 6.0, 2),
    Change("scale", lambda it: it.ask("/t/scale", {"instances": 2}), {"triple": 1}, 6.0, 1, _share),
    Change("redeploy", lambda it: it.ask("/d/redeploy"), {"double": 1}, 12.0, 2, _publish),
    Change("rollback", lambda it: it.ask("/d/rollback"), {"double": 1}, 6.0, 1),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "repository"
    publish(root, "double", 2.0)
    publish(root, "triple", 3.0)
    ensemble(root, "sixfold", "double", "triple")
    with outliving_site(tmp_path) as site:
        yield site


def accounted(site: Site, kind: str, starts: dict[str, int]) -> dict[str, Any]:
    """Return the newest operation: the one of `kind`, done, with a done step for each start on each server.

    Beside it only the ensemble above a model may have been healed: it is loaded anew with a member that is scaled.
    """
    found = next(it for it in site.operations(*STATES) if it["kind"] != "heal")
    assert (found["kind"], found["state"]) == (kind, "done"), found
    assert {step["state"] for step in found["steps"]} <= {"done", "skipped"}, found
    done = {(step["server"], step["model"]) for step in found["steps"] if step["state"] == "done"}
    assert {(server, model) for server in IDS for model in starts} <= done, found
    healed = [step for it in site.operations(*STATES) if it["kind"] == "heal" for step in it["steps"]]
    assert {step["model"] for step in healed} <= {"sixfold"}, healed
    return found


def attempts(operation: dict[str, Any]) -> set[int]:
    """Return how often each step was sent."""
    return {step["attempts"] for step in operation["steps"]}


@pytest.mark.timeout(300)
def test_killed_at_seeded_moments_and_again_every_operation_ends_as_if_nothing_had_been(site: Site) -> None:
    drawn = random.Random(SEED)
    site.start()
    for change in CHANGES:
        change.before(site)
        change.ask(site)
        for _ in range(change.kills):
            time.sleep(drawn.uniform(0.0, WITHIN_S))
            site.kill()
            site.start()
        site.rest("d")
        accounted(site, change.kind, change.starts)
        assert site.started() == [change.starts] * 2, change.kind
        assert [answer(it.server, "sixfold") for it in site.servers] == [change.factor] * 2
    assert not site.operations("failed", "cancelled")


@pytest.mark.timeout(300)
def test_killed_while_triton_is_at_a_load_that_load_is_waited_for_and_not_repeated(site: Site, tmp_path: Path) -> None:
    gate, root = Gate(tmp_path / "gate"), site.settings.model_repository
    publish(root, "slow", 2.0, more=gate.code)
    site.start()

    def cut(path: str, body: dict[str, Any] | None, seen: Row) -> None:
        """Ask for a change, and put another control plane in the place of that one while both servers are at it."""
        gate.close()
        site.ask(path, body)
        site.until_loading("slow")
        site.kill()
        site.start()
        site.until_seen(seen)
        assert seen in index(site.servers[0].server), "the load did not outlive the control plane"

    cut("", {"name": "s", "model": "slow"}, ("slow", 1, "LOADING"))
    gate.open()
    site.rest("s")
    assert attempts(accounted(site, "deploy", {"slow": 1})) == {1}
    assert site.started() == [{"slow": 1}] * 2

    publish(root, "slow", 3.0, version=2, more=gate.code)
    cut("/s/redeploy", None, ("slow", 2, "LOADING"))
    gate.open()
    site.rest("s")
    assert attempts(accounted(site, "redeploy", {"slow": 1})) == {1}
    assert site.started() == [{"slow": 1}] * 2

    cut("/s/scale", {"instances": 2}, ("slow", 2, "READY"))
    gate.open()
    site.rest("s")
    scaled = accounted(site, "scale", {"slow": 1})
    assert attempts(scaled) == {2}, "Triton's index tells of such a load now: it need not be sent again"
    assert site.started() == [{"slow": 1}] * 2

    publish(root, "slow", 4.0, version=3, more=gate.code)
    cut("/s/redeploy", None, ("slow", 3, "LOADING"))
    site.ask("/s/rollback")
    gate.open()
    site.rest("s")
    accounted(site, "rollback", {"slow": 2})
    assert [answer(it.server, "slow") for it in site.servers] == [3.0] * 2
