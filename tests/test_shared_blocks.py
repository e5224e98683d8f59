"""Receivers of a poller take their blocks from one store, and nobody can tell but by the counts."""

from __future__ import annotations

import gc
import socket
import sys
import threading

import pytest
from waiting import Receiving

pytest_plugins = ["poller_fixtures"]


@pytest.fixture
def multicast(native):
    """The native backend alone: the other one copies out of a scratch area, and has no blocks to share."""
    return native


def blocks_of(receivers):
    return [rx.stats().blocks for rx in receivers]


def hold(made, batches):
    """Receive that many batches of each, and keep them all."""
    kept = []
    for _ in range(batches):
        for number, (rx, far) in enumerate(made):
            far.send(bytes([number, len(kept)]))
            kept.append((bytes([number, len(kept)]), rx.recv_batch()))
    return kept


def test_receivers_alike_share_their_blocks(pipes, polled):
    made = pipes(8)
    receivers = [rx for rx, _ in made]
    assert blocks_of(receivers) == [2] * 8
    polled(*receivers)
    assert blocks_of(receivers) == [2] * 8  # the same two
    kept = hold(made, 1)
    assert blocks_of(receivers) == [8] * 8
    assert {rx.stats().blocks_in_use for rx in receivers} == {8}
    del kept
    for rx, far in made:  # each lets go of what the last one has used
        far.send(b"x")
        rx.recv_batch()
    assert blocks_of(receivers) == [8] * 8


def test_what_is_held_never_changes_whoever_receives_next(pipes, polled):
    made = pipes(4, batch_size=2)
    poller = polled(*(rx for rx, _ in made))
    kept = hold(made, 25)
    views = [(sent, batch[0]) for sent, batch in kept]
    del kept
    poller.unregister(made[0][0])
    made[1][0].close()
    poller.close()
    more = hold([made[0], made[2], made[3]], 25)
    assert all(view == sent for sent, view in views)
    for rx, _ in made:
        rx.close()
    assert all(view == sent for sent, view in views)
    assert all(batch[0] == sent for sent, batch in more)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"batch_size": 32}),
        ({}, {"datagram_size": 1000}),
        ({}, {"columns": "source"}),
        ({"columns": "source"}, {"columns": ("source", "drops")}),
        ({}, {"max_blocks": 4}),
        ({"max_blocks": 4}, {"max_blocks": 4}),
        ({"memory": bytearray(1 << 20)}, {"memory": bytearray(1 << 20)}),
    ],
    ids=str,
)
def test_receivers_that_differ_or_have_their_own_keep_it(opened, feed, polled, one, other):
    made = [opened.pair(feed, **options) for options in (one, other)]
    polled(*(rx for rx, _ in made))
    before = blocks_of(rx for rx, _ in made)
    kept = hold(made[:1], 3)
    assert blocks_of(rx for rx, _ in made) == [3, before[1]]
    assert len(kept) == 3


def test_one_that_another_thread_receives_from_shares_from_the_next_time_on(pipes, polled):
    made = pipes(2)
    (rx, _), (busy, far) = made
    receiving = Receiving(busy)
    receiving.wait_until_inside()
    polled(rx, busy)
    far.send(b"x")
    first = receiving.result()
    assert [rx.stats().blocks_in_use, busy.stats().blocks_in_use] == [0, 0]  # of those that they share
    kept = hold(made, 2)
    assert blocks_of([rx, busy]) == [4, 4]
    assert all(batch[0] == sent for sent, batch in kept)
    assert bytes(first[0]) == b"x"


def test_a_wait_that_ends_with_nothing_shares_from_the_next_time_on(pipes, polled):
    made = pipes(2)
    (rx, _), (busy, _) = made
    receiving = Receiving(busy, timeout=0.2)
    receiving.wait_until_inside()
    polled(rx, busy)
    assert isinstance(receiving.result(), TimeoutError)
    kept = hold(made, 2)
    assert blocks_of([rx, busy]) == [4, 4]
    assert all(batch[0] == sent for sent, batch in kept)


def test_whatever_runs_amid_registering_can_receive(pipes, polled):
    """A garbage collection there, which runs finalizers, and with them other threads; where it waits its turn, none."""
    (rx, _), (other, far) = pipes(2)
    poller = polled(rx)
    came = []

    def collecting(*_):
        far.send(b"x")
        came.append(bytes(other.recv_batch(0)[0]))

    gc.collect()  # so that as many objects are counted as are made from here on, whatever was before
    nothing_to_reuse = [tuple([each] * 9) for each in range(5000)]
    assert gc.get_count()[0] > 1
    before = gc.get_threshold()
    gc.callbacks.append(collecting)
    gc.set_threshold(1)
    try:
        poller.register(other)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collecting)
    assert set(came) <= {b"x"}
    assert came or sys.version_info >= (3, 12)
    del nothing_to_reuse


def test_a_store_goes_on_when_all_who_shared_it_have_closed(pipes, polled):
    first, second = pipes(3), pipes(3)
    poller = polled(*(rx for rx, _ in first))
    kept = hold(first, 2)
    for rx, _ in first:
        rx.close()
    for rx, _ in second:
        poller.register(rx)
    more = hold(second, 2)
    assert blocks_of(rx for rx, _ in second) == [6] * 3
    assert all(batch[0] == sent for sent, batch in kept + more)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_that_was_never_closed_holds_no_place_in_it(native, pipes, polled):
    ((a, far),) = pipes(1)
    near, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with other:
        b = native.Receiver(near)
        poller = polled(a, b)
        kept = hold([(a, far)], 20)
        poller.unregister(b)
        poller.close()
        del b
        gc.collect()
        del kept
        assert a.stats().blocks == 20
        a.close()
        assert (a.stats().blocks, a.stats().slot_memory) == (0, 0)


def test_threads_that_share_a_store_do_not_share_a_block(pipes, polled):
    """A poller's receivers may be received from in several threads: slower, and as right."""
    made = pipes(4, batch_size=4)
    polled(*(rx for rx, _ in made))
    wrong = []

    def exchange(number, rx, far):
        kept = []
        for turn in range(5000):
            sent = bytes([number]) + turn.to_bytes(3, "big")
            far.send(sent)
            kept.append((sent, rx.recv_batch()[0]))
            if len(kept) == 5:
                wrong.extend(sent for sent, view in kept if view != sent)
                kept.clear()

    threads = [threading.Thread(target=exchange, args=(number, *pipe)) for number, pipe in enumerate(made)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert {rx.stats().datagrams for rx, _ in made} == {5000}
    assert {rx.stats().blocks_in_use for rx, _ in made} == {0}
