"""What the host says about a feed's path: /proc/net, /proc/sys, rtnetlink, ioctls. Facts, without an opinion.

Owns reading and parsing. Must change nothing, and must not fail where a file is not there: then the fact is None.
"""

from __future__ import annotations

import os
import pathlib
import sys
from dataclasses import dataclass, field

from ... import _arguments, _interfaces
from ..._proc_net import parse_igmp

_IFF_LOWER_UP = 0x10000  # the driver says that there is a carrier (netdevice(7))
COUNTERS = (
    "Udp.RcvbufErrors",
    "Udp.InErrors",
    "Udp.InCsumErrors",
    "Udp.IgnoredMulti",
    "IpExt.IPReversePathFilter",
    "IpExt.InMcastPkts",
)
COUNTERS6 = ("Udp6RcvbufErrors", "Udp6InErrors", "Udp6InCsumErrors", "Ip6InMcastPkts")


@dataclass
class Link:
    """A network interface. carrier and mtu are None where they can't be asked for."""

    name: str
    index: int
    addresses: tuple[str, ...]
    up: bool
    multicast: bool
    loopback: bool = False
    carrier: bool | None = None
    mtu: int | None = None


@dataclass
class Facts:
    """What is known before anything is listened to; None is what could not be read."""

    ipv6: bool
    groups: list[str]
    source: str | None = None
    interface: str | int | None = None
    links: list[Link] = field(default_factory=list)
    link: Link | None = None
    route: int = 0
    source_route: int = 0
    rp_filter: int | None = None
    version: str | None = None
    limits: dict[str, int] = field(default_factory=dict)
    container: str | None = None
    clocksource: str | None = None
    hardware: str | None = None


def text(path: str, root: str = "/") -> str | None:
    """Return a file's text, None where it can't be read."""
    try:
        return pathlib.Path(root, path.lstrip("/")).read_text("utf-8", "replace")
    except OSError:
        return None


def number(path: str, root: str = "/") -> int | None:
    """Return the number in a file, None where there is none."""
    found = (text(path, root) or "").split()
    return int(found[0]) if found and found[0].lstrip("-").isdecimal() else None


def paired(content: str) -> dict[str, int]:
    """Parse /proc/net/snmp and /proc/net/netstat: a line of names, then one of values, both after the same prefix."""
    lines = content.splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        prefix, _, rest = names.partition(": ")
        for name, value in zip(rest.split(), values.split()[1:], strict=False):
            found[f"{prefix}.{name}"] = int(value)
    return found


def listed(content: str) -> dict[str, int]:
    """Parse /proc/net/snmp6: a name and a value a line."""
    return {words[0]: int(words[1]) for words in map(str.split, content.splitlines()) if len(words) == 2}


def dropped(content: str) -> dict[str, int]:
    """Parse /proc/net/dev: what each interface dropped of what it received."""
    rows = (line.partition(":") for line in content.splitlines() if ":" in line)
    return {name.strip(): int(values.split()[3]) for name, _, values in rows}


def counters(root: str = "/") -> dict[str, int]:
    """Return the counters that tell where datagrams went; those that can't be read are left out."""
    every = paired(text("/proc/net/snmp", root) or "") | paired(text("/proc/net/netstat", root) or "")
    found = {name: every[name] for name in COUNTERS if name in every}
    every6 = listed(text("/proc/net/snmp6", root) or "")
    found |= {name: every6[name] for name in COUNTERS6 if name in every6}
    return found | {f"{name}.dropped": value for name, value in dropped(text("/proc/net/dev", root) or "").items()}


def where(root: str = "/") -> str | None:
    """Return what this runs in, if that has a say in multicast: wsl, container; None where nothing tells."""
    if "microsoft" in (text("/proc/sys/kernel/osrelease", root) or "").lower():
        return "wsl"
    marks = ("docker", "containerd", "kubepods", "libpod", "lxc")
    inside = any(mark in (text("/proc/1/cgroup", root) or "") for mark in marks)
    marked = any(os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv"))
    return "container" if inside or marked else None


def links() -> list[Link]:
    """Return the host's interfaces with carrier and MTU."""
    details = _interfaces.link_details() if sys.platform == "linux" else {}
    found = []
    for each in _interfaces.interfaces():
        link = Link(each.name, each.index, each.addresses, each.up, each.multicast, each.loopback)
        if each.index in details:
            flags, link.mtu = details[each.index]
            link.carrier = bool(flags & _IFF_LOWER_UP)
        found.append(link)
    return found


def meant(every: list[Link], interface: str | int) -> Link | None:
    """Return the interface of this name, index or own address."""
    for each in every:
        if interface in (each.name, each.index) or interface in each.addresses:
            return each
    return None


def route(address: str) -> int:
    """Return the index of the interface that the route to an address leads to; 0: there is none."""
    return _interfaces.route_index(_arguments.address(address, "doctor", "address"))


def gather(groups: list[str], source: str | None, interface: str | int | None, root: str = "/") -> Facts:
    """Return what can be known of the path of these groups; without any, of the host."""
    facts = Facts(ipv6=bool(groups) and ":" in groups[0], groups=groups, source=source, interface=interface)
    facts.links = links()
    if groups:
        facts.route = route(groups[0])
        facts.link = meant(facts.links, facts.route if interface is None else interface)
        facts.source_route = route(source) if source else 0
    name = facts.link.name if facts.link else "lo"
    base = "/proc/sys/net/ipv4"
    strict = [number(f"{base}/conf/{each}/rp_filter", root) for each in ("all", name)]
    known = [each for each in strict if each is not None]
    facts.rp_filter = max(known) if known and not facts.ipv6 else None
    facts.version = _version(name, facts.link.index if facts.link else 1, facts.ipv6, root)
    names = ("igmp_max_memberships", "igmp_max_msf")
    facts.limits = {each: value for each in names if (value := number(f"{base}/{each}", root)) is not None}
    if (most := number("/proc/sys/net/ipv6/mld_max_msf", root)) is not None:
        facts.limits["mld_max_msf"] = most
    facts.container = where(root)
    clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    facts.clocksource = (text(clock, root) or "").strip() or None
    facts.hardware = _hardware(facts.link)
    return facts


def _version(name: str, index: int, ipv6: bool, root: str) -> str | None:
    """Return the version in force: V1, V2 or V3 of IGMP, MLDv1 or MLDv2."""
    if ipv6:
        forced = [number(f"/proc/sys/net/ipv6/conf/{each}/force_mld_version", root) for each in ("all", name)]
        return "MLDv1" if 1 in forced else "MLDv2"
    forced4 = [number(f"/proc/sys/net/ipv4/conf/{each}/force_igmp_version", root) for each in ("all", name)]
    set_to = next((each for each in forced4 if each), None)
    # The kernel writes V3 also where no querier was ever seen (igmp_mc_seq_show of net/ipv4/igmp.c).
    return f"V{set_to}" if set_to else parse_igmp(text("/proc/net/igmp", root) or "")[1].get(index)


def _hardware(link: Link | None) -> str | None:
    from ...skt import hardware_timestamps

    if link is None:
        return None
    try:
        found = hardware_timestamps(link.name)
    except OSError:
        return None
    return f"the card stamps what it receives, filter {found.filter}" if found.supported else "the card stamps nothing"
