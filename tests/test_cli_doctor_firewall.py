"""What of a firewall's rules `multicast doctor` understands, from what nft and iptables-save print."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast.cli.doctor import firewall, iptables, nftables
from multicast.cli.doctor.chains import Chain, Obstacle, Packet, Rule, certain_first, obstacles
from multicast.cli.doctor.firewall import Rulesets

PACKET = Packet("239.1.1.1", 5000, "eth0")


def rule(holds, does, target=None, text="r"):
    return Rule(text, holds, does, target)


DROPS = rule(True, "drop", text="drops")


# The way through chains


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([DROPS], [("drops", True)]),
        ([rule(False, "drop")], []),
        ([rule(None, "drop")], [("r", False)]),
        ([rule(None, "drop"), DROPS], [("r", False), ("drops", True)]),  # it is dropped by one or the other
        ([rule(True, "accept"), DROPS], []),
        ([rule(None, "accept"), DROPS], [("drops", False)]),
        ([rule(True, "pass"), DROPS], [("drops", True)]),
        ([rule(True, "return"), DROPS], []),
        ([rule(None, "return"), DROPS], [("drops", False)]),
        ([rule(True, "unknown"), DROPS], [("drops", False)]),
        ([DROPS, DROPS], [("drops", True)]),
        ([rule(True, "jump", "accepting"), DROPS], []),
        ([rule(None, "jump", "accepting"), DROPS], [("drops", False)]),
        ([rule(True, "jump", "dropping"), rule(True, "drop")], [("in it", True)]),
        ([rule(None, "jump", "dropping"), DROPS], [("in it", False), ("drops", False)]),
        ([rule(True, "jump", "returning"), DROPS], [("drops", True)]),
        ([rule(True, "jump", "absent"), DROPS], [("drops", False)]),
        ([rule(True, "goto", "returning"), DROPS], []),
        ([rule(None, "goto", "returning"), DROPS], [("drops", False)]),
        ([rule(True, "jump", "itself"), DROPS], [("drops", True)]),  # which no firewall would take
    ],
)
def test_the_way_through_chains(rules, found):
    chains = {
        "input": Chain("input", hooked=True, rules=rules),
        "accepting": Chain("accepting", rules=[rule(True, "accept")]),
        "dropping": Chain("dropping", rules=[rule(True, "drop", text="in it")]),
        "returning": Chain("returning", rules=[rule(True, "return"), rule(True, "drop", text="never met")]),
        "itself": Chain("itself", rules=[rule(True, "jump", "itself")]),
    }
    assert [(each.text, each.certain) for each in obstacles(chains)] == found


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([], [("the policy of input", True)]),
        ([rule(True, "accept")], []),
        ([rule(None, "accept")], [("the policy of input", False)]),
        ([rule(True, "return"), rule(True, "accept")], [("the policy of input", True)]),
        ([rule(None, "return"), rule(True, "accept")], [("the policy of input", False)]),
        ([DROPS], [("drops", True)]),
    ],
)
def test_what_comes_to_the_end_of_a_chain_meets_its_policy(rules, found):
    chains = {"input": Chain("input", hooked=True, drops=True, rules=rules)}
    assert [(each.text, each.certain) for each in obstacles(chains)] == found


def test_a_chain_of_which_it_is_not_told_where_it_is_hooked_could_drop_it():
    assert obstacles({"c": Chain("c", hooked=None, drops=True, rules=[DROPS])}) == [Obstacle("drops", False)]
    assert obstacles({"c": Chain("c", hooked=False, drops=True, rules=[DROPS])}) == []


def test_what_is_certain_comes_first_and_each_once():
    one, other = Obstacle("a", False), Obstacle("b", True)
    assert certain_first([one, one, other]) == [other, one]


# nftables


def listed(*parts, handle=4, family="inet", **chain):
    described = {"family": family, "table": "t", "name": "c", "type": "filter", "hook": "input"} | chain
    one = {"family": family, "table": "t", "chain": "c", "handle": handle, "expr": [*parts]}
    return {"nftables": [{"table": {"family": family, "name": "t"}}, {"chain": described}, {"rule": one}]}


def match(protocol, field, right, op="=="):
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def of(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


DROP = {"drop": None}
PORT_MAP = {"payload": {"protocol": "udp", "field": "dport"}}


@pytest.mark.parametrize(
    ("parts", "certain"),
    [
        ([DROP], True),
        ([{"reject": None}], True),
        ([{"accept": None}], None),
        ([match("udp", "dport", 5000), DROP], True),
        ([match("udp", "dport", 5001), DROP], None),
        ([match("udp", "dport", 5000, "!="), DROP], None),
        ([match("udp", "dport", 4000, ">"), DROP], True),
        ([match("udp", "dport", 5000, "<"), DROP], None),
        ([match("udp", "dport", {"range": [4000, 6000]}), DROP], True),
        ([match("udp", "dport", {"set": [1, 5000]}), DROP], True),
        ([match("udp", "dport", {"set": [{"elem": {"val": 5000, "comment": "feed"}}]}), DROP], True),
        ([match("udp", "sport", 9), DROP], False),
        ([match("tcp", "dport", 5000), DROP], None),
        ([match("tcp", "dport", 5000, "!="), DROP], None),  # nft adds that it has to be TCP
        ([match("ip", "daddr", {"prefix": {"addr": "239.0.0.0", "len": 8}}), DROP], True),
        ([match("ip", "daddr", {"range": ["239.1.0.0", "239.1.255.255"]}), DROP], True),
        ([match("ip", "daddr", {"range": ["239.2.0.0", "239.2.255.255"]}), DROP], None),
        ([match("ip", "daddr", {"prefix": {"addr": "no address", "len": 8}}), DROP], False),
        ([match("ip6", "daddr", "ff02::1"), DROP], None),
        ([match("ip", "saddr", "192.0.2.9"), DROP], False),  # who sends is not known
        ([match("ip", "ttl", 2, "<"), DROP], False),
        ([match("ether", "type", 3), DROP], False),
        ([match("ip", "daddr", "@groups"), DROP], False),  # of another table
        ([match("ip", "protocol", "udp"), DROP], True),
        ([of({"meta": {"key": "l4proto"}}, 17), DROP], True),
        ([of({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}), DROP], True),
        ([of({"meta": {"key": "nfproto"}}, "ipv6"), DROP], None),
        ([of({"meta": {"key": "iifname"}}, "eth*"), DROP], True),
        ([of({"meta": {"key": "iif"}}, "lo"), DROP], None),
        ([of({"meta": {"key": "mark"}}, 3), DROP], False),
        ([of({"meta": {"key": "pkttype"}}, "multicast"), DROP], True),
        ([of({"fib": {"result": "type", "flags": ["daddr"]}}, "multicast"), DROP], True),
        ([of({"ct": {"key": "state"}}, ["established", "related"], "in"), DROP], None),
        ([of({"ct": {"key": "state"}}, "new", "in"), DROP], True),
        ([of({"ct": {"key": "status"}}, "dnat", "in"), DROP], None),
        ([of({"fib": {"result": "type", "flags": "daddr"}}, "multicast"), DROP], True),  # as nft 1.1.4 prints it
        ([of({"ct": {"key": "state"}}, ["established", "untracked"], "in"), DROP], False),
        ([{"queue": {"num": 1}}], None),
        ([{"match": {"op": "=="}}, DROP], None),  # not as it is written anywhere: nothing is said of it
        ([of({"concat": []}, {"set": []}), DROP], False),
        ([{"limit": {"rate": 1}}, DROP], False),
        ([{"counter": {"packets": 1, "bytes": 1}}, {"log": None}, DROP], True),
        ([{"xt": {"type": "match", "name": "u32"}}, DROP], False),
        ([{"xt": None}, DROP], False),
        ([{"xt": {"type": "target", "name": "REJECT"}}], True),
        ([{"xt": {"type": "target", "name": "LOG"}}], None),
        ([{"vmap": {"key": PORT_MAP, "data": {"set": [[1, DROP], [5000, DROP]]}}}], True),
        ([{"vmap": {"key": PORT_MAP, "data": {"set": [[1, DROP]]}}}], None),
        ([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", DROP]]}}}], None),
    ],
)
def test_a_rule_of_nftables_says_what_it_says_and_no_more(parts, certain):
    found = obstacles(nftables.chains(listed(*parts), PACKET))
    assert [each.certain for each in found] == ([] if certain is None else [certain])


@pytest.mark.parametrize("first", [{"queue": {"num": 1}}, {"fwd": {"dev": "eth1"}}, {"match": {}}, {"of a later": 1}])
def test_behind_a_statement_that_is_not_known_nothing_is_certain(first):
    rules = listed(first)
    rules["nftables"].append(listed(DROP, handle=5)["nftables"][2])
    assert [each.certain for each in obstacles(nftables.chains(rules, PACKET))] == [False]


WORDS = (
    "match op left right payload protocol field udp dport vmap data set key elem val prefix addr len range meta iif ct "
    "xt name target type handle family table chain inet t c expr drop jump counter packets fib flags daddr @s "
    "239.1.1.1 eth*"
)
words = st.sampled_from([*WORDS.split(), 5000, None, True, 0.5])
anything = st.recursive(
    words, lambda of: st.lists(of, max_size=3) | st.dictionaries(words, of, max_size=3), max_leaves=9
)


@given(anything, anything)
def test_whatever_nft_prints_is_read_or_left_alone(one, other):
    rules = listed(one, match("udp", "dport", other), {"vmap": {"key": PORT_MAP, "data": other}}, DROP)
    named = {"set": {"family": "inet", "table": "t", "name": "s", "elem": one}}
    rules["nftables"] += [one, named, *listed(other)["nftables"][2:], {"chain": other}, {"rule": other}]
    obstacles(nftables.chains(rules, PACKET))


OPTIONS = "-A INPUT -j -g DROP -d 239.0.0.0/8 ! -p udp --dport 1 1:2: --ctstate ' \" \\ -i + -s x"
option = st.sampled_from(OPTIONS.split())


@given(st.lists(option, max_size=8).map(" ".join), st.text(max_size=20))
def test_whatever_iptables_prints_is_read_or_left_alone(options, line):
    obstacles(iptables.chains(f"{saved(f'-A INPUT {options}')}\n{line}", Packet("239.1.1.1", 5000, "eth0", "10.0.0.7")))


@pytest.mark.parametrize(
    "printed", [b"", b"[]", b"{", b'{"nftables": 1}', b"[" * 100_000, b'{"nftables": "\xff"}', None]
)
def test_a_program_that_prints_rubbish_or_nothing_in_time_is_one_that_does_not_tell(monkeypatch, printed):
    def run(command, **_):
        if printed is None or command[0] != "nft":
            raise subprocess.TimeoutExpired(command, 10)
        return subprocess.CompletedProcess(command, 0, printed)

    monkeypatch.setattr(firewall.shutil, "which", str)
    monkeypatch.setattr(firewall.subprocess, "run", run)
    assert not firewall.Rulesets.read(ipv6=False).readable


def test_what_could_not_be_told_of_a_verdict_map_leaves_what_follows_uncertain():
    unclear = {"vmap": {"key": {"meta": {"key": "mark"}}, "data": {"set": [[1, {"accept": None}]]}}}
    rules = listed(unclear)
    rules["nftables"].append(listed(DROP, handle=5)["nftables"][2])
    assert [each.certain for each in obstacles(nftables.chains(rules, PACKET))] == [False]


def test_named_sets_and_maps_are_those_of_the_table():
    table = {"family": "inet", "table": "t"}
    named = {"set": table | {"name": "groups", "elem": [{"prefix": {"addr": "239.1.0.0", "len": 16}}]}}
    verdicts = {"map": table | {"name": "v", "map": "verdict", "elem": [[5000, DROP]]}}
    rules = listed(match("ip", "daddr", "@groups"), {"vmap": {"key": PORT_MAP, "data": "@v"}})
    rules["nftables"][1:1] = [named, verdicts]
    assert [each.certain for each in obstacles(nftables.chains(rules, PACKET))] == [True]
    assert obstacles(nftables.chains(rules, Packet("239.2.1.1", 5000, "eth0"))) == []


def test_a_chain_counts_by_where_it_is_hooked():
    def told(packet=PACKET, **chain):
        return [each.certain for each in obstacles(nftables.chains(listed(DROP, **chain), packet))]

    assert told(hook="output") == told(type="nat") == told(family="bridge") == told(family="ip6") == []
    assert told(family="ip6", packet=Packet("ff3e::1", 5000, "eth0")) == [True]
    assert told(hook="prerouting") == told(family="netdev", hook="ingress", dev="eth0") == [True]
    assert told(family="netdev", hook="ingress", dev=["eth1", "eth0"]) == [True]
    assert told(family="netdev", hook="ingress", dev="eth1") == []
    assert told(family="netdev", hook="ingress", dev="eth1", packet=Packet("239.1.1.1", 5000, "e")) == []
    assert told(family="netdev", hook="ingress") == [False]  # nft 1.0.6 does not print it


def test_a_table_that_is_switched_off_drops_nothing():
    rules = listed(DROP, policy="drop")
    rules["nftables"][0]["table"]["flags"] = ["dormant"]
    assert obstacles(nftables.chains(rules, PACKET)) == []
    rules["nftables"][0]["table"]["flags"] = "t"  # some flag: nft 1.0.6 prints the table's name
    assert [each.certain for each in obstacles(nftables.chains(rules, PACKET))] == [False]
    rules["nftables"][0]["table"]["flags"] = ["owner"]
    assert [each.certain for each in obstacles(nftables.chains(rules, PACKET))] == [True]


def test_a_policy_of_nftables_is_named():
    (found,) = obstacles(nftables.chains(listed({"continue": None}, policy="drop"), PACKET))
    assert (found.text, found.certain) == ("the policy of inet t c", True)


# iptables


def saved(*rules, policy="ACCEPT", table="filter", chain="INPUT"):
    return "\n".join(
        [f"*{table}", f":{chain} {policy} [7:400]", ":feeds - [0:0]", *(f"[3:90] {each}" for each in rules), "COMMIT"]
    )


@pytest.mark.parametrize(
    ("options", "certain"),
    [
        ("-j DROP", True),
        ("-j REJECT --reject-with icmp-port-unreachable", True),
        ("-j ACCEPT", None),
        ("-p udp -m udp --dport 5000 -j DROP", True),
        ("-p udp -m udp --dport 5001 -j DROP", None),
        ("-p udp -m udp ! --dport 5000 -j DROP", None),
        ("-p udp -m udp --dport 4000: -j DROP", True),
        ("-p udp -m multiport --dports 1,4000:6000 -j DROP", True),
        ("-p udp -m udp --sport 9 -j DROP", False),
        ("-p tcp -m tcp --dport 5000 -j DROP", None),
        ("! -p tcp -j DROP", True),
        ("-d 239.0.0.0/8 -j DROP", True),
        ("! -d 239.0.0.0/8 -j DROP", None),
        ("-d 224.0.0.251/32 -j DROP", None),
        ("-s 192.0.2.9/32 -j DROP", False),
        ("-i eth0 -j DROP", True),
        ("-i eth+ -j DROP", True),
        ("! -i lo -j DROP", True),
        ("-i lo -j DROP", None),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j DROP", None),
        ("-m state --state NEW -j DROP", True),
        ("-m addrtype --dst-type MULTICAST -m pkttype --pkt-type multicast -j DROP", True),
        ("-m addrtype --dst-type LOCAL -j DROP", None),
        ("-m addrtype --dst-type BROADCAST,MULTICAST -j DROP", True),
        ("-m conntrack --ctstate UNTRACKED -j DROP", False),
        ('-m comment --comment "no -j ACCEPT here" -j DROP', True),
        ("-m limit --limit 3/min -j DROP", False),
        ('-j LOG --log-prefix "a b"', None),
        ("-j NFQUEUE --queue-num 1", None),
    ],
)
def test_a_rule_of_iptables_says_what_it_says_and_no_more(options, certain):
    found = obstacles(iptables.chains(saved(f"-A INPUT {options}"), PACKET))
    assert [each.certain for each in found] == ([] if certain is None else [certain])
    assert all((each.text, each.packets) == (f"iptables filter: -A INPUT {options}", 3) for each in found)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (["-A INPUT -j feeds", "-A feeds -p udp -j DROP"], [True]),
        (["-A INPUT -g feeds", "-A feeds -j RETURN", "-A INPUT -j DROP"], []),
        (["-A INPUT -j NFQUEUE --queue-num 1", "-A INPUT -j DROP"], [False]),
    ],
)
def test_chains_of_iptables_are_followed(rules, found):
    assert [each.certain for each in obstacles(iptables.chains(saved(*rules), PACKET))] == found


def test_iptables_policies_and_tables():
    def told(**how):
        return obstacles(iptables.chains(saved(**how), PACKET))

    assert told(policy="DROP") == [Obstacle("the policy of iptables filter INPUT", True, 7, "sudo iptables-save -c")]
    assert len(told(policy="DROP", table="raw", chain="PREROUTING")) == 1
    assert told(policy="DROP", chain="FORWARD") == told(policy="DROP", table="nat", chain="PREROUTING") == []


def test_both_firewalls_are_asked_and_what_is_certain_is_first():
    printed = {"iptables-nft": saved("-A INPUT -d 239.1.1.1/32 -j DROP")}
    both = Rulesets(listed(match("ip", "ttl", 2, "<"), DROP), printed)
    assert [each.certain for each in both.obstacles([PACKET, PACKET])] == [True, False]
    assert both.obstacles([]) == []
    assert [each.readable for each in (both, Rulesets(None, {"iptables-nft": ""}), Rulesets(None, {}))] == [
        True,
        True,
        False,
    ]
