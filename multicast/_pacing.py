"""When datagrams are due at a set rate, and how far from it they went.

Owns the schedule, the waiting and the account of lateness. Must not send, nor know what is sent.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SECOND = 1_000_000_000  # ns, as all times here
TICK = 200_000  # what is due within so long goes together: a wait for each of 200,000 datagrams would take longer
MOST_AT_ONCE = 1024  # however high the rate is
# A sleep ends late by the timer's slack (50 µs, PR_SET_TIMERSLACK of prctl(2)) and by what waking up takes: so long
# before the time it ends, and the rest is spent asking the clock.
SPIN = 150_000
STALL = 10_000_000  # from here on lateness is no jitter


class Pacer:
    """Waits until datagrams are due, at a rate.

    - rate: datagrams a second
    - clock, sleep: the time in ns, and what waits for seconds

    Datagram number k is due k / rate seconds after the first one, whatever became of those before it: an error of one
    wait is not added to that of the next. At high rates datagrams are due in batches, with the first of each. After a
    stall, batches that are overdue are due at once, until the schedule is met again.
    """

    def __init__(
        self,
        rate: int,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if rate < 1:
            raise ValueError(f"Pacer: rate is at least 1, not {rate}")
        self.rate = rate
        self.batch: int = min(-(-rate * TICK // _SECOND), MOST_AT_ONCE)  # how many are due together
        self.stalls: int = 0  # how often it fell behind by STALL or more
        self.longest: int = 0  # ns: the greatest lateness
        self._clock, self._sleep = clock, sleep
        self._begun: int | None = None  # when the first one was due
        self._due = 0  # the number of the next datagram
        self._last = (0, 0)  # number and time of the batch that was waited for last
        self._stalled = False
        self._lateness: Counter[int] = Counter()  # how many batches, by ns

    def wait(self, datagrams: int = 1) -> None:
        """Return when the next so many datagrams are due; they are taken as sent then."""
        now = self._clock()
        if self._begun is None:
            self._begun = now
        due = self._begun + self._due * _SECOND // self.rate
        while now < due:
            if due - now > SPIN:
                self._sleep((due - now - SPIN) / _SECOND)
            now = self._clock()
        self._count(now - due)
        self._last = (self._due, now)
        self._due += datagrams

    def resume(self) -> None:
        """Have the next datagrams due now if they are overdue: there were none to send before."""
        if self._begun is not None:
            late = self._clock() - self._begun - self._due * _SECOND // self.rate
            if late > 0:
                self._begun += late

    def achieved(self) -> float | None:
        """Return the rate that was kept, from the first batch to the last one; None: there was one at most.

        Time in which there was nothing to send (`resume`) is left out.
        """
        number, at = self._last
        if self._begun is None or number == 0 or at <= self._begun:
            return None
        return number * _SECOND / (at - self._begun)

    def lateness(self, share: float) -> int:
        """Return how late a batch was, in ns: of so many of them at most, such as 0.5 or 0.99; less than 2% too low."""
        wanted, seen = share * self._lateness.total(), 0
        for late in sorted(self._lateness):
            seen += self._lateness[late]
            if seen >= wanted:
                return late
        return 0

    def _count(self, late: int) -> None:
        coarse = max(late.bit_length() - 7, 0)  # seven digits of each: few different ones, however long it takes
        self._lateness[late >> coarse << coarse] += 1
        self.longest = max(self.longest, late)
        if late >= STALL:
            self.stalls += not self._stalled
            self._stalled = True
        elif late < TICK:
            self._stalled = False
