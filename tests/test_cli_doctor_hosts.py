"""`multicast doctor` in hosts where each fault was planted: it names that one first, and none where there is none.

What it judges is the kernel's, whatever the backend: so it runs on one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys

import pytest
from net import python_environment
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
FEEDS = [
    f"239.77.0.1 192.0.2.11 feed0 {PORT}",
    f"232.77.0.1 192.0.2.11 feed0 {PORT}",
    f"239.77.0.9 198.51.100.11 feed0 {PORT}",  # from an address that the receiver's route leads elsewhere
    f"ff3e::7701 2001:db8::11 feed0 {PORT6}",
]


@pytest.fixture(scope="module")
def hosts():
    """Hosts of our own, since faults are planted in them; and one that sends, for two minutes at most."""
    with joined_hosts() as made:
        sending = subprocess.Popen(made.tx.inside(sys.executable, "-c", SENDER, *FEEDS), stdout=subprocess.PIPE)
        with sending:
            try:
                assert sending.stdout.readline() == b"here\n"
                made.rx.run(
                    "sh", "-c", "for each in all feed0; do echo 0 > /proc/sys/net/ipv4/conf/$each/rp_filter; done"
                )
                yield made
            finally:
                sending.kill()


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
    found = doctor(feed, seconds="10")
    assert (found["diagnosis"], found["cause"]) == (None, None)


def test_nobody_sending(doctor):
    found = doctor(f"239.77.0.3:{NO_ONES}%feed0")
    assert (found["cause"], "nobody sends" in found["diagnosis"]) == ("received", True)


@pytest.mark.parametrize("feed", [f"239.77.0.1:{PORT}%feed1", f"[ff3e::7701]:{PORT6}%feed1"])
def test_the_wrong_interface(doctor, feed):
    found = doctor(feed)
    assert (found["cause"], found["diagnosis"]) == ("wire", "they arrive at feed0, not at feed1")
    assert found["next"] == "join at %feed0"


def test_the_wrong_port_and_the_wrong_source(doctor):
    found = doctor(f"239.77.0.1:{NO_ONES}%feed0")
    assert (found["cause"], found["diagnosis"]) == ("wire", f"they come to port {PORT}, not to {NO_ONES}")
    found = doctor(f"192.0.2.99@232.77.0.1:{PORT}%feed0")
    assert (found["cause"], found["diagnosis"]) == ("wire", "they come from 192.0.2.11, not from 192.0.2.99")


def test_an_interface_that_is_not_there(doctor):
    found = doctor(f"239.77.0.1:{PORT}%feed9")
    assert (found["cause"], "there is no interface feed9" in found["diagnosis"]) == ("interface", True)


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


def test_more_groups_than_a_socket_may_join(hosts, doctor):
    path = "/proc/sys/net/ipv4/igmp_max_memberships"
    with planted(hosts.rx, f"echo 3 > {path}", f"echo 20 > {path}"):
        found = doctor(f"239.77.0.1+5:{PORT}%feed0")
    assert (found["cause"], found["next"]) == ("membership", "sysctl -w net.ipv4.igmp_max_memberships=5")


def test_a_buffer_too_small_for_the_burst(doctor):
    found = doctor(f"239.77.0.1:{PORT}%feed0", "--burst", "100M", seconds="10")
    assert (found["cause"], "sysctl -w net.core.rmem_max=" in found["next"]) == ("buffer", True)


@pytest.mark.parametrize("rule", ["ip daddr 239.77.0.1 counter drop", f"udp dport {PORT} drop"])
def test_a_rule_that_drops_it(hosts, doctor, rule):
    assert shutil.which("nft"), "nft is missing (package nftables)"
    chain = "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c"
    with planted(hosts.rx, f"nft '{chain} {rule}'", "nft delete table inet t"):
        found = doctor(f"239.77.0.1:{PORT}%feed0")
    assert (found["cause"], "the rule inet t c handle" in found["diagnosis"]) == ("firewall", True)


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
