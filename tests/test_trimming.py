"""Blocks that a burst left behind are freed, and a pattern that comes again allocates nothing.

By the clock for a receiver; for what takes minutes the pool itself is told the time, through walker.pyx.
"""

from __future__ import annotations

import time

import pytest

pytest_plugins = ["walker_fixtures"]

PATIENT = 30.0  # seconds: more than it takes on any machine


def burst(rx, tx, count: int) -> None:
    """Hold so many batches at once, and let them go."""
    held = []
    for _ in range(count):
        tx.send(b"x")
        held.append(rx.recv_batch())
    assert rx.stats().blocks_in_use == count


def one_by_one(rx, tx, seconds: float):
    """Receive for so long with one batch held at a time; give the count of blocks after each."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tx.send(b"x")
        assert len(rx.recv_batch()) == 1
        yield rx.stats().blocks
        time.sleep(0.001)  # the clock decides, and how often it is looked at does not matter


# A receiver --------------------------------------------------------------------------------------------------------


def test_blocks_go_that_nobody_needs_any_more(opened):
    rx, tx = opened.pipe(batch_size=4)
    burst(rx, tx, 200)
    few = next((count for count in one_by_one(rx, tx, PATIENT) if count <= 4), None)
    assert few is not None, rx.stats()
    assert rx.stats().blocks_in_use == 0
    assert rx.stats().slot_memory == few * 4 * 2048
    burst(rx, tx, 10)  # and they come again


def test_a_burst_that_comes_again_within_a_second_finds_its_blocks(opened_native):
    """Five seconds: longer than a block that nobody needs is kept."""
    rx, tx = opened_native.pipe(batch_size=4)
    for _ in range(10):
        burst(rx, tx, 50)
        begin = time.monotonic()
        counts = {*one_by_one(rx, tx, 0.5)}
        assert counts == {50} or time.monotonic() - begin > 1.5  # the machine stood still: no second was kept


def test_a_steady_state_has_a_constant_count(opened_native):
    rx, tx = opened_native.pipe(batch_size=4)
    last = None
    until = time.monotonic() + 5
    counts = set()
    while time.monotonic() < until:
        tx.send(b"x")
        last = rx.recv_batch()  # noqa: F841 - held while the next one comes
        counts.add(rx.stats().blocks)
    assert counts == {2}


@pytest.mark.parametrize("options", [{"memory": 100 * 4 * 2048}, {"hugepages": "transparent"}])
def test_slots_that_lie_elsewhere_stay(opened_native, options):
    if "memory" in options:
        options = {"memory": bytearray(options["memory"])}
    rx, tx = opened_native.pipe(batch_size=4, **options)
    burst(rx, tx, 50)
    taken = rx.stats().slot_memory
    assert {*one_by_one(rx, tx, 3)} == {50}
    assert rx.stats().slot_memory == taken


def test_what_is_held_stays_as_it_is_while_the_rest_goes(opened_native):
    rx, tx = opened_native.pipe(batch_size=1)
    kept = []
    for i in range(100):
        tx.send(b"%d" % i)
        kept.append(rx.recv_batch()[0])
    del kept[::2]
    assert any(count <= 50 + 4 for count in one_by_one(rx, tx, PATIENT))
    assert [bytes(view) for view in kept] == [b"%d" % i for i in range(1, 100, 2)]
    rx.close()
    assert [bytes(view) for view in kept] == [b"%d" % i for i in range(1, 100, 2)]


# The pool, told the time -------------------------------------------------------------------------------------------

SPARE = 2


@pytest.mark.parametrize("period", [100, 500, 1000, 1900])
def test_no_pattern_of_less_than_two_seconds_ever_allocates_again(walker, period):
    made, blocks = walker.pattern(100, period, 20)
    assert made == [100 - 2] + [0] * 19
    assert blocks == 100


@pytest.mark.parametrize("period", [2500, 5000, 10_000, 30_000, 60_000])
def test_a_slower_pattern_ends_up_without_an_allocation(walker, period):
    made, _ = walker.pattern(100, period, 20)
    assert made[1] > 0
    assert made[7:] == [0] * 13


def test_after_minutes_without_need_all_but_the_spare_ones_go_whatever_was_before(walker):
    made, blocks = walker.pattern(1000, 60_000, 20, 5 * 60_000)
    assert made[7:] == [0] * 13
    assert blocks == SPARE + 1  # which is held at times
    made, blocks = walker.pattern(1000, 200_000, 5)
    assert made[1:] == [1000 - SPARE - 1] * 4
    assert blocks == SPARE + 1


def test_freeing_takes_little_at_once(walker):
    """Else it would hold up a receive for long: eight a look, and ten looks a second."""
    _, before = walker.pattern(1000, 0, 1, 4000)
    _, after = walker.pattern(1000, 0, 1, 5000)
    assert before - after == 80


def test_a_few_blocks_are_not_worth_it(walker):
    for count in (1, 2, 3):
        assert walker.pattern(count, 60_000, 3, 60_000)[1] == max(2, count)


def test_pools_used_in_any_way_keep_their_books(walker):
    """What walker_pool.pxi holds against them; `dev.py fuzz` runs it for longer, under sanitizers."""
    seen = walker.fuzz(2024, 400_000)
    for what in ("pools", "huge pages", "trimmed", "missed", "closed"):
        assert seen[what] > 100, what
