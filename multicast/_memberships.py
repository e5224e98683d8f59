"""What one receiver has joined: groups, on interfaces, from sources.

Owns what was declared, by interface index (an interface can go and come back), and keeps the kernel to it. Must not be
asked on the way of a datagram, and must not keep the socket: each call is given it.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import socket
import sys

from . import _arguments, _errors
from ._interfaces import interface_name, interface_names, link_name
from ._membership import (
    BLOCK,
    JOIN,
    LEAVE,
    SET,
    UNBLOCK,
    Aim,
    aimed,
    change,
    change_filter,
    current_filter,
    said,
    texts,
)
from ._values import Membership

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

    from ._arguments import Address, AddressLike
    from ._interfaces import InterfaceLike
    from ._membership import Key


class Descriptor:
    """A socket by its number, as far as the primitives of a backend need one."""

    __slots__ = ("_number", "family")

    def __init__(self, number: int, family: socket.AddressFamily) -> None:
        self._number, self.family = number, family

    def fileno(self) -> int:
        """Return the number."""
        return self._number


class Joined:
    """A membership as it was declared: the name that its interface had, the filter, and whether the kernel lost it."""

    __slots__ = ("including", "lost", "name", "sources")

    def __init__(self, name: str | None, including: bool, sources: frozenset[bytes], *, lost: bool = False) -> None:
        self.name, self.including, self.sources, self.lost = name, including, sources, lost

    @property
    def mode(self) -> str:
        """As `SourceFilter` has it."""
        return "include" if self.including else "exclude"

    def agrees(self, other: Joined) -> bool:
        """Whether both have the same filter."""
        return (self.including, self.sources) == (other.including, other.sources)

    def gone(self) -> Joined:
        """The same, of which the kernel has nothing any more."""
        return Joined(self.name, self.including, self.sources, lost=True)


class Memberships:
    """What one receiver has joined: what was declared, and each change of it.

    - backend: the module of the primitives
    - changed: called with what is joined, as a set of pairs, a group's bytes and an interface's index: before a join
      has an effect with what will be, after a leave with what is left, after a join that failed with what there was

    Any thread may make any call, also while another receives. Each is given the socket, which stays the caller's.
    """

    def __init__(self, backend: ModuleType, changed: Callable[[frozenset[Key]], object] | None = None) -> None:
        self._backend, self.changed = backend, changed
        self._lock = _thread.RLock()  # one that a signal's handler can take, too, whatever it came amid
        self._joined: dict[Key, Joined] = {}  # replaced, never changed: so it can be read at any time

    def list(self) -> tuple[Membership, ...]:
        """Return what is joined, in the order in which it was."""
        return tuple(
            Membership(
                group=_arguments.unpacked(group).text,
                interface=each.name,
                index=index,
                mode=each.mode,
                sources=texts(each.sources),
            )
            for (group, index), each in self._joined.items()
        )

    def indexes(self) -> dict[int, str]:
        """Return the interfaces on which something is joined: their names when it was, by index."""
        return {index: each.name for (_, index), each in self._joined.items() if each.name is not None}

    def join(
        self,
        sock: socket.socket,
        group: AddressLike,
        interface: InterfaceLike = None,
        source: AddressLike | Iterable[AddressLike] | None = None,
        operation: str = "join",
        asked: int = 0,
    ) -> None:
        """Join a group on an interface: from any source, or from one or several.

        - asked: how many groups the caller is about to join; 0: not known
        """
        address = _arguments.group_address(group, operation)
        sources = [] if source is None else _arguments.source_addresses(source, address, operation)
        if source is not None and not sources:
            raise ValueError(f"{operation}: no source was named; None is for any")
        with self._lock:
            aim = aimed(operation, sock, address, interface, sources[0] if len(sources) == 1 else None)
            self._check_bound(sock, aim)
            key, groups = aim.key, len(self._joined)
            was = self._joined.get(key)
            old = was or (self._found(sock, aim) if sources else None)
            new = Joined(_name(sock, aim.index), bool(sources), frozenset(each.packed for each in sources))
            if old is not None and old.including and sources:
                new = Joined(old.name, True, old.sources | new.sources)
            if old is None or new.including == old.including:
                self._check_agreement(aim, new)
            begun = False
            try:
                self._put(key, new)
                begun = True
                self._join_each(sock, aim, sources, groups=groups, asked=asked)
            except BaseException as error:
                if begun and old is None and not isinstance(error, OSError):
                    self._let_go(sock, key)  # an interrupt came, perhaps between the kernel's step and ours
                self._put(key, was)
                raise

    def leave(
        self,
        sock: socket.socket,
        group: AddressLike,
        interface: InterfaceLike = None,
        source: AddressLike | Iterable[AddressLike] | None = None,
        operation: str = "leave",
    ) -> None:
        """Leave a group, or sources of it; without an interface on the one on which it is joined."""
        address = _arguments.group_address(group, operation)
        sources = [] if source is None else _arguments.source_addresses(source, address, operation)
        if source is not None and not sources:
            raise ValueError(f"{operation}: no source was named; None is for the whole group")
        with self._lock:
            aim = self._aimed(operation, sock, address, interface, gone=True)
            old = self._joined.get(aim.key)
            if (
                old is not None and len(sources) > 1
            ):  # first those that will be refused, so that nothing is left by half
                sources.sort(key=lambda each: each.packed in old.sources)
            for each in sources or (None,):
                self._leave(sock, aim.of(each))

    def block(
        self,
        sock: socket.socket,
        group: AddressLike,
        source: AddressLike,
        interface: InterfaceLike = None,
        operation: str = "block",
    ) -> None:
        """Stop receiving a source of a group that was joined from any."""
        self._change_source(BLOCK, sock, group, source, interface, operation)

    def unblock(
        self,
        sock: socket.socket,
        group: AddressLike,
        source: AddressLike,
        interface: InterfaceLike = None,
        operation: str = "unblock",
    ) -> None:
        """Receive a blocked source again."""
        self._change_source(UNBLOCK, sock, group, source, interface, operation)

    def set_source_filter(
        self,
        sock: socket.socket,
        group: AddressLike,
        mode: str,
        sources: AddressLike | Iterable[AddressLike],
        interface: InterfaceLike = None,
        operation: str = SET,
    ) -> None:
        """Set mode and sources at once; to include none is to leave."""
        address = _arguments.group_address(group, operation)
        including = _arguments.filter_mode(mode, operation)
        origins = _arguments.source_addresses(sources, address, operation)
        leaving = including and not origins
        with self._lock:
            aim = self._aimed(operation, sock, address, interface, gone=leaving)
            if leaving:
                self._leave(sock, aim)
                return
            new = Joined(_name(sock, aim.index), including, frozenset(each.packed for each in origins))
            self._check_agreement(aim, new)
            change_filter(self._backend, sock, aim, including, origins)
            self._put(aim.key, new)

    def lose(self, sock: socket.socket, index: int) -> None:
        """Leave what was joined on an interface that has gone, and keep it declared: to be joined again.

        Later would be worse: once another one has its index, what is left by that is counted against the sockets that
        joined on the new one.
        """
        with self._lock:
            for key, each in self._joined.items():
                if key[1] == index:
                    self._let_go(sock, key)
                    self._put(key, each.gone())

    def rejoin(self, sock: socket.socket, old_index: int, new_index: int, operation: str = "rejoin") -> None:
        """Join on another interface, or on the one made anew, what was joined on an interface that is stale.

        The kernel keeps what a socket had joined on an interface that has gone, and counts it: so that is left first,
        by its index, whether it is still there or not. Where a join fails, what was joined stays declared as it was,
        and the call can be made again. Raises OSError; ENODEV: there is no such interface.
        """
        with self._lock:
            moving = [(key, each) for key, each in self._joined.items() if key[1] == old_index]
            name = _name(sock, new_index)
            if name is None:
                raise _errors.no_interface(operation, new_index, interface_names())
            if moving and old_index != new_index:
                try:
                    self._backend.follow_interface(sock, old_index, new_index)
                except OSError as error:
                    raise _errors.system(error, f"{operation} on {interface_name(new_index)}", _errors.BOUND) from None
            for key, old in moving:
                aim = Aim(operation, _arguments.unpacked(key[0]), new_index)
                self._move(sock, key, aim, old, Joined(name, old.including, old.sources))

    def _move(self, sock: socket.socket, key: Key, aim: Aim, old: Joined, new: Joined) -> None:
        there = self._joined.get(aim.key) if aim.key != key else None  # joined there already
        try:
            self._put(aim.key, there or new)
            self._let_go(sock, key)
            if there is None:
                self._let_go(sock, aim.key)  # what an earlier attempt, or an interface of the same index, left
                self._establish(sock, aim, new, groups=len(self._joined) - 1)
        except BaseException as error:
            if there is None and aim.key != key:
                self._put(aim.key, None)
            self._put(key, old.gone() if isinstance(error, OSError) else old)
            raise
        if aim.key != key:
            self._put(key, None)

    def _establish(self, sock: socket.socket, aim: Aim, joined: Joined, *, groups: int) -> None:
        """Join with a filter such that on the way to it no source is let in that is not wanted."""
        sources = [_arguments.unpacked(each) for each in sorted(joined.sources)]
        try:
            if joined.including or not sources:
                self._join_each(sock, aim, sources, groups=groups)
            elif sys.platform == "linux":
                # Joined from a source that nobody is, and at once the filter: Linux reports the two as one.
                change(self._backend, JOIN, sock, aim.of(_nobody(joined.sources)), groups=groups)
                change_filter(self._backend, sock, aim, False, sources)
            else:
                self._join_each(sock, aim, [], groups=groups)
                for each in sources:
                    change(self._backend, BLOCK, sock, aim.of(each))
        except OSError:
            self._let_go(sock, aim.key)
            raise

    def _join_each(
        self, sock: socket.socket, aim: Aim, sources: Sequence[Address], *, groups: int, asked: int = 0
    ) -> None:
        """Join from each of the sources, or from any if there is none; if one is refused, undo those before it."""
        done: list[Aim] = []
        for each in sources or (None,):
            try:
                change(self._backend, JOIN, sock, aim.of(each), groups=groups, asked=asked)
            except BaseException:
                for joined in done:
                    with contextlib.suppress(OSError):
                        change(self._backend, LEAVE, sock, joined)
                raise
            done.append(aim.of(each))

    def _leave(self, sock: socket.socket, aim: Aim) -> None:
        old, left = self._joined.get(aim.key), frozenset[bytes]()
        if old is not None and old.including and aim.source is not None:
            left = old.sources - {aim.source.packed}
            if left:
                self._check_agreement(aim, Joined(old.name, True, left))
        if old is not None and old.lost:
            self._forget(aim, old, left)
            return
        try:
            whole = change(self._backend, LEAVE, sock, aim)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or old is None or _name(sock, aim.index) is not None:
                if aim.source is None and error.errno == errno.EADDRNOTAVAIL:
                    self._put(aim.key, None)  # somebody has left it by another way
                raise
            whole = aim.source is None  # it went with its interface
        if old is not None:
            self._put(aim.key, Joined(old.name, True, left) if left and not whole else None)

    def _forget(self, aim: Aim, old: Joined, left: frozenset[bytes]) -> None:
        """Leave what is waiting for its interface: there is nothing that the kernel could leave."""
        if aim.source is not None and not old.including:
            raise _errors.failed(errno.EINVAL, aim.doing, _errors.OTHER_MODE["exclude"])
        if aim.source is not None and aim.source.packed not in old.sources:
            raise _errors.failed(errno.EADDRNOTAVAIL, aim.doing, _errors.NOT_JOINED_FROM)
        self._put(aim.key, Joined(old.name, True, left, lost=True) if left else None)

    def _let_go(self, sock: socket.socket, key: Key) -> None:
        """Leave the whole of a group; that it was not joined is fine."""
        with contextlib.suppress(OSError):
            self._backend.leave_group(sock, *key, None)

    def _change_source(
        self,
        verb: str,
        sock: socket.socket,
        group: AddressLike,
        source: AddressLike,
        interface: InterfaceLike,
        operation: str,
    ) -> None:
        address = _arguments.group_address(group, operation)
        origin = _arguments.source_address(source, address, operation)
        with self._lock:
            aim = self._aimed(operation, sock, address, interface, origin)
            old = self._joined.get(aim.key) or self._found(sock, aim)
            known = old is not None and not old.including
            one, blocked = frozenset((origin.packed,)), old.sources if old is not None and known else frozenset()
            new = Joined(_name(sock, aim.index), False, blocked | one if verb == BLOCK else blocked - one)
            if known:
                self._check_agreement(aim, new)
            change(self._backend, verb, sock, aim)
            # Where it was not so, somebody has changed it by another way meanwhile: it is as the kernel has it.
            self._put(aim.key, new if known else self._found(sock, aim) or new)

    def _aimed(
        self,
        operation: str,
        sock: socket.socket,
        address: Address,
        interface: InterfaceLike,
        source: Address | None = None,
        *,
        gone: bool = False,
    ) -> Aim:
        """Return what a call is about that changes what is joined: without an interface, on the one where it is.

        - gone: whether the interface may have gone, or been made anew, since then; its name still is what it was
        """
        joined = {index: each.name for (group, index), each in self._joined.items() if group == address.packed}
        if interface is None and address.zone is None and joined:
            if len(joined) > 1:
                names = ", ".join(map(interface_name, joined))
                raise ValueError(f"{said(operation, address, source)}: it is joined on {names}: name the interface")
            return Aim(operation, address, next(iter(joined)), source)
        if gone and isinstance(interface, str):
            indexes = [index for index, name in joined.items() if name == interface]
            if indexes and not any(_name(sock, index) == interface for index in indexes):
                return Aim(operation, address, indexes[0], source)
        return aimed(operation, sock, address, interface, source, gone=gone)

    def _found(self, sock: socket.socket, aim: Aim) -> Joined | None:
        """Return what the socket was joined to by other ways than these."""
        mode, sources = current_filter(self._backend, sock, *aim.key)
        return Joined(_name(sock, aim.index), mode == "include", sources) if mode else None

    def _check_bound(self, sock: socket.socket, aim: Aim) -> None:
        """Refuse a group that the socket, bound to an address, can't receive (udp_v4_mcast_deliver)."""
        if sys.platform == "win32":
            return
        bound = self._backend.bound_address(sock)
        if any(bound) and bound != aim.address.packed:
            raise ValueError(
                f"{aim.doing}: the socket is bound to {_arguments.unpacked(bound)}, so no other group reaches it; "
                "a receiver that was opened with a list of groups is not"
            )

    def _check_agreement(self, aim: Aim, new: Joined) -> None:
        """Refuse another filter than the group has on another interface, where Linux would apply one of them to both.

        Over IPv6 it takes the first entry of a socket for the group, on whichever interface (inet6_mc_check).
        """
        if aim.address.family != socket.AF_INET6 or sys.platform != "linux":
            return
        for (group, index), each in self._joined.items():
            if group == aim.address.packed and index != aim.index and not each.agrees(new):
                raise ValueError(
                    f"{aim.doing}: on {interface_name(index)} the group is joined with another source filter, and over "
                    "IPv6 Linux applies one of them on both; open a receiver for each interface"
                )

    def _put(self, key: Key, joined: Joined | None) -> None:
        """Declare what is joined after a change, None for nothing."""
        before = self._joined
        after = {each: was for each, was in before.items() if each != key or joined is not None}
        if joined is not None:
            after[key] = joined
        self._joined = after
        if after.keys() != before.keys():
            self._tell()

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed(frozenset(self._joined))


def _name(sock: socket.socket, index: int) -> str | None:
    """Return how an interface is called where the socket is: the thread may be in another network namespace by now."""
    if sys.platform == "linux":
        return link_name(sock, index)
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def _nobody(sources: frozenset[bytes]) -> Address:
    """Return an address that none of the sources has, and nobody on a network: of the loopback interface."""
    size = len(next(iter(sources)))
    first = int.from_bytes(
        socket.inet_pton(*((socket.AF_INET, "127.0.0.1") if size == 4 else (socket.AF_INET6, "::1")))
    )
    found = (packed for n in range(len(sources) + 1) if (packed := (first + n).to_bytes(size)) not in sources)
    return _arguments.unpacked(next(found))
