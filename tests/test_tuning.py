"""Busy polling is set as asked for, or not at all; and where packets come from is told, or None.

What only some kernels and some users are refused is tried on a socket that plays the kernel: its rules are those of
sk_setsockopt in net/core/sock.c, by version. What this kernel does is tried on this kernel.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import sys
import types

import pytest
from net import ORDINARY, told
from refusals import HUGE, refused, shown
from rig import Rig, Unavailable, unavailable

pytestmark = [
    pytest.mark.usefixtures("no_leaked_descriptors"),
    pytest.mark.skipif(sys.platform != "linux", reason="busy polling is a thing of Linux"),
]

BUSY_POLL, PREFER, BUDGET, CPU, NAPI = 46, 69, 70, 49, 56  # asm-generic/socket.h


@pytest.fixture
def sock():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


# A kernel ----------------------------------------------------------------------------------------------------------


class Kernel(socket.socket):
    """A socket whose options of busy polling are kept here, by the rules of a kernel and for a user."""

    def __init__(self, version: tuple[int, int] | None, *, privileged: bool, values: dict[int, int]) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.has = {} if version is None else {BUSY_POLL} if version < (5, 11) else {BUSY_POLL, PREFER, BUDGET}
        # Linux before 6.7 asked for the privilege to raise SO_BUSY_POLL, too; when it ceased to does not matter here.
        self.guarded = {PREFER, BUDGET} | ({BUSY_POLL} if version != (6, 18) else set())
        self.privileged = privileged
        self.values = {each: values[each] for each in self.has}

    def setsockopt(self, level, name, value):
        assert level == socket.SOL_SOCKET
        if name not in self.has:
            raise OSError(errno.ENOPROTOOPT, "no such option")
        if value > self.values[name] and name in self.guarded and not self.privileged:
            raise OSError(errno.EPERM, "not permitted")
        self.values[name] = value

    def getsockopt(self, level, name, size=0):
        assert level == socket.SOL_SOCKET
        if name not in self.has or name == BUDGET:  # which no kernel gives out
            raise OSError(errno.ENOPROTOOPT, "no such option")
        return self.values[name]


VERSIONS = [None, (3, 11), (5, 11), (6, 18)]


@pytest.mark.parametrize("privileged", [False, True], ids=["ordinary", "privileged"])
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_all_that_is_asked_for_is_set_or_nothing_is(multicast, version, privileged):
    outcomes = set()
    before = itertools.product((0, 50), (0, 1), (0, 8, 64))
    asked = itertools.product((0, 50, 100), (None, False, True), (None, 8, 64))
    for (had, preferred, had_budget), (time, prefer, budget) in itertools.product(list(before), list(asked)):
        values = {BUSY_POLL: had, PREFER: preferred, BUDGET: had_budget}
        wanted = {BUSY_POLL: time, PREFER: prefer, BUDGET: budget}
        wanted = values | {each: value for each, value in wanted.items() if value is not None}
        with Kernel(version, privileged=privileged, values=values) as sock:
            try:
                multicast.set_busy_poll(sock, time, prefer=prefer, budget=budget)
            except OSError as error:
                outcomes.add(error.errno)
                assert sock.values == {each: values[each] for each in sock.has}
            else:
                outcomes.add(0)
                assert sock.values == {each: wanted[each] for each in sock.has}
                assert sock.has >= {each for each, value in ((PREFER, prefer), (BUDGET, budget)) if value is not None}
    possible = {0} if version and version >= (5, 11) else {errno.ENOPROTOOPT} | ({0} if version else set())
    assert outcomes == possible | ({errno.EPERM} if version and not privileged else set())


def test_a_kernel_without_busy_polling_is_named_as_the_reason(multicast):
    with Kernel(None, privileged=True, values={}) as sock:
        text = "set_busy_poll: SO_BUSY_POLL=50: ", "CONFIG_NET_RX_BUSY_POLL"
        refused(errno.ENOPROTOOPT, lambda: multicast.set_busy_poll(sock, 50), *text)
        assert multicast.incoming_napi_id(sock) is None


# This kernel -------------------------------------------------------------------------------------------------------


def read(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(socket.SOL_SOCKET, each) for each in (BUSY_POLL, PREFER)]


@pytest.mark.parametrize("budget", [None, 1, 64, 65_535])
@pytest.mark.parametrize("prefer", [None, False, True])
@pytest.mark.parametrize("time", [0, 1, 50, 2**31 - 1])
def test_what_was_set_is_read_back(multicast, sock, time, prefer, budget):
    before = read(sock)
    try:
        assert multicast.set_busy_poll(sock, time, prefer=prefer, budget=budget) is None
    except PermissionError:  # this user may not; what then holds is tested below
        assert read(sock) == before
    else:
        assert read(sock) == [time, bool(prefer)]


REFUSED = (
    """
import json, socket
import multicast
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
"""
    + ORDINARY
    + """
def after(time, **options):
    try:
        multicast.set_busy_poll(sock, time, **options)
        said = None
    except OSError as error:
        said = [error.errno, error.strerror]
    return said, [sock.getsockopt(socket.SOL_SOCKET, each) for each in (46, 69)]
print(json.dumps([after(0), after(50, prefer=True), after(50, budget=1), after(50, prefer=True, budget=64)]))
"""
)


def test_an_ordinary_user_is_told_which_privilege_is_needed(multicast):
    lowered, *rest = told(multicast, REFUSED)
    assert lowered == [None, [0, 0]]
    for said, values in rest:
        number, text = said
        assert number == errno.EPERM
        assert text.startswith("set_busy_poll: SO_")
        assert "CAP_NET_ADMIN" in text
        assert values == [0, 0]
    if "SO_PREFER_BUSY_POLL" in rest[0][0][1]:  # not so where the kernel refuses SO_BUSY_POLL before
        assert "SO_BUSY_POLL_BUDGET=1: " in rest[1][0][1]


HANDED_DOWN = (
    """
import json, socket
import multicast
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
multicast.set_busy_poll(sock, 100, prefer=True, budget=64)
"""
    + ORDINARY
    + """
rows = []
for time, prefer, budget in ((20, False, 65), (200, None, 65), (20, False, 64), (10, None, 1)):
    try:
        multicast.set_busy_poll(sock, time, prefer=prefer, budget=budget)
        said = 0
    except OSError as error:
        said = error.errno
    rows.append([said, [sock.getsockopt(socket.SOL_SOCKET, each) for each in (46, 69)]])
print(json.dumps(rows))
"""
)


def test_what_an_ordinary_user_could_not_put_back_is_not_lowered_in_vain(multicast, sock):
    try:
        multicast.set_busy_poll(sock, 0, prefer=True)
    except PermissionError as error:
        pytest.skip(f"nobody here can hand down a socket that polls: {error}")
    rows = told(multicast, HANDED_DOWN)
    assert rows == [
        [errno.EPERM, [100, 1]],
        [errno.EPERM, [100, 1]],
        [0, [20, 0]],
        [0, [10, 0]],
    ]


# Arguments ---------------------------------------------------------------------------------------------------------

CALLS = {
    "set_busy_poll": lambda m, sock: m.set_busy_poll(sock, 0),
    "incoming_cpu": lambda m, sock: m.incoming_cpu(sock),
    "incoming_napi_id": lambda m, sock: m.incoming_napi_id(sock),
}


@pytest.mark.parametrize("operation", CALLS)
def test_no_open_socket_is_refused(multicast, sock, operation):
    for value in (None, sock.fileno(), "lo", object()):
        refused(TypeError, lambda value=value: CALLS[operation](multicast, value), f"{operation}: sock ")
    sock.close()
    refused(errno.EBADF, lambda: CALLS[operation](multicast, sock), f"{operation}: the socket is closed")


@pytest.mark.parametrize("value", [None, True, 1.5, "1", b"", [], -1, 2**31, HUGE, -HUGE], ids=shown)
def test_a_bad_time_is_refused(multicast, sock, value):
    kind = ValueError if type(value) is int else TypeError
    refused(kind, lambda: multicast.set_busy_poll(sock, value), "set_busy_poll: microseconds is an integer from 0 to ")


@pytest.mark.parametrize("value", [2, -1, 1.5, "yes", []], ids=shown)
def test_a_bad_preference_is_refused(multicast, sock, value):
    refused(TypeError, lambda: multicast.set_busy_poll(sock, 0, prefer=value), "set_busy_poll: prefer is True or ")


@pytest.mark.parametrize("value", [True, 1.5, "1", 0, -1, 65_536, HUGE], ids=shown)
def test_a_bad_budget_is_refused(multicast, sock, value):
    kind = ValueError if type(value) is int else TypeError
    call = lambda: multicast.set_busy_poll(sock, 0, budget=value)  # noqa: E731
    refused(kind, call, "set_busy_poll: budget is an integer from 1 to 65535")


def test_other_systems_are_not_asked(multicast, sock, monkeypatch):
    """There the same numbers are other options'."""
    elsewhere = types.SimpleNamespace(platform="darwin")
    monkeypatch.setattr(multicast._tuning, "sys", elsewhere)
    monkeypatch.setattr(multicast._errors, "sys", elsewhere)
    sock.setsockopt(socket.SOL_SOCKET, CPU, 0)
    assert multicast.incoming_cpu(sock) is None
    assert multicast.incoming_napi_id(sock) is None
    refused(errno.ENOSYS, lambda: multicast.set_busy_poll(sock, 0), "set_busy_poll: this is for Linux, not darwin")


# Where packets come from -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_one_cpu():
    """Send from one CPU: the loopback interface delivers on the same."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield max(allowed)
    finally:
        os.sched_setaffinity(0, allowed)


def test_before_the_first_packet_nothing_is_known(multicast, sock):
    assert multicast.incoming_cpu(sock) is None
    assert multicast.incoming_napi_id(sock) is None


def test_a_connected_socket_knows_the_cpu_of_its_latest_packet(multicast, sock):
    with on_one_cpu() as cpu, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for each in (sock, sender):
            each.settimeout(10)
            each.bind(("127.0.0.1", 0))
        sock.connect(sender.getsockname())
        sender.sendto(b"from a CPU", sock.getsockname())
        assert sock.recv(100) == b"from a CPU"
        assert multicast.incoming_cpu(sock) == cpu
        assert multicast.incoming_napi_id(sock) is None  # the loopback interface has no NAPI


def test_a_receiver_knows_no_cpu_but_one_that_was_set(multicast, opened, feed):
    """Linux notes it for connected UDP sockets alone. If that changes, the docstring has to."""
    receiver, sender = opened.pair(feed)
    sender.send(b"from a CPU")
    assert len(receiver.recv_batch()) == 1
    assert multicast.incoming_cpu(receiver.socket) is None
    receiver.socket.setsockopt(socket.SOL_SOCKET, CPU, 0)
    assert multicast.incoming_cpu(receiver.socket) == 0


def test_a_cpu_that_was_set_keeps_no_datagram_from_a_receiver(opened, feed):
    """It chooses between sockets for unicast alone."""
    receivers, sender = [opened.receiver(feed), opened.receiver(feed)], opened.sender(feed)
    with on_one_cpu() as cpu:
        for wanted, receiver in enumerate(receivers, cpu):
            receiver.socket.setsockopt(socket.SOL_SOCKET, CPU, wanted)
        sender.send(b"from a CPU")
    assert [bytes(receiver.recv_batch()[0]) for receiver in receivers] == [b"from a CPU"] * 2


# A veth device uses NAPI once GRO is on, for what comes in pieces: so the sender's end has to cut them (TSO off).
THROUGH_NAPI = """
import array, ctypes, fcntl, json, os, socket, struct, sys
import multicast
GRO, TSO = 0x2C, 0x1F  # ETHTOOL_SGRO, ETHTOOL_STSO
def ethtool(command, value):
    words = array.array("I", [command, value])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8946, struct.pack("@16sP16x", b"feed0", words.buffer_info()[0]))
ethtool(GRO, 1)
receiver = multicast.open_receiver("239.195.0.1", 40_000, interface="feed0", timeout=10)
before = multicast.incoming_napi_id(receiver.socket)
with open(f"/proc/{sys.argv[1]}/ns/net") as namespace:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), 0) < 0:
        raise OSError(ctypes.get_errno(), "setns")
ethtool(TSO, 0)
with receiver, multicast.open_sender("239.195.0.1", 40_000, interface="feed0") as sender:
    sender.send(b"through NAPI")
    came = [bytes(each).decode() for each in receiver.recv_batch()]
    after = multicast.incoming_napi_id(receiver.socket)
    kept = receiver.socket.getsockopt(socket.SOL_SOCKET, 56)
print(json.dumps([before, came, after, kept]))
"""


def test_a_receiver_knows_the_queue_that_its_packets_come_through(multicast):
    try:
        with Rig() as rig:
            before, came, after, kept = told(multicast, THROUGH_NAPI, rig.tx.holder.pid, inside=rig.rx)
    except Unavailable as error:
        unavailable(error)
    assert before is None
    assert came == ["through NAPI"]
    assert after == kept > 0
