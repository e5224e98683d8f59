"""Files below /proc/net: that they are read as the kernel writes them. The texts are those of a machine with x86-64."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from multicast import _proc_net

IGMP = """\
Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     2      V3
\t\t\t\t8100CDEF     2 0:00000000\t\t0
\t\t\t\t010000E0     1 0:00000000\t\t0
4\teth0      :     1      V2
\t\t\t\t010000E0     1 0:00000000\t\t0
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
10093: 8100CDEF:5889 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000 0 27440705 2 00000000628608ed 12
"""
UDP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue ...
  10: 000002FF000000000000000001000000:04D2 00000000000000000000000000000000:0000 07 00000000:00000000 \
00:00000000 00000000     0        0 77 2 0000000000000000 0
"""
little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="addresses are in the order of the machine")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc/net is Linux's")


@little_endian
def test_igmp_has_groups_and_versions():
    assert _proc_net.parse_igmp(IGMP) == (
        [(1, "239.205.0.129", 2), (1, "224.0.0.1", 1), (4, "224.0.0.1", 1)],
        {1: "V3", 4: "V2"},
    )


def test_igmp6_has_groups():
    text = "4    eth0            ff0200000000000000000001ff000002     3 00000004 0\n"
    assert _proc_net.parse_igmp6(text) == [(4, "ff02::1:ff00:2", 3)]


def test_mcfilter_has_sources_of_both_kinds():
    text = "Idx Device        MCA        SRC    INC    EXC\n 12 feed-l 0xe8010101 0x0a000007      2      1\n"
    assert _proc_net.parse_mcfilter(text) == [(12, "232.1.1.1", "10.0.0.7", 2, 1)]
    text6 = f"Idx Device {'Multicast Address':>32} ...\n  1     lo ff3e{'0' * 27}1 20010db8{'0' * 23}7      0      1\n"
    assert _proc_net.parse_mcfilter(text6) == [(1, "ff3e::1", "2001:db8::7", 0, 1)]


@little_endian
def test_udp_has_where_sockets_are_bound():
    assert _proc_net.parse_udp(UDP) == [("239.205.0.129", 0x5889, 1000, 27440705, 12)]
    assert _proc_net.parse_udp(UDP6) == [("ff02::1", 1234, 0, 77, 0)]


@pytest.mark.parametrize(("parse", "nothing"), [("igmp", ([], {})), ("igmp6", []), ("mcfilter", []), ("udp", [])])
def test_a_file_that_is_not_there_has_nothing(parse, nothing):
    assert getattr(_proc_net, f"parse_{parse}")(_proc_net.read("absent")) == nothing


@linux
def test_what_this_machine_shows_is_read():
    loopback = socket.if_nametoindex("lo")
    groups, versions = _proc_net.parse_igmp(_proc_net.read("igmp"))
    assert versions[loopback] in {"V1", "V2", "V3"}
    assert (loopback, "224.0.0.1") in [each[:2] for each in groups]  # every host's (RFC 1112)


@linux
def test_a_socket_has_its_process():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        inode = os.fstat(sock.fileno()).st_ino
        (found,) = [each for each in _proc_net.parse_udp(_proc_net.read("udp")) if each.inode == inode]
        assert (found.address, found.port, found.uid) == (*sock.getsockname(), os.getuid())
        assert os.getpid() in [pid for pid, _ in _proc_net.owners({inode})[inode]]
    assert _proc_net.owners({inode}) == {}


def test_no_sockets_have_no_processes():
    assert _proc_net.owners(set()) == {}


SNMP = "Ip: InReceives InDelivers\nIp: 9 8\nUdp: InErrors RcvbufErrors\nUdp: 3 2\n"
DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier ...
eth0:1:   10       2    3    5    6     7          0         8        0       0    0    0    0     0       0          0
"""


def test_counters_have_their_names():
    assert _proc_net.parse_snmp(SNMP) == {
        "Ip.InReceives": 9,
        "Ip.InDelivers": 8,
        "Udp.InErrors": 3,
        "Udp.RcvbufErrors": 2,
    }
    assert _proc_net.parse_snmp6("Ip6InReceives                   \t7\nUdp6InErrors      \t4\n")["Udp6InErrors"] == 4
    assert _proc_net.parse_dev(DEV)["eth0:1"] == {
        "bytes": 10,
        "packets": 2,
        "errors": 3,
        "dropped": 5,
        "fifo": 6,
        "frame": 7,
        "compressed": 0,
        "multicast": 8,
    }
    assert _proc_net.parse_softnet_stat("1bc6037c 0000000a 0000001d\n257e8da3 00000001 00000010\n") == 11


@linux
def test_this_machines_counters_are_read():
    assert "Udp.RcvbufErrors" in _proc_net.parse_snmp(_proc_net.read("snmp"))
    assert "TcpExt.IPReversePathFilter" in _proc_net.parse_snmp(_proc_net.read("netstat"))
    assert "Udp6RcvbufErrors" in _proc_net.parse_snmp6(_proc_net.read("snmp6"))
    assert _proc_net.parse_dev(_proc_net.read("dev"))["lo"]["packets"] >= 0
    assert _proc_net.parse_softnet_stat(_proc_net.read("softnet_stat")) >= 0
