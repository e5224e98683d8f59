"""Constants: the twin writes down what the native backend takes from the C headers; each undoes what the other did."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct

import pytest
from filters import source_filter

GROUP = f"239.252.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # no other run of these tests joins it
GROUP6 = f"ff15::238:{os.getpid() & 0xFFFF:x}"
SOURCE = "192.0.2.1"
LO = socket.if_nametoindex("lo")


@contextlib.contextmanager
def udp(family: socket.AddressFamily):
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    except OSError as error:
        pytest.skip(f"the loopback interface of this machine has no {family.name}: {error}")
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        yield sock


FAMILIES = [
    pytest.param(socket.AF_INET, GROUP, SOURCE, id="IPv4"),
    pytest.param(socket.AF_INET6, GROUP6, "2001:db8::1", id="IPv6"),
]


@pytest.mark.parametrize(("family", "group", "source"), FAMILIES)
def test_what_one_backend_joins_the_other_leaves(each_way, family, group, source):
    """MCAST_JOIN_GROUP and its kin, and the structs that they take."""
    one, other = (package.skt._backend for package in each_way)
    packed, first = ipaddress.ip_address(group).packed, ipaddress.ip_address(source)
    for sources in ([None], [first.packed, (first + 1).packed]):
        with udp(family) as sock:
            for each in sources:
                one.join_group(sock, packed, LO, each)
                with pytest.raises(OSError):
                    other.join_group(sock, packed, LO, each)
            for each in sources:
                other.leave_group(sock, packed, LO, each)
            with pytest.raises(OSError):
                one.leave_group(sock, packed, LO, None)


@pytest.mark.parametrize(("family", "group", "source"), FAMILIES)
def test_what_one_backend_filters_the_other_reads(each_way, family, group, source):
    """MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_MSFILTER, MCAST_INCLUDE and MCAST_EXCLUDE."""
    one, other = (package.skt._backend for package in each_way)
    packed, first = ipaddress.ip_address(group).packed, ipaddress.ip_address(source)
    sources = [first.packed, (first + 1).packed]
    with udp(family) as sock:
        one.join_group(sock, packed, LO, None)
        assert other.get_source_filter(sock, packed, LO) == (False, [])
        for each in sources:
            one.block_source(sock, packed, LO, each)
        assert other.get_source_filter(sock, packed, LO) == (False, sources)
        one.unblock_source(sock, packed, LO, sources[0])
        assert other.get_source_filter(sock, packed, LO) == (False, sources[1:])
        for including in (True, False):
            one.set_source_filter(sock, packed, LO, including, sources[::-1])
            assert other.get_source_filter(sock, packed, LO) == (including, sources[::-1])
            assert source_filter(sock, group, LO) == (including, {str(first), str(first + 1)})
        one.set_source_filter(sock, packed, LO, False, [])
        assert other.get_source_filter(sock, packed, LO) == (False, [])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_both_tell_the_same_address_that_a_socket_is_bound_to(both, family):
    for package in both:
        with udp(family) as sock:
            any_address, loopback = (["0.0.0.0", "127.0.0.1"], ["::", "::1"])[family == socket.AF_INET6]
            assert package.skt._backend.bound_address(sock) == ipaddress.ip_address(any_address).packed
            sock.bind((loopback, 0))
            assert package.skt._backend.bound_address(sock) == ipaddress.ip_address(loopback).packed


def test_both_move_a_socket_to_another_interface(both):
    """SO_BINDTOIFINDEX, which is SO_BINDTODEVICE by number: no interface is 0."""
    for package in both:
        with udp(socket.AF_INET) as sock:
            assert package.skt._backend.follow_interface(sock, 77, LO) is False
            assert sock.getsockopt(socket.SOL_SOCKET, 62) == 0
            assert package.skt._backend.follow_interface(sock, 0, LO) is True
            assert sock.getsockopt(socket.SOL_SOCKET, 62) == LO


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_both_limit_a_socket_to_its_groups(both, family):
    """IP_MULTICAST_ALL and IPV6_MULTICAST_ALL, which are 1 in a new socket."""
    where = (socket.IPPROTO_IP, 49) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 29)
    for package in both:
        with udp(family) as sock:
            assert sock.getsockopt(*where) == 1
            assert package.skt._backend.limit_to_joined(sock) is True
            assert sock.getsockopt(*where) == 0


def test_both_pass_the_limit_of_the_receive_buffer_or_neither(both):
    """SO_RCVBUFFORCE."""
    with udp(socket.AF_INET) as one, udp(socket.AF_INET) as other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**31 - 1)
        limit = one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        native = both[0].skt._backend.set_receive_buffer(one, 2 * limit)
        twin = both[1].skt._backend.set_receive_buffer(other, 2 * limit)
        assert native == twin
        assert native in (limit, 2 * limit)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * native


def test_both_read_the_same_count_of_drops(both, feed):
    """SO_MEMINFO: drops are its ninth word."""
    native, twin = both
    with (
        native.open_receiver(*feed, interface="lo", receive_buffer=4096) as receiver,
        native.open_sender(*feed, interface="lo", ttl=0) as sender,
        twin.Receiver(receiver.socket.dup()) as other,
    ):
        for _ in range(100):
            sender.send(bytes(1000))
        drops = struct.unpack("=9I", receiver.socket.getsockopt(socket.SOL_SOCKET, 55, 36))[8]
        assert 0 < drops < 100
        assert receiver.stats().drops == drops
        assert other.stats().drops == drops
