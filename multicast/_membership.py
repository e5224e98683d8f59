"""Which groups a socket is a member of, on which interfaces, from which sources (RFC 3376, RFC 3678, RFC 3810).

Owns how a change of that is asked for, and how a refusal is explained. Must not choose a backend: it is given one, the
module of the primitives; nor remember anything: what a receiver has joined is remembered in `_memberships.py`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys

from . import _arguments, _errors
from ._interfaces import interface_index, interface_name, interface_names, is_here, route_index
from ._values import SourceFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import TypeAlias

    from ._arguments import Address, AddressLike
    from ._interfaces import InterfaceLike

    Key: TypeAlias = tuple[bytes, int]  # a group, and the index of an interface

JOIN, LEAVE, BLOCK, UNBLOCK = "join_group", "leave_group", "block_source", "unblock_source"
SET, GET = "set_source_filter", "get_source_filter"


class Aim:
    """What a call is about: a group on an interface, perhaps one source of it, and how an error names them."""

    __slots__ = ("address", "index", "operation", "source")

    def __init__(self, operation: str, address: Address, index: int, source: Address | None = None) -> None:
        self.operation, self.address, self.index, self.source = operation, address, index, source

    @property
    def doing(self) -> str:
        what = said(self.operation, self.address, self.source)
        return f"{what} on {interface_name(self.index)}" if self.index else what

    @property
    def key(self) -> Key:
        """What the kernel knows a membership of a socket by."""
        return self.address.packed, self.index

    def of(self, source: Address | None) -> Aim:
        """The same for another source."""
        return Aim(self.operation, self.address, self.index, source)


def said(operation: str, group: Address, source: Address | None) -> str:
    """Return how an error begins: the operation and its arguments."""
    return f"{operation} {group}" + ("" if source is None else f" from {source}")


def aimed(
    operation: str,
    sock: socket.socket,
    address: Address,
    interface: InterfaceLike,
    source: Address | None = None,
    *,
    gone: bool = False,
    route: bool = True,
) -> Aim:
    """Return what a call is about, once its socket, group and source are checked.

    - gone: whether the interface may be one that exists no more: it can be left, not joined
    - route: whether to look up the interface if none is named. Linux would do it for a join, but of filters it then
      finds none, and over IPv6 may find those of another interface (index 0 in ip_mc_gsfget, ip6_mc_source).
    """
    doing = said(operation, address, source)
    if address.family != sock.family:
        raise ValueError(f"{doing}: the socket is {sock.family.name}")
    index = zoned_index(address, interface, doing, gone=gone)
    if not index and route:
        index = route_index(address)
    return Aim(operation, address, index, source)


def zoned_index(address: Address, interface: InterfaceLike, doing: str, *, gone: bool = False) -> int:
    """Return the index of the interface that a group is meant on, which its zone may name, too."""
    index = interface_index(interface, doing, gone=gone)
    if address.zone is not None:
        zone = interface_index(address.zone, doing, gone=gone)
        if index not in (0, zone):
            raise ValueError(
                f"{doing}: the group's zone and the interface {_arguments.shown(interface)} are not the same"
            )
        index = zone
    if not index and address.needs_zone:
        raise ValueError(f"{doing}: such a group is another on every interface (RFC 4291, 2.7): name the interface")
    return index


# Changes, each one system call ---------------------------------------------------------------------------------------


def change(
    backend: ModuleType, verb: str, sock: socket.socket, aim: Aim, *, groups: int | None = None, asked: int = 0
) -> bool:
    """Join, leave, block or unblock what the aim says; whether that was the group as a whole.

    - groups, asked: how many groups the socket has joined, and how many it should; None and 0 if not known

    Raises OSError that says what the membership was.
    """
    group, source = aim.address.packed, None if aim.source is None else aim.source.packed
    if source is not None and verb in (JOIN, LEAVE) and _is_joined_from_any(backend, sock, group, aim.index):
        raise _errors.failed(errno.EINVAL, aim.doing, _errors.OTHER_MODE["exclude"])
    try:
        getattr(backend, verb)(sock, group, aim.index, source)
    except OSError as error:
        if verb == LEAVE and source is not None and error.errno == errno.ENODEV:
            # Linux finds no interface to take the source from, but keeps the entry, which counts against
            # net.ipv4.igmp_max_memberships: so let the whole of it go.
            return change(backend, LEAVE, sock, aim.of(None))
        raise _refused(backend, verb, sock, aim, error, groups=groups, asked=asked) from None
    return source is None


def change_filter(backend: ModuleType, sock: socket.socket, aim: Aim, include: bool, sources: list[Address]) -> None:
    """Set mode and sources of a membership at once; to include none is to leave (RFC 3678, section 3)."""
    if include and not sources:
        change(backend, LEAVE, sock, aim)
        return
    try:
        backend.set_source_filter(sock, aim.address.packed, aim.index, include, [each.packed for each in sources])
    except OSError as error:
        raise _refused(backend, SET, sock, aim, error, listed=len(sources)) from None


def current_filter(
    backend: ModuleType, sock: socket.socket, group: bytes, index: int
) -> tuple[str | None, frozenset[bytes]]:
    """Return the mode and the sources of a membership; None: not a member, "": that can't be told here."""
    try:
        include, sources = backend.get_source_filter(sock, group, index)
    except OSError as error:
        return None if error.errno == errno.EADDRNOTAVAIL else "", frozenset()
    except ImportError:  # of ctypes, which the stdlib backend needs for it
        return "", frozenset()
    return "include" if include else "exclude", frozenset(sources)


def _refused(
    backend: ModuleType,
    verb: str,
    sock: socket.socket,
    aim: Aim,
    error: OSError,
    *,
    groups: int | None = None,
    asked: int = 0,
    listed: int | None = None,
) -> OSError:
    """Return the error with what the membership was; a join that was half done is undone."""
    group, index = aim.address.packed, aim.index or route_index(aim.address)
    mode, sources = current_filter(backend, sock, group, index)
    if verb == JOIN and aim.source is not None and mode == "include" and not sources:
        # Linux, refused the memory for the source, keeps the entry that it had made for it: from no source at all.
        with contextlib.suppress(OSError):
            backend.leave_group(sock, group, index, None)
    hint = _errors.membership_hint(
        error.errno or 0,
        verb=verb,
        mode=mode,
        listed=len(sources) if listed is None else listed,
        source=aim.source is not None,
        ipv6=aim.address.family == socket.AF_INET6,
        named=bool(aim.index),
        here=is_here(aim.index),
        names=interface_names(),
        anew=error.errno == errno.EADDRINUSE and not _is_listed(aim.address, index),
        groups=groups,
        asked=asked,
    )
    return _errors.system(error, aim.doing, hint)


def _is_listed(group: Address, index: int) -> bool:
    """Whether this host has joined a group on an interface, as it tells; True where it does not."""
    try:
        with open(f"/proc/net/{kernel_groups_file(group.family)}", "rb") as file:
            return (group.packed, index) in kernel_groups(file.read(), group.family)
    except OSError:
        return True


def kernel_groups_file(family: int) -> str:
    """Return the name of what `kernel_groups` reads, in a folder net of /proc."""
    return "igmp6" if family == socket.AF_INET6 else "igmp"


def kernel_groups(told: bytes, family: int) -> set[Key]:
    """Return what /proc/net/igmp or igmp6 says: which groups this host has joined, and on which interfaces.

    As bytes: an interface's name may be no text, and text has other spaces and line ends than names can't have.
    """
    lines = [line.split() for line in told.splitlines()]
    if family == socket.AF_INET6:  # index, name, group, ...
        return {(bytes.fromhex(group.decode()), int(index)) for index, _, group, *_ in lines}
    found, index = set(), 0
    for line, (first, *_) in zip(told.splitlines()[1:], lines[1:], strict=True):
        if line[:1].isspace():  # below its interface, further in, each group: as if it were this machine's number
            found.add((int(first, 16).to_bytes(4, sys.byteorder), index))
        else:
            index = int(first)
    return found


def _is_joined_from_any(backend: ModuleType, sock: socket.socket, group: bytes, index: int) -> bool:
    """Whether no source can be joined or left because the socket has the whole group.

    RFC 3678, 4.1.3, asks for EINVAL then. Linux takes it as the wish to change the mode, and without an error the
    socket goes deaf to all others (ip_mc_source of net/ipv4/igmp.c). But of such a group, and no other, it lets a
    source be unblocked: one that nobody can be is not blocked, which it answers by EADDRNOTAVAIL.
    """
    if sys.platform != "linux":
        return False
    try:
        backend.unblock_source(sock, group, index, bytes(len(group)))
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL
    return True


# The door's verbs ----------------------------------------------------------------------------------------------------


def change_member(
    backend: ModuleType,
    verb: str,
    sock: socket.socket,
    group: AddressLike,
    interface: InterfaceLike,
    source: AddressLike | None,
) -> None:
    """What `join_group`, `leave_group`, `block_source` and `unblock_source` do."""
    checked = _arguments.multicast_socket(sock, verb)
    address = _arguments.group_address(group, verb)
    whole = source is None and verb in (JOIN, LEAVE)
    origin = None if whole else _arguments.source_address(source, address, verb)
    leaving = verb == LEAVE
    # Leaving a group whole, Linux over IPv6 finds it wherever the socket has joined it, also if the route has changed.
    aim = aimed(verb, checked, address, interface, origin, gone=leaving, route=not (leaving and whole))
    change(backend, verb, checked, aim)


def set_source_filter(
    backend: ModuleType,
    sock: socket.socket,
    group: AddressLike,
    mode: str,
    sources: AddressLike | Iterable[AddressLike],
    interface: InterfaceLike,
) -> None:
    """What the verb of this name does."""
    checked = _arguments.multicast_socket(sock, SET)
    address = _arguments.group_address(group, SET)
    include = _arguments.filter_mode(mode, SET)
    origins = _arguments.source_addresses(sources, address, SET)
    leaving = include and not origins
    change_filter(backend, checked, aimed(SET, checked, address, interface, gone=leaving), include, origins)


def get_source_filter(
    backend: ModuleType, sock: socket.socket, group: AddressLike, interface: InterfaceLike
) -> SourceFilter:
    """What the verb of this name does."""
    checked = _arguments.multicast_socket(sock, GET)
    address = _arguments.group_address(group, GET)
    aim = aimed(GET, checked, address, interface, gone=True)
    try:
        include, sources = backend.get_source_filter(checked, address.packed, aim.index)
    except OSError as error:
        raise _refused(backend, GET, checked, aim, error) from None
    return SourceFilter(mode="include" if include else "exclude", sources=texts(sources))


def texts(packed: Iterable[bytes]) -> tuple[str, ...]:
    """Return addresses as text, by rising number."""
    return tuple(_arguments.unpacked(each).text for each in sorted(packed))
