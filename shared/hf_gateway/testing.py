"""For tests of programs that use hf-gateway: a clock that stands still until somebody waits."""

from hf_gateway.drive import Clock


class ManualClock(Clock):
    """A clock whose pauses pass at once. waited: the pauses asked for, in seconds."""

    def __init__(self, start: float = 1000.0) -> None:
        """Start at `start` seconds."""
        self._now = start
        self.waited: list[float] = []

    def now(self) -> float:
        """Return the time it was moved to."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Pass at once, and remember."""
        self.waited.append(seconds)
        self._now += seconds

    async def asleep(self, seconds: float) -> None:
        """Pass at once, and remember."""
        self.sleep(seconds)
