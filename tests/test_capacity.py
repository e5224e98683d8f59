"""How many datagrams a buffer holds, held against a buffer that is filled.

The answer is exact: so many fit, and one more is dropped. Only where it is computed in proportion, and the kernel lets
a buffer be overrun by one datagram, does one more fit than it says. Linux 6.18 does not; before it, what was asked was
whether there is any room left at all (__udp_enqueue_schedule_skb in net/ipv4/udp.c). Which it is, `overrun` finds out.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time
import types

import pytest
from net import ORDINARY, told
from refusals import HUGE, refused, shown

pytest_plugins = ["rig_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("no_leaked_descriptors"),
    pytest.mark.skipif(sys.platform != "linux", reason="SO_MEMINFO is a thing of Linux"),
]

SO_RCVBUFFORCE, SO_MEMINFO = 33, 55  # asm-generic/socket.h
SIZES = [0, 1, 200, 1400, 9000, 65_507]
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def memory(sock: socket.socket) -> tuple[int, int]:
    """What its queue is charged for, and how many datagrams it dropped."""
    found = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    return found[0], found[8]


def fill(receiver: socket.socket, sender: socket.socket, size: int, count: int) -> int:
    """Send so many datagrams, each once the one before has arrived; return how many were dropped."""
    deadline = time.monotonic() + 60
    before = memory(receiver)
    dropped = before[1]
    for _ in range(count):
        sender.sendto(bytes(size), receiver.getsockname())
        while memory(receiver) == before:
            assert time.monotonic() < deadline, "a datagram did not arrive"
            time.sleep(0.0001)
        before = memory(receiver)
    return before[1] - dropped


def drain(receiver: socket.socket) -> int:
    receiver.setblocking(False)
    count = 0
    try:
        while True:
            receiver.recv(1)
            count += 1
    except BlockingIOError:
        return count


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def pair(request):
    """A receiver on the loopback interface, and a sender."""
    family, kind = request.param, socket.SOCK_DGRAM
    with socket.socket(family, kind) as receiver, socket.socket(family, kind) as sender:
        try:
            receiver.bind((LOOPBACK[family], 0))
        except OSError as error:
            pytest.skip(f"the loopback interface of this machine has no IPv6: {error}")
        yield receiver, sender


@pytest.fixture(scope="module")
def overrun() -> int:
    """How many datagrams this kernel takes beyond those for which there is room: 0 or 1."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        receiver.bind((LOOPBACK[socket.AF_INET], 0))
        taken = 0
        while fill(receiver, sender, 0, 1) == 0:
            taken += 1
        charged, _ = memory(receiver)
        found = taken - receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) * taken // charged
    assert found in (0, 1)
    return found


@pytest.fixture
def sock():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


# Against a real buffer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [None, 1, 100_000, 1 << 20], ids=lambda value: f"buffer {value}")
@pytest.mark.parametrize("size", SIZES)
def test_so_many_fit_and_not_one_more(multicast, pair, size, buffer):
    receiver, sender = pair
    if buffer is not None:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)  # or as much as this user gets
    capacity = multicast.receive_capacity(receiver, size)
    assert fill(receiver, sender, size, capacity) == 0
    assert fill(receiver, sender, size, 1) == 1
    assert drain(receiver) == capacity


@pytest.mark.parametrize("size", [0, 200, 1400])
def test_so_many_fit_of_a_group_and_not_one_more(multicast, opened, feed, size):
    receiver, sender = opened.pair(feed, datagram_size=1400)
    capacity = multicast.receive_capacity(receiver.socket, size)
    for _ in range(capacity):
        sender.send(bytes(size))
    sender.send(bytes(size))
    came = 0
    while came < capacity:
        came += len(receiver.recv_batch())
    sender.send(b"the last")
    (view,) = receiver.recv_batch()
    assert bytes(view) == b"the last"
    assert receiver.stats().drops == 1


def test_the_kernel_takes_one_into_an_empty_buffer_whatever_its_size(multicast, pair):
    receiver, sender = pair
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    assert multicast.receive_capacity(receiver, 9000) == 1
    assert fill(receiver, sender, 9000, 1) == 0


def test_it_does_so_too_where_that_is_computed(multicast, sock, monkeypatch):
    monkeypatch.setattr(multicast._capacity, "MEASURED", 2304)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 3000)
    assert multicast.receive_capacity(sock, 9000) == 1


def test_the_socket_itself_is_left_alone(multicast, pair):
    receiver, sender = pair
    assert fill(receiver, sender, 200, 3) == 0
    before = memory(receiver), receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), receiver.gettimeout()
    first = multicast.receive_capacity(receiver, 200)
    after = memory(receiver), receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), receiver.gettimeout()
    assert after == before
    assert drain(receiver) == 3
    assert multicast.receive_capacity(receiver, 200) == first


# In proportion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_part_that_was_measured_stands_for_the_whole(multicast, pair, size, monkeypatch, overrun):
    receiver, _ = pair
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
    measured = multicast.receive_capacity(receiver, size)
    monkeypatch.setattr(multicast._capacity, "MEASURED", 140_000)
    assert measured - overrun <= multicast.receive_capacity(receiver, size) <= measured
    monkeypatch.setattr(multicast._capacity, "MOST", 1)
    assert measured - overrun <= multicast.receive_capacity(receiver, size) <= measured


@pytest.mark.parametrize("size", [200, 65_507])
def test_a_buffer_larger_than_is_measured(multicast, pair, size, overrun):
    receiver, sender = pair
    wanted = 2 * multicast._capacity.MEASURED + 12_346  # no multiple of what is measured
    try:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, wanted // 2)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted // 2)
    if receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) != wanted:
        pytest.skip("this user can't have such a buffer: no CAP_NET_ADMIN, and net.core.rmem_max is less")
    capacity = multicast.receive_capacity(receiver, size)
    assert fill(receiver, sender, size, capacity) == 0
    assert fill(receiver, sender, size, overrun) == 0
    assert fill(receiver, sender, size, 1) == 1
    assert drain(receiver) == capacity + overrun


def test_what_one_buffer_holds_is_as_much_as_the_kernel_can_promise(multicast, sock, monkeypatch):
    """A buffer of 2 GiB: no more than 8 MiB of it is filled, and nothing overflows."""
    buffers = []

    def fill(near, *_):
        buffers.append(near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        return 100, 83_200, True

    monkeypatch.setattr(multicast._capacity, "_fill", fill)

    class Large(socket.socket):
        def getsockopt(self, level, name, *size):
            if (level, name) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
                return 2**31 - 1
            return super().getsockopt(level, name, *size)

    with Large(socket.AF_INET, socket.SOCK_DGRAM) as large:
        assert multicast.receive_capacity(large, 0) == (2**31 - 1) // 832
    assert 0 < buffers[0] <= 8 << 20


AS_A_USER = (
    """
import json, socket, struct
import multicast
largest = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    largest.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # handed down by one who may pass net.core.rmem_max
except PermissionError:
    pass
"""
    + ORDINARY
    + """
rows = []
ordinary = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for sock in (ordinary, largest):
    buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    rows.append([buffer, [multicast.receive_capacity(sock, size) for size in (0, 1, 200, 1400, 9000, 65_507)]])
print(json.dumps(rows))
"""
)


def test_an_ordinary_user_gets_the_same_answers(multicast, sock, overrun):
    for buffer, capacities in told(multicast, AS_A_USER):
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer // 2)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer // 2)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == buffer
        for size, capacity in zip(SIZES, capacities, strict=True):
            assert capacity <= multicast.receive_capacity(sock, size) <= capacity + overrun


# Where it can't be measured ----------------------------------------------------------------------------------------


def test_without_ipv6_on_the_loopback_interface_ipv4_stands_for_it(multicast, monkeypatch):
    used = []
    connected = multicast._capacity._connected

    def without_ipv6(family, host):
        used.append(host)
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no ::1 here")
        return connected(family, host)

    monkeypatch.setattr(multicast._capacity, "_connected", without_ipv6)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock6:
        assert multicast.receive_capacity(sock6, 200) > 1
    assert used == ["::1", "127.0.0.1"]


DOWN = """
import json, socket, sys
import multicast
multicast._capacity.PATIENCE = float(sys.argv[1])
said = []
for family in (socket.AF_INET, socket.AF_INET6):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            said.append(multicast.receive_capacity(sock, 200))
        except OSError as error:
            said.append([error.errno, error.strerror])
print(json.dumps(said))
"""


def test_a_loopback_interface_that_is_down_is_named(multicast, rig):
    rig.island.ip("link set lo down")
    try:
        said = told(multicast, DOWN, 0.01, inside=rig.island)
    finally:
        rig.island.ip("link set lo up")
    for number, text in said:
        assert number in (errno.ETIMEDOUT, errno.EADDRNOTAVAIL, errno.ENETUNREACH)
        assert text.startswith("receive_capacity 200, by the loopback interface: ")
        assert (number == errno.ETIMEDOUT) == ("is the interface up" in text)
    assert all(each > 1 for each in told(multicast, DOWN, 10, inside=rig.island))


def test_if_nothing_arrives_it_gives_up(multicast, sock, monkeypatch):
    monkeypatch.setattr(multicast._capacity, "PATIENCE", 0.01)
    monkeypatch.setattr(multicast._capacity, "meminfo", lambda _: (0, 0))
    words = "receive_capacity 200, by the loopback interface: "
    refused(errno.ETIMEDOUT, lambda: multicast.receive_capacity(sock, 200), words)


def test_if_some_do_not_arrive_those_that_did_stand_for_the_whole(multicast, sock, monkeypatch, overrun):
    measured = multicast.receive_capacity(sock, 200)
    meminfo, seen = multicast._capacity.meminfo, []

    def at_first(near):
        if len(seen) < 20:
            seen.append(meminfo(near))
        return seen[-1]

    monkeypatch.setattr(multicast._capacity, "PATIENCE", 0.01)
    monkeypatch.setattr(multicast._capacity, "meminfo", at_first)
    assert measured - overrun <= multicast.receive_capacity(sock, 200) <= measured
    assert len(seen) == 20


def test_if_the_kernel_takes_none_its_memory_is_named(multicast, sock, monkeypatch):
    monkeypatch.setattr(multicast._capacity, "_fill", lambda *_: (0, 0, True))
    refused(errno.ENOBUFS, lambda: multicast.receive_capacity(sock, 200), "receive_capacity 200", "net.ipv4.udp_mem")


def test_a_stranger_who_knows_the_port_is_not_counted(multicast, sock, monkeypatch):
    """Neither what came before the two sockets knew each other, nor what comes after."""
    measured = multicast.receive_capacity(sock, 200)
    connected = multicast._capacity._connected
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:

        def disturbed(family, host):
            near, far = connected(family, host)
            for _ in range(10):
                stranger.sendto(b"strange", near.getsockname())
            return near, far

        monkeypatch.setattr(multicast._capacity, "_connected", disturbed)
        assert multicast.receive_capacity(sock, 200) == measured


# Arguments ---------------------------------------------------------------------------------------------------------


def test_no_open_udp_socket_is_refused(multicast, sock):
    for value in (None, sock.fileno(), "lo", object()):
        refused(TypeError, lambda value=value: multicast.receive_capacity(value, 1), "receive_capacity: sock ")
    sock.close()
    refused(errno.EBADF, lambda: multicast.receive_capacity(sock, 1), "receive_capacity: the socket is closed")
    for family, kind, word in ((socket.AF_INET, socket.SOCK_STREAM, "SOCK_STREAM"), (socket.AF_UNIX, 2, "AF_UNIX")):
        with socket.socket(family, kind) as other:
            refused(ValueError, lambda sock=other: multicast.receive_capacity(sock, 1), "receive_capacity: ", word)


@pytest.mark.parametrize("value", [None, True, 1.5, "1", b"", [], -1, 65_508, HUGE, -HUGE], ids=shown)
def test_a_bad_length_is_refused(multicast, sock, value):
    kind = ValueError if type(value) is int else TypeError
    refused(kind, lambda: multicast.receive_capacity(sock, value), "receive_capacity: nbytes is an integer from 0 to ")


def test_other_systems_are_not_asked(multicast, sock, monkeypatch):
    elsewhere = types.SimpleNamespace(platform="darwin")
    monkeypatch.setattr(multicast._capacity, "sys", elsewhere)
    monkeypatch.setattr(multicast._errors, "sys", elsewhere)
    call = lambda: multicast.receive_capacity(sock, 1)  # noqa: E731
    refused(errno.ENOSYS, call, "receive_capacity: this is for Linux, not darwin")
