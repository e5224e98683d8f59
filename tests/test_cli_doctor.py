"""What `multicast doctor` reads and judges, without a host: facts as text, and findings from facts."""

from __future__ import annotations

import errno
import json
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import feeds
import pytest
from net import repeating

from multicast import __main__ as program
from multicast import open_sender
from multicast._feed import parse_feed
from multicast._proc_net import Group, Source, UdpSocket
from multicast.cli.doctor import chains, counters, facts, judge, listening

LINK = facts.Link("eth0", 2, ("192.0.2.1",), True, True, carrier=True, mtu=1500)
OTHER = facts.Link("eth1", 3, ("198.51.100.1",), True, True, carrier=True, mtu=1500)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the files and calls are Linux's")
FEED = parse_feed("239.1.1.1:5000%eth0")
SILENCE = listening.Heard(wire=Counter(), seconds=3)  # looked at as root


def known(**changed):
    return facts.Facts(
        **{"ipv6": False, "groups": ["239.1.1.1"], "interface": "eth0", "links": [LINK, OTHER], "link": LINK} | changed
    )


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("proc/sys/kernel/osrelease", "5.15.90-microsoft-standard-WSL2", "wsl"),
        ("proc/1/cgroup", "0::/docker/abc", "container"),
        ("run/.containerenv", "", "container"),
        ("proc/1/cgroup", "0::/init.scope", None),
    ],
)
def test_what_it_runs_in_is_told_by_files(tmp_path, file, content, found):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    assert facts.surrounding(str(tmp_path)) == found


def test_a_rule_that_only_could_drop_it_is_wrong_once_it_counted():
    before, after = ([chains.Obstacle("inet t c handle 4", False, packets)] for packets in (1, 3))
    assert judge.firewall(before, before, came=None).verdict == "warning"
    step = judge.firewall(before, after, came=None)
    assert (step.verdict, step.found) == ("wrong", "inet t c handle 4 could drop it, and dropped 2 packets meanwhile")
    assert judge.firewall(None, [], came=None).verdict == "unseen"
    assert judge.firewall([], [], came=None).verdict == "ok"


def test_a_rule_that_is_certain_explains_only_what_came_as_far_as_here():
    certain = [chains.Obstacle("iptables filter: -A INPUT -j DROP", True, 1, "sudo iptables-save -c")]
    assert judge.firewall(certain, certain, came=None).verdict == "wrong"
    counted = [chains.Obstacle("iptables filter: -A INPUT -j DROP", True, 9)]
    assert judge.firewall(certain, counted, came=False).verdict == "warning"  # it dropped other things
    step = judge.firewall(certain, certain, came=False)
    assert (step.verdict, step.next) == ("warning", "sudo iptables-save -c")


def test_a_buffer_smaller_than_the_burst_is_wrong_only_where_the_burst_was_named():
    assert judge.buffer(212_992, 180, 1000, 1400, 64, asked=False).verdict == "warning"
    step = judge.buffer(212_992, 180, 1000, 1400, 64, asked=True)
    assert (step.verdict, step.next) == ("wrong", "sudo sysctl -w net.core.rmem_max=1189900")
    assert judge.buffer(212_992, 180, 100, 1400, 64, asked=True).verdict == "ok"
    assert judge.buffer(212_992, None, 100, 1400, 64, asked=True).verdict == "unseen"


def test_a_buffer_that_does_not_hold_one_batch_is_wrong():
    step = judge.buffer(4096, 4, 1000, 1400, 64, asked=False)
    assert (step.verdict, "fewer than one batch of 64" in step.found) == ("wrong", True)


@pytest.mark.parametrize(
    ("setting", "reverse", "verdict"),
    [
        (1, {"10.0.0.7": 3}, "wrong"),
        (1, {"10.0.0.7": 2}, "ok"),
        (1, {}, "warning"),
        (2, {"10.0.0.7": 3}, "ok"),
        (2, {"10.0.0.7": 0}, "wrong"),
        (0, {"10.0.0.7": 0}, "ok"),
        (1, {"192.0.2.1": 1}, "ok"),  # this host itself sends: that route leads to lo
        (None, {}, "unseen"),
    ],
)
def test_the_reverse_path_is_judged_by_the_route_to_the_source(setting, reverse, verdict):
    assert judge.rp_filter(known(rp_filter=setting), reverse, 0, listening.Heard(), came=None).verdict == verdict
    assert judge.rp_filter(known(rp_filter=setting, ipv6=True), reverse, 0, SILENCE, came=None).verdict == "ok"


def test_the_reverse_path_is_right_if_something_came_by_it():
    heard = listening.Heard(received=1, sources={"10.0.0.7"})  # of several routes, one is told
    assert judge.rp_filter(known(rp_filter=1), {"10.0.0.7": 3}, 0, heard, came=True).verdict == "ok"


def test_a_loose_reverse_path_is_strict_where_the_interface_has_no_address():
    bare = facts.Link("eth0", 2, ("fe80::1",), True, True)
    for setting, verdict in ((0, "ok"), (2, "wrong")):
        facing = known(rp_filter=setting, link=bare)
        assert judge.rp_filter(facing, {"10.0.0.7": 3}, 0, listening.Heard(), came=None).verdict == verdict


def test_what_the_reverse_path_dropped_meanwhile_is_wrong_only_where_it_explains_something():
    strict = known(rp_filter=1)
    assert judge.rp_filter(strict, {}, 5, listening.Heard(), came=None).verdict == "wrong"  # who sends can't be seen
    assert judge.rp_filter(strict, {}, 5, SILENCE, came=False).verdict == "warning"
    assert judge.rp_filter(strict, {"10.0.0.7": 2}, 5, listening.Heard(received=1), came=True).verdict == "warning"


def test_whether_the_feed_came_to_the_interface_is_told_from_the_wire():
    seen = listening.Heard(wire=Counter({("eth0", "239.1.1.1", "10.0.0.7", 5000): 1}))
    assert all((seen.came("eth0", 5000, None), seen.came("eth0", 5000, "10.0.0.7")))
    assert not any((seen.came("eth1", 5000, None), seen.came("eth0", 1, None), seen.came("eth0", 5000, "10.0.0.8")))
    assert listening.Heard().came("eth0", 5000, None) is None
    step = judge.received(FEED, seen, 1, joined=True, came=True)
    assert (step.verdict, step.next) == ("wrong", "ip -details link")


def test_what_it_says_to_type_can_be_typed_whatever_an_interface_is_called():
    name = "a'b;$(c)"
    link = facts.Link(name, 2, (), False, True)
    assert shlex.split(judge.interface(known(link=link)).next)[4] == name
    step = judge.received(parse_feed(f"239.1.1.1:5000%{name}"), SILENCE, 1, joined=True, came=False)
    assert shlex.split(step.next)[2] == f"239.1.1.1:5000%{name}"


@linux
def test_a_setting_of_an_interface_with_a_dot_is_named_as_sysctl_takes_it(monkeypatch):
    forced = "net.ipv4.conf.eth0/100.force_igmp_version"
    monkeypatch.setattr(facts._sysctl, "value", lambda name: 2 if name == forced else 0)
    found = facts.Facts()
    facts._add_settings(found, facts.Link("eth0.100", 2, (), True, True))
    assert found.forced == (forced, 2)


def test_without_root_it_says_what_it_could_not_see():
    step = judge.wire(known(), FEED, listening.Heard(seconds=1), joined=True)
    assert (step.verdict, step.next) == ("unseen", f"sudo multicast doctor '{FEED}'")
    assert "to see a querier needs root" in judge.version(known(version="IGMPv3"), listening.Heard(seconds=1)).found


def test_after_a_refused_join_nothing_is_said_of_what_could_not_come():
    nothing = listening.Heard()
    for step in (
        judge.wire(known(), FEED, nothing, joined=False),
        judge.received(FEED, nothing, 1, joined=False, came=None),
    ):
        assert (step.verdict, "nothing was joined" in step.found) == ("unseen", True)
    assert judge.version(known(version="IGMPv3"), nothing).found == "IGMPv3"


def test_the_cause_comes_before_what_follows_from_it():
    down = facts.Link("eth0", 2, (), False, True)
    heard = listening.Heard(wire=Counter({("eth1", "239.1.1.1", "10.0.0.7", 5000): 2}))
    steps = [
        judge.received(FEED, heard, 1, joined=True, came=False),
        judge.wire(known(link=down), FEED, heard, joined=True),
    ]
    assert judge.diagnose(steps).cause.found == "they arrive at eth1, not at eth0"
    assert judge.diagnose([*steps, judge.interface(known(link=down))]).cause.found == "eth0 is down"
    assert judge.diagnose([judge.interface(known())]).cause is None


def test_each_finding_that_can_be_a_cause_has_its_place():
    assert all(callable(getattr(judge, each)) for each in judge.CAUSES)


def test_the_routes_to_all_groups_of_a_range_are_looked_at():
    step = judge.route(known(routes={"239.1.1.1": 2, "239.1.1.2": 3}))
    assert (step.verdict, step.found.partition(":")[0]) == ("warning", "to 239.1.1.2 it leads to eth1, not to eth0")
    step = judge.route(known(routes={"239.1.1.1": 2, "239.1.1.2": 0}, interface=None))
    assert (step.verdict, step.next) == ("wrong", "sudo ip route add 239.1.1.2 dev eth0")
    assert judge.route(known(routes={"239.1.1.1": 0})).verdict == "ok"


def test_who_has_the_port_without_sharing_it_is_named():
    holder = facts.Holder(UdpSocket("0.0.0.0", 5000, 7, 1, 0), [(12, "feeder")])
    step = judge.port(5000, [holder], OSError(errno.EADDRINUSE, "in use"))
    assert (step.verdict, "in use by feeder (12), which does not share it" in step.found) == ("wrong", True)
    assert step.next == "sudo ss --udp --all --processes 'sport = 5000'"
    hidden = facts.Holder(holder.socket, [])
    assert "a process of user 7" in judge.port(5000, [hidden], OSError(errno.EADDRINUSE, "in use")).found
    assert judge.port(5000, [holder], None).found == "5000, shared with feeder (12)"
    assert judge.port(5000, None, None).verdict == "ok"


HELD = facts.Held([Group(2, "239.1.1.1", 3)], [Source(2, "239.1.1.1", "10.0.0.7", 1, 0)])


def test_what_the_kernel_shows_of_the_join():
    limits = {"igmp_max_memberships": 20}
    step = judge.membership(known(limits=limits), None, HELD)
    assert (step.verdict, step.found) == (
        "ok",
        "joined 1 group of the 20 that a socket may, 2 more of this host's sockets with it; eth0 is in 1",
    )
    step = judge.membership(known(limits=limits, link=OTHER), None, HELD)
    assert (step.verdict, "no membership of 239.1.1.1 on eth1" in step.found) == ("wrong", True)
    assert judge.membership(known(source="10.0.0.7"), None, HELD).verdict == "ok"
    step = judge.membership(known(source="10.0.0.8"), None, HELD)
    assert (step.verdict, step.next) == ("wrong", "cat /proc/net/mcfilter")
    assert judge.membership(known(), None, facts.Held()).verdict == "ok"  # not Linux


def test_limits_that_refuse_a_join():
    step = judge.membership(known(source="10.0.0.7", limits={"igmp_max_msf": 0}), OSError(105, "no"), facts.Held())
    assert (step.verdict, step.next) == ("wrong", "sudo sysctl -w net.ipv4.igmp_max_msf=10")
    step = judge.membership(known(), OSError(errno.ENODEV, "join: no such device"), facts.Held())
    assert (step.found, step.next) == ("the join failed: join: no such device", "ip maddress show dev eth0")
    assert judge.membership(known(), OSError(errno.EADDRINUSE, ""), facts.Held()).verdict == "unseen"


def test_a_querier_is_named_and_missed():
    asking = {("eth0", "192.0.2.254", "IGMPv2"), ("eth1", "198.51.100.254", "IGMPv3"), ("eth0", "fe80::1", "MLDv2")}
    heard = listening.Heard(wire=Counter(), queriers=asking, seconds=3)
    assert judge.version(known(version="IGMPv3"), heard).found == "IGMPv3; 192.0.2.254 asks (IGMPv2)"
    step = judge.version(known(version="IGMPv2", source="10.0.0.7"), heard)
    assert (step.verdict, step.next) == ("wrong", "cat /proc/net/igmp")
    assert "since 192.0.2.254 asks (IGMPv2)" in step.found
    forced = known(version="IGMPv2", source="10.0.0.7", forced=("net.ipv4.conf.all.force_igmp_version", 2))
    assert judge.version(forced, heard).next == "sudo sysctl -w net.ipv4.conf.all.force_igmp_version=0"
    waited = listening.Heard(wire=Counter(), seconds=judge.QUERY_INTERVAL)
    step = judge.version(known(version="IGMPv3"), waited)
    assert (step.verdict, "no querier asked" in step.found) == ("warning", True)
    assert judge.version(known(version="IGMPv3"), SILENCE).verdict == "ok"


def test_a_receiver_that_lost_some_and_groups_that_are_silent():
    heard = listening.Heard(received=5, sources={f"10.0.0.{last}" for last in range(5)}, drops=2, seconds=1)
    step = judge.received(FEED, heard, 4096, joined=True, came=True)
    assert (step.verdict, step.next) == ("wrong", "sudo sysctl -w net.core.rmem_max=16384")
    assert "from 10.0.0.0, 10.0.0.1, 10.0.0.2 and 2 more" in step.found
    several = parse_feed("239.1.1.1+3:5000%eth0")
    heard = listening.Heard(received=5, groups=Counter({"239.1.1.1": 4, "239.1.1.3": 1}), drops=0)
    step = judge.received(several, heard, 4096, joined=True, came=True)
    assert (step.verdict, step.next) == ("warning", "multicast doctor '239.1.1.2:5000%eth0'")


@linux
def test_every_counter_that_is_meant_is_one_that_the_kernel_has():
    found = counters.read("lo")
    expected = {*counters.GOOD, counters.REVERSE_PATH, "backlog dropped", "lo dropped", "Udp6MemErrors"}
    assert found.keys() >= expected
    assert counters.read("absent0").keys() < found.keys()


def test_of_a_cards_counters_those_of_what_it_lost_are_shown(monkeypatch):
    kept = ("rx_out_of_buffer", "rx_queue_0_drops", "port.rx_discards", "rx_missed_errors")
    every = dict.fromkeys((*kept, "tx_dropped", "rx_packets", "rx_queue_0_xdp_tx_err"), 1)
    monkeypatch.setattr(counters._ethtool, "statistics", lambda name: every)
    assert counters.read("eth9").keys() >= {f"eth9 {each}" for each in kept}
    assert not counters.read("eth9").keys() & {"eth9 tx_dropped", "eth9 rx_packets", "eth9 rx_queue_0_xdp_tx_err"}


@pytest.fixture
def elsewhere(monkeypatch):
    """A system that is not Linux, as far as what this command looks at; what it asks of Linux is not there."""

    def refused(*_):
        raise AssertionError("asked on a system that has no such thing")

    monkeypatch.setattr(facts, "LINUX", False)
    for module, names in ((facts._proc_net, ("read", "owners")), (facts._interfaces, ("link_details", "route_index"))):
        for name in names:
            monkeypatch.setattr(module, name, refused)
    monkeypatch.delattr(listening.socket, "AF_PACKET", raising=False)


def test_on_other_systems_the_steps_that_any_has_are_there(elsewhere, feed, capsys):
    group, port = feed
    assert program.main(["doctor", f"{group}:{port}%lo", "--seconds", "0.1", "--json"]) == 1
    found = {each["step"]: each for each in map(json.loads, capsys.readouterr().out.splitlines()[:-1])}
    assert list(found)[:7] == ["backend", "interface", "port", "membership", "host", "received", "buffer"]
    assert (found["interface"]["verdict"], found["membership"]["verdict"]) == ("ok", "ok")
    assert (found["received"]["verdict"], found["host"]["verdict"]) == ("wrong", "unseen")


def test_elsewhere_what_is_received_is_told(elsewhere, feed, capsys):
    group, port = feed
    with open_sender(*feed, interface="lo", ttl=0) as tx, repeating(lambda: tx.send(b"feed")):
        assert program.main(["doctor", f"{group}:{port}%lo", "-c", "1", "--seconds", "20"]) == 0
    assert "diagnosis: nothing is wrong" in capsys.readouterr().out


def test_counters_hint():
    assert judge.counters({}, {}).verdict == "unseen"
    assert judge.counters({"Udp.InErrors": 1}, {"Udp.InErrors": 1}).found == "none rose"
    assert judge.counters({"IpExt.InMcastPkts": 1}, {"IpExt.InMcastPkts": 9}).verdict == "ok"
    step = judge.counters({"eth0 dropped": 1, "Udp.IgnoredMulti": 0}, {"eth0 dropped": 2, "Udp.IgnoredMulti": 3})
    assert (step.verdict, step.found) == ("warning", "eth0 dropped +1, Udp.IgnoredMulti +3")


@pytest.mark.parametrize(
    ("surrounding", "kind", "verdict"),
    [(None, "", "ok"), ("container", "veth", "warning"), ("container", "", "ok"), ("wsl", "", "warning")],
)
def test_a_container_behind_a_bridge_is_told_from_one_on_the_hosts_network(surrounding, kind, verdict):
    card = facts.Link("eth0", 2, (), True, True, kind=kind)
    loopback = facts.Link("lo", 1, (), True, True, loopback=True)
    place, *_ = judge.around(facts.Facts(surrounding=surrounding, links=[loopback, card]))
    assert (place.step, place.verdict) == ("place", verdict)


def test_a_container_without_a_card_is_not_said_to_have_a_veth_pair():
    loopback = facts.Link("lo", 1, (), True, True, loopback=True)
    place, *_ = judge.around(facts.Facts(surrounding="container", links=[loopback]))
    assert (place.verdict, "loopback interface alone" in place.found, "veth" in place.found) == ("warning", True, False)


def test_a_slow_clock_is_told():
    _, clock, stamps = judge.around(facts.Facts(clocksource="hpet", stamps="the card stamps nothing"))
    assert (clock.verdict, stamps.verdict) == ("warning", "ok")
    assert judge.around(facts.Facts())[1].verdict == "unseen"


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (bytes.fromhex("450000200000400001110000c0000207ef010101") + bytes(2) + b"\x13\x88" + bytes(4), 5000),
        (bytes.fromhex("450000200000000101110000c0000207ef010101") + bytes(8), None),  # a later fragment
        (bytes.fromhex("45000020"), None),
        (b"", None),
    ],
)
def test_a_frame_is_read_or_left_alone(frame, found):
    if found is not None:
        frame = frame[:8] + b"\x01\x11" + frame[10:]
    read = listening.datagram(frame)
    assert read == (None if found is None else ("239.1.1.1", "192.0.2.7", found))


IGMP = bytes.fromhex("46c00024000000000102000 0c00002fee0000001 94040000".replace(" ", ""))
MLD = bytes.fromhex("6000000000240001" + "fe80" + "00" * 13 + "01" + "ff02" + "00" * 13 + "01" + "3a00050200000000")


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (IGMP + bytes.fromhex("1164ee9b00000000027d0000"), ("192.0.2.254", "IGMPv3")),
        (IGMP[:3] + b"\x20" + IGMP[4:] + bytes.fromhex("1164ee9b00000000") + bytes(14), ("192.0.2.254", "IGMPv2")),
        (IGMP[:3] + b"\x20" + IGMP[4:] + bytes.fromhex("1100eeff00000000"), ("192.0.2.254", "IGMPv1")),
        (IGMP + bytes.fromhex("2200f9fd00000001") + bytes(8), None),  # a report
        (MLD + bytes([130, 0, 0, 0]) + bytes(24), ("fe80::1", "MLDv2")),
        (MLD[:5] + b"\x20" + MLD[6:] + bytes([130, 0, 0, 0]) + bytes(20), ("fe80::1", "MLDv1")),
        (MLD + bytes([143, 0, 0, 0]) + bytes(24), None),
        (b"", None),
    ],
)
def test_who_asks_for_memberships_is_read(packet, found):
    assert listening.query(packet) == found


@pytest.mark.skipif(sys.platform == "win32", reason="there is no root")
@pytest.mark.parametrize(("user", "begins"), [(0, "sysctl"), (1000, "sudo sysctl")])
def test_who_is_root_is_told_of_no_sudo(monkeypatch, capsys, user, begins):
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert program.main(["doctor", "--burst", "1G", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["next"].startswith(f"{begins} -w net.core.rmem_max=")


def test_without_a_feed_it_looks_at_the_host(capsys):
    assert program.main(["doctor", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(each) == {"step", "verdict", "found", "next"} for each in lines[:-1])
    assert lines[-1]["diagnosis"] is None


PAGE = Path(__file__).parent.parent / "docs" / "commands" / "doctor.md"


@pytest.mark.parametrize("line", re.findall(r"^multicast (doctor.*)$", PAGE.read_text("utf-8"), re.MULTILINE))
def test_what_the_page_shows_can_be_typed(line, capsys):
    with feeds.of_the_pages():
        assert program.main(shlex.split(line, comments=True)) in (0, 1)
    assert "diagnosis: " in capsys.readouterr().out
