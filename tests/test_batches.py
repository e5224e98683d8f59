"""What a batch is: a sequence of read-only views, each exactly a datagram, over one block with columns beside it."""

import io
import random

import numpy as np
import pytest


def test_a_batch_is_a_sequence_of_views(opened):
    rx, far = opened.pipe()
    sent = [b"one", b"", b"three", b"four"]
    for data in sent:
        far.send(data)
    batch = rx.recv_batch()
    assert len(batch) == 4
    assert [bytes(view) for view in batch] == sent
    assert [bytes(batch[i]) for i in range(4)] == sent
    assert [bytes(batch[i]) for i in range(-4, 0)] == sent
    assert [bytes(view) for view in batch[1:3]] == sent[1:3]
    assert [bytes(view) for view in reversed(batch)] == sent[::-1]
    for i in (4, -5, 1 << 70, -(1 << 70)):
        with pytest.raises(IndexError):
            batch[i]
    with pytest.raises(TypeError):
        batch["0"]
    assert repr(batch) == str(batch) == "<multicast.Batch of 4 datagrams>"


def test_views_are_read_only_and_exactly_as_long_as_the_datagram(opened):
    rx, far = opened.pipe(datagram_size=100)
    far.send(b"x" * 100)
    rx.recv_batch()
    far.send(b"short")
    view = rx.recv_batch()[0]
    assert type(view) is memoryview
    assert view.readonly
    assert (view.nbytes, view.format, view.shape, view.strides) == (5, "B", (5,), (1,))
    assert view == b"short"
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises(IndexError):
        view[5]


def test_the_block_and_its_columns_say_where_each_datagram_is(opened):
    rx, far = opened.pipe(datagram_size=300)
    sent = [bytes([i]) * i for i in range(1, 20)]
    for data in sent:
        far.send(data)
    batch = rx.recv_batch()
    block = memoryview(batch)
    assert block.readonly
    assert (block.ndim, block.format, block.nbytes % len(batch)) == (1, "B", 0)
    for i, data in enumerate(sent):
        start = batch.offsets[i]
        assert block[start : start + batch.lengths[i]] == data
    assert batch.lengths.tolist() == [len(data) for data in sent]
    assert batch.real_lengths.tolist() == [len(data) for data in sent]
    assert batch.truncated.tolist() == [False] * len(sent)


def test_columns_are_buffers_that_numpy_wraps_without_a_copy(opened):
    rx, far = opened.pipe(datagram_size=64)
    for i in range(10):
        far.send(i.to_bytes(8, "big"))
    batch = rx.recv_batch()
    for name, kind in (("offsets", "u4"), ("lengths", "u4"), ("real_lengths", "u4"), ("truncated", "?")):
        column = getattr(batch, name)
        assert column.readonly
        array = np.asarray(column)
        assert array.dtype == np.dtype(kind)
        assert array.shape == (10,)
        assert not array.flags.writeable
    slots = np.frombuffer(batch, np.uint8).reshape(len(batch), -1)
    numbers = slots[:, :8].copy().view(">u8").ravel()
    assert numbers.tolist() == list(range(10))
    with pytest.raises(ValueError, match="read-only"):
        slots[0, 0] = 1


def test_nobody_who_wants_to_write_is_let_in(opened):
    rx, far = opened.pipe()
    far.send(b"as it was")
    batch = rx.recv_batch()
    for exporter in (batch, memoryview(batch), batch[0], batch.lengths):
        with pytest.raises(TypeError, match="read-write"):
            io.BytesIO(b"written").readinto(exporter)
        array = np.ndarray((1,), np.uint8, exporter)  # numpy asks for writable memory first
        assert not array.flags.writeable
    assert batch[0] == b"as it was"
    assert batch.lengths.tolist() == [9]


def test_a_datagram_that_is_too_long_is_cut_and_flagged(opened, feed):
    rx, tx = opened.pair(feed, datagram_size=1000, receive_buffer=1 << 20)
    sizes = [999, 1000, 1001, 65_507, 0, 1]
    sent = [random.Random(size).randbytes(size) for size in sizes]
    assert tx.send_batch(sent) == 6
    batch = rx.recv_batch()
    assert len(batch) == 6
    assert [bytes(view) for view in batch] == [data[:1000] for data in sent]
    assert batch.lengths.tolist() == [999, 1000, 1000, 1000, 0, 1]
    assert batch.real_lengths.tolist() == sizes
    assert batch.truncated.tolist() == [False, False, True, True, False, False]
    stats = rx.stats()
    assert (stats.datagrams, stats.truncated, stats.bytes) == (6, 2, 4000)


def test_what_is_cut_does_not_reach_the_next_slot(opened_native):
    """A block that held other bytes shows what the kernel wrote: the datagrams, and nothing beside them."""
    rx, far = opened_native.pipe(datagram_size=100, batch_size=4, max_blocks=1)
    for _ in range(4):
        far.send(b"\xaa" * 100)
    rx.recv_batch()
    sent = [b"1" * 99, b"2" * 5000, b"3" * 101, b"4"]
    for data in sent:
        far.send(data)
    batch = rx.recv_batch()
    block = bytes(memoryview(batch))
    step = batch.offsets[1]
    for i, data in enumerate(sent):
        kept = data[:100]
        assert block[i * step : i * step + 100] == kept + b"\xaa" * (100 - len(kept))
        assert block[i * step + 100 : (i + 1) * step] == bytes(step - 100)


def test_empty_datagrams_are_datagrams(opened, feed):
    rx, tx = opened.pair(feed)
    sent = [b"", b"x"] * 16 + [b""] * 32
    assert tx.send_batch(sent) == 64
    got = []
    while len(got) < 64:
        got += [bytes(view) for view in rx.recv_batch()]
    assert got == sent
    assert rx.stats().datagrams == 64


def test_a_batch_holds_at_most_batch_size(opened):
    rx, far = opened.pipe(batch_size=3)
    for i in range(7):
        far.send(bytes([i]))
    assert [len(rx.recv_batch()) for _ in range(3)] == [3, 3, 1]


def test_batches_come_from_receivers_alone(multicast):
    with pytest.raises(TypeError, match="recv_batch"):
        multicast.Batch()
    with pytest.raises(TypeError, match="recv_batch"):
        multicast.Batch(b"data")


def test_counters_are_what_was_received(opened, feed):
    rx, tx = opened.pair(feed, batch_size=8)
    tx.send_batch([b"12345"] * 20)
    got = 0
    while got < 20:
        got += len(rx.recv_batch())
    stats = rx.stats()
    assert (stats.datagrams, stats.bytes, stats.truncated, stats.drops) == (20, 100, 0, 0)
    assert 3 <= stats.batches <= 20
    assert stats.receive_buffer > 0


def test_kernel_drops_are_counted_without_another_datagram(opened, feed):
    """A burst that overflows the buffer, then silence: stats() tells, and the account closes."""
    rx, tx = opened.pair(feed, receive_buffer=1)
    sent = 2000
    assert tx.send_batch([b"x" * 200] * sent) == sent
    drops = rx.stats().drops
    assert drops > 0
    received = 0
    while received + drops < sent:
        received += len(rx.recv_batch())
    with pytest.raises(BlockingIOError):
        rx.recv_batch(0)
    assert received + rx.stats().drops == sent
    rx.close()
    assert rx.stats().drops == drops


def test_what_stands_behind_a_batch_can_not_be_made_by_hand(opened):
    """The types are in reach of type(): without a batch they have nothing to show, and don't crash."""
    rx, far = opened.pipe()
    far.send(b"x")
    batch = rx.recv_batch()
    for made in (type(iter(batch)), type(batch.lengths.obj)):
        try:
            thing = made()
        except TypeError:
            continue
        assert list(thing) == [] if hasattr(thing, "__next__") else not isinstance(thing, bytes)
        with pytest.raises((BufferError, TypeError)):
            memoryview(thing)


def test_a_socket_that_joins_datagrams_is_refused(multicast, no_leaked_descriptors):
    """UDP_GRO hands over several as one, and nobody asked where they end."""
    with multicast.genSocket() as sock:
        try:
            sock.setsockopt(17, 104, 1)  # SOL_UDP, UDP_GRO
        except OSError as error:
            pytest.skip(f"this kernel has no UDP_GRO: {error}")
        with pytest.raises(ValueError, match="Receiver: the socket has UDP_GRO on"):
            multicast.Receiver(sock)
        sock.setsockopt(17, 104, 0)
        multicast.Receiver(sock).close()


def test_an_iterator_at_its_end_holds_no_block(opened):
    receiver, sender = opened.pipe(max_blocks=1)
    sender.send(b"first")
    iterator = iter(receiver.recv_batch())
    assert [bytes(view) for view in iterator] == [b"first"]
    sender.send(b"second")
    assert bytes(receiver.recv_batch()[0]) == b"second"
    assert list(iterator) == []
