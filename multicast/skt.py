"""The door: multicast sockets from either backend, under one contract.

Owns the choice of the backend (the only place that has it), the checks on the way in and the words of what fails.
Must not make a system call that a backend could make, nor stand between a user and a batch.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings

from . import (
    _arguments,
    _errors,
    _extension_check,
    _membership,
    _other_package,  # noqa: F401  # also here: __init__.py may be the other project's
)
from ._capacity import receive_capacity
from ._columns import COLUMNS
from ._error_queue import read_errors, set_error_queue
from ._feed import Feed, parse_feed
from ._filter import Filter, attach, program
from ._hardware import hardware_timestamps, set_hardware_timestamps
from ._interfaces import interface_index, interface_name, interfaces, route_index
from ._late import late
from ._tuning import incoming_cpu, incoming_napi_id, set_busy_poll
from ._values import (
    Capabilities,
    Capability,
    HardwareTimestamps,
    Interface,
    Membership,
    Silence,
    SocketError,
    SourceFilter,
    Stats,
)
from ._watch import Watch

TYPE_CHECKING = False  # typing's own flag; importing typing would cost more than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import SupportsFloat, SupportsIndex

    from typing_extensions import Buffer

    from ._arguments import AddressLike
    from ._filter import FilterLike
    from ._interfaces import InterfaceLike

__module__ = __name__

__all__ = [
    "BACKEND",
    "BACKEND_REASON",
    "COLUMNS",
    "Batch",
    "Capabilities",
    "Capability",
    "Feed",
    "Filter",
    "HardwareTimestamps",
    "Interface",
    "Membership",
    "Poller",
    "Receiver",
    "Sender",
    "Silence",
    "SocketError",
    "SourceFilter",
    "Stats",
    "block_source",
    "capabilities",
    "endSocket",
    "genSocket",
    "get_source_filter",
    "hardware_timestamps",
    "incoming_cpu",
    "incoming_napi_id",
    "interfaces",
    "join_group",
    "leave_group",
    "open_receiver",
    "open_sender",
    "parse_feed",
    "read_errors",
    "receive_capacity",
    "set_busy_poll",
    "set_error_queue",
    "set_filter",
    "set_hardware_timestamps",
    "set_multicast_interface",
    "set_multicast_loopback",
    "set_multicast_ttl",
    "set_receive_buffer",
    "set_source_filter",
    "unblock_source",
]


# The backend -------------------------------------------------------------------------------------------------------

_choice = os.environ.get("MULTICAST_BACKEND") or "auto"
if _choice not in ("auto", "native", "stdlib"):
    raise ImportError(f"MULTICAST_BACKEND={_choice!r}: use auto, native or stdlib")

BACKEND: str = "stdlib"
BACKEND_REASON: str = "MULTICAST_BACKEND=stdlib"
if _choice != "stdlib":
    _extension_check.refuse_cut()
    try:
        import multicast._skt as _extension
    except ModuleNotFoundError as _error:
        # Only this may end on the other backend. An extension that is there and does not load is an error, as it is.
        if _error.name != "multicast._skt":
            raise
        BACKEND_REASON = _extension_check.why_missing()
        if _choice == "native":
            raise ImportError(f"MULTICAST_BACKEND=native: {BACKEND_REASON}", name="multicast._skt") from None
    else:
        _extension_check.refuse_another(_extension)
        BACKEND, BACKEND_REASON = "native", f"MULTICAST_BACKEND={_choice}, and the extension is there"

if TYPE_CHECKING or BACKEND == "stdlib":
    from . import _skt_py as _backend
else:
    _backend = _extension

Batch = _backend.Batch
Poller = _backend.Poller
Receiver = _backend.Receiver
Sender = _backend.Sender

_said: set[str] = set()


def _say_once(text: str, key: str) -> None:
    """Warn, once a process, where the user's code calls into this package."""
    if key in _said:
        return
    _said.add(key)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)


if BACKEND == "stdlib" and _choice == "auto" and sys.platform == "linux":

    def _notice() -> None:
        _say_once(
            f"receiving through the standard library, one system call a datagram: {BACKEND_REASON}. "
            "MULTICAST_BACKEND=stdlib accepts that without this warning",
            "fallback",
        )

    _backend.notice = _notice


def capabilities() -> Capabilities:
    """Return which features work here, for this process and now, and why the others don't: each is tried, every time.

    Nothing is sent to a network, and nothing stays open or changed. Raises OSError where that can't be found out:
    EMFILE, ENFILE, ENOMEM, ENOBUFS.
    """
    found: Capabilities = late("_capabilities").find(_backend, BACKEND_REASON)
    return found


# The names that the specification fixes ----------------------------------------------------------------------------


def genSocket() -> socket.socket:
    """Return a new unbound UDP socket over IPv4, ready to be bound and joined.

    Address reuse is on (several processes of a host receive the same group), multicast TTL is 1 (RFC 1112), and where
    the system has it, only groups joined on this very socket are delivered (IP_MULTICAST_ALL off, ip(7)).
    Raises OSError.
    """
    return _new_socket(socket.AF_INET, reuse=True)


def endSocket(sock: object = None) -> None:
    """Close a socket; on None, on one that is closed already and on what is no socket, do nothing."""
    if isinstance(sock, socket.socket):
        sock.close()


def _new_socket(family: socket.AddressFamily, *, reuse: bool, limit: bool = True) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform not in ("linux", "win32"):  # the BSDs share a multicast port by this one
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _backend.set_multicast_ttl(sock, 1)
        if limit:
            _backend.limit_to_joined(sock)
    except BaseException:
        sock.close()
        raise
    return sock


# Verbs on any socket -----------------------------------------------------------------------------------------------


def join_group(
    sock: socket.socket, group: AddressLike, interface: InterfaceLike = None, source: AddressLike | None = None
) -> None:
    """Join a multicast group: from any source, or with `source` from that one alone (IGMPv3, MLDv2; RFC 3678).

    - sock: a UDP socket of the group's family. Each source of a group is joined by a call of its own.
    - group, source: addresses as text or `ipaddress` objects; a zone, as in ff02::1%eth0, names the interface
    - interface: its name, index, one of its own addresses, an `Interface`, or None: the one the route to the group
      leads to. It is joined by index; groups of IPv6 scope 1 and 2 need one.

    Raises TypeError or ValueError for arguments that can't be, and OSError with the errno of what failed: ENODEV (no
    such interface, or no route), EADDRINUSE (joined already), EADDRNOTAVAIL (no interface has that address), EINVAL
    (joined in the other mode), ENOBUFS (a limit, which is named).
    """
    _membership.change_member(_backend, "join_group", sock, group, interface, source)


def leave_group(
    sock: socket.socket, group: AddressLike, interface: InterfaceLike = None, source: AddressLike | None = None
) -> None:
    """Leave a group, or one source of it; the arguments are those that it was joined with.

    Leaving the last source leaves the group. On an interface that has gone, a group can still be left by the index that
    this had, with all of its sources at once: the kernel has them no more.
    Raises as `join_group` does; EADDRNOTAVAIL: not joined; EINVAL: nothing is joined that this could be a source of.
    """
    _membership.change_member(_backend, "leave_group", sock, group, interface, source)


def block_source(sock: socket.socket, group: AddressLike, source: AddressLike, interface: InterfaceLike = None) -> None:
    """Stop receiving one source of a group that was joined from any source (RFC 3678, section 4.1.3).

    - sock, group, source, interface: as in `join_group`; interface None is the one that the route to the group leads to

    Raises as `join_group` does; EINVAL: the group is not joined, or from named sources, of which one is left instead;
    EADDRNOTAVAIL: blocked already; ENOBUFS (a limit, which is named).
    """
    _membership.change_member(_backend, "block_source", sock, group, interface, source)


def unblock_source(
    sock: socket.socket, group: AddressLike, source: AddressLike, interface: InterfaceLike = None
) -> None:
    """Receive a source again that `block_source` had blocked; the arguments are the same.

    Raises as `block_source` does; EADDRNOTAVAIL: not blocked.
    """
    _membership.change_member(_backend, "unblock_source", sock, group, interface, source)


def set_source_filter(
    sock: socket.socket,
    group: AddressLike,
    mode: str,
    sources: AddressLike | Iterable[AddressLike],
    interface: InterfaceLike = None,
) -> None:
    """Say at once from which sources to receive a group that was joined, whatever was said before.

    - sock, group, interface: as in `block_source`
    - mode: "include", from none but these sources; "exclude", from all but these
    - sources: one or several, as in `join_group`; to include none is to leave the group, to exclude none is any source

    The kernel changes both in one step, and reports it as one (MCAST_MSFILTER; RFC 3678, section 5.2).
    Raises TypeError or ValueError for arguments that can't be, and OSError with the errno of what failed: EINVAL (the
    group is not joined; to include none: EADDRNOTAVAIL), ESRCH (the interface was made anew since), ENODEV (there is no
    such interface), ENOBUFS (a limit, which is named), ENOSYS (not Linux).
    """
    _membership.set_source_filter(_backend, sock, group, mode, sources, interface)


def get_source_filter(sock: socket.socket, group: AddressLike, interface: InterfaceLike = None) -> SourceFilter:
    """Return from which sources a socket receives a group, as the kernel has it: a `SourceFilter`.

    - sock, group, interface: as in `block_source`; the interface may be the index of one that has gone

    Raises TypeError or ValueError for arguments that can't be, and OSError: EADDRNOTAVAIL (the group is not joined on
    this interface), ENODEV (there is no such interface), ENOSYS (not Linux). See RFC 3678, section 5.2.2.
    """
    return _membership.get_source_filter(_backend, sock, group, interface)


def set_multicast_interface(sock: socket.socket, interface: InterfaceLike) -> None:
    """Send this socket's multicast through an interface; None: back to what the route says.

    Raises TypeError, ValueError, and OSError (ENODEV, EADDRNOTAVAIL: there is no such interface).
    """
    doing = "set_multicast_interface"
    checked = _arguments.multicast_socket(sock, doing)
    index = interface_index(interface, doing)
    try:
        _backend.set_multicast_interface(checked, index)
    except OSError as error:
        raise _errors.system(error, f"{doing} {interface_name(index) if index else None}") from None


def set_multicast_ttl(sock: socket.socket, ttl: SupportsIndex) -> None:
    """Set how many hops this socket's multicast may go: 0 stays in this host, 1 in this network (RFC 1112, 6.1).

    - ttl: 0 to 255; over IPv6 it is the hop limit

    Raises TypeError, ValueError, and OSError.
    """
    doing = "set_multicast_ttl"
    checked = _arguments.multicast_socket(sock, doing)
    hops = _arguments.whole(ttl, doing, "ttl", 0, 255)
    try:
        _backend.set_multicast_ttl(checked, hops)
    except OSError as error:
        raise _errors.system(error, f"{doing} {hops}") from None


def set_multicast_loopback(sock: socket.socket, enabled: bool) -> None:
    """Say whether receivers on this host get what this socket multicasts (RFC 1112, 6.1; on Linux the sender decides).

    Raises TypeError, ValueError, and OSError.
    """
    doing = "set_multicast_loopback"
    checked = _arguments.multicast_socket(sock, doing)
    wanted = _arguments.boolean(enabled, doing, "enabled")
    try:
        _backend.set_multicast_loopback(checked, wanted)
    except OSError as error:
        raise _errors.system(error, f"{doing} {wanted}") from None


def set_receive_buffer(sock: socket.socket, nbytes: SupportsIndex) -> int:
    """Ask for a receive buffer and return what the kernel granted, both in bytes (SO_RCVBUF, socket(7)).

    Where this process may (CAP_NET_ADMIN), the limit net.core.rmem_max is passed (SO_RCVBUFFORCE). Where less is
    granted than was asked for, a RuntimeWarning says so, once a process. The kernel charges a datagram with more than
    its payload: how many fit, `receive_capacity` measures.
    Raises TypeError, ValueError, and OSError.
    """
    doing = "set_receive_buffer"
    checked = _arguments.open_socket(sock, doing)
    requested = _arguments.whole(nbytes, doing, "nbytes", 1, 2**31 - 1)
    try:
        granted = _backend.set_receive_buffer(checked, requested)
    except OSError as error:
        raise _errors.system(error, f"{doing} {requested}") from None
    if granted < requested:
        _say_once(_errors.clamped(requested, granted), "clamped")
    return granted


def set_filter(sock: socket.socket, filter: FilterLike) -> None:
    """Let the kernel queue only the datagrams that pass a filter (SO_ATTACH_FILTER, socket(7)); Linux.

    - filter: a `Filter`, or a classic BPF program of your own: a sequence of (code, jt, jf, k), as `tcpdump -ddd` has
      them; offset 0 is the UDP header, the payload is at 8, the IP header at -0x100000

    What is queued already stays; `open_receiver(filter=...)` sets it before the socket is bound. What it refuses the
    kernel counts as a drop, and cannot tell from the others. A filter replaces an earlier one.
    Raises TypeError, ValueError, and OSError: EINVAL (no program that the kernel takes), ENOMEM (net.core.optmem_max is
    named), EPERM (the socket's filter is locked), EOPNOTSUPP (this system has none).
    """
    doing = "set_filter"
    checked = _arguments.multicast_socket(sock, doing)
    attach(checked, program(filter, checked.family, doing), doing)


# From nothing to receiving -----------------------------------------------------------------------------------------


def open_receiver(
    group: AddressLike | Iterable[AddressLike],
    port: SupportsIndex,
    *,
    interface: InterfaceLike | Iterable[InterfaceLike] = None,
    source: AddressLike | Iterable[AddressLike] | None = None,
    batch_size: SupportsIndex = 64,
    datagram_size: SupportsIndex = 2048,
    receive_buffer: SupportsIndex | None = None,
    timeout: SupportsFloat | None = None,
    spin: SupportsFloat | None = None,
    max_blocks: SupportsIndex | None = None,
    exclusive: bool = False,
    columns: str | Iterable[str] = (),
    timestamps: str | None = None,
    gro: bool = False,
    isolation: bool = True,
    filter: FilterLike | None = None,
    memory: Buffer | None = None,
    hugepages: str | None = None,
    self_healing: bool = True,
    silence: SupportsFloat | None = None,
    on_silence: Callable[[Silence], object] | None = None,
) -> _backend.Receiver:
    """Open a socket, join, and return a `Receiver` of the group's datagrams.

    - group: one group, or several of one family, all received on the same port. A receiver of one is bound to it; one
      that was given a list, be it of one, can be joined to others later (`Receiver.join`)
    - port: 1 to 65535
    - interface: as in `join_group`, or several: each group is joined on each of them
    - source: only datagrams from this host, or from these, whatever the group; None: from any
    - receive_buffer: bytes to ask the kernel for (`set_receive_buffer`); None: the system's default
    - exclusive: refuse to share the port. Otherwise several processes can receive the same group, each a copy of every
      datagram, and so can any other user of this host
    - isolation: deliver only the groups joined here, from the interfaces they were joined on, and no unicast, whatever
      other sockets of this host have joined. With one IPv4 group the kernel sees to that (IP_MULTICAST_ALL off, and the
      socket bound to the group); else what it lets through is left out here, and counted (`Stats.foreign`). False: take
      all that this host receives on the port
    - self_healing: when an interface was deleted and is there again, by its name, join on it again, and log that
      (Linux). It is seen while somebody receives, or waits on `fileno()`
    - silence: seconds without a datagram after which on_silence is called, and again after as many more; None: never
    - on_silence: called in the receiving thread with a `Silence`, which tells a dead feed from a quiet one; what it
      raises, the receive raises. None: it is logged
    - filter: which datagrams the kernel may queue at all (`set_filter`)
    - batch_size, datagram_size, timeout, spin, max_blocks, columns, timestamps, gro, memory, hugepages: as in
      `Receiver`

    Everything is undone if a step fails. A socket can join net.ipv4.igmp_max_memberships groups (20, as Linux comes)
    on all of its interfaces together, and have net.ipv4.igmp_max_msf sources of each (10; over IPv6
    net.ipv6.mld_max_msf, 64): for more, raise these, or open several receivers.
    Raises TypeError or ValueError for arguments that can't be, and OSError as `join_group` does and for the port
    (EADDRINUSE: somebody has it and one of you does not share).
    """
    operation = "open_receiver"
    groups = [_arguments.group_address(each, operation) for each in _arguments.several(group)]
    if not groups:
        raise ValueError(f"{operation}: no group was named")
    if len({each.family for each in groups}) > 1:
        raise ValueError(f"{operation}: the groups {', '.join(map(str, groups))} are of different families")
    origins = None if source is None else _arguments.source_addresses(source, groups[0], operation)
    if origins is not None and not origins:
        raise ValueError(f"{operation}: no source was named; None is for any")
    number = _arguments.whole(port, operation, "port", 1, 65_535)
    sharing = not _arguments.boolean(exclusive, operation, "exclusive")
    places = list(_arguments.several(interface))
    if not places:
        raise ValueError(f"{operation}: no interface was named; None is for the one that the route leads to")
    memberships = {}
    for place in places:
        for each in groups:
            index = _membership.zoned_index(each, place, f"{operation} {each}") or route_index(each)
            memberships[each.packed, index] = each.text

    isolated = _arguments.boolean(isolation, operation, "isolation")
    _arguments.hugepages(hugepages, memory, operation)
    healing = _arguments.boolean(self_healing, operation, "self_healing")
    seconds = _arguments.silence(silence, operation)
    called = _arguments.on_silence(on_silence, seconds, operation)
    if seconds is not None and not healing:
        raise ValueError(f"{operation}: silence needs self_healing")
    instructions = None if filter is None else program(filter, groups[0].family, operation)

    sock = _new_socket(groups[0].family, reuse=sharing, limit=isolated)
    opened: socket.socket | _backend.Receiver = sock
    try:
        if instructions is not None:
            attach(sock, instructions, operation)
        if receive_buffer is not None:
            set_receive_buffer(sock, receive_buffer)
        indexes = [index for _, index in memberships]
        any_address = (
            not isolated
            or not _arguments.is_one(group)
            or sys.platform == "win32"
            or (groups[0].needs_zone and len(indexes) > 1)  # else it is bound to one interface, too
        )
        _bind(sock, groups, number, indexes[0], any_address, operation)
        receiver = opened = Receiver(
            sock,
            batch_size=batch_size,
            datagram_size=datagram_size,
            timeout=timeout,
            spin=spin,
            max_blocks=max_blocks,
            columns=columns,
            timestamps=timestamps,
            gro=gro,
            # Over IPv6 Linux asks which groups a socket has joined, and not on which interface (inet6_mc_check).
            isolation=isolated and sys.platform == "linux" and (any_address or groups[0].family == socket.AF_INET6),
            memory=memory,
            hugepages=hugepages,
        )
        for (_, index), text in memberships.items():
            receiver._change("join", text, index or None, origins, operation, len(memberships))
        if healing and (sys.platform == "linux" or seconds is not None):
            _watch_over(receiver, seconds, called, operation)
        return receiver
    except BaseException:
        opened.close()
        raise


def _watch_over(
    receiver: _backend.Receiver, silence: float | None, on_silence: Callable[[Silence], object] | None, operation: str
) -> None:
    """Have a receiver healed; where a sandbox refuses that and nobody asked for it, warn."""
    try:
        receiver._watch_over(
            lambda memberships, fd: Watch(
                memberships, silence=silence, on_silence=on_silence, fd=fd, operation=operation
            )
        )
    except OSError as error:
        if silence is not None or error.errno in _errors.OUT_OF:
            raise
        _say_once(f"{error}: receivers will not heal (self_healing=False accepts that without this warning)", "healing")


def _bind(
    sock: socket.socket, groups: list[_arguments.Address], port: int, index: int, any_address: bool, operation: str
) -> None:
    """Bind to the group, or to any address."""
    try:
        sock.bind(("", port) if any_address else groups[0].sockaddr(port, index if groups[0].needs_zone else 0))
    except OSError as error:
        shown = "*" if any_address else groups[0] if sock.family == socket.AF_INET else f"[{groups[0]}]"
        doing = f"{operation} {', '.join(map(str, groups))}: binding to {shown}:{port}"
        raise _errors.system(error, doing, _errors.bind_hint(error)) from None


def open_sender(
    group: AddressLike,
    port: SupportsIndex,
    *,
    interface: InterfaceLike = None,
    ttl: SupportsIndex = 1,
    loopback: bool = True,
    segmentation: bool = True,
) -> _backend.Sender:
    """Open a socket that sends to a group, and return its `Sender`.

    - group, port: where to; the port is 1 to 65535
    - interface: to send through, as in `join_group`; one of its own addresses is also the address sent from
    - ttl: how many hops it may go (`set_multicast_ttl`)
    - loopback: whether receivers on this host get it, too (`set_multicast_loopback`)
    - segmentation: whether `send_batch` may hand several datagrams of one length to the kernel as a train, which it
      cuts on their way out (UDP_SEGMENT, udp(7)). Receivers get the same datagrams either way.

    Everything is undone if a step fails. Raises TypeError, ValueError, and OSError: ENODEV, EADDRNOTAVAIL (no such
    interface), ENETUNREACH (no route, and no interface was named).
    """
    operation = "open_sender"
    address = _arguments.group_address(group, operation)
    number = _arguments.whole(port, operation, "port", 1, 65_535)
    doing = f"{operation} {address}"
    index = _membership.zoned_index(address, interface, doing)
    sock = _new_socket(address.family, reuse=False)
    try:
        if index:
            set_multicast_interface(sock, index)
        set_multicast_ttl(sock, ttl)
        set_multicast_loopback(sock, loopback)
        own = _arguments.parse_address(interface)
        try:
            if own is not None and own.family == address.family:
                sock.bind(own.sockaddr(0, index))
            sock.connect(address.sockaddr(number, index))
        except OSError as error:
            hint = "" if index else "; no interface was named, and no route leads to the group"
            raise _errors.system(error, doing, hint) from None
        return Sender(sock, segmentation=segmentation)
    except BaseException:
        sock.close()
        raise
