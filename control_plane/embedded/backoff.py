"""How long to wait before the next start of a server that went away. Pure; the clock is the caller's (`server`)."""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Exponential delays in seconds: `first_s`, doubled for each failure in a row, at most `cap_s`.

    A server that stayed ready for `stable_after_s` starts again at `first_s`.
    """

    first_s: float
    cap_s: float
    stable_after_s: float
    failures: int = 0

    def delay_after(self, ready_for_s: float) -> float:
        """Seconds to wait after a run that was ready for `ready_for_s` (0 when it never was)."""
        if ready_for_s >= self.stable_after_s:
            self.failures = 0
        # The exponent is bounded: 2.0 ** 1024 overflows, and a server may fail for weeks.
        delay = min(self.cap_s, self.first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return delay
