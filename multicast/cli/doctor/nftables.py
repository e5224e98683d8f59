"""Chains of nftables for one packet, from what nft prints as JSON (libnftables-json(5))."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import operator
from typing import TYPE_CHECKING

from .chains import UNREADABLE, Chain, Packet, Rule

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

_LISTING = "sudo nft -a list ruleset"
_HOOKS = ("ingress", "prerouting", "input")
_VERDICTS = {"accept": "accept", "drop": "drop", "reject": "drop", "return": "return", "continue": "pass"}
# Statements that let every packet on; those that let some on, to what follows in the rule. Others may take it away.
_ON = ("counter", "log", "mangle", "set", "notrack", "ct helper", "ct timeout", "comment")
_SOME = ("limit", "quota", "ct count")
# Targets of iptables that let every packet on.
TARGETS_ON = ("LOG", "NFLOG", "MARK", "CONNMARK", "SET", "TRACE", "CT", "AUDIT", "TTL", "HL", "DSCP", "TOS", "CLASSIFY")
_COMPARED = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


def chains(ruleset: dict[str, Any], packet: Packet) -> dict[Hashable, Chain]:
    """Return the chains that a packet of this family may meet, by family, table and name."""
    families = ("inet", "netdev", "ip6" if packet.ipv6 else "ip")
    dormant: dict[tuple[str, str], bool | None] = {}
    sets: dict[tuple[str, str], dict[str, Any]] = {}
    found: dict[Hashable, Chain] = {}
    for part in ruleset.get("nftables", []):  # of a table first itself, then its sets, its chains, its rules
        with contextlib.suppress(*UNREADABLE):
            kind, each = next(iter(part.items()))
            if kind == "table":
                dormant[each["family"], each["name"]] = _dormant(each)
            elif kind in ("set", "map"):
                sets.setdefault(_of(each), {})[each["name"]] = each.get("elem", [])
            elif kind == "chain" and each["family"] in families:
                text = f"{each['family']} {each['table']} {each['name']}"
                hooked = _hooked(each, packet) and _not(dormant.get(_of(each), False))
                found[*_of(each), each["name"]] = Chain(text, hooked, each.get("policy") == "drop", listing=_LISTING)
            elif kind == "rule" and (*_of(each), each["chain"]) in found:
                reading = _Reading(packet, sets.get(_of(each), {}))
                found[*_of(each), each["chain"]].rules.append(reading.rule(each))
    return found


def _of(part: dict[str, Any]) -> tuple[str, str]:
    return part["family"], part["table"]


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _dormant(table: dict[str, Any]) -> bool | None:
    """Whether a table is switched off; None where nft has a flag and does not say which (1.0.6 prints the name)."""
    told = _several(table.get("flags", []))
    return True if "dormant" in told else None if table["name"] in told else False


def _several(value: Any) -> list[Any]:
    """Return what may be one or several: nft prints one as such, or as a list of one, as versions differ."""
    return value if isinstance(value, list) else [value]


def _hooked(chain: dict[str, Any], packet: Packet) -> bool | None:
    """Whether the kernel brings the packet to a chain by itself; None where nft does not say to which interface's."""
    if chain.get("hook") not in _HOOKS or chain.get("type") == "nat":
        return False
    if chain["hook"] != "ingress":
        return True
    told = chain.get("dev")
    return None if told is None or packet.interface is None else packet.interface in _several(told)


class _Reading:
    """Reads the rules of a table, whose named sets these are."""

    def __init__(self, packet: Packet, sets: dict[str, Any]) -> None:
        self.packet = packet
        self.sets = sets

    def rule(self, rule: dict[str, Any]) -> Rule:
        text = f"{rule['family']} {rule['table']} {rule['chain']} handle {rule.get('handle')}"
        try:
            return self._read(Rule(text, True, "pass"), rule)
        except UNREADABLE:
            return Rule(text, None, "unknown")

    def _read(self, found: Rule, rule: dict[str, Any]) -> Rule:
        for part in rule.get("expr", []):
            name, value = next(iter(part.items()))
            if name == "match":
                found.holds = _both(found.holds, self.holds(value))
            elif name in ("vmap", "xt") or name in _VERDICTS or name in ("jump", "goto"):
                self._verdict(found, name, value)
            elif name in _SOME:
                found.holds = _both(found.holds, None)
            elif name not in _ON:
                found.does = "unknown"
            if name == "counter" and isinstance(value, dict):
                found.packets = int(value["packets"])
        if found.target is not None:
            found.target = (*_of(rule), str(found.target))
        return found

    def _verdict(self, rule: Rule, name: str, value: Any) -> None:
        if name in ("jump", "goto"):
            rule.does, rule.target = name, value["target"]
        elif name in _VERDICTS:
            rule.does = _VERDICTS[name]
        elif name == "vmap":
            self._mapped(rule, value)
        elif value is None or value["type"] == "match":  # an extension of iptables
            rule.holds = _both(rule.holds, None)
        elif value["name"] not in TARGETS_ON:
            rule.does = "drop" if value["name"] == "REJECT" else "unknown"

    def _mapped(self, rule: Rule, value: dict[str, Any]) -> None:
        """Read a verdict map: of several verdicts that may be meant the first is taken, as one that may not hold."""
        data = value["data"]
        pairs = self.sets.get(data[1:], []) if isinstance(data, str) else data["set"]
        for key, verdict in pairs:
            if (same := self.holds({"op": "==", "left": value["key"], "right": key})) is not False:
                rule.holds = _both(rule.holds, same)
                self._verdict(rule, *next(iter(verdict.items())))
                if same is None:
                    rule.does = "unknown"
                return

    def holds(self, match: dict[str, Any]) -> bool | None:
        """Whether a condition holds of the packet; None where that can't be told."""
        left, right, how = match["left"], match["right"], match["op"]
        known = self._known(left) if isinstance(left, dict) else None
        if known is None or isinstance(known, bool):
            return known
        if how in _COMPARED:
            both = isinstance(known, int) and isinstance(right, int)
            return bool(_COMPARED[how](known, right)) if both else None
        same = self._same(known, right)
        return _not(same) if how == "!=" else same

    def _known(self, left: dict[str, Any]) -> str | int | bool | None:
        """Return what the left side of a condition is of the packet; False: the condition is one of other packets."""
        packet = self.packet
        kind, value = next(iter(left.items()))
        if kind == "payload" and "protocol" in value:
            protocol, name = value["protocol"], value["field"]
            if protocol in ("ip", "ip6"):
                if (protocol == "ip6") != packet.ipv6:
                    return False
                fields = {"daddr": packet.group, "saddr": packet.source, "protocol": "udp", "nexthdr": "udp"}
                return fields.get(name)
            if protocol in ("udp", "th"):
                return packet.port if name == "dport" else None
            return None if protocol in ("ether", "vlan") else False
        if kind == "meta":
            family = ("ipv6", "ip6") if packet.ipv6 else ("ipv4", "ip")
            kinds = {
                "iifname": packet.interface,
                "iif": packet.interface,
                "l4proto": "udp",
                "nfproto": family[0],
                "protocol": family[1],
                "pkttype": None if packet.interface == "lo" else "multicast",
            }
            return kinds.get(value["key"])
        if kind == "ct":  # nobody answers a group: a connection is never established, and nothing is translated
            return {"state": "new", "status": "confirmed"}.get(value["key"])
        if kind == "fib" and value["result"] == "type" and _several(value["flags"]) == ["daddr"]:
            return "multicast"
        return None

    def _same(self, known: str | int, right: Any) -> bool | None:
        """Whether a value is the one, or one of those, on the right of a condition; None where that can't be told."""
        if isinstance(right, str) and right.startswith("@"):
            right = self.sets.get(right[1:])
        elif isinstance(right, dict) and "set" in right:
            right = right["set"]
        if isinstance(right, list):
            each = [self._same(known, one) for one in right]
            return True if True in each else None if None in each else False
        if isinstance(right, dict):
            return self._within(known, right)
        if right is None or (known == "new" and right == "untracked"):  # which it is instead, if somebody says so
            return None
        if isinstance(right, str) and right.endswith("*"):
            return str(known).startswith(right[:-1])
        return known == right or (known == "udp" and right == 17)

    def _within(self, known: str | int, right: dict[str, Any]) -> bool | None:
        if "elem" in right:
            return self._same(known, right["elem"]["val"])
        if "range" in right and isinstance(known, int):
            return bool(right["range"][0] <= known <= right["range"][1])
        if isinstance(known, str) and not right.keys().isdisjoint(("prefix", "range")):
            try:
                value = _address(known)
                if "prefix" in right:
                    return value in _network(f"{right['prefix']['addr']}/{right['prefix']['len']}")
                low, high = map(_address, right["range"])
                return low.version == value.version and int(low) <= int(value) <= int(high)
            except ValueError:
                return None
        return None


# A set may have thousands of them, and a range of groups is held against each set a group at a time.


@functools.lru_cache(100_000)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


@functools.lru_cache(100_000)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _both(one: bool | None, other: bool | None) -> bool | None:
    return False if False in (one, other) else None if None in (one, other) else True
