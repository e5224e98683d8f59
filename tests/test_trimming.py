"""Blocks that a burst left behind are freed, and a pattern that comes again allocates nothing."""

from __future__ import annotations

import time

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


# A receiver --------------------------------------------------------------------------------------------------------


def test_blocks_go_that_nobody_needs_any_more(opened):
    rx, tx = opened.pipe(batch_size=4)
    burst(rx, tx, 200)
    few = next((count for count in one_by_one(rx, tx, PATIENT) if count <= 4), None)
    assert few is not None, rx.stats()
    assert rx.stats().blocks_in_use == 0
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


def test_slots_in_the_callers_memory_stay(opened_native):
    rx, tx = opened_native.pipe(batch_size=4, memory=bytearray(100 * 4 * 2048))
    burst(rx, tx, 50)
    assert {*one_by_one(rx, tx, 3)} == {50}


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
