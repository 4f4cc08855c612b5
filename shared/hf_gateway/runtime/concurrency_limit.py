"""How many requests of one gateway are under way at once: few at first, more while answers stay fast, half after a rate limit.

For asyncio only; blocking callers with many batches use it on the background loop.
"""

import asyncio
from collections import deque

SLOWDOWN_FACTOR = 2.0
"""Relative to the fastest recent answer: slower answers mean that the server queues, and more at once would gain nothing."""
BASELINE_DECAY = 1.05
"""Factor by which each answer raises the fastest time, so that a few short texts do not set the standard for long ones."""
SMOOTHING_FACTOR = 0.3
"""Weight of the latest answer in the moving average of their durations."""


class ConcurrencyLimiter:
    """Slots for requests, at most `most`, handed out in the order of the calls."""

    def __init__(self, most: int) -> None:
        """Start with one slot: the first answer shows whether the server works at all."""
        self.most = most
        self._width = 1.0
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slow_start = True
        self._excused = 0  # requests that were under way at the last rate limit, and say nothing new
        self._quickest = float("inf")
        self._usual: float | None = None

    @property
    def width(self) -> int:
        """How many requests may be under way now."""
        return max(1, int(self._width))

    async def acquire(self) -> None:
        """Wait for a slot."""
        if self._under_way < self.width and not self._waiting:
            self._under_way += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()
            raise

    def release(self, seconds: float | None = None) -> None:
        """Release a slot. seconds: duration of a request that was served at once; None for any other end."""
        self._under_way -= 1
        self._excused = max(0, self._excused - 1)
        if seconds is not None:
            self._learn(seconds)
        while self._waiting and self._under_way < self.width:
            place = self._waiting.popleft()
            if not place.done():
                self._under_way += 1
                place.set_result(None)

    def note_rate_limit(self) -> None:
        """Halve the width; requests under way at that time count as the same refusal."""
        if not self._excused:
            self._width = max(1.0, self._width / 2)
            self._slow_start = False
            self._excused = self._under_way

    def _learn(self, seconds: float) -> None:
        self._quickest = min(seconds, self._quickest * BASELINE_DECAY)
        self._usual = seconds if self._usual is None else self._usual + SMOOTHING_FACTOR * (seconds - self._usual)
        if not self._excused and self._usual <= SLOWDOWN_FACTOR * self._quickest:
            self._width = min(float(self.most), self._width + (1.0 if self._slow_start else 1.0 / self._width))


class LoopLimiters:
    """A limiter for each event loop that a gateway's requests run on, since a place is waited for on one loop."""

    def __init__(self, most: int) -> None:
        """most: places of each."""
        self._most = most
        self._limiters: dict[asyncio.AbstractEventLoop, ConcurrencyLimiter] = {}

    def current(self) -> ConcurrencyLimiter:
        """Return the running loop's limiter."""
        loop = asyncio.get_running_loop()
        limiter = self._limiters.get(loop)
        if limiter is None:
            # Loops of other threads may do the same now, so the mapping is neither replaced nor iterated over.
            for known in list(self._limiters):
                if known.is_closed():
                    self._limiters.pop(known, None)
            limiter = self._limiters[loop] = ConcurrencyLimiter(self._most)
        return limiter

    def note_rate_limit(self) -> None:
        """Go on with half as many on every loop."""
        for limiter in list(self._limiters.values()):
            limiter.note_rate_limit()
