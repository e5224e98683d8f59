"""Chains of iptables for one packet, from what iptables-save -c prints: that of iptables-nft, and of the legacy one."""

from __future__ import annotations

import functools
import ipaddress
import re
import shlex
from typing import TYPE_CHECKING

from .chains import UNREADABLE, Chain, Packet, Rule
from .nftables import TARGETS_ON

if TYPE_CHECKING:
    from collections.abc import Hashable

# Where a packet on its way in passes, in this order; nat drops nothing.
_HOOKED = {"raw": ("PREROUTING",), "mangle": ("PREROUTING", "INPUT"), "filter": ("INPUT",), "security": ("INPUT",)}
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_LINE = re.compile(r"(?:\[(\d+):\d+\] )?-A (\S+) ?(.*)")
_CHAIN = re.compile(r":(\S+) (\S+)(?: \[(\d+):\d+\])?")
_MODULES = ("udp", "multiport", "conntrack", "state", "addrtype", "pkttype", "comment")


def chains(saved: str, packet: Packet, program: str = "iptables") -> dict[Hashable, Chain]:
    """Return the chains of a family's tables, by table and name.

    - program: which one it was that printed them, without its "-save"
    """
    listing = f"sudo {program}-save -c"
    found: dict[Hashable, Chain] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif declared := _CHAIN.fullmatch(line):
            name, policy, packets = declared.groups()
            hooked = policy != "-" and name in _HOOKED.get(table, ())
            text = f"{program} {table} {name}"
            counted = None if packets is None else int(packets)
            found[table, name] = Chain(text, hooked, policy == "DROP", counted, listing=listing)
        elif (added := _LINE.fullmatch(line)) and (table, added[2]) in found:
            try:
                rule = _rule(added[3], packet)
            except UNREADABLE:
                rule = Rule("", None, "unknown")
            rule.text = f"{program} {table}: -A {added[2]} {added[3]}"
            rule.packets = None if added[1] is None else int(added[1])
            if rule.target is not None:
                rule.target = (table, rule.target)  # or an extension: that is no chain of the table
            found[table, added[2]].rules.append(rule)
    return found


def _rule(text: str, packet: Packet) -> Rule:
    rule = Rule(text, True, "pass")
    # Each option with what follows it, up to the next one: "-d 239.1.1.1/32", "! -i eth0", "-m udp".
    words = _words(text)
    starts = [at for at, word in enumerate(words) if word.startswith("-")]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        option, values = words[start], [word for word in words[start + 1 : end] if word != "!"]
        if option in ("-j", "-g"):
            _target(rule, option, values[0])
            break  # what follows are the target's own options
        holds = _holds(option, values, packet)
        if start and words[start - 1] == "!" and holds is not None:
            holds = not holds
        if holds is not True and rule.holds is not False:
            rule.holds = holds
    return rule


@functools.lru_cache(100_000)  # all groups of a range are held against the same rules
def _words(text: str) -> list[str]:
    # Python's shlex takes ten times as long for what few rules have.
    return shlex.split(text) if any(each in text for each in "\"'\\") else text.split()


def _target(rule: Rule, option: str, name: str) -> None:
    if name in _VERDICTS:
        rule.does = _VERDICTS[name]
    elif name not in TARGETS_ON:
        rule.does, rule.target = "goto" if option == "-g" else "jump", name


def _holds(option: str, values: list[str], packet: Packet) -> bool | None:
    value = values[0] if values else ""
    if option in ("-d", "-s"):
        known = packet.group if option == "-d" else packet.source
        return None if known is None else ipaddress.ip_address(known) in ipaddress.ip_network(value, strict=False)
    if option == "-i":
        wild = value.endswith("+")
        if packet.interface is None:
            return None
        return packet.interface.startswith(value[:-1]) if wild else packet.interface == value
    if option == "-p":
        return value in ("udp", "17", "all")
    if option == "-m":
        # That of another protocol stands behind "-p", which is judged; of the rest little is known.
        return True if value in _MODULES or value in ("tcp", "icmp", "icmp6", "igmp") else None
    if option in ("--dport", "--dports"):
        return any(_in_range(packet.port, each) for each in value.split(","))
    if option in ("--ctstate", "--state"):  # nobody answers a group: there is no established connection
        states = value.split(",")  # but somebody may have it untracked
        return True if "NEW" in states else None if "UNTRACKED" in states else False
    if option == "--dst-type":
        return "MULTICAST" in value.split(",")
    if option == "--pkt-type":
        return None if packet.interface == "lo" else value == "multicast"
    return True if option == "--comment" else None


def _in_range(port: int, text: str) -> bool:
    low, colon, high = text.partition(":")
    return int(low or 0) <= port <= int(high or (65_535 if colon else low))
