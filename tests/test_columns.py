"""Columns: what the kernel tells of each datagram beside its bytes, kept when asked for and decoded when read."""

from __future__ import annotations

import gc
import struct
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the source alone")

ALL = {"columns": ("source", "destination", "interface", "ttl", "tos", "drops"), "timestamps": "software"}
LO = 1

# Of each column: the name that asks for it, the format that its docstring states, and how many dimensions it has.
BUFFERS = {
    "source_addresses": ("source", "B", 2),
    "source_ports": ("source", "H", 1),
    "destination_addresses": ("destination", "B", 2),
    "interfaces": ("interface", "I", 1),
    "ttls": ("ttl", "B", 1),
    "tos": ("tos", "B", 1),
    "timestamps": ("timestamps", "q", 1),
    "timestamp_kinds": ("timestamps", "B", 1),
    "drops": ("drops", "Q", 1),
}
METHODS = {"source": "source", "destination": "destination", "interface": "interface", "timestamp_kind": "timestamps"}


@pytest.fixture
def told(opened, feed):
    """A batch of three datagrams of which everything is kept, and the sender's own address."""
    receiver, sender = opened.pair(feed, **ALL)
    sender.socket.setsockopt(0, 1, 0xB9)  # IP_TOS: DSCP 46, ECN 1
    sender.send_batch([b"first", b"", b"third"])
    return receiver.recv_batch(), sender.socket.getsockname()


def test_the_source_is_the_address_that_recvfrom_would_give(told):
    batch, (address, port) = told
    assert [batch.source(i) for i in (0, 1, -1)] == [(address, port)] * 3
    assert batch.source_addresses.tolist() == [[int(each) for each in address.split(".")]] * 3
    assert batch.source_ports.tolist() == [port] * 3


def test_the_text_of_one_source_is_made_once(opened, feed):
    receiver, sender = opened.pair(feed, columns="source")
    sender.send_batch([b"1", b"2"])
    first = receiver.recv_batch()
    sender.send(b"3")
    second = receiver.recv_batch()
    assert first.source(0) is first.source(1) is second.source(0)


def test_a_flood_of_sources_is_not_remembered_for_ever(multicast, opened, feed, monkeypatch):
    monkeypatch.setattr(multicast.skt._backend._columns, "MOST_TEXTS", 2)
    receiver = opened.receiver(feed, columns="source")
    senders = [opened.sender(feed) for _ in range(5)]
    for sender in senders * 2:
        sender.send(b"x")
    batch = receiver.recv_batch()
    assert [batch.source(i) for i in range(10)] == [each.socket.getsockname() for each in senders] * 2


def test_destination_interface_and_hops_are_those_of_the_datagram(told, feed):
    batch, _ = told
    group = feed[0]
    assert {batch.destination(i) for i in range(3)} == {group}
    assert batch.destination_addresses.tolist() == [[int(each) for each in group.split(".")]] * 3
    assert [batch.interface(i) for i in range(3)] == batch.interfaces.tolist() == [LO] * 3
    assert batch.ttls.tolist() == [0] * 3
    assert batch.tos.tolist() == [0xB9] * 3


def test_timestamps_are_the_systems_clock_in_ns(opened, feed):
    receiver, sender = opened.pair(feed, timestamps="software")
    before = time.time_ns()
    sender.send_batch([b"1", b"2"])
    batch = receiver.recv_batch()
    after = time.time_ns()
    first, second = batch.timestamps
    assert before <= first <= second <= after
    assert batch.timestamp_kinds.tolist() == [1, 1]
    assert batch.timestamp_kind(0) == "software"


def test_hardware_timestamps_are_the_kernels_where_the_card_has_none_and_say_so(opened, feed):
    receiver, sender = opened.pair(feed, timestamps="hardware")
    # The kernel switches this on for all that is received, and in its own time (netstamp_wanted of net/core/dev.c).
    # What comes before that has no timestamp.
    deadline = time.monotonic() + 20
    stamped = None
    while stamped is None and time.monotonic() < deadline:
        before = time.time_ns()
        sender.send(b"1")
        batch = receiver.recv_batch()
        stamped = batch.timestamp_kind(0)
    assert before <= batch.timestamps[0] <= time.time_ns()
    assert batch.timestamp_kind(0) == "software"


def test_drops_are_told_with_the_datagrams(opened, feed):
    receiver, sender = opened.pair(feed, columns="drops", receive_buffer=4096, batch_size=1)
    for _ in range(50):
        sender.send(bytes(1000))
    first = receiver.recv_batch()
    assert first.drops.tolist() == [0]
    dropped = receiver.stats().drops
    assert 0 < dropped < 50
    left = 50 - dropped - 1
    for _ in range(left):
        receiver.recv_batch(0)
    sender.send(b"after the loss")
    assert receiver.recv_batch().drops.tolist() == [dropped]


@pytest.mark.parametrize("name", BUFFERS)
def test_columns_are_read_only_buffers_of_the_format_that_is_documented(told, name):
    batch, _ = told
    _, code, dimensions = BUFFERS[name]
    column = getattr(batch, name)
    assert (column.format, column.ndim, column.readonly, column.shape[0]) == (code, dimensions, True, 3)
    assert column.itemsize == struct.calcsize(code)
    assert column.c_contiguous
    assert np.asarray(column).tolist() == column.tolist()
    with pytest.raises(TypeError):
        column[(0,) * dimensions] = 1


@pytest.mark.parametrize("name", BUFFERS)
def test_a_column_outlives_batch_and_receiver_unchanged(opened, feed, name):
    receiver, sender = opened.pair(feed, **ALL, max_blocks=2)
    sender.send_batch([b"1", b"2"])
    batch = receiver.recv_batch()
    column = np.asarray(getattr(batch, name))
    before = column.tolist()
    del batch
    for _ in range(20):
        sender.send(b"again")
        receiver.recv_batch()
    receiver.close()
    gc.collect()
    assert column.tolist() == before


@pytest.mark.parametrize("name", [*BUFFERS, *METHODS])
def test_what_was_not_asked_for_says_how_to_ask(opened, feed, name):
    receiver, sender = opened.pair(feed)
    sender.send(b"x")
    batch = receiver.recv_batch()
    asked = (BUFFERS.get(name) or [METHODS.get(name)])[0]
    with pytest.raises(ValueError, match=rf"^Batch\.{name} was not kept; open the receiver with .*{asked}"):
        getattr(batch, name)(0) if name in METHODS else getattr(batch, name)


@pytest.mark.parametrize("name", ["source", "destination", "interface", "ttl", "tos", "drops"])
def test_each_column_can_be_asked_for_alone(opened, feed, name):
    receiver, sender = opened.pair(feed, columns=[name])
    sender.send(b"x")
    batch = receiver.recv_batch()
    for column, (asked, _, _) in BUFFERS.items():
        if asked == name:
            assert len(getattr(batch, column)) == 1
        else:
            with pytest.raises(ValueError, match="was not kept"):
                getattr(batch, column)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("index", [3, -4, 2**70])
def test_an_index_out_of_range_is_an_index_error(told, name, index):
    batch, _ = told
    with pytest.raises(IndexError):
        getattr(batch, name)(index)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"columns": "sauce"}, ValueError, "no column 'sauce' .there are: source, destination"),
        ({"columns": ["source", "ttl", ""]}, ValueError, "no column ''"),
        ({"columns": [1]}, ValueError, "no column 1"),
        ({"columns": 1}, TypeError, "columns are names out of source, "),
        ({"columns": None}, TypeError, "columns are names out of source, "),
        ({"timestamps": "soft"}, ValueError, 'timestamps is "software", "hardware" or None, not \'soft\''),
        ({"timestamps": True}, ValueError, "not True"),
        ({"timestamps": []}, ValueError, r"not \[\]"),
        ({"gro": "yes"}, TypeError, "gro is True or False"),
        ({"isolation": None}, TypeError, "isolation is True or False"),
    ],
)
def test_wrong_columns_are_refused_and_leave_nothing_open(opened, feed, no_leaked_descriptors, options, error, says):
    with pytest.raises(error, match=says):
        opened.receiver(feed, **options)


def test_columns_need_a_socket_of_the_internet(opened):
    with pytest.raises(ValueError, match=r"Receiver: the socket is .*AF_UNIX.*; columns are of AF_INET and AF_INET6"):
        opened.pipe(columns="ttl")


@pytest.mark.alone  # no other thread of this process may allocate
def test_a_batch_of_columns_allocates_nothing_anew(opened_native, feed):
    """Blocks come back with the arrays that their columns were decoded into."""
    receiver, sender = opened_native.pair(feed, **ALL, max_blocks=2)

    def turn():
        sender.send_batch([b"1", b"2"])
        batch = receiver.recv_batch()
        return sum(batch.timestamps) + sum(batch.ttls)

    for _ in range(20):
        turn()
    before = sys.getallocatedblocks()
    for _ in range(200):
        turn()
    assert sys.getallocatedblocks() - before < 20


def test_more_than_was_made_room_for_is_counted(opened, feed):
    """A socket of the user's own may ask for more than fits: the kernel then cuts, and says so."""
    receiver, sender = opened.pair(feed, columns="ttl")
    for option in (8, 6, 20, 13):  # IP_PKTINFO, IP_RECVOPTS, IP_RECVORIGDSTADDR, IP_RECVTOS
        receiver.socket.setsockopt(0, option, 1)
    receiver.socket.setsockopt(1, 37, 0x58)  # SO_TIMESTAMPING
    receiver.socket.setsockopt(1, 35, 1)  # SO_TIMESTAMPNS
    sender.send_batch([b"1", b"2"])
    batch = receiver.recv_batch()
    assert [bytes(view) for view in batch] == [b"1", b"2"]
    assert receiver.stats().control_truncated == 2
