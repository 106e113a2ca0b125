"""Delays before a server is started again."""

from control_plane.embedded.backoff import Backoff


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(first_s=0.5, cap_s=3.0, stable_after_s=60.0)
    assert [backoff.delay_after(0.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_stable_time_starts_over() -> None:
    backoff = Backoff(first_s=0.5, cap_s=3.0, stable_after_s=60.0, failures=4)
    assert backoff.delay_after(59.9) == 3.0
    assert backoff.delay_after(60.0) == 0.5
    assert backoff.delay_after(1.0) == 1.0


def test_weeks_of_failures_do_not_overflow() -> None:
    assert Backoff(first_s=0.5, cap_s=30.0, stable_after_s=60.0, failures=100_000).delay_after(0.0) == 30.0
