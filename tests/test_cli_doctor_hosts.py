"""`multicast doctor` in hosts where each fault was planted: it names that one first, and none where there is none.

What it judges is the kernel's, whatever the backend: so it runs on one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from net import python_environment, told, tool
from rig import DEADLINE, joined_hosts

import multicast as package

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux")

PORT, PORT6, NO_ONES = 5001, 5002, 5003
SENDER = """
import socket, struct, sys, time
feeds = []
for group, source, link, port in (each.split() for each in sys.argv[1:]):
    six = ":" in group
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    index = socket.if_nametoindex(link)
    if six:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", bytes(4), bytes(4), index))
    feeds.append((sock, (group, int(port))))
for turn in range(12_000):
    for sock, to in feeds:
        sock.sendto(b"feed", to)
    if not turn:
        print("here", flush=True)
    time.sleep(0.01)
"""
QUERIER = """
import socket, sys, time
asking = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
for turn in range(1000):
    asking.sendto(bytes.fromhex("1164ee9b00000000"), ("224.0.0.1", 0))  # a general query of IGMPv2 (RFC 2236, 2)
    if not turn:
        print("here", flush=True)
    time.sleep(0.02)
"""
HOLDER = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", int(sys.argv[1])))
print("here", flush=True)
sys.stdin.read()
"""
FEEDS = [
    f"239.77.0.1 192.0.2.11 feed0 {PORT}",
    f"239.77.0.2 192.0.2.11 feed0 {PORT}",
    f"232.77.0.1 192.0.2.11 feed0 {PORT}",
    f"239.77.0.9 198.51.100.11 feed0 {PORT}",  # from an address that the receiver's route leads elsewhere
    f"ff3e::7701 2001:db8::11 feed0 {PORT6}",
]


@pytest.fixture(scope="module")
def hosts():
    """Hosts of our own, since faults are planted in them; and one that sends, for two minutes at most."""
    with joined_hosts() as made, running(made.tx, SENDER, *FEEDS):
        made.rx.run("sh", "-c", "for each in all feed0; do echo 0 > /proc/sys/net/ipv4/conf/$each/rp_filter; done")
        yield made


@contextlib.contextmanager
def running(host, code, *arguments):
    """Have a script run in a host from when it says that it is here."""
    command = host.inside(sys.executable, "-c", code, *map(str, arguments))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as script:
        try:
            assert script.stdout.readline() == b"here\n"
            yield
        finally:
            script.kill()


@pytest.fixture
def doctor(hosts):
    def ask(*arguments, seconds="0.5"):
        command = [sys.executable, "-P", "-m", "multicast", "doctor", *arguments, "--seconds", seconds, "--json"]
        done = subprocess.run(
            hosts.rx.inside(*command), env=python_environment(package), capture_output=True, text=True, timeout=DEADLINE
        )
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert found, done.stderr
        assert done.returncode == (0 if found[-1]["diagnosis"] is None else 1)
        return found[-1]

    return ask


@contextlib.contextmanager
def planted(host, fault, repair):
    host.run("sh", "-c", fault)
    try:
        yield
    finally:
        host.run("sh", "-c", repair)


@pytest.mark.parametrize(
    "feed",
    [
        f"239.77.0.1:{PORT}%feed0",
        f"192.0.2.11@232.77.0.1:{PORT}%feed0",
        f"[ff3e::7701]:{PORT6}%feed0",
        f"[2001:db8::11]@[ff3e::7701]:{PORT6}%feed0",
    ],
)
def test_on_a_healthy_host_with_a_sender_nothing_is_wrong(doctor, feed):
    found = doctor(feed, "-c", "1", seconds="10")
    assert (found["diagnosis"], found["cause"]) == (None, None)


def test_it_listens_for_as_long_as_it_is_told(doctor):
    assert doctor(f"239.77.0.1+2:{PORT}%feed0", seconds="2")["diagnosis"] is None


def test_a_group_of_a_range_that_brings_nothing_is_a_warning(doctor):
    found = doctor(f"239.77.0.1+3:{PORT}%feed0", seconds="1")
    assert (found["diagnosis"], "received" in found["warnings"]) == (None, True)


def test_nobody_sending(doctor):
    found = doctor(f"239.77.0.3:{NO_ONES}%feed0")
    assert (found["cause"], "nobody sends" in found["diagnosis"]) == ("received", True)


@pytest.mark.parametrize("feed", [f"239.77.0.1:{PORT}%feed1", f"[ff3e::7701]:{PORT6}%feed1"])
def test_the_wrong_interface(doctor, feed):
    found = doctor(feed)
    assert (found["cause"], found["diagnosis"]) == ("wire", "they arrive at feed0, not at feed1")
    assert found["next"] == f"multicast doctor '{feed.replace('feed1', 'feed0')}'"


def test_the_wrong_port_and_the_wrong_source(doctor):
    found = doctor(f"239.77.0.1:{NO_ONES}%feed0")
    assert (found["cause"], found["diagnosis"]) == ("wire", f"they come to port {PORT}, not to {NO_ONES}")
    found = doctor(f"192.0.2.99@232.77.0.1:{PORT}%feed0")
    assert (found["cause"], found["diagnosis"]) == ("wire", "they come from 192.0.2.11, not from 192.0.2.99")


def test_an_interface_that_is_not_there(doctor):
    found = doctor(f"239.77.0.1:{PORT}%feed9")
    assert (found["cause"], "there is no interface feed9" in found["diagnosis"]) == ("interface", True)


def test_a_port_that_somebody_does_not_share(hosts, doctor):
    with running(hosts.rx, HOLDER, PORT):
        found = doctor(f"239.77.0.1:{PORT}%feed0")
    assert found["cause"] == "port"
    assert found["diagnosis"].startswith(f"port {PORT} is in use by python")


def test_no_route(doctor):
    found = doctor(f"239.77.0.1:{PORT}")
    assert (found["cause"], found["diagnosis"]) == (
        "route",
        "there is none to 239.77.0.1, and the feed names no interface",
    )


@pytest.mark.parametrize("feed", [f"239.77.0.9:{PORT}%feed0", f"198.51.100.11@239.77.0.9:{PORT}%feed0"])
def test_a_strict_rp_filter(hosts, doctor, feed):
    path = "/proc/sys/net/ipv4/conf/feed0/rp_filter"
    with planted(hosts.rx, f"echo 1 > {path}", f"echo 0 > {path}"):
        found = doctor(feed)
    assert (found["cause"], "the route to the source 198.51.100.11" in found["diagnosis"]) == ("rp_filter", True)


@pytest.mark.parametrize(
    ("path", "one", "feed", "said"),
    [
        ("ipv4/conf/feed0/force_igmp_version", 2, f"192.0.2.11@232.77.0.1:{PORT}%feed0", "IGMPv2 is in force on feed0"),
        (
            "ipv6/conf/feed0/force_mld_version",
            1,
            f"[2001:db8::11]@[ff3e::7701]:{PORT6}%feed0",
            "MLDv1 is in force on feed0",
        ),
    ],
)
def test_a_source_named_under_a_version_that_has_none(hosts, doctor, path, one, feed, said):
    with planted(hosts.rx, f"echo {one} > /proc/sys/net/{path}", f"echo 0 > /proc/sys/net/{path}"):
        found = doctor(feed)
    assert (found["cause"], said in found["diagnosis"]) == ("version", True)


def test_a_querier_of_an_older_version(hosts, doctor):
    # Taking the link down makes the kernel forget that it was there; it would take minutes otherwise.
    forget = "ip link set feed1 down; ip link set feed1 up"
    with planted(hosts.rx, "true", forget), running(hosts.tx, QUERIER, "198.51.100.11"):
        found = doctor(f"198.51.100.11@232.77.0.1:{PORT}%feed1")
    hosts.rx.wait_until_up("feed1")
    assert (found["cause"], found["next"]) == ("version", "cat /proc/net/igmp")
    assert "IGMPv2 is in force on feed1, since 198.51.100.11 asks (IGMPv2)" in found["diagnosis"]


def test_more_groups_than_a_socket_may_join(hosts, doctor):
    path = "/proc/sys/net/ipv4/igmp_max_memberships"
    with planted(hosts.rx, f"echo 3 > {path}", f"echo 20 > {path}"):
        found = doctor(f"239.77.0.1+5:{PORT}%feed0")
    assert (found["cause"], found["next"]) == ("membership", "sysctl -w net.ipv4.igmp_max_memberships=5")


def test_a_buffer_too_small_for_the_burst(doctor):
    found = doctor(f"239.77.0.1:{PORT}%feed0", "--burst", "100M", "-c", "1", seconds="10")
    assert (found["cause"], "sysctl -w net.core.rmem_max=" in found["next"]) == ("buffer", True)


CHAIN = "add table inet t; add chain inet t c { type filter hook input priority 0; }; "


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (f"{CHAIN}; add rule inet t c ip daddr 239.77.0.1 counter drop", "inet t c handle"),
        (f"{CHAIN}; add rule inet t c udp dport {PORT} drop", "inet t c handle"),
        (
            f"{CHAIN}; add chain inet t d; add rule inet t c ct state established accept;"
            "add rule inet t c ip daddr { 239.0.0.0/8 } jump d; add rule inet t d meta l4proto udp drop",
            "inet t d handle",
        ),
        (f"{CHAIN}; add rule inet t c iif lo accept; add chain inet t c {{ policy drop; }}", "the policy of inet t c"),
        (
            "add table netdev t; add chain netdev t c { type filter hook ingress device feed0 priority 0; };"
            f"add rule netdev t c udp dport {PORT} counter drop",
            "netdev t c handle",
        ),
    ],
)
def test_rules_of_nftables_that_drop_it(hosts, doctor, rules, named):
    tool("nft", "nftables")
    family = "netdev" if "netdev" in rules else "inet"
    with planted(hosts.rx, f"nft '{rules}'", f"nft delete table {family} t"):
        found = doctor(f"239.77.0.1:{PORT}%feed0")
    assert (found["cause"], named in found["diagnosis"]) == ("firewall", True)
    assert found["next"] == "nft -a list ruleset"


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize(
    ("options", "undo"),
    [
        (f"-A INPUT -p udp -m multiport --dports 1,{PORT} -j DROP", "-F INPUT"),
        ("-P INPUT DROP", "-P INPUT ACCEPT"),
    ],
)
def test_rules_of_iptables_that_drop_it(hosts, doctor, program, options, undo):
    tool(program, "iptables")
    with planted(hosts.rx, f"{program} {options}", f"{program} {undo}"):
        found = doctor(f"239.77.0.1:{PORT}%feed0")
    assert (found["cause"], found["next"]) == ("firewall", f"{program}-save -c")
    assert ("policy" if "-P" in options else f"--dports 1,{PORT}") in found["diagnosis"]


def test_a_rule_that_drops_one_group_of_a_range(hosts, doctor):
    tool("nft", "nftables")
    with planted(hosts.rx, f"nft '{CHAIN}; add rule inet t c ip daddr 239.77.0.2 drop'", "nft delete table inet t"):
        found = doctor(f"239.77.0.1+2:{PORT}%feed0", seconds="1")
    assert (found["cause"], "inet t c handle" in found["diagnosis"]) == ("firewall", True)


def test_a_link_without_the_flag_multicast(hosts, doctor):
    with planted(hosts.rx, "ip link set feed0 multicast off", "ip link set feed0 multicast on"):
        found = doctor(f"239.77.0.1:{PORT}%feed0")
    assert (found["cause"], found["diagnosis"]) == ("interface", "feed0 lacks the flag MULTICAST")


def test_a_link_that_is_down_and_one_without_carrier(hosts, doctor):
    with planted(hosts.rx, "ip link set feed1 down", "ip link set feed1 up"):
        found = doctor(f"239.77.0.1:{PORT}%feed1")
    assert (found["cause"], found["diagnosis"], found["next"]) == (
        "interface",
        "feed1 is down",
        "ip link set feed1 up",
    )
    with planted(hosts.tx, "ip link set feed1 down", "ip link set feed1 up"):
        found = doctor(f"239.77.0.1:{PORT}%feed1")
    assert (found["cause"], found["diagnosis"]) == ("interface", "feed1 is up, but has no carrier")


def test_a_setting_of_an_interface_with_a_dot_in_its_name_is_read(hosts):
    code = "import json; from multicast import _sysctl; print(json.dumps(_sysctl.value('net.ipv4.conf.a/b.rp_filter')))"
    with planted(
        hosts.rx,
        "ip link set feed1 down; ip link set feed1 name a.b",
        "ip link set a.b name feed1; ip link set feed1 up",
    ):
        hosts.rx.run("sh", "-c", "echo 2 > /proc/sys/net/ipv4/conf/a.b/rp_filter")
        assert told(package, code, inside=hosts.rx) == 2
    hosts.rx.wait_until_up("feed1")
