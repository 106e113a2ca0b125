"""Four tritonservers under constant load: planned changes fail no request, faults none that a retry does not save."""

import asyncio

from tests.faults.fleet_soak import FAULTS, one_of_each


def test_no_client_is_failed_by_a_change_and_none_by_a_fault_after_one_retry() -> None:
    phases = asyncio.run(one_of_each(seed=1))
    bad = [phase for phase in phases if not phase.is_right]
    assert not bad, "\n".join(f"{phase.name} {phase.target}: {phase.tally}" for phase in bad)
    assert len(phases) == 7 + len(FAULTS)
    assert all(phase.tally.requests for phase in phases)
