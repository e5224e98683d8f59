"""What facts mean: each step ok, warning, wrong or unseen, and which finding is the cause.

Owns the opinion, as functions of facts alone. Must not ask the system for anything.
"""

from __future__ import annotations

import errno
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import counters as counting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..._feed import Feed
    from .chains import Obstacle
    from .facts import Facts, Held, Holder, Link
    from .listening import Heard

QUERY_INTERVAL = 125.0  # seconds (RFC 3376, 8.2; RFC 3810, 9.2)


@dataclass
class Step:
    """A step of the path. verdict: ok, warning, wrong, or unseen, which is not visible to this process.

    - next: a command to type next, empty where there is none; with sudo where it needs root
    """

    step: str
    verdict: str
    found: str
    next: str = ""


# What explains more comes first: behind a link that is down, neither a rule nor a counter matters.
CAUSES = (
    "interface",
    "port",
    "route",
    "membership",
    "version",
    "rp_filter",
    "firewall",
    "wire",
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
        return Step("interface", "wrong", f"{name} is down", f"sudo ip link set {_quoted(name)} up")
    if link.carrier is False:
        return Step("interface", "wrong", f"{name} is up, but has no carrier", f"ethtool {_quoted(name)}")
    if not link.multicast and not link.loopback:
        mend = f"sudo ip link set {_quoted(name)} multicast on"
        return Step("interface", "wrong", f"{name} lacks the flag MULTICAST", mend)
    mtu = "" if link.mtu is None else f", MTU {link.mtu}"
    found = f"{name} (index {link.index}) is up{mtu}, {', '.join(link.addresses) or 'no address'}"
    if ipv6 is not None and not any((":" in each) == ipv6 for each in link.addresses):
        return Step(
            "interface", "warning", f"{found}: none of the feed's family", f"ip address show dev {_quoted(name)}"
        )
    return Step("interface", "ok", found)


def route(facts: Facts) -> Step:
    """The routes to the groups: they choose the interface, if none is named."""
    names = {each.index: each.name for each in facts.links}
    family = "ip -6" if facts.ipv6 else "ip"
    without = [group for group, index in facts.routes.items() if not index]
    if without and facts.interface is None:
        usable = [each.name for each in facts.links if each.up and each.multicast and not each.loopback]
        found = f"there is none to {without[0]}, and the feed names no interface"
        there = _quoted(usable[0]) if usable else "NAME"
        return Step("route", "wrong", found, f"sudo {family} route add {without[0]} dev {there}")
    leading = {group: names.get(index, f"index {index}") for group, index in facts.routes.items() if index}
    if not leading:
        return Step("route", "ok", f"there is none to {facts.groups[0]}; the feed names its interface: none is needed")
    astray = [group for group, there in leading.items() if facts.link is not None and there != facts.link.name]
    if astray:
        found = f"to {astray[0]} it leads to {leading[astray[0]]}, not to {facts.name}: who names none joins there"
        return Step("route", "warning", found, f"{family} route get {astray[0]}")
    group, there = next(iter(leading.items()))
    return Step("route", "ok", f"to {group} it leads to {there}")


def port(number: int, holders: list[Holder] | None, failure: OSError | ValueError | None) -> Step:
    """Who else has the port: a socket that does not share it keeps every other one away.

    - holders: None: the system does not tell
    """
    who = ", ".join(sorted({_holder(each) for each in holders or ()}))
    if isinstance(failure, OSError) and failure.errno == errno.EADDRINUSE:
        found = f"port {number} is in use by {who or 'a socket that is not seen'}, which does not share it"
        return Step("port", "wrong", f"{found} (SO_REUSEADDR)", f"sudo ss --udp --all --processes 'sport = {number}'")
    if holders is None:
        return Step("port", "ok", f"{number} could be had")
    return Step("port", "ok", f"{number}, shared with {who}" if who else f"{number}, which nobody else has")


def _holder(holder: Holder) -> str:
    if not holder.processes:
        return f"a process of user {holder.socket.uid}"
    return " and ".join(f"{name} ({pid})" for pid, name in holder.processes)


def membership(facts: Facts, failure: OSError | ValueError | None, held: Held) -> Step:
    """The join, tried; what the kernel shows of it; and the limits that may have refused it."""
    many = len(facts.groups)
    most = None if facts.ipv6 else facts.limits.get("igmp_max_memberships")
    if most is not None and many > most:
        found = f"{many} groups, and a socket may join {most} (net.ipv4.igmp_max_memberships)"
        return Step("membership", "wrong", found, f"sudo sysctl -w net.ipv4.igmp_max_memberships={many}")
    family, limit = ("ipv6", "mld_max_msf") if facts.ipv6 else ("ipv4", "igmp_max_msf")
    if facts.source is not None and facts.limits.get(limit) == 0:
        found = f"no source may be named (net.{family}.{limit} is 0)"
        return Step("membership", "wrong", found, f"sudo sysctl -w net.{family}.{limit}=10")
    index = facts.link.index if facts.link else None
    if failure is not None:
        if isinstance(failure, OSError) and failure.errno == errno.EADDRINUSE:
            return Step("membership", "unseen", "not tried: the port could not be had")
        told = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
        return Step("membership", "wrong", f"the join failed: {told}", "ip maddress show" + _dev(facts))
    joined = "joined 1 group" if many == 1 else f"joined {many} groups"
    joined += f" of the {most} that a socket may" if most is not None else ""
    there = {each.group: each.users for each in held.groups if each.interface == index}
    if index is None or not held.groups:
        return Step("membership", "ok", joined)
    absent = [group for group in facts.groups if group not in there]
    if absent:
        found = f"{joined}, but the kernel shows no membership of {absent[0]} on {facts.name}"
        return Step("membership", "wrong", found, f"ip maddress show{_dev(facts)}")
    ours = [each for each in held.sources if each.interface == index and each.group in facts.groups]
    included = {each.source for each in ours if each.included}
    if facts.source is not None and facts.source not in included:
        found = f"{joined}, but the kernel does not show {facts.source} among the sources"
        return Step("membership", "wrong", found, "cat /proc/net/mcfilter" + "6" * facts.ipv6)
    shared = max(there[group] for group in facts.groups) - 1
    beside = f", {shared} more of this host's sockets with it" if shared else ""
    return Step("membership", "ok", f"{joined}{beside}; {facts.name} is in {len(there)}")


def _dev(facts: Facts) -> str:
    return f" dev {_quoted(facts.link.name)}" if facts.link else ""


def version(facts: Facts, heard: Heard) -> Step:
    """IGMP or MLD in force, and who asks for memberships: without a querier, a switch that snoops forgets them."""
    found = facts.version
    if found is None:
        return Step("version", "unseen", "which version of IGMP is in force is not told")
    asking = sorted(
        f"{address} asks ({told})"
        for name, address, told in heard.queriers
        if name == facts.name and told.startswith("MLD") == facts.ipv6
    )
    if facts.source is not None and found in ("IGMPv1", "IGMPv2", "MLDv1"):
        why = ""
        command = "cat /proc/net/igmp"
        if facts.forced is not None:
            why, command = f", by {facts.forced[0]}", f"sudo sysctl -w {facts.forced[0]}=0"
        elif not facts.ipv6:
            why = f", since {', '.join(asking) or 'a querier asks so'}"
        text = f"{found} is in force on {facts.name}{why}: it can't ask for the source {facts.source} alone"
        return Step("version", "wrong", text, command)
    if asking or not heard.seconds or (facts.link is not None and facts.link.loopback):
        return Step("version", "ok", "; ".join([found, *asking]))
    if heard.wire is None or heard.seconds < QUERY_INTERVAL:
        when = f"within {heard.seconds:.1f} s no querier asked; one does so every {QUERY_INTERVAL:.0f} s"
        return Step("version", "ok", f"{found}; {when if heard.wire is not None else 'to see a querier needs root'}")
    text = f"{found}, and no querier asked within {heard.seconds:.0f} s: a switch that snoops forgets the group"
    return Step("version", "warning", text, f"cat /proc/net/igmp{'6' * facts.ipv6}")


def rp_filter(facts: Facts, reverse: dict[str, int], rose: int, heard: Heard, *, came: bool | None) -> Step:
    """Reverse path filtering: strict drops what the route to its source would not lead back by.

    - reverse: the sources that are known, and the index of the interface that the route to each leads to
    - rose: by how much IPReversePathFilter rose
    - came: whether something of the feed came to the interface; None where that can't be told
    """
    if facts.ipv6:
        return Step("rp_filter", "ok", "IPv6 has none")
    if facts.rp_filter is None or facts.link is None:
        return Step("rp_filter", "unseen", "it can't be read")
    name = facts.link.name
    own = {address for each in facts.links for address in each.addresses}  # what this host sends itself is let through
    # An interface without an address gets no leniency from 2 (__fib_validate_source of net/ipv4/fib_frontend.c).
    strict = facts.rp_filter == 1 or (facts.rp_filter == 2 and all(":" in each for each in facts.link.addresses))
    shown = f"{facts.rp_filter} on {name} (the larger of all and its own)"
    lost = [
        source
        for source, index in reverse.items()
        # Of several routes to a source the kernel takes each (fib_info_nh_uses_dev): what arrived tells more than one.
        if source not in own | heard.sources
        and ((strict and index != facts.link.index) or (facts.rp_filter and not index))
    ]
    if lost and not facts.link.loopback:
        text = f"{shown}: the route to the source {lost[0]} does not lead to {name}, so the kernel drops what it sends"
        return Step("rp_filter", "wrong", text, f"sudo ip route replace {lost[0]} dev {_quoted(name)}")
    if rose and facts.rp_filter:
        text = f"{shown}: it dropped {rose} packets meanwhile"
        alone = not heard.received and came is not False
        return Step("rp_filter", "wrong" if alone else "warning", text, "nstat -az TcpExtIPReversePathFilter")
    if facts.rp_filter == 1 and not reverse and not facts.link.loopback:
        return Step(
            "rp_filter",
            "warning",
            f"{shown}: strict, and the source is not known",
            "nstat -az TcpExtIPReversePathFilter",
        )
    return Step("rp_filter", "ok", shown)


def firewall(before: list[Obstacle] | None, after: list[Obstacle], *, came: bool | None) -> Step:
    """Rules that could drop what did not arrive. Only what is certain, or what counted meanwhile, is called wrong.

    - before, after: None: no firewall could be read
    - came: whether something of the feed came to the interface: what did not, no rule explains
    """
    if before is None:
        return Step("firewall", "unseen", "no nft or iptables-save, or they may not tell", "sudo nft list ruleset")
    if not before:
        return Step("firewall", "ok", "no rule or policy that was read drops it")
    later = {each.text: each.packets or 0 for each in after}
    counted = {each.text: later.get(each.text, 0) - (each.packets or 0) for each in before}
    guilty = [each for each in before if came is not False and (counted[each.text] > 0 or each.certain)]
    first = min(guilty, key=lambda each: (not each.certain, -counted[each.text]), default=before[0])
    how = f", and dropped {counted[first.text]} packets meanwhile" if counted[first.text] > 0 else ""
    drops = f"{first.text} {'drops it' if first.certain else 'could drop it'}{how}"
    return Step("firewall", "wrong" if guilty else "warning", drops, first.listing)


def wire(facts: Facts, asked: Feed, heard: Heard, *, joined: bool) -> Step:
    """What was seen on the wire, where it may be looked at: elsewhere, on another port, from another source."""
    if not joined:
        return Step("wire", "unseen", "not looked at, since nothing was joined")
    if heard.received:
        return Step("wire", "ok", f"datagrams arrive at {facts.name}")
    if heard.wire is None:
        return Step("wire", "unseen", "looking at the wire needs root", f"sudo multicast doctor {_typed(asked)}")
    here = {seen for seen in heard.wire if seen[0] == facts.name}
    ports = sorted({seen[3] for seen in here if facts.source in (None, seen[2])})
    if asked.port in ports:
        return Step("wire", "ok", f"datagrams arrive at {facts.name}")
    if ports:
        return Step("wire", "wrong", f"they come to port {ports[0]}, not to {asked.port}", _again(asked, port=ports[0]))
    sources = sorted({seen[2] for seen in here if seen[3] == asked.port})
    if sources:
        text = f"they come from {', '.join(sources[:3])}, not from {facts.source}"
        return Step("wire", "wrong", text, _again(asked, source=sources[0]))
    elsewhere = sorted({seen[0] for seen in heard.wire if seen[3] == asked.port and seen[0] != facts.name})
    if elsewhere:
        text = f"they arrive at {elsewhere[0]}, not at {facts.name}"
        return Step("wire", "wrong", text, _again(asked, interface=elsewhere[0]))
    return Step("wire", "ok", f"no datagram of the feed was seen within {heard.seconds:.1f} s")


def _again(asked: Feed, **changed: object) -> str:
    return f"multicast doctor {_typed(type(asked)(**{**asked.as_dict(), **changed}))}"


def _typed(feed: Feed) -> str:
    quoted = _quoted(str(feed))
    return quoted if quoted.startswith("'") else f"'{quoted}'"


def _quoted(name: str) -> str:
    """Return a name as a shell takes it: that of an interface may have almost any sign."""
    return shlex.quote(name)


def counters(before: dict[str, int], after: dict[str, int]) -> Step:
    """The counters that rose: mostly those of the whole host, so a hint."""
    rose = {name: after[name] - was for name, was in before.items() if after.get(name, was) > was}
    if not before:
        return Step("counters", "unseen", "none can be read")
    found = ", ".join(f"{name} +{by}" for name, by in rose.items()) or "none rose"
    bad = [name for name in rose if name not in counting.GOOD]
    return Step("counters", "warning" if bad else "ok", found, "nstat -a" if bad else "")


def received(asked: Feed, heard: Heard, granted: int, *, joined: bool, came: bool | None) -> Step:
    """What the receiver got.

    - granted: bytes of its receive buffer, the largest that this process may have
    """
    if not joined:
        return Step("received", "unseen", "nothing was joined, so nothing could be received")
    if not heard.received:
        if came:
            text = (
                f"nothing within {heard.seconds:.1f} s, though datagrams came to the interface: behind it they are lost"
            )
            hint = "to a VLAN's or a bridge's own interface, or by what is not read (eBPF, tc)"
            return Step("received", "wrong", f"{text}, {hint}", "ip -details link")
        why = ": nobody sends, or the network does not bring it" if heard.silent else ""
        found = f"nothing within {heard.seconds:.1f} s{why}"
        longer = max(30, heard.seconds * 10)
        return Step("received", "wrong", found, f"multicast doctor {_typed(asked)} --seconds {longer:.0f}")
    sources = sorted(heard.sources)
    many = "1 datagram" if heard.received == 1 else f"{heard.received} datagrams"
    found = f"{many} within {heard.seconds:.1f} s, the first after {heard.first:.2f} s, from "
    found += ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
    if heard.drops:
        text = f"{found}; the kernel dropped {heard.drops}: the receive buffer of {granted} bytes was full"
        return Step("received", "wrong", text, f"sudo sysctl -w net.core.rmem_max={granted * 4}")
    silent = [group for group in asked.groups if group not in heard.groups] if heard.groups else []
    if silent:
        text = f"{found}; of {asked.count} groups {len(silent)} brought nothing, such as {silent[0]}"
        return Step("received", "warning", text, _again(asked, group=silent[0], count=1))
    return Step("received", "ok", found)


def buffer(granted: int, held: int | None, burst: int, size: int, least: int, *, asked: bool) -> Step:
    """The largest receive buffer that this process gets, against a burst while nobody reads.

    - granted: bytes, as they are asked for; held: how many datagrams of this size it holds
    - least: how many a receiver takes at once; fewer are always too few
    - asked: whether the burst was named; one that was not is an example, and short of it is no fault
    """
    if held is None:
        return Step("buffer", "unseen", f"{granted} bytes are granted; what they hold could not be measured")
    found = f"{granted} bytes are granted (net.core.rmem_max); they hold {held} datagrams of {size} bytes"
    if held >= burst:
        return Step("buffer", "ok", found)
    need = -(-granted * burst // max(held - 1, 1))  # the last one in may be larger than the room that was left
    wrong = asked or held < least
    text = f"{found}, and a burst has {burst}" if asked or not wrong else f"{found}: fewer than one batch of {least}"
    return Step("buffer", "wrong" if wrong else "warning", text, f"sudo sysctl -w net.core.rmem_max={need}")


def around(facts: Facts) -> list[Step]:
    """What it runs in, and its clocks: never a cause by themselves."""
    clock = facts.clocksource
    slow = clock is not None and clock not in ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
    where = "cat /sys/devices/system/clocksource/clocksource0/available_clocksource"
    told = f"clock source {clock}, each timestamp takes a call of the kernel" if slow else f"clock source {clock}"
    clocks = Step("clock", "warning", told, where) if slow else Step("clock", "ok", told)
    if clock is None:
        clocks = Step("clock", "unseen", "which clock source is in use is not told")
    stamps = Step("timestamps", "ok" if facts.stamps else "unseen", facts.stamps or "what the card stamps is not told")
    return [_place(facts), clocks, stamps]


def _place(facts: Facts) -> Step:
    if facts.surrounding is None:
        return Step("place", "ok", "no container, no WSL: nothing that tells of one")
    if facts.surrounding == "wsl":
        found = "WSL: behind its NAT no multicast arrives from the network; mirrored networking brings it"
        return Step("place", "warning", found, "wslinfo --networking-mode")
    cards = [each for each in facts.links if not each.loopback]
    if not cards:
        found = "a container with the loopback interface alone, to which nothing comes from outside"
        return Step("place", "warning", found, "docker run --network host")
    if any(each.kind != "veth" for each in cards):
        return Step("place", "ok", "a container, with an interface that is no end of a veth pair: the host's, perhaps")
    found = "a container of which each interface is one end of a veth pair: behind a bridge or a NAT of the host"
    return Step("place", "warning", f"{found}, which brings no multicast from outside", "docker run --network host")


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
