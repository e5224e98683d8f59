"""Rules of nftables that could drop a feed, read conservatively.

Owns running nft and reading its JSON (libnftables-json(5)). Must not claim more than a rule says: one with a condition
that is not understood here could drop the feed, no more.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

_HOOKS = ("ingress", "prerouting", "input")
_UNDERSTOOD = ("counter", "drop", "reject", "log", "match")


@dataclass
class Rule:
    """A rule that could drop the feed. certain: each of its conditions is understood, and holds."""

    text: str
    handle: int
    certain: bool
    packets: int | None


def ruleset() -> dict[str, Any] | None:
    """Return what `nft -j list ruleset` prints; None where there is no nft, or it may not tell."""
    if shutil.which("nft") is None:
        return None
    try:
        done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, timeout=10, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found


def could_drop(rules: dict[str, Any], group: str, port: int, interface: str | None, source: str | None) -> list[Rule]:
    """Return the rules of base chains on the way in that could drop UDP from the source to the group and port."""
    listed = rules.get("nftables", [])
    chains = {
        (each["chain"]["family"], each["chain"]["table"], each["chain"]["name"])
        for each in listed
        if each.get("chain", {}).get("hook") in _HOOKS
    }
    found = []
    elsewhere = set()  # chains in which a rule before may have let it through, or sent it on
    for each in listed:
        rule = each.get("rule")
        if rule is None or (rule["family"], rule["table"], rule["chain"]) not in chains:
            continue
        parts = rule.get("expr", [])
        holds = [_holds(part["match"], group, port, interface, source) for part in parts if "match" in part]
        if False in holds:
            continue
        chain = (rule["family"], rule["table"], rule["chain"])
        if not any("drop" in part or "reject" in part for part in parts):
            if not all(next(iter(part)) in ("counter", "log", "match") for part in parts):
                elsewhere.add(chain)
            continue
        certain = (
            chain not in elsewhere and None not in holds and all(next(iter(part)) in _UNDERSTOOD for part in parts)
        )
        packets = next((part["counter"]["packets"] for part in parts if isinstance(part.get("counter"), dict)), None)
        name = f"{rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
        found.append(Rule(name, rule["handle"], certain, packets))
    return found


def _holds(match: dict[str, Any], group: str, port: int, interface: str | None, source: str | None) -> bool | None:
    """Whether a condition holds of the feed's datagrams; None where that can't be told."""
    left, right = match["left"], match["right"]
    if match["op"] not in ("==", "!=", "in") or not isinstance(left, dict):
        return None
    known: Any = None
    if "payload" in left and "protocol" in left["payload"]:
        protocol, name = left["payload"]["protocol"], left["payload"]["field"]
        if protocol in ("tcp", "icmp", "icmpv6"):
            return False
        if protocol in ("ip", "ip6"):
            if (protocol == "ip6") != (":" in group):
                return False
            known = {"daddr": group, "saddr": source, "protocol": "udp", "nexthdr": "udp"}.get(name)
        elif (protocol, name) in (("udp", "dport"), ("th", "dport")):
            known = port
    elif "meta" in left:
        known = {"iifname": interface, "iif": interface, "l4proto": "udp", "protocol": None}.get(left["meta"]["key"])
    equal = None if known is None else _same(known, right)
    return None if equal is None else equal != (match["op"] == "!=")


def _same(known: str | int, right: Any) -> bool | None:
    """Whether a value is the one, or one of those, on the right of a condition; None where that can't be told."""
    if isinstance(right, dict) and "prefix" in right and isinstance(known, str):
        prefix = right["prefix"]
        return ipaddress.ip_address(known) in ipaddress.ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
    if isinstance(right, dict) and "range" in right and isinstance(known, int):
        low, high = right["range"]
        return bool(low <= known <= high)
    if isinstance(right, dict) and "set" in right:
        each = [_same(known, one) for one in right["set"]]
        return True if True in each else None if None in each else False
    return None if isinstance(right, (dict, list)) or str(right)[:1] == "@" else known == right
