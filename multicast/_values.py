"""The values that calls return: interfaces, counters, memberships, silences, what cards and systems can do, errors.

Owns their fields and how they print and compare. Must not ask the system for anything.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own flag; importing typing would cost more than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Value:
    """Named fields, fixed when made; two with the same fields are equal."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, **fields: Any) -> None:
        if fields.keys() != set(self.__slots__):
            raise TypeError(f"{type(self).__name__} takes exactly the fields {', '.join(self.__slots__)}")
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a new dict, in their order."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is fixed: {name} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is fixed: {name} can't be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.as_dict())

    def __eq__(self, other: object) -> bool:
        return self.as_dict() == other.as_dict() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items())
        return f"{type(self).__name__}({fields})"


def _restore(kind: type[Value], fields: dict[str, Any]) -> Value:
    return kind(**fields)


class Interface(Value):
    """A network interface of this host, as the kernel listed it when `interfaces()` was called.

    - name, index: what the kernel calls it; multicast groups are joined by the index
    - addresses: its own addresses as text, IPv4 and IPv6, without zones
    - up, multicast, loopback: its flags IFF_UP, IFF_MULTICAST, IFF_LOOPBACK (netdevice(7))
    """

    __slots__ = ("name", "index", "addresses", "up", "multicast", "loopback")  # noqa: RUF023 - the order they print in
    name: str
    index: int
    addresses: tuple[str, ...]
    up: bool
    multicast: bool
    loopback: bool


class SourceFilter(Value):
    """From which sources a socket receives a group on an interface (RFC 3678, section 2).

    - mode: "include", from none but the sources listed; "exclude", from all but those
    - sources: addresses as text, by rising number
    """

    __slots__ = ("mode", "sources")
    mode: str
    sources: tuple[str, ...]


class Membership(Value):
    """A group that a receiver has joined on an interface, as it was joined.

    - group: its address as text
    - interface, index: the interface's name when the group was joined, and its index; None and 0 where the system chose
      it and did not tell which
    - mode, sources: as in `SourceFilter`; "exclude" and no source is any source
    """

    __slots__ = ("group", "interface", "index", "mode", "sources")  # noqa: RUF023 - the order they print in
    group: str
    interface: str | None
    index: int
    mode: str
    sources: tuple[str, ...]


class Stats(Value):
    """What a receiver has counted since it was opened; after `close()`, how it ended.

    - datagrams, bytes, batches: delivered by `recv_batch` (bytes: of payload, as far as delivered)
    - truncated: how many of the datagrams were longer than `datagram_size`
    - foreign: received and left out, since they were not to a group joined on the interface they came in on
    - control_truncated: datagrams of which the kernel could not tell all that was asked for (MSG_CTRUNC, recv(2))
    - drops: datagrams that the kernel dropped for this socket since it was made, most often because its buffer was
      full (SO_MEMINFO, Linux); also those with a wrong checksum, if longer than 68 bytes, and those that a filter
      refused. None where the system does not tell. With gro, older kernels count a train as one.
    - queued: how much of the receive buffer is taken right now, in the same unit; None where the system does not tell
    - receive_buffer: bytes the socket's receive buffer holds, in the unit in which it is asked for
    - links_lost: how often an interface that was joined on has gone; rejoins: how often it was joined on again
    - silences: how often nothing had been delivered for as long as `silence` says
    - blocks: blocks of slots in existence; blocks_in_use: those that a batch or a view still holds. After a burst in
      which many were held, those that nobody needs any more go while the receiver receives, but not with `memory` or
      `hugepages`. Receivers that a `Poller` has and that are alike share theirs, in the native backend
    - slot_memory: bytes that the slots of all blocks take; with `hugepages`, whole huge pages. The stdlib backend's
      batches take as much at most
    - huge_memory: how much of that really lies on huge pages (/proc/self/smaps, asked with each `stats()`); None
      without `hugepages`, and where the system does not tell
    """

    __slots__ = (  # noqa: RUF023 - the order they print in
        "datagrams",
        "bytes",
        "batches",
        "truncated",
        "foreign",
        "control_truncated",
        "drops",
        "queued",
        "receive_buffer",
        "links_lost",
        "rejoins",
        "silences",
        "blocks",
        "blocks_in_use",
        "slot_memory",
        "huge_memory",
    )
    datagrams: int
    bytes: int
    batches: int
    truncated: int
    foreign: int
    control_truncated: int
    drops: int | None
    queued: int | None
    receive_buffer: int
    links_lost: int
    rejoins: int
    silences: int
    blocks: int
    blocks_in_use: int
    slot_memory: int
    huge_memory: int | None


class HardwareTimestamps(Value):
    """What an interface's network card can do about timestamping, as the driver says (timestamping.rst of Linux).

    - interface: its name
    - supported: whether it stamps what it receives, in a form that sockets get (SOF_TIMESTAMPING_RX_HARDWARE and
      SOF_TIMESTAMPING_RAW_HARDWARE)
    - filters: which packets it can be told to stamp, by the names of linux/net_tstamp.h: HWTSTAMP_FILTER_ALL are all
      packets, those of PTP and NTP are of no use to another feed
    - filter: the one in force, HWTSTAMP_FILTER_NONE where it stamps none; None where the driver does not tell
    - clock: the number of its clock, as in /dev/ptp0; None if it has none
    """

    __slots__ = ("interface", "supported", "filters", "filter", "clock")  # noqa: RUF023 - the order they print in
    interface: str
    supported: bool
    filters: tuple[str, ...]
    filter: str | None
    clock: int | None


class SocketError(Value):
    """What became of a datagram that a socket sent, from its error queue (MSG_ERRQUEUE, ip(7), recvmsg(2)).

    - errno: as in OSError, such as ECONNREFUSED or EMSGSIZE; 0 or ENOMSG where it is no error
    - origin: who says so: "local", "icmp", "icmp6", "txstatus", "timestamping", "zerocopy", "txtime" or "none"; a
      number as text for one that is newer than this; "unknown" if the kernel's message could not be read
    - type, code: of the ICMP message (RFC 792, RFC 4443); elsewhere as linux/errqueue.h has it
    - info, data: for EMSGSIZE, info is the MTU of the path; elsewhere as linux/errqueue.h has it
    - offender: the address of the host that sent the ICMP message, None if there is none
    - destination: where the datagram was sent to, as `socket.sendto` takes it, None if the kernel does not tell. Of one
      that was too long to leave over IPv4 the port is that of a connected socket, else 0
    """

    __slots__ = (  # noqa: RUF023 - the order they print in
        "errno",
        "origin",
        "type",
        "code",
        "info",
        "data",
        "offender",
        "destination",
    )
    errno: int
    origin: str
    type: int
    code: int
    info: int
    data: int
    offender: str | None
    destination: tuple[str, int] | tuple[str, int, int, int] | None


class Silence(Value):
    """That nothing was delivered for a while, and whether the feed is quiet or can't come through.

    - seconds: for how long nothing was delivered, at least
    - interfaces: each one that was joined on, and its state: (name, "up"), "no carrier" (IFF_UP without IFF_RUNNING,
      netdevice(7)), "down" (not IFF_UP), "gone" (deleted, or in another network namespace)
    - joined: whether the kernel had every membership, before what could be joined again was joined again
    - dead: whether an interface is not "up" or a membership was missing; if not, the trouble is further away, or none
    """

    __slots__ = ("seconds", "interfaces", "joined", "dead")  # noqa: RUF023 - the order they print in
    seconds: float
    interfaces: tuple[tuple[str, str], ...]
    joined: bool
    dead: bool


class Capability(Value):
    """Whether a feature works here, which is also its truth value, and why not.

    - name: the field of `Capabilities` that it is
    - works: as `capabilities()` found it when it was called
    - why: what is missing, in a sentence; empty where it works
    """

    __slots__ = ("name", "works", "why")  # noqa: RUF023 - the order they print in
    name: str
    works: bool
    why: str

    def __bool__(self) -> bool:
        return self.works


class Capabilities(Value):
    """What works here, for this process, when `capabilities()` was called. Iterating gives each `Capability`.

    - recvmmsg, sendmmsg: batches go through one system call (recvmmsg(2), sendmmsg(2)); else one a datagram, with the
      same results
    - memory: the kernel writes datagrams into a buffer of yours, `memory`
    - transparent_hugepages: slots on huge pages, `hugepages="transparent"` (MADV_HUGEPAGE, madvise(2))
    - reserved_hugepages: the same with `hugepages="reserved"`, and at least one of those is free (MAP_HUGETLB, mmap(2))
    - ipv4, ipv6: UDP sockets can be made and bound, and join a group; for IPv6, some interface has an address of it
    - interfaces: the kernel tells which interfaces there are; else none can be named as an argument
    - source_specific: joining a group from one source (MCAST_JOIN_SOURCE_GROUP, RFC 3678)
    - source_filters: setting the whole list of a group's sources at once (MCAST_MSFILTER, RFC 3678)
    - isolation_ipv4: the kernel keeps from a socket what others joined (IP_MULTICAST_ALL, ip(7)), and tells where each
      datagram was sent to, so that the rest can be left out here
    - isolation_ipv6: the latter over IPv6 (IPV6_RECVPKTINFO), which is enough there
    - source, destination, interface, ttl, tos, drops: the column of that name (`COLUMNS`)
    - software_timestamps: the kernel's, `timestamps="software"` (SO_TIMESTAMPNS, socket(7))
    - hardware_timestamps: sockets take `timestamps="hardware"` (SO_TIMESTAMPING). Whether a network card stamps what it
      receives is another question, which `hardware_timestamps(interface)` answers; where it does not, the kernel does
    - kernel_drops: `Stats.drops` and `Stats.queued` (SO_MEMINFO)
    - real_lengths: the length of what was cut (MSG_TRUNC, recv(2)); else only that it was cut
    - receive_buffer_force: receive buffers beyond net.core.rmem_max (SO_RCVBUFFORCE, socket(7))
    - gro: receiving trains of datagrams, `gro=True` (UDP_GRO, udp(7))
    - segmentation: sending trains of datagrams (UDP_SEGMENT, udp(7))
    - filter: filters in the kernel, `Filter` (SO_ATTACH_FILTER, socket(7))
    - busy_poll: raising the time for which a socket polls its network card (SO_BUSY_POLL, socket(7))
    - error_queue: errors that sent datagrams met on their way (IP_RECVERR, ip(7); IPV6_RECVERR, ipv6(7))
    - self_healing: hearing from the kernel that an interface went or came (RTMGRP_LINK, rtnetlink(7))
    - silence_watchdog: being woken when nothing comes (timerfd_create(2))
    """

    __slots__ = (  # noqa: RUF023 - the order they print in
        "recvmmsg",
        "sendmmsg",
        "memory",
        "transparent_hugepages",
        "reserved_hugepages",
        "ipv4",
        "ipv6",
        "interfaces",
        "source_specific",
        "source_filters",
        "isolation_ipv4",
        "isolation_ipv6",
        "source",
        "destination",
        "interface",
        "ttl",
        "tos",
        "drops",
        "software_timestamps",
        "hardware_timestamps",
        "kernel_drops",
        "real_lengths",
        "receive_buffer_force",
        "gro",
        "segmentation",
        "filter",
        "busy_poll",
        "error_queue",
        "self_healing",
        "silence_watchdog",
    )
    recvmmsg: Capability
    sendmmsg: Capability
    memory: Capability
    transparent_hugepages: Capability
    reserved_hugepages: Capability
    ipv4: Capability
    ipv6: Capability
    interfaces: Capability
    source_specific: Capability
    source_filters: Capability
    isolation_ipv4: Capability
    isolation_ipv6: Capability
    source: Capability
    destination: Capability
    interface: Capability
    ttl: Capability
    tos: Capability
    drops: Capability
    software_timestamps: Capability
    hardware_timestamps: Capability
    kernel_drops: Capability
    real_lengths: Capability
    receive_buffer_force: Capability
    gro: Capability
    segmentation: Capability
    filter: Capability
    busy_poll: Capability
    error_queue: Capability
    self_healing: Capability
    silence_watchdog: Capability

    def __iter__(self) -> Iterator[Capability]:
        return iter(self.as_dict().values())
