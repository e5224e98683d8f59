"""What `multicast doctor` reads and judges, without a host: facts as text, and findings from facts."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from multicast import __main__ as program
from multicast.cli.doctor import facts, firewall, judge, listening

LINK = facts.Link("eth0", 2, ("192.0.2.1",), True, True, carrier=True, mtu=1500)
OTHER = facts.Link("eth1", 3, ("198.51.100.1",), True, True, carrier=True, mtu=1500)


def known(**changed):
    return facts.Facts(
        **{"ipv6": False, "groups": ["239.1.1.1"], "interface": "eth0", "links": [LINK, OTHER], "link": LINK} | changed
    )


def test_what_proc_tells_is_read():
    assert facts.paired("Udp: InErrors RcvbufErrors\nUdp: 3 2\nIpExt: A\nIpExt: 7\n") == {
        "Udp.InErrors": 3,
        "Udp.RcvbufErrors": 2,
        "IpExt.A": 7,
    }
    assert facts.listed("Udp6InErrors      \t4\n") == {"Udp6InErrors": 4}
    head = "Inter-|   Receive\n face |bytes    packets errs drop fifo\n"
    assert facts.dropped(head + "  eth0: 10 2 0 5 0 0 0 0\n") == {"eth0": 5}


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
    assert facts.where(str(tmp_path)) == found


def rule(*parts, handle=4):
    chain = {"family": "inet", "table": "t", "name": "c", "hook": "input"}
    one = {"family": "inet", "table": "t", "chain": "c", "handle": handle, "expr": [*parts]}
    return {"nftables": [{"chain": chain}, {"rule": one}]}


def match(protocol, field, right, op="=="):
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


DROP = {"drop": None}


@pytest.mark.parametrize(
    ("parts", "certain"),
    [
        ([DROP], True),
        ([{"accept": None}], None),
        ([match("udp", "dport", 5000), DROP], True),
        ([match("udp", "dport", 5001), DROP], None),
        ([match("udp", "dport", 5000, "!="), DROP], None),
        ([match("udp", "dport", {"range": [4000, 6000]}), DROP], True),
        ([match("udp", "dport", {"set": [1, 5000]}), DROP], True),
        ([match("tcp", "dport", 5000), DROP], None),
        ([match("ip", "daddr", {"prefix": {"addr": "239.0.0.0", "len": 8}}), DROP], True),
        ([match("ip6", "daddr", "ff02::1"), DROP], None),
        ([match("ip", "saddr", "192.0.2.9"), DROP], False),  # who sends is not known
        ([match("ip", "daddr", "@groups"), DROP], False),  # a named set
        ([{"limit": {"rate": 1}}, DROP], False),
    ],
)
def test_a_rule_is_named_for_what_it_says_and_no_more(parts, certain):
    found = firewall.could_drop(rule(*parts), "239.1.1.1", 5000, "eth0", None)
    assert [each.certain for each in found] == ([] if certain is None else [certain])


@pytest.mark.parametrize(
    ("before", "certain"),
    [
        ([match("udp", "dport", 5000), {"accept": None}], False),
        ([{"jump": {"target": "feeds"}}], False),
        ([match("tcp", "dport", 22), {"accept": None}], True),
        ([{"counter": {"packets": 1, "bytes": 1}}], True),
    ],
)
def test_a_rule_behind_one_that_may_let_it_through_only_could_drop_it(before, certain):
    rules = rule(DROP)
    rules["nftables"][1:1] = rule(*before, handle=3)["nftables"][1:]
    found = firewall.could_drop(rules, "239.1.1.1", 5000, "eth0", None)
    assert [(each.handle, each.certain) for each in found] == [(4, certain)]


def test_a_rule_that_only_could_drop_it_is_wrong_once_it_counted():
    heard = listening.Heard(wire=None)
    before, after = (firewall.Rule("inet t c handle 4", 4, False, packets) for packets in (1, 3))
    assert judge.firewall([before], [before], heard).verdict == "warning"
    assert judge.firewall([before], [after], heard).verdict == "wrong"
    assert judge.firewall(None, [], heard).verdict == "unseen"
    assert judge.firewall([before], [after], listening.Heard(received=1)).verdict == "ok"


def test_a_buffer_smaller_than_the_burst_is_wrong_only_where_the_burst_was_named():
    assert judge.buffer(212_992, 180, 1000, 1400, asked=False).verdict == "warning"
    step = judge.buffer(212_992, 180, 1000, 1400, asked=True)
    assert (step.verdict, step.next) == ("wrong", "sysctl -w net.core.rmem_max=1183289")
    assert judge.buffer(212_992, 180, 100, 1400, asked=True).verdict == "ok"
    assert judge.buffer(212_992, None, 100, 1400, asked=True).verdict == "unseen"


def test_the_reverse_path_is_judged_by_the_route_to_the_source():
    strict, loose = known(rp_filter=1), known(rp_filter=2)
    assert judge.rp_filter(strict, {"10.0.0.7": 3}, 0).verdict == "wrong"
    assert judge.rp_filter(strict, {"10.0.0.7": 2}, 0).verdict == "ok"
    assert judge.rp_filter(strict, {}, 0).verdict == "warning"
    assert judge.rp_filter(loose, {"10.0.0.7": 3}, 0).verdict == "ok"
    assert judge.rp_filter(loose, {"10.0.0.7": 0}, 0).verdict == "wrong"
    assert judge.rp_filter(known(), {}, 0).verdict == "unseen"


def test_without_root_it_says_what_it_could_not_see():
    assert judge.wire(known(), 5000, listening.Heard()).verdict == "unseen"


def test_the_cause_comes_before_what_follows_from_it():
    down = facts.Link("eth0", 2, (), False, True)
    heard = listening.Heard(wire=Counter({("eth1", "239.1.1.1", "10.0.0.7", 5000): 2}))
    steps = [judge.received(heard, joined=True), judge.wire(known(link=down), 5000, heard)]
    assert judge.diagnose(steps).cause.found == "they arrive at eth1, not at eth0"
    assert judge.diagnose([*steps, judge.interface(known(link=down))]).cause.found == "eth0 is down"
    assert judge.diagnose([judge.interface(known())]).cause is None


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


def test_without_a_feed_it_looks_at_the_host(capsys):
    assert program.main(["doctor", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(each) == {"step", "verdict", "found", "next"} for each in lines[:-1])
    assert lines[-1]["diagnosis"] is None


PAGE = Path(__file__).parent.parent / "docs" / "commands" / "doctor.md"


@pytest.mark.parametrize("line", re.findall(r"^multicast (doctor.*)$", PAGE.read_text("utf-8"), re.MULTILINE))
def test_what_the_page_shows_can_be_typed(line, capsys):
    assert program.main(shlex.split(line, comments=True)) in (0, 1)
    assert "diagnosis: " in capsys.readouterr().out
