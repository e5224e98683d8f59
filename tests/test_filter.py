"""What a filter does in the kernel: which datagrams are queued, what becomes of the others, and why one is refused.

On the loopback interface, TTL 0; other hosts, fragments and IPv6 are in test_filter_hosts.py.
"""

from __future__ import annotations

import contextlib
import errno
import pathlib
import socket
import sys
import time
from types import SimpleNamespace

import pytest
from bpf import ACCEPT_ALL
from refusals import refused

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="socket filters are a thing of Linux"),
    pytest.mark.usefixtures("no_leaked_descriptors"),
]

DOING = "open_receiver 239.255.0.1"
LISTED, SECOND, UNLISTED = "127.0.0.2", "127.0.0.3", "127.0.0.4"
SO_LOCK_FILTER, UDP_SEGMENT = 44, 103
NOP = b"\1"


@pytest.fixture
def filters(multicast):
    return multicast._filter


@pytest.fixture
def listen(multicast, opened, filters, feed):
    """Open a receiver of the feed with this filter, attached as it has to be: before the socket is bound."""

    def listening(wanted, **options):
        sock = opened.closing(multicast.genSocket())
        instructions = filters.program(wanted, sock.family, "test")
        filters.attach(sock, instructions, "test")
        if "receive_buffer" in options:
            multicast.set_receive_buffer(sock, options.pop("receive_buffer"))
        sock.bind(feed)
        multicast.join_group(sock, feed[0], "lo")
        return opened.closing(multicast.Receiver(sock, timeout=10, **options))

    return listening


@pytest.fixture
def sender(multicast, opened, feed):
    """Open a socket that sends to the feed from a loopback address."""

    def sending(source=LISTED, ip_options=b""):
        sock = opened.closing(multicast.genSocket())
        multicast.set_multicast_ttl(sock, 0)
        multicast.set_multicast_interface(sock, "lo")
        if ip_options:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, ip_options)
        sock.bind((source, 0))
        sock.connect(feed)
        return sock

    return sending


def came(rx, sent: int) -> list[bytes]:
    """What comes of the datagrams sent, so many in all: waits until each is either received or counted as a drop."""
    found = []
    deadline = time.monotonic() + 10
    while (stats := rx.stats()).datagrams + stats.drops < sent:
        assert time.monotonic() < deadline, f"{sent} sent, came: {found}, {stats}"
        with contextlib.suppress(TimeoutError):
            found += map(bytes, rx.recv_batch(timeout=0.01))
    assert stats.datagrams + stats.drops == sent
    return found


@pytest.fixture
def sock():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


# What passes -------------------------------------------------------------------------------------------------------


def test_only_the_source_named_is_queued(filters, listen, sender):
    rx = listen(filters.Filter(source=LISTED))
    for each in (UNLISTED, LISTED, SECOND):
        sender(each).send(each.encode())
    assert came(rx, 3) == [LISTED.encode()]


def test_any_of_several_sources_is_queued(filters, listen, sender):
    rx = listen(filters.Filter(source=[SECOND, LISTED]))
    for each in (UNLISTED, LISTED, SECOND):
        sender(each).send(each.encode())
    assert sorted(came(rx, 3)) == [LISTED.encode(), SECOND.encode()]


def test_one_of_a_thousand_sources_is_queued(filters, listen, sender):
    listed = [f"127.{n >> 8}.{n & 255}.2" for n in range(1000)]
    rx = listen(filters.Filter(source=listed))
    for each in (UNLISTED, listed[0], "127.1.1.1", listed[500], listed[-1], "127.3.232.2"):
        sender(each).send(each.encode())
    assert sorted(came(rx, 6)) == sorted(each.encode() for each in (listed[0], listed[500], listed[-1]))


@pytest.mark.parametrize("others", [0, 300], ids=["one port", "one of several ports"])
def test_only_the_source_ports_named_are_queued(filters, listen, sender, others):
    first, second = sender(), sender()
    port, unlisted = first.getsockname()[1], second.getsockname()[1]
    rx = listen(filters.Filter(source_port=[port, *(set(range(others)) - {unlisted})] if others else port))
    second.send(b"no")
    first.send(b"yes")
    assert came(rx, 2) == [b"yes"]


def test_only_payloads_that_begin_so_are_queued(filters, listen, sender):
    rx = listen(filters.Filter(payload=b"session-7"))
    tx = sender()
    sent = [b"session-7", b"", b"session-", b"session-8", b"Session-7", b"session-7 and more", b" session-7", b"s"]
    for each in sent:
        tx.send(each)
    assert came(rx, len(sent)) == [b"session-7", b"session-7 and more"]


def test_all_pieces_of_the_payload_have_to_match(filters, listen, sender):
    rx = listen(filters.Filter(payload={0: b"A", 9: b"xyz", 20: b"\0\xff"}))
    tx = sender()
    good = b"A--------xyz--------\0\xff"
    sent = [good, good + b"more", good[:-1], b"B" + good[1:], good.replace(b"z", b"-"), good[:-1] + b"\0"]
    for each in sent:
        tx.send(each)
    assert came(rx, len(sent)) == [good, good + b"more"]


def test_all_conditions_have_to_hold(filters, listen, sender):
    tx, other_port, other_source = sender(), sender(), sender(UNLISTED)
    rx = listen(filters.Filter(source=[LISTED, SECOND], source_port=tx.getsockname()[1], payload=b"A"))
    for each in (other_port, other_source, tx):
        each.send(b"A, from " + repr(each.getsockname()).encode())
    tx.send(b"B")
    assert came(rx, 4) == [b"A, from " + repr(tx.getsockname()).encode()]


@pytest.mark.parametrize("length", [1, 9, 10], ids=lambda length: f"{4 * length} bytes")
def test_ip_options_are_no_part_of_what_is_looked_at(filters, listen, sender, length):
    plain, optioned, unlisted = sender(), sender(ip_options=4 * length * NOP), sender(UNLISTED, 4 * length * NOP)
    rx = listen(filters.Filter(source=LISTED, source_port=[optioned.getsockname()[1]], payload=b"A"))
    for each in (plain, unlisted, optioned):
        each.send(b"A" + repr(each.getsockname()).encode())
    assert came(rx, 3) == [b"A" + repr(optioned.getsockname()).encode()]


def test_what_passes_is_whole_from_empty_to_the_longest(filters, listen, sender):
    rx = listen(filters.Filter(source=LISTED), datagram_size=65_535, batch_size=1)
    tx = sender()
    for sent, length in enumerate((0, 1, 65_507), start=1):
        tx.send(bytes(length))
        assert came(rx, sent) == [bytes(length)]


def test_each_datagram_of_a_segmented_send_is_judged_alone(filters, listen, sender):
    rx = listen(filters.Filter(payload=b"AA"))
    tx = sender()
    tx.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 4)
    tx.send(b"AA-1" + b"BB-2" + b"AA-3" + b"A")
    assert came(rx, 4) == [b"AA-1", b"AA-3"]


# What does not -----------------------------------------------------------------------------------------------------


def test_what_is_refused_is_counted_as_dropped_and_fills_no_buffer(filters, listen, sender):
    rx = listen(filters.Filter(payload=b"A"), receive_buffer=2048)
    tx = sender()
    for _ in range(500):
        tx.send(b"B" + bytes(1000))  # hundreds of times what the buffer holds
    tx.send(b"A")
    assert came(rx, 501) == [b"A"]
    stats = rx.stats()
    assert (stats.datagrams, stats.drops) == (1, 500)


def test_a_receiver_without_a_filter_is_left_as_it_is(filters, listen, opened, feed, sender):
    plain = opened.receiver(feed)
    rx = listen(filters.Filter(payload=b"A"))
    tx = sender()
    for each in (b"B", b"A"):
        tx.send(each)
    assert came(rx, 2) == [b"A"]
    assert came(plain, 2) == [b"B", b"A"]
    assert plain.stats().drops == 0


def test_attached_again_it_takes_the_place_of_the_first(filters, listen, sender):
    rx = listen(filters.Filter(payload=b"A"))
    tx = sender()
    tx.send(b"A1")
    assert came(rx, 1) == [b"A1"]
    filters.attach(rx.socket, filters.program(filters.Filter(payload=b"B"), socket.AF_INET, "test"), "test")
    for each in (b"A2", b"B2"):
        tx.send(each)
    assert came(rx, 3) == [b"B2"]


# Programs of one's own ---------------------------------------------------------------------------------------------


def test_a_program_of_ones_own_is_run(listen, sender):
    even_length = [(0x80, 0, 0, 0), (0x54, 0, 0, 1), (0x15, 0, 1, 0), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0)]
    rx = listen(even_length)
    tx = sender()
    for length in range(5):
        tx.send(bytes(length))
    assert came(rx, 5) == [b"", bytes(2), bytes(4)]


def test_a_program_keeps_as_many_bytes_as_it_returns_the_udp_header_among_them(listen, sender):
    """The trap that the documentation warns of: nothing tells that this datagram was cut."""
    rx = listen([(0x06, 0, 0, 8 + 3)])
    sender().send(b"abcdef")
    batch = rx.recv_batch()
    assert (bytes(batch[0]), batch.real_lengths[0], batch.truncated[0]) == (b"abc", 3, False)


NO_RETURN = [(0x20, 0, 0, 0)]
JUMPS_TOO_FAR = [(0x15, 5, 0, 0), *ACCEPT_ALL]
NO_SUCH_CODE = [(0xFFFF, 0, 0, 0), *ACCEPT_ALL]


@pytest.mark.parametrize("wrong", [NO_RETURN, JUMPS_TOO_FAR, NO_SUCH_CODE], ids=["no return", "jump", "code"])
def test_a_program_that_the_kernel_refuses_is_an_error_that_says_so(filters, sock, wrong):
    code = filters.program(wrong, sock.family, "test")
    words = (f"{DOING}: attaching the filter: Invalid argument; ", "the kernel refused the program")
    refused(errno.EINVAL, lambda: filters.attach(sock, code, DOING), *words)


def test_a_locked_filter_is_an_error_that_says_so(filters, sock):
    filters.attach(sock, ACCEPT_ALL, DOING)
    sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
    refused(errno.EPERM, lambda: filters.attach(sock, ACCEPT_ALL, DOING), DOING, "locked (SO_LOCK_FILTER)")


def test_a_program_that_takes_too_much_memory_is_an_error_that_names_the_limit(filters, sock):
    longest = filters.program([(0x20, 0, 0, 8)] * 4095 + [(0x06, 0, 0, 0)], sock.family, "test")
    limit = pathlib.Path("/proc/sys/net/core/optmem_max").read_text("ascii").strip()
    if int(limit) > 180_000:  # more than the longest program takes, as the kernel translates it
        pytest.skip(f"net.core.optmem_max is {limit}: no program is too long for that")
    refused(errno.ENOMEM, lambda: filters.attach(sock, longest, DOING), f"net.core.optmem_max (now {limit})")


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOBUFS, "net.core.optmem_max (now "), (errno.ENOPROTOOPT, "this kernel has no socket filters")],
)
def test_errors_that_other_kernels_give_are_explained(filters, number, says):
    class Refusing(socket.socket):
        def setsockopt(self, *_):
            raise OSError(number, "as the system words it")

    with Refusing(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        refused(number, lambda: filters.attach(sock, ACCEPT_ALL, DOING), DOING, says)


def test_a_closed_socket_is_an_error_of_its_own(filters, sock):
    sock.close()
    error = refused(errno.EBADF, lambda: filters.attach(sock, ACCEPT_ALL, DOING), DOING)
    assert ";" not in error.strerror


def test_a_system_without_filters_is_an_error_that_says_so(multicast, filters, sock, monkeypatch):
    for module in (filters, multicast._errors):
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform="darwin"))
    words = (f"{DOING}: attaching the filter: ", "socket filters are a thing of Linux, this is darwin")
    refused(errno.EOPNOTSUPP, lambda: filters.attach(sock, ACCEPT_ALL, DOING), *words)
