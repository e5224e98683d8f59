"""What the host says about a feed's path, without an opinion.

Owns what is asked, and of whom. Must change nothing, and must not fail where something can't be read: then the fact is
None, or not there.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ... import _arguments, _interfaces, _proc_net, _sysctl

if TYPE_CHECKING:
    from ..._feed import Feed
    from ..._proc_net import Group, Source, UdpSocket

_IFF_LOWER_UP = 0x10000  # the driver says that there is a carrier (netdevice(7))
_MOST_ROUTES = 256  # that are asked for: of a longer range, those to groups spread over it
LIMITS = ("igmp_max_memberships", "igmp_max_msf", "mld_max_msf")
LINUX = sys.platform == "linux"


@dataclass
class Link:
    """A network interface. carrier and mtu are None where they can't be asked for; kind is "" of a card."""

    name: str
    index: int
    addresses: tuple[str, ...]
    up: bool
    multicast: bool
    loopback: bool = False
    carrier: bool | None = None
    mtu: int | None = None
    kind: str = ""


@dataclass
class Facts:
    """What is known before anything is listened to; None is what could not be read.

    - routes: the interface's index that the route to a group leads to; 0: there is none
    - forced: the setting that forces a version of IGMP or MLD, and to which
    """

    ipv6: bool = False
    groups: list[str] = field(default_factory=list)
    source: str | None = None
    interface: str | int | None = None
    links: list[Link] = field(default_factory=list)
    link: Link | None = None
    routes: dict[str, int] = field(default_factory=dict)
    rp_filter: int | None = None
    version: str | None = None
    forced: tuple[str, int] | None = None
    limits: dict[str, int] = field(default_factory=dict)
    surrounding: str | None = None
    clocksource: str | None = None
    stamps: str | None = None

    @property
    def name(self) -> str:
        """What to call the interface in a sentence."""
        return self.link.name if self.link else "the interface"


@dataclass
class Held:
    """What the host holds while the feed is joined: groups, sources, and who has the port open."""

    groups: list[Group] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


@dataclass
class Holder:
    """A socket that has the feed's port, and the processes that have it open; none where this process may not see."""

    socket: UdpSocket
    processes: list[tuple[int, str]]


def gather(asked: Feed | None = None) -> Facts:
    """Return what can be known of a feed's path; without a feed, of the host."""
    facts = Facts(links=links())
    facts.surrounding = surrounding()
    facts.clocksource = clocksource()
    if asked is not None:
        facts.ipv6 = ":" in asked.group
        facts.groups, facts.source, facts.interface = asked.groups, asked.source, asked.interface
        facts.routes = {group: route(group) for group in _spread(facts.groups)} if LINUX else {}
        leading = next(filter(None, facts.routes.values()), 0)
        facts.link = meant(facts.links, leading if asked.interface is None else asked.interface)
    if facts.link is not None and LINUX:
        _add_settings(facts, facts.link)
        facts.stamps = _stamps(facts.link)
    way = ("ipv4", "ipv4", "ipv6")
    found = {name: _sysctl.value(f"net.{family}.{name}") for family, name in zip(way, LIMITS, strict=True)}
    facts.limits = {name: value for name, value in found.items() if value is not None}
    return facts


def _add_settings(facts: Facts, link: Link) -> None:
    family, protocol = ("ipv6", "mld") if facts.ipv6 else ("ipv4", "igmp")
    both = ("all", link.name.replace(".", "/"))  # the kernel looks at "all" first
    for each in both:
        name = f"net.{family}.conf.{each}.force_{protocol}_version"
        if facts.forced is None and (value := _sysctl.value(name)):
            facts.forced = name, value
    if facts.ipv6:
        facts.version = "MLDv1" if facts.forced and facts.forced[1] == 1 else "MLDv2"
        return
    # The kernel writes V3 also where no querier was ever seen (igmp_mc_seq_show of net/ipv4/igmp.c).
    told = _proc_net.parse_igmp(_read("igmp"))[1].get(link.index)
    facts.version = f"IGMPv{facts.forced[1]}" if facts.forced else told and f"IGMP{told.lower()}"
    strict = [_sysctl.value(f"net.ipv4.conf.{each}.rp_filter") for each in both]
    facts.rp_filter = max((each for each in strict if each is not None), default=None)


def links() -> list[Link]:
    """Return the host's interfaces with carrier and MTU."""
    details = _interfaces.link_details() if LINUX else {}
    found = []
    for each in _interfaces.interfaces():
        link = Link(each.name, each.index, each.addresses, each.up, each.multicast, each.loopback)
        if each.index in details:
            flags, link.mtu, link.kind = details[each.index]
            link.carrier = bool(flags & _IFF_LOWER_UP)
        found.append(link)
    return found


def meant(every: list[Link], interface: str | int) -> Link | None:
    """Return the interface of this name, index or own address; of digits, the name first, as `open_receiver` does."""
    named = [each for each in every if each.name == interface]
    found = (each for each in every if str(each.index) == str(interface) or interface in each.addresses)
    return next(iter(named), None) or next(found, None)


def route(address: str) -> int:
    """Return the index of the interface that the route to an address leads to; 0: there is none."""
    return _interfaces.route_index(_arguments.address(address, "doctor", "address"))


def _spread(groups: list[str]) -> list[str]:
    step = -(-len(groups) // _MOST_ROUTES) or 1
    return groups[::step]


def held() -> Held:
    """Return the memberships of this host, all sockets' together."""
    found = Held(_proc_net.parse_igmp(_read("igmp"))[0] + _proc_net.parse_igmp6(_read("igmp6")))
    for name in ("mcfilter", "mcfilter6"):
        found.sources += _proc_net.parse_mcfilter(_read(name))
    return found


def holders(port: int) -> list[Holder]:
    """Return the UDP sockets of this host that have the port, but for those of this process."""
    sockets = [each for name in ("udp", "udp6") for each in _proc_net.parse_udp(_read(name)) if each.port == port]
    processes = _proc_net.owners({each.inode for each in sockets})
    found = [Holder(each, processes.get(each.inode, [])) for each in sockets]
    return [each for each in found if os.getpid() not in (pid for pid, _ in each.processes)]


def surrounding(root: str = "/") -> str | None:
    """Return what this runs in, if that has a say in multicast: wsl, container; None where nothing tells."""
    if "microsoft" in (_text("/proc/sys/kernel/osrelease", root) or "").lower():
        return "wsl"
    marks = ("docker", "containerd", "kubepods", "libpod", "lxc")
    inside = any(mark in (_text("/proc/1/cgroup", root) or "") for mark in marks)
    marked = any(os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv"))
    return "container" if inside or marked else None


def clocksource() -> str | None:
    """Return the clock that timestamps of the kernel come from."""
    return (_text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "").strip() or None


def _stamps(link: Link) -> str | None:
    from ...skt import hardware_timestamps

    try:
        found = hardware_timestamps(link.name)
    except OSError:
        return None
    if not found.supported:
        return "the card stamps nothing: timestamps are the kernel's"
    return f"the card can stamp what it receives; in force is {found.filter or 'what its driver does not tell'}"


def _read(name: str) -> str:
    with contextlib.suppress(OSError):
        return _proc_net.read(name)
    return ""


def _text(path: str, root: str = "/") -> str | None:
    try:
        return pathlib.Path(root, path.lstrip("/")).read_text("utf-8", "replace")
    except OSError:
        return None
