"""The promise about memory: bytes that you can see never change. And its price in the steady state: nothing."""

import gc
import random
import sys
import threading
from queue import SimpleQueue

import numpy as np
import pytest

AT_ONCE = 64


def payload(number: int) -> bytes:
    """Bytes that only this datagram has, 8 to 120 of them."""
    return number.to_bytes(8, "big") * (1 + number * 7919 % 15)


def holdings(batch, i, dice):
    """Hold datagram i in one of the ways that users do; return it with a function to read it back."""
    view = batch[i]
    way = dice.randrange(6)
    if way == 0:
        return view, bytes
    if way == 1:
        return view[4:], lambda kept: bytes(kept[:4]) and kept[:4].tobytes()
    if way == 2:
        return view.cast("Q"), lambda kept: kept.tobytes()
    if way == 3:
        return np.frombuffer(view, np.uint8), lambda kept: kept.tobytes()
    if way == 4:
        return np.frombuffer(view, ">u8")[:1], lambda kept: kept.tobytes()
    start = batch.offsets[i]
    return memoryview(batch)[start : start + len(view)], bytes


def test_a_million_retained_views_never_change(opened_native):
    rx, far = opened_native.pipe(datagram_size=128)
    tx = opened_native.closing(opened_native.package.Sender(far))
    dice = random.Random(1)
    kept = [None] * 30_000
    number = retained = 0

    def check(holding):
        held, read, expected = holding
        assert read(held) == expected, "bytes that were held have changed"

    while retained < 1_000_000:
        assert tx.send_batch([payload(number + i) for i in range(AT_ONCE)]) == AT_ONCE
        batch = rx.recv_batch()
        assert len(batch) == AT_ONCE
        for i in range(AT_ONCE):
            if dice.random() < 0.9:
                held, read = holdings(batch, i, dice)
                at = dice.randrange(len(kept))
                if kept[at] is not None:
                    check(kept[at])
                kept[at] = (held, read, read(held))
                whole = payload(number + i)
                assert kept[at][2] in (whole, whole[4:8], whole[:8])
                retained += 1
        number += AT_ONCE
    rx.close()
    for holding in kept:
        if holding is not None:
            check(holding)
    kept.clear()
    del held, batch, holding
    gc.collect()
    assert rx.stats().blocks_in_use == 0


def test_a_view_keeps_its_bytes_while_others_arrive(opened):
    rx, far = opened.pipe(batch_size=4, datagram_size=64)
    far.send(b"keep me")
    view = rx.recv_batch()[0]
    piece = view[5:]
    array = np.frombuffer(view, np.uint8)
    del view
    for i in range(50):
        for _ in range(4):
            far.send(bytes([i]) * 60)
        assert len(rx.recv_batch()) == 4
    rx.close()
    assert piece == b"me"
    assert array.tobytes() == b"keep me"


def test_a_column_keeps_its_values_while_others_arrive(opened):
    rx, far = opened.pipe(batch_size=2, datagram_size=64)
    far.send(b"12345")
    lengths = rx.recv_batch().lengths
    for _ in range(20):
        far.send(b"1")
        rx.recv_batch()
    assert lengths.tolist() == [5]


def test_a_block_comes_back_when_the_last_reference_goes(opened):
    rx, far = opened.pipe()
    base = rx.stats().blocks_in_use
    assert base == 0
    far.send(b"abc")
    batch = rx.recv_batch()
    view = batch[0]
    piece = view[1:]
    assert rx.stats().blocks_in_use == 1
    del batch
    assert rx.stats().blocks_in_use == 1
    view.release()
    assert rx.stats().blocks_in_use == 1
    assert piece == b"bc"
    del view, piece
    assert rx.stats().blocks_in_use == 0


def test_blocks_are_as_many_as_are_held(opened_native):
    rx, far = opened_native.pipe(batch_size=1)
    held = []
    for i in range(100):
        far.send(b"x")
        held.append(rx.recv_batch())
        assert rx.stats().blocks_in_use == i + 1
        assert rx.stats().blocks == max(2, i + 1)
    held.clear()
    for _ in range(1000):
        far.send(b"x")
        rx.recv_batch()
    assert rx.stats().blocks <= 100  # tests/test_trimming.py has what becomes of them
    assert rx.stats().blocks_in_use == 0


def test_max_blocks_refuses_and_loses_nothing(opened):
    rx, far = opened.pipe(batch_size=1, max_blocks=2)
    for i in range(3):
        far.send(bytes([i]))
    first, second = rx.recv_batch(), rx.recv_batch()
    with pytest.raises(BufferError, match=r"recv_batch: all 2 blocks are held"):
        rx.recv_batch()
    with pytest.raises(BufferError):
        rx.recv_batch(0)
    assert (bytes(first[0]), bytes(second[0])) == (b"\0", b"\1")
    del first
    assert bytes(rx.recv_batch()[0]) == b"\2"


def test_a_batch_in_a_cycle_is_collected(opened):
    rx, far = opened.pipe()
    far.send(b"x")
    cycle = [rx.recv_batch()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert rx.stats().blocks_in_use == 0


@pytest.mark.alone  # no other thread of this process may allocate
def test_the_steady_state_allocates_nothing(opened_native):
    if sys.getallocatedblocks() == 0:
        pytest.skip("PYTHONMALLOC=malloc: the interpreter does not count its blocks")
    rx, far = opened_native.pipe(batch_size=4)

    def rounds(count):
        for _ in range(count):
            far.send(b"x" * 50)
            for view in rx.recv_batch():
                assert view.nbytes == 50

    rounds(1000)
    gc.collect()
    before = sys.getallocatedblocks()
    blocks = rx.stats().blocks
    rounds(100_000)
    gc.collect()
    assert abs(sys.getallocatedblocks() - before) <= 10, "something is left behind for each batch"
    assert rx.stats().blocks == blocks


def test_the_allocation_check_would_see_a_leak():
    """The canary for the test above: one small object a round is far past its bound."""
    if sys.getallocatedblocks() == 0:
        pytest.skip("PYTHONMALLOC=malloc: the interpreter does not count its blocks")
    before = sys.getallocatedblocks()
    kept = [object() for _ in range(1000)]
    assert sys.getallocatedblocks() - before > 900
    assert kept


def test_blocks_come_back_from_any_thread(opened):
    """Three threads check and drop what a fourth receives; every byte is right and no block is lost."""
    rx, far = opened.pipe(batch_size=16, datagram_size=128)
    tx = opened.closing(opened.package.Sender(far))
    queue = SimpleQueue()
    wrong = []

    def consume():
        while True:
            batch, first = queue.get()
            if batch is None:
                return
            for i, view in enumerate(batch):
                if view != payload(first + i):
                    wrong.append((first + i, bytes(view)))

    threads = [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    number = 0
    for _ in range(3000):
        assert tx.send_batch([payload(number + i) for i in range(16)]) == 16
        batch = rx.recv_batch()
        assert len(batch) == 16
        queue.put((batch, number))
        del batch
        number += 16
    for _ in threads:
        queue.put((None, 0))
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong
    assert rx.stats().blocks_in_use == 0
