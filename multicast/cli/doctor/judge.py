"""What facts mean: each step ok, warning, wrong or unseen, and which finding is the cause.

Owns the opinion, as functions of facts alone. Must not ask the system for anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .facts import Facts, Link
    from .firewall import Rule
    from .listening import Heard


@dataclass
class Step:
    """A step of the path. verdict: ok, warning, wrong, or unseen, which is not visible to this process."""

    step: str
    verdict: str
    found: str
    next: str = ""


# What explains more comes first: behind a link that is down, neither a rule nor a counter matters.
CAUSES = (
    "interface",
    "route",
    "membership",
    "version",
    "rp_filter",
    "firewall",
    "wire",
    "counters",
    "received",
    "buffer",
)


def backend(name: str, why: str, *, linux: bool) -> Step:
    """The standard library on Linux is slow, and no reason for silence."""
    slow = linux and name == "stdlib"
    return Step("backend", "warning" if slow else "ok", f"{name}: {why}", "python -m multicast" if slow else "")


def host_links(links: Iterable[Link]) -> list[Step]:
    """Every interface, for who names no feed: one that is down may be meant to be."""
    steps = []
    for each in links:
        step = _link(each, ipv6=None)
        step.verdict = "warning" if step.verdict == "wrong" else step.verdict
        steps.append(step)
    return steps


def interface(facts: Facts) -> Step:
    """The interface of the feed."""
    if facts.link is not None:
        return _link(facts.link, ipv6=facts.ipv6)
    if facts.interface is None:
        return Step("interface", "warning", "none is named, and no route leads to one", "ip -brief address")
    names = ", ".join(each.name for each in facts.links)
    return Step("interface", "wrong", f"there is no interface {facts.interface}; there are {names}", "ip -brief link")


def _link(link: Link, *, ipv6: bool | None) -> Step:
    name = link.name
    if not link.up:
        return Step("interface", "wrong", f"{name} is down", f"ip link set {name} up")
    if link.carrier is False:
        return Step("interface", "wrong", f"{name} is up, but has no carrier", f"ethtool {name}")
    if not link.multicast and not link.loopback:
        return Step("interface", "wrong", f"{name} lacks the flag MULTICAST", f"ip link set {name} multicast on")
    found = f"{name} (index {link.index}) is up, MTU {link.mtu}, {', '.join(link.addresses) or 'no address'}"
    if ipv6 is not None and not any((":" in each) == ipv6 for each in link.addresses):
        return Step("interface", "warning", f"{found}: none of the feed's family", f"ip address show dev {name}")
    return Step("interface", "ok", found)


def route(facts: Facts) -> Step:
    """The route to the group: it chooses the interface, if none is named."""
    group = facts.groups[0]
    names = {each.index: each.name for each in facts.links}
    family = "ip -6" if facts.ipv6 else "ip"
    if not facts.route:
        if facts.interface is None:
            usable = [each.name for each in facts.links if each.up and each.multicast and not each.loopback]
            named = usable[0] if usable else "INTERFACE"
            found = f"there is none to {group}, and the feed names no interface"
            return Step("route", "wrong", found, f"{family} route add {group} dev {named}, or name it: %{named}")
        return Step("route", "ok", f"there is none to {group}; the feed names its interface, so none is needed")
    there = names.get(facts.route, f"index {facts.route}")
    if facts.link is not None and facts.link.index != facts.route:
        found = f"to {group} it leads to {there}, not to {facts.link.name}, which the feed names"
        return Step("route", "warning", f"{found}: who names no interface joins there", f"{family} route get {group}")
    return Step("route", "ok", f"to {group} it leads to {there}")


def version(facts: Facts) -> Step:
    """IGMP or MLD in force; whether there is a querier isn't told by the kernel."""
    found = facts.version
    if found is None:
        return Step("version", "unseen", "which version of IGMP is in force is not told")
    shown = found if found.startswith("MLD") else f"IGMP{found.lower()}"
    if facts.source is not None and found in ("V1", "V2", "MLDv1"):
        kind, way = ("mld", "ipv6") if facts.ipv6 else ("igmp", "ipv4")
        name = facts.link.name if facts.link else "all"
        text = f"{shown} is in force on {name}: it can't ask for the source {facts.source} alone"
        return Step("version", "wrong", text, f"sysctl net.{way}.conf.{{all,{name}}}.force_{kind}_version")
    return Step("version", "ok", f"{shown}; whether a querier was seen, the kernel does not say")


def membership(facts: Facts, failure: str | None) -> Step:
    """The join, tried; and the limits that may have refused it."""
    many = len(facts.groups)
    most = facts.limits.get("igmp_max_memberships")
    if not facts.ipv6 and most is not None and many > most:
        found = f"{many} groups, and a socket may join {most} (net.ipv4.igmp_max_memberships)"
        return Step("membership", "wrong", found, f"sysctl -w net.ipv4.igmp_max_memberships={many}")
    name = "mld_max_msf" if facts.ipv6 else "igmp_max_msf"
    if facts.source is not None and facts.limits.get(name) == 0:
        family = "ipv6" if facts.ipv6 else "ipv4"
        found = f"no source may be named (net.{family}.{name} is 0)"
        return Step("membership", "wrong", found, f"sysctl -w net.{family}.{name}=10")
    if failure is not None:
        return Step("membership", "wrong", f"the join failed: {failure}", "multicast doctor")
    return Step("membership", "ok", f"joined {many} {'group' if many == 1 else 'groups'}")


def rp_filter(facts: Facts, reverse: dict[str, int], rose: int) -> Step:
    """Reverse path filtering: strict drops what the route to its source would not lead back by.

    - reverse: the sources that are known, and the index of the interface that the route to each leads to
    - rose: by how much IPReversePathFilter rose
    """
    if facts.ipv6:
        return Step("rp_filter", "ok", "IPv6 has none")
    if facts.rp_filter is None or facts.link is None:
        return Step("rp_filter", "unseen", "it can't be read")
    name = facts.link.name
    shown = f"{facts.rp_filter} on {name} (the larger of all and its own)"
    lost = [
        source
        for source, index in reverse.items()
        if (facts.rp_filter == 1 and index != facts.link.index) or (facts.rp_filter == 2 and not index)
    ]
    if lost and not facts.link.loopback:
        text = f"{shown}: the route to the source {lost[0]} does not lead to {name}, so the kernel drops what it sends"
        return Step("rp_filter", "wrong", text, f"ip route add {lost[0]} dev {name}, or sysctl for rp_filter=0")
    if rose and facts.rp_filter:
        return Step("rp_filter", "warning", f"{shown}: it dropped {rose} datagrams meanwhile", "nstat -az")
    if facts.rp_filter == 1 and not reverse:
        return Step("rp_filter", "warning", f"{shown}: strict, and the source is not known", "ip route get SOURCE")
    return Step("rp_filter", "ok", shown)


def firewall(rules: list[Rule] | None, after: list[Rule], heard: Heard) -> Step:
    """Rules that could drop it. Only one that holds in all it says, or one that counted, is called wrong."""
    if rules is None:
        return Step("firewall", "unseen", "no nft, or it may not list the rules (root)", "sudo nft list ruleset")
    if heard.received or not rules:
        return Step("firewall", "ok", "no rule of nftables that was read drops it")
    later = {each.text: each.packets for each in after}
    silent = heard.wire is not None and not heard.wire
    for each in rules:
        counted = (later.get(each.text) or 0) - (each.packets or 0)
        if each.certain and not silent:
            how = f", and dropped {counted} packets meanwhile" if counted > 0 else ""
            return Step("firewall", "wrong", f"the rule {each.text} drops it{how}", "nft -a list ruleset")
        if counted > 0:
            text = f"the rule {each.text} could drop it, and dropped {counted} packets meanwhile"
            return Step("firewall", "wrong", text, "nft -a list ruleset")
    return Step("firewall", "warning", f"the rule {rules[0].text} could drop it", "nft -a list ruleset")


def wire(facts: Facts, port: int, heard: Heard) -> Step:
    """What was seen on the wire, where it may be looked at: elsewhere, on another port, from another source."""
    if heard.wire is None:
        return Step("wire", "unseen", "looking at the wire needs root", "sudo multicast doctor FEED")
    name = facts.link.name if facts.link else None
    here = {seen for seen in heard.wire if seen[0] == name}
    right = {seen for seen in here if seen[3] == port and facts.source in (None, seen[2])}
    if right or heard.received:
        return Step("wire", "ok", f"datagrams arrive at {name}")
    ports = sorted({seen[3] for seen in here if facts.source in (None, seen[2])})
    if ports:
        return Step("wire", "wrong", f"they come to port {ports[0]}, not to {port}", f"use port {ports[0]}")
    sources = sorted({seen[2] for seen in here if seen[3] == port})
    if sources:
        text = f"they come from {sources[0]}, not from {facts.source}"
        return Step("wire", "wrong", text, f"name the source {sources[0]}, or none")
    elsewhere = sorted({seen[0] for seen in heard.wire if seen[3] == port and seen[0] != name})
    if elsewhere:
        return Step("wire", "wrong", f"they arrive at {elsewhere[0]}, not at {name}", f"join at %{elsewhere[0]}")
    return Step("wire", "ok", f"no datagram of the feed was seen within {heard.seconds:.1f} s")


def counters(before: dict[str, int], after: dict[str, int]) -> Step:
    """The counters that rose, of the whole host (its network namespace): a hint, no proof."""
    rose = {name: after[name] - was for name, was in before.items() if after.get(name, was) > was}
    good = {"IpExt.InMcastPkts", "Ip6InMcastPkts"}
    found = ", ".join(f"{name} +{by}" for name, by in rose.items()) or "none rose"
    bad = [name for name in rose if name not in good and not name.endswith("IgnoredMulti")]
    return Step("counters", "warning" if bad else "ok", found, "nstat -az" if bad else "")


def buffer(granted: int, held: int | None, burst: int, size: int, *, asked: bool) -> Step:
    """The largest receive buffer that this process gets, against a burst while nobody reads.

    - granted: bytes, as they are asked for; held: how many datagrams of this size it holds
    - asked: whether the burst was named; one that was not is an example, and short of it is no fault
    """
    if held is None:
        return Step("buffer", "unseen", f"{granted} bytes are granted; what they hold could not be measured")
    found = f"{granted} bytes are granted (net.core.rmem_max); they hold {held} datagrams of {size} bytes"
    if held >= burst:
        return Step("buffer", "ok", found)
    need = -(-granted * burst // max(held, 1))
    text = f"{found}, and a burst has {burst}"
    return Step("buffer", "wrong" if asked else "warning", text, f"sysctl -w net.core.rmem_max={need}")


def received(heard: Heard, *, joined: bool) -> Step:
    """What the receiver got."""
    if heard.received:
        found = f"{heard.received} datagrams, the first within {heard.seconds:.2f} s, from {', '.join(heard.sources)}"
        return Step("received", "ok", found)
    if not joined:
        return Step("received", "unseen", "nothing was joined, so nothing could be received")
    nobody = heard.wire is not None and not heard.wire
    found = f"nothing within {heard.seconds:.1f} s"
    if nobody:
        found += ": nobody sends, or the network does not bring it"
    asking = "ask the sender for its group, port and TTL; multicast doctor FEED --seconds 30"
    return Step("received", "wrong", found, asking)


def around(facts: Facts) -> list[Step]:
    """What it runs in, and its clocks: never a cause by themselves."""
    told = {
        "wsl": "WSL: behind its NAT no multicast arrives from the network; mirrored networking brings it",
        "container": "a container: on a bridge network no multicast arrives from outside; the host's network has it",
    }
    place = Step("place", "ok", "no container, no WSL: nothing that tells of one")
    if facts.container is not None:
        place = Step("place", "warning", told[facts.container], "docker run --network host")
    clock = facts.clocksource
    slow = clock is not None and clock not in ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
    clocks = Step("clock", "warning" if slow else "ok" if clock else "unseen", f"clock source {clock or 'not told'}")
    return [place, clocks, Step("timestamps", "ok" if facts.hardware else "unseen", facts.hardware or "not told")]


@dataclass
class Diagnosis:
    """What is to be done. cause is None where nothing is wrong."""

    cause: Step | None = None
    warnings: list[str] = field(default_factory=list)


def diagnose(steps: Iterable[Step]) -> Diagnosis:
    """Return the finding that explains the others."""
    every = list(steps)
    wrong = [each for each in every if each.verdict == "wrong" and each.step in CAUSES]
    warned = [each.step for each in every if each.verdict == "warning"]
    return Diagnosis(min(wrong, key=lambda each: CAUSES.index(each.step), default=None), warned)
