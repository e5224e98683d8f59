"""What becomes of datagrams that a socket sent: told by read_errors, whoever says so, and never in the way.

ICMP comes from another host of the rig. What the kernel itself refuses is provoked on the loopback interface: a
datagram of over 65507 bytes does not leave over IPv4.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from net import told
from refusals import needs_ipv6, refused, shown

pytest_plugins = ["rig_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("no_leaked_descriptors"),
    pytest.mark.skipif(sys.platform != "linux", reason="the error queue is a thing of Linux"),
]

IP_RECVERR, IPV6_RECVERR = (socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25)  # linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
TOO_LONG = bytes(65_508)
LOCAL = {
    "errno": errno.EMSGSIZE,
    "origin": "local",
    "type": 0,
    "code": 0,
    "data": 0,
    "offender": None,
    "destination": ("127.0.0.1", 0),
}


@pytest.fixture
def sock():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


@pytest.fixture
def watched(multicast, sock):
    multicast.set_error_queue(sock, True)
    return sock


def fail_locally(sock: socket.socket, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(OSError) as caught:
            sock.sendto(TOO_LONG, ("127.0.0.1", 9))
        assert caught.value.errno == errno.EMSGSIZE


# From another host -------------------------------------------------------------------------------------------------

REFUSED = """
import json, select, socket, sys
import multicast
own, host, number, level, name = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
def failing(sock, payload):
    try:
        sock.sendto(payload, (host, number))
    except OSError as error:
        return error.errno
def waiting(sock):
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(10_000), "no error came"
    return [each.as_dict() for each in multicast.read_errors(sock)]
with socket.socket(family, socket.SOCK_DGRAM) as sock, socket.socket(family, socket.SOCK_DGRAM) as deaf:
    for each in (sock, deaf):
        each.bind((own, 0))
    multicast.set_error_queue(sock, True)
    sock.sendto(b"nobody is there", (host, number))
    came = waiting(sock)
    pending = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    sock.setsockopt(level, name, 2)  # don't fragment
    number_of_long = failing(sock, bytes(1500))
    local = waiting(sock)
    # Without the queue, a socket that is not connected learns nothing: what it sends last is answered last.
    deaf.sendto(b"nobody is there", (host, number))
    sock.sendto(b"nobody is there", (host, number))
    again = waiting(sock)
    print(json.dumps([came, pending, number_of_long, local, len(again), len(multicast.read_errors(deaf))]))
"""


@pytest.mark.parametrize(
    ("own", "host", "icmp", "mtu_discover"),
    [
        ("192.0.2.1", "192.0.2.11", ("icmp", 3, 3), (socket.IPPROTO_IP, IP_MTU_DISCOVER)),
        ("2001:db8::1", "2001:db8::11", ("icmp6", 1, 4), (socket.IPPROTO_IPV6, 23)),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_port_where_nobody_listens_and_a_datagram_too_long(multicast, rig, own, host, icmp, mtu_discover):
    came, pending, number, local, again, deaf = told(multicast, REFUSED, own, host, 9, *mtu_discover, inside=rig.rx)
    ipv6 = ":" in host
    origin, type_, code = icmp  # port unreachable: RFC 792; RFC 4443, 3.1
    refused_there = {
        "errno": errno.ECONNREFUSED,
        "origin": origin,
        "type": type_,
        "code": code,
        "info": 0,
        "data": 0,
        "offender": host,
        "destination": [host, 9, 0, 0] if ipv6 else [host, 9],
    }
    assert came == [refused_there]
    assert pending == 0
    assert number == errno.EMSGSIZE
    assert local == [
        refused_there
        | {"errno": errno.EMSGSIZE, "origin": "local", "type": 0, "code": 0, "info": 1500, "offender": None}
        | {"destination": [host, 9, 0, 0] if ipv6 else [host, 0]}
    ]
    assert (again, deaf) == (1, 0)


LINK_LOCAL = """
import json, select, socket
import multicast
index = socket.if_nametoindex("feed0")
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
    multicast.set_error_queue(sock, True)
    sock.sendto(b"nobody is there", ("fe80::11", 9, 0, index))
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(10_000), "no error came"
    print(json.dumps([each.as_dict() for each in multicast.read_errors(sock)]))
"""


def test_a_link_local_address_has_its_zone(multicast, rig):
    (came,) = told(multicast, LINK_LOCAL, inside=rig.rx)
    assert (came["errno"], came["offender"]) == (errno.ECONNREFUSED, "fe80::11%10")
    assert came["destination"] == ["fe80::11", 9, 0, 10]


@needs_ipv6
def test_a_socket_of_both_families_gets_the_errors_of_both(multicast):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, socket.socket(type=socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        multicast.set_error_queue(sock, True)
        sock.sendto(b"nobody is there", ("::ffff:127.0.0.1", port))
        (came,) = multicast.read_errors(sock)
    assert (came.errno, came.origin, came.type, came.code) == (errno.ECONNREFUSED, "icmp", 3, 3)
    assert came.offender == "::ffff:127.0.0.1"
    assert came.destination == ("::ffff:127.0.0.1", port, 0, 0)


# Switching it on and off -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [False, True, 0, 1])
def test_the_queue_is_on_or_off_as_it_was_set(multicast, sock, enabled):
    assert multicast.set_error_queue(sock, not enabled) is None
    assert sock.getsockopt(*IP_RECVERR) == (not enabled)
    assert multicast.set_error_queue(sock, enabled) is None
    assert sock.getsockopt(*IP_RECVERR) == enabled


@needs_ipv6
def test_over_ipv6_it_is_both_or_neither(multicast, monkeypatch):
    class Refusing(socket.socket):
        def setsockopt(self, level, name, value):
            if (level, name) == IP_RECVERR:
                raise OSError(errno.ENOPROTOOPT, "refused")
            super().setsockopt(level, name, value)

    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        multicast.set_error_queue(sock, True)
        assert [sock.getsockopt(*each) for each in (IP_RECVERR, IPV6_RECVERR)] == [1, 1]
        multicast.set_error_queue(sock, False)
        assert [sock.getsockopt(*each) for each in (IP_RECVERR, IPV6_RECVERR)] == [0, 0]
    with Refusing(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        refused(errno.ENOPROTOOPT, lambda: multicast.set_error_queue(sock, True), "set_error_queue: IP_RECVERR=1: ")
        assert [sock.getsockopt(*each) for each in (IP_RECVERR, IPV6_RECVERR)] == [0, 0]


def test_switching_it_off_discards_what_is_queued(multicast, watched):
    fail_locally(watched)
    multicast.set_error_queue(watched, False)
    assert multicast.read_errors(watched) == []


def test_without_it_nothing_is_queued(multicast, sock):
    fail_locally(sock)
    assert multicast.read_errors(sock) == []


# Reading -----------------------------------------------------------------------------------------------------------


def test_an_error_is_a_value_and_is_read_once(multicast, watched):
    fail_locally(watched)
    (came,) = multicast.read_errors(watched)
    assert type(came) is multicast.SocketError
    assert came.as_dict() == LOCAL | {"info": came.info}
    assert 0 < came.info < 65_536  # the MTU of the loopback interface, as far as IPv4 can use it
    assert multicast.read_errors(watched) == []


def test_errors_come_in_the_order_they_happened(multicast, watched):
    for last in (2, 3, 4):
        with pytest.raises(OSError):
            watched.sendto(TOO_LONG, (f"127.0.0.{last}", 9))
    assert [each.destination[0] for each in multicast.read_errors(watched)] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


def test_one_call_reads_no_more_than_its_bound(multicast, watched, monkeypatch):
    assert multicast._error_queue.MOST == 1024
    monkeypatch.setattr(multicast._error_queue, "MOST", 5)
    fail_locally(watched, 7)
    assert len(multicast.read_errors(watched)) == 5
    assert len(multicast.read_errors(watched)) == 2
    assert multicast.read_errors(watched) == []


@pytest.mark.parametrize("timeout", [None, 0, 1000])
def test_it_never_waits_and_leaves_the_socket_as_it_was(multicast, watched, timeout):
    """Were it to wait for the socket's timeout, this would not end in time."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(500)  # what any socket made from now on gets
    try:
        watched.settimeout(timeout)
        flags = fcntl.fcntl(watched, fcntl.F_GETFL)
        assert multicast.read_errors(watched) == []
        fail_locally(watched)
        assert len(multicast.read_errors(watched)) == 1
    finally:
        socket.setdefaulttimeout(before)
    assert fcntl.fcntl(watched, fcntl.F_GETFL) == flags
    assert bool(flags & os.O_NONBLOCK) == (timeout is not None)
    assert watched.gettimeout() == timeout


def test_what_waits_to_be_received_is_left(multicast, watched):
    watched.bind(("127.0.0.1", 0))
    watched.settimeout(10)
    watched.sendto(b"data", watched.getsockname())
    fail_locally(watched)
    assert len(multicast.read_errors(watched)) == 1
    assert watched.recv(100) == b"data"


def test_a_connected_socket_is_told_the_port_too(multicast, watched):
    watched.connect(("127.0.0.1", 9))
    with pytest.raises(OSError):
        watched.send(TOO_LONG)
    assert [each.destination for each in multicast.read_errors(watched)] == [("127.0.0.1", 9)]


def test_a_transmit_timestamp_is_told_apart(multicast, sock):
    so_timestamping, tx_software, software, only = 37, 1 << 1, 1 << 4, 1 << 11
    sock.setsockopt(socket.SOL_SOCKET, so_timestamping, tx_software | software | only)
    with socket.socket(type=socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        sock.sendto(b"stamped", receiver.getsockname())
    (came,) = multicast.read_errors(sock)
    assert (came.errno, came.origin) == (errno.ENOMSG, "timestamping")


def test_an_error_after_some_does_not_lose_them(multicast, monkeypatch):
    """Nor is it lost itself: it comes with the next call, if it stays."""

    class Failing:
        def __init__(self, answers):
            self.answers = answers

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def recvmsg(self, *_):
            answer = self.answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

    answers = [(b"", [], 0, None), OSError(errno.ENOMEM, "once"), OSError(errno.ENOMEM, "again")]
    monkeypatch.setattr(multicast._error_queue, "_never_waiting", lambda _: Failing(answers))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        assert len(multicast.read_errors(sock)) == 1
        refused(errno.ENOMEM, lambda: multicast.read_errors(sock), "read_errors: ")


# Parsing -----------------------------------------------------------------------------------------------------------


def extended(number=errno.ECONNREFUSED, origin=2, type_=3, code=3, info=0, data=0) -> bytes:
    return struct.pack("=IBBBBII", number, origin, type_, code, 0, info, data)


SOCKADDR_IN = struct.pack("=HH4s8x", socket.AF_INET, 0, bytes([192, 0, 2, 1]))
SOCKADDR_IN6 = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, "fe80::1"), 7)


@pytest.mark.parametrize(
    ("number", "name"),
    list(enumerate(["none", "local", "icmp", "icmp6", "timestamping", "zerocopy", "txtime", "7"])),
)
def test_the_origins_have_the_names_of_the_kernel(multicast, number, name):
    content = extended(errno.ENOMSG, number, 1, 2, 3, 4)
    assert multicast._error_queue.parsed([(*IP_RECVERR, content)], ("192.0.2.9", 5)).as_dict() == {
        "errno": errno.ENOMSG,
        "origin": name,
        "type": 1,
        "code": 2,
        "info": 3,
        "data": 4,
        "offender": None,
        "destination": ("192.0.2.9", 5),
    }


def test_a_transmit_status_is_one_by_what_comes_with_it(multicast):
    """SO_EE_ORIGIN_TXSTATUS and SO_EE_ORIGIN_TIMESTAMPING are the same number."""
    status = (socket.SOL_SOCKET, 41, bytes(4))  # SCM_WIFI_STATUS
    error = (*IP_RECVERR, extended(errno.ENOMSG, 4))
    for control in ([status, error], [error, status]):
        assert multicast._error_queue.parsed(control, None).origin == "txstatus"
    assert multicast._error_queue.parsed([error], None).origin == "timestamping"


@pytest.mark.parametrize(
    ("sockaddr", "offender"),
    [
        (SOCKADDR_IN, "192.0.2.1"),
        (SOCKADDR_IN[:8], "192.0.2.1"),
        (SOCKADDR_IN[:7], None),
        (SOCKADDR_IN6, "fe80::1%7"),
        (SOCKADDR_IN6[:27], None),
        (bytes(28), None),
        (b"\1", None),
        (b"", None),
        (b"\xff" * 28, None),
    ],
)
@pytest.mark.parametrize("carrier", [IP_RECVERR, IPV6_RECVERR])
def test_the_offender_is_an_address_or_none(multicast, carrier, sockaddr, offender):
    assert multicast._error_queue.parsed([(*carrier, extended() + sockaddr)], None).offender == offender


@pytest.mark.parametrize("length", range(16))
def test_a_truncated_error_is_told_as_unknown(multicast, length):
    came = multicast._error_queue.parsed([(*IP_RECVERR, extended()[:length])], ("192.0.2.9", 5))
    assert (came.errno, came.origin, came.destination) == (0, "unknown", ("192.0.2.9", 5))


LEVELS = st.sampled_from([*IP_RECVERR, *IPV6_RECVERR, socket.SOL_SOCKET, 37, 41]) | st.integers()
CONTROL = st.lists(
    st.tuples(LEVELS, LEVELS, st.binary(max_size=64))
    | st.tuples(
        st.sampled_from([IP_RECVERR, IPV6_RECVERR]),
        st.binary(max_size=16) | st.just(extended()),
        st.sampled_from([SOCKADDR_IN, SOCKADDR_IN6]) | st.binary(max_size=40),
    ).map(lambda parts: (*parts[0], parts[1] + parts[2])),
    max_size=4,
)


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(control=CONTROL, destination=st.sampled_from([None, "", ("192.0.2.9", 5), ("fe80::1", 5, 0, 7)]))
def test_no_control_data_whatever_makes_it_fail(multicast, control, destination):
    came = multicast._error_queue.parsed(control, destination)
    assert type(came) is multicast.SocketError
    assert came.destination == (destination or None)
    assert all(isinstance(each, int) for each in (came.errno, came.type, came.code, came.info, came.data))
    assert isinstance(came.origin, str)
    assert came.offender is None or isinstance(came.offender, str)


# Arguments ---------------------------------------------------------------------------------------------------------

CALLS = {
    "set_error_queue": lambda m, sock: m.set_error_queue(sock, True),
    "read_errors": lambda m, sock: m.read_errors(sock),
}


@pytest.mark.parametrize("operation", CALLS)
class TestArguments:
    def test_no_open_udp_socket_is_refused(self, multicast, sock, operation):
        for value in (None, sock.fileno(), "lo", object()):
            refused(TypeError, lambda value=value: CALLS[operation](multicast, value), f"{operation}: sock ")
        sock.close()
        refused(errno.EBADF, lambda: CALLS[operation](multicast, sock), f"{operation}: the socket is closed")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            refused(ValueError, lambda: CALLS[operation](multicast, stream), f"{operation}: ", "SOCK_STREAM")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
            refused(ValueError, lambda: CALLS[operation](multicast, local), f"{operation}: ", "AF_UNIX")

    def test_other_systems_are_not_asked(self, multicast, sock, operation, monkeypatch):
        """There the same numbers are other options'."""
        elsewhere = types.SimpleNamespace(platform="darwin")
        monkeypatch.setattr(multicast._error_queue, "sys", elsewhere)
        monkeypatch.setattr(multicast._errors, "sys", elsewhere)
        call = lambda: CALLS[operation](multicast, sock)  # noqa: E731
        refused(errno.ENOSYS, call, f"{operation}: this is for Linux, not darwin")


@pytest.mark.parametrize("value", [None, 2, -1, "on", 1.5, []], ids=shown)
def test_a_bad_switch_is_refused(multicast, sock, value):
    refused(TypeError, lambda: multicast.set_error_queue(sock, value), "set_error_queue: enabled is True or False")
