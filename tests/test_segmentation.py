"""Trains on the loopback interface: the datagrams are what they were, and what a refused train becomes.

Owns what needs no other host; the wire is test_segmentation_wire.py's.
"""

from __future__ import annotations

import errno
import itertools
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from net import open_descriptors, python_environment
from refusals import refused
from seccomp import unavailable as no_seccomp
from trains import END, IP_RECVERR, IPPROTO_UDPLITE, SO_NO_CHECK, SOL_UDP, UDP_SEGMENT, Listener, payloads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UDP segmentation offload is Linux's")

LO = socket.if_nametoindex("lo")
AGENT = Path(__file__).parent / "agents" / "denied_sending.py"


@pytest.fixture
def listener(opened, feed):
    return opened.closing(Listener(*feed, LO))


@pytest.fixture
def tx(opened, feed):
    return opened.sender(feed)


def lengths_of(trains):
    return [[len(data) for data in train] for train in trains]


def sent(tx, listener, lengths):
    """Send datagrams of these lengths: the lengths of each train that came, after a look at the bytes."""
    data = payloads(lengths)
    assert tx.send_batch(data) == len(data)
    tx.send(END)
    trains = listener.until_end()
    assert list(itertools.chain(*trains)) == data
    return lengths_of(trains)


# Which leave together ----------------------------------------------------------------------------------------------


def test_datagrams_of_one_length_leave_as_a_train_and_the_last_may_be_shorter(tx, listener):
    lengths = [100] * 10 + [50] + [70] + [200] * 3 + [0] + [0] + [9] * 2 + [10] + [5, 5]
    assert sent(tx, listener, lengths) == [[100] * 10 + [50], [70], [200] * 3, [0], [0], [9] * 2, [10, 5], [5]]


def test_two_are_a_train_already_and_one_is_none(tx, listener):
    assert sent(tx, listener, [100, 100]) == [[100, 100]]
    assert sent(tx, listener, [100, 1]) == [[100, 1]]
    assert sent(tx, listener, [100, 101]) == [[100], [101]]
    assert sent(tx, listener, [100]) == [[100]]


def test_a_train_has_64_datagrams_at_most(tx, listener):
    assert sent(tx, listener, [1] * 200) == [[1] * 64] * 3 + [[1] * 8]


def test_a_train_has_as_many_bytes_as_a_datagram_at_most(tx, listener):
    sent(tx, listener, [21_836, 21_836, 21_835])  # 65,507; lo has no room for its own header, and has it cut before
    # A byte more would be refused, and the length remembered as too long.
    assert sent(tx, listener, [21_836] * 3) == sent(tx, listener, [21_836] * 3) == [[21_836] * 2, [21_836]]
    assert sent(tx, listener, [10_000] * 8) == [[10_000] * 6, [10_000] * 2]
    assert sent(tx, listener, [65_507] * 2) == [[65_507]] * 2


def test_the_limit_is_the_kernels(tx, listener):
    """Of a train as long as a datagram can be; ours is the same (IPv6: test_segmentation_wire.py)."""
    cut = [(SOL_UDP, UDP_SEGMENT, (21_836).to_bytes(2, sys.byteorder))]
    assert tx.socket.sendmsg([bytes(65_507)], cut) == 65_507
    with pytest.raises(OSError) as caught:
        tx.socket.sendmsg([bytes(65_508)], cut)
    assert caught.value.errno == errno.EMSGSIZE
    assert sum(map(len, itertools.chain(*(listener.next() for _ in range(3))))) == 65_507


def test_any_buffers_leave_as_a_train(tx, listener):
    whole = bytearray(b"abcdefghi")
    assert tx.send_batch([b"abc", memoryview(whole)[3:6], bytearray(b"ghi"), memoryview(b"ghi")]) == 4
    assert listener.next() == [b"abc", b"def", b"ghi", b"ghi"]
    whole += b"resized"  # BufferError if anything still held it


LENGTHS = st.one_of(
    st.sampled_from([0, 1, 2, 100, 1_472, 9_000, 32_753, 32_754, 65_506, 65_507]), st.integers(0, 3_000)
)
RUNS = st.lists(st.tuples(LENGTHS, st.integers(1, 70), st.booleans()), min_size=1, max_size=12)


@given(runs=RUNS)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_mix_of_lengths_arrives_as_it_was_in_order(ordinary, runs):
    lengths, total = [], 0
    for length, times, shorter in runs:
        for each in [length] * times + [length // 2] * shorter:
            total += each
            if total <= 3_000_000 and len(lengths) < 200:
                lengths.append(each)
    rx, tx = ordinary
    data = payloads(lengths or [0])
    assert tx.send_batch(data) == len(data)
    tx.send(END)
    came = []
    while not came or came[-1] != END:
        came += [bytes(view) for view in rx.recv_batch()]
    assert came == [*data, END]


@pytest.fixture
def ordinary(opened, feed):
    """A receiver as any is, without UDP_GRO, and a sender."""
    return opened.pair(feed, receive_buffer=16 << 20, datagram_size=65_535)


def test_segmentation_can_be_switched_off(opened, multicast, feed, listener):
    tx = opened.closing(multicast.open_sender(*feed, interface="lo", ttl=0, segmentation=False))
    assert sent(tx, listener, [100] * 5) == [[100]] * 5
    with multicast.Sender(tx.socket.dup(), segmentation=False) as again:
        assert sent(again, listener, [100] * 5) == [[100]] * 5
    with multicast.Sender(tx.socket.dup(), segmentation=1) as again:
        assert sent(again, listener, [100] * 5) == [[100] * 5]


def test_segmentation_is_a_boolean(opened, multicast, feed, tx):
    before = open_descriptors()
    for value in ("no", None, 2, b""):
        words = f"Sender: segmentation is True or False, not {value!r}"
        refused(TypeError, lambda: multicast.open_sender(*feed, interface="lo", ttl=0, segmentation=value), words)  # noqa: B023
        refused(TypeError, lambda: multicast.Sender(tx.socket, segmentation=value), words)  # noqa: B023
    with pytest.raises(TypeError):
        multicast.Sender(tx.socket, True)
    assert open_descriptors() == before


def test_making_a_sender_twice_leaves_it_as_it_is(tx, listener):
    with pytest.raises(RuntimeError, match="already initialised"):
        tx.__init__(tx.socket, segmentation=False)
    assert sent(tx, listener, [100] * 5) == [[100] * 5]


# Where the kernel would cut by another rule, or has to answer for each ----------------------------------------------


def test_a_socket_whose_owner_has_it_cut_is_left_alone(multicast, tx, listener):
    tx.socket.setsockopt(SOL_UDP, UDP_SEGMENT, 40)
    with multicast.Sender(tx.socket.dup()) as again:
        assert again.send_batch([b"a" * 100, b"b" * 100]) == 2
        tx.socket.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
        tx.send(END)
    assert lengths_of(listener.until_end()) == [[40, 40, 20]] * 2


def test_each_goes_alone_while_the_kernel_is_to_tell_of_each_that_it_drops(tx, listener):
    tx.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    assert sent(tx, listener, [100] * 5) == [[100]] * 5
    tx.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)
    assert sent(tx, listener, [100] * 5) == [[100] * 5]


# Refused trains ----------------------------------------------------------------------------------------------------


def test_without_checksums_the_kernel_refuses_every_train_and_each_goes_alone_from_then_on(tx, listener):
    """EINVAL, for a length that fits any path."""
    tx.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    with pytest.raises(OSError) as caught:
        tx.socket.sendmsg([b"ab"], [(SOL_UDP, UDP_SEGMENT, b"\1\0" if sys.byteorder == "little" else b"\0\1")])
    assert caught.value.errno == errno.EINVAL
    assert sent(tx, listener, [100] * 3 + [70] * 150) == [[100]] * 3 + [[70]] * 150
    tx.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 0)  # the kernel would take one now, but is not asked again
    assert sent(tx, listener, [100] * 5 + [1] * 5) == [[100]] * 5 + [[1]] * 5


def test_what_may_be_too_long_for_the_path_goes_alone_from_then_on_and_what_is_shorter_does_not(tx, listener):
    """EINVAL for a length that need not fit: so older kernels answer where it does not."""
    tx.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    assert sent(tx, listener, [2_000] * 3 + [1_000] * 3) == [[2_000]] * 3 + [[1_000]] * 3
    tx.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 0)
    lengths = [2_000] * 3 + [1_000] * 3 + [999] * 3 + [10] * 3
    assert sent(tx, listener, lengths) == [[2_000]] * 3 + [[1_000]] * 3 + [[999] * 3 + [10], [10] * 2]


def test_a_refusal_amid_a_batch_loses_doubles_and_reorders_nothing(tx, listener):
    """Trains before it have left, in the same call to the kernel or in one before."""
    tx.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    assert sent(tx, listener, [10, 20, 30, 30, 30] + [0] * 70 + [600] * 70 + [7]) == (
        [[10], [20]] + [[30]] * 3 + [[0]] * 70 + [[600]] * 70 + [[7]]
    )


def test_a_protocol_that_knows_no_trains_gets_each_alone(opened, multicast, feed):
    """EIO: UDP-Lite takes the option and the control message, and refuses the train."""
    try:
        sock = opened.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, IPPROTO_UDPLITE))
    except OSError as error:
        pytest.skip(f"this kernel has no UDP-Lite: {error}")
    multicast.set_multicast_interface(sock, "lo")
    multicast.set_multicast_ttl(sock, 0)
    sock.connect(feed)
    listener = opened.closing(Listener(*feed, LO, uncut=False, proto=IPPROTO_UDPLITE))
    size = (1).to_bytes(2, sys.byteorder)
    with pytest.raises(OSError) as caught:
        sock.sendmsg([b"ab"], [(SOL_UDP, UDP_SEGMENT, size)])
    assert caught.value.errno == errno.EIO
    tx = opened.closing(multicast.Sender(sock))
    assert sent(tx, listener, [100] * 70 + [5_000] * 3) == [[100]] * 70 + [[5_000]] * 3


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET6], ids=["AF_UNIX", "IPv4 as IPv6"])
def test_a_socket_that_would_overlook_the_control_message_is_never_sent_a_train(opened, multicast, feed, family):
    if family == socket.AF_UNIX:
        near, far = map(opened.closing, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        far.settimeout(10)
        receive = lambda: [far.recv(1_000)]  # noqa: E731
    else:
        listener = opened.closing(Listener(*feed, LO))
        receive = listener.next
        near = opened.closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        near.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        near.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        near.connect((f"::ffff:{feed[0]}", feed[1]))
    with multicast.Sender(near) as tx:
        assert tx.send_batch([b"abc"] * 3) == 3
        assert [receive() for _ in range(3)] == [[b"abc"]] * 3


# Partial sends -----------------------------------------------------------------------------------------------------


def test_the_count_is_of_datagrams_and_the_rest_raises(tx, listener):
    data = [*payloads([100] * 70), bytes(70_000), *payloads([100] * 3, seed=70)]
    assert tx.send_batch(data) == 70
    with pytest.raises(OSError, match="send_batch: ") as caught:
        tx.send_batch(data[70:])
    assert caught.value.errno == errno.EMSGSIZE
    assert tx.send_batch(data[71:]) == 3
    tx.send(END)
    trains = listener.until_end()
    assert lengths_of(trains) == [[100] * 64, [100] * 6, [100] * 3]
    assert list(itertools.chain(*trains)) == payloads([100] * 73)


def test_datagrams_before_a_bad_buffer_are_counted_exactly(tx, listener):
    data = [*payloads([100] * 70), "text"]
    count = tx.send_batch(data)
    assert 0 < count <= 70
    tx.send(END)
    assert list(itertools.chain(*listener.until_end())) == data[:count]


# What a sandbox denies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("denied", "answer", "expected"),
    [
        ("sendmmsg", errno.ENOSYS, "[[10, 10, 10], [20], [21, 21]]"),
        ("sendmmsg", errno.EPERM, "[[10, 10, 10], [20], [21, 21]]"),
        ("the question", errno.ENOPROTOOPT, "[[10], [10], [10], [20], [21], [21]]"),  # as a kernel before 4.18 answers
        ("the question", errno.EPERM, "[[10], [10], [10], [20], [21], [21]]"),
        ("the reports", errno.EPERM, "[[10], [10], [10], [20], [21], [21]]"),
    ],
)
def test_where_a_system_call_is_denied_everything_arrives(multicast, feed, denied, answer, expected):
    done = subprocess.run(
        [sys.executable, str(AGENT), denied, str(int(answer)), feed[0], str(feed[1])],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout.startswith("no seccomp here: "):
        no_seccomp(done.stdout.partition(": ")[2])
    assert done.stdout == f"{expected}\n"
