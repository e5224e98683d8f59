"""The pacer, on a clock of the test's own: when datagrams are due, what a stall means, and how lateness is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast import _pacing
from multicast._pacing import MOST_AT_ONCE, SPIN, STALL, TICK, Pacer

SECOND = 10**9


class Clock:
    """Time that passes when it is asked for, and when somebody sleeps, who wakes up late."""

    def __init__(self, asking: int = 50, oversleeping: int = 60_000) -> None:
        self.now, self.asking, self.oversleeping = 12_345, asking, oversleeping
        self.slept: list[float] = []

    def __call__(self) -> int:
        self.now += self.asking
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * SECOND) + self.oversleeping


def paced(rate: int, clock: Clock) -> Pacer:
    return Pacer(rate, clock=clock, sleep=clock.sleep)


@given(st.integers(1, 10_000_000), st.integers(2, 200), st.integers(0, SPIN - 1))
def test_each_batch_is_due_by_its_number_however_late_sleeps_end(rate, batches, oversleeping):
    clock = Clock(oversleeping=oversleeping)
    pacer = paced(rate, clock)
    begun = clock.now + clock.asking
    for number in range(batches):
        pacer.wait(pacer.batch)
        due = begun + number * pacer.batch * SECOND // rate
        assert due <= clock.now <= due + 2 * clock.asking  # errors of waits do not add up
    assert pacer.longest <= 2 * clock.asking
    assert pacer.stalls == 0
    assert pacer.achieved() == pytest.approx(rate, rel=1e-3)


@given(st.integers(1, 10**9))
def test_what_is_due_within_a_tick_goes_together(rate):
    batch = Pacer(rate).batch
    assert 1 <= batch <= MOST_AT_ONCE
    assert batch == MOST_AT_ONCE or (batch - 1) * SECOND < rate * TICK <= batch * SECOND


def test_it_sleeps_while_there_is_time_and_asks_the_clock_at_the_end():
    clock = Clock()
    pacer = paced(10, clock)
    pacer.wait()
    assert clock.slept == []
    pacer.wait()
    (slept,) = clock.slept
    assert slept == pytest.approx(0.1 - SPIN / SECOND, abs=1e-6)
    clock.slept.clear()
    pacer = paced(_pacing._SECOND // SPIN, clock)
    pacer.wait()
    pacer.wait()
    assert clock.slept == []


def test_after_a_stall_what_is_overdue_is_due_at_once_until_the_schedule_is_met():
    clock = Clock()
    pacer = paced(1000, clock)
    for _ in range(10):
        pacer.wait()
    clock.now += 50 * SECOND // 1000
    before = clock.now
    for _ in range(49):
        pacer.wait()
    assert clock.now - before <= 51 * 2 * clock.asking
    assert pacer.stalls == 1
    assert 45_000_000 < pacer.longest <= 50_000_000
    pacer.wait()
    pacer.wait()
    pacer.wait()
    assert clock.now - before > SECOND // 1000
    clock.now += STALL + SECOND // 1000
    pacer.wait()
    assert pacer.stalls == 2


def test_that_there_was_nothing_to_send_is_no_stall():
    clock = Clock()
    pacer = paced(1000, clock)
    pacer.resume()
    for _ in range(100):
        pacer.wait()
    clock.now += 5 * SECOND
    pacer.resume()
    for _ in range(100):
        pacer.resume()
        pacer.wait()
    assert pacer.stalls == 0
    assert pacer.achieved() == pytest.approx(1000, rel=0.01)


def test_lateness_is_told_to_less_than_two_percent():
    clock = Clock(asking=0)
    pacer = paced(1, clock)
    pacer.wait()
    for late in range(1, 100):
        clock.now += SECOND + late * 1000
        pacer.wait()
        clock.now -= late * 1000
    assert pacer.longest == 99_000
    for share, late in ((0.5, 49_000), (0.99, 98_000)):
        assert late * 0.98 <= pacer.lateness(share) <= late


def test_before_anything_was_sent_there_is_nothing_to_tell():
    pacer = Pacer(5)
    assert (pacer.achieved(), pacer.lateness(0.99), pacer.longest) == (None, 0, 0)
    pacer.wait()
    assert pacer.achieved() is None


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rate is at least 1, not 0"):
        Pacer(0)
