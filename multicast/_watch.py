"""Healing and silence: joins again what an interface took away when it went, and tells when nothing is delivered.

Owns the descriptors that tell of links (rtnetlink(7)) and of time, and what is known of the interfaces joined on. Must
not start a thread, wait, or join by itself: it acts when the thread that receives calls `handle`, through memberships.

Linux takes memberships away with their interface: when this is deleted, or moved to another network namespace (the
same event). It restores them by itself when an interface is set down and up. For IGMP and MLD a cable that is pulled
and put back changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import time

from . import _arguments, _errors, _options_py
from ._interfaces import link_events, link_flags, link_index, link_name
from ._membership import kernel_groups, kernel_groups_file
from ._timer import Timer
from ._values import Silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from typing import Any, Protocol, SupportsFloat

    class Socket(Protocol):
        """The receiver's, in whatever form its memberships take it."""

        def fileno(self) -> int: ...

    class Membership(Protocol):
        """One group on one interface."""

        @property
        def group(self) -> str: ...

        @property
        def index(self) -> int: ...

    class Memberships(Protocol):
        """What a receiver has joined.

        - indexes: each interface's index, and the name that it had when it was joined on
        - lose: an interface has gone: leaves in the kernel what was joined there, and keeps it in mind. Raises nothing
          of the kernel's
        - rejoin: joins on `new_index` what was joined on `old_index`, after leaving there what can be left: nothing
          of it may be there any more, and the two may be the same. Raises OSError, and can then be called again
        """

        def indexes(self) -> dict[int, str]: ...

        def list(self) -> tuple[Membership, ...]: ...

        def lose(self, sock: Any, index: int) -> object: ...

        def rejoin(self, sock: Any, old_index: int, new_index: int) -> object: ...


_RTMGRP_LINK = 1  # rtnetlink.h; the others are in netdevice(7), socket.h
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_SO_NETNS_COOKIE = 71
_NETLINK_BUFFER = 1 << 20  # bytes: some hundred events before one is lost
_MESSAGE = 1 << 15  # bytes: the kernel tells of one link in a message, in far less
_MESSAGES = 256  # how many are read in one go, so that events without end don't keep the thread from its datagrams
_LOOKS = 4  # how often in the time of a silence it is looked whether one is: it is told late by a quarter at most
_RETRY, _RETRY_MAX = 0.1, 3.2  # seconds after which a refused join is tried again: the first time, and at last
_SHOWN = 10  # how many groups a log record names


class Watch:
    """Watches the interfaces that a receiver joined on, and how long it has got nothing.

    Watch(memberships, *, silence=None, on_silence=None, fd, operation="open_receiver", clock=time.monotonic)

    - memberships: what the receiver has joined
    - silence: seconds without a datagram after which `on_silence` is called, and again each time as many have passed,
      until one comes; None: never. Found late by a quarter of it at most
    - on_silence: is called in the thread that receives, with a `Silence`; what it raises, `handle` raises. None: a
      silence is logged when it begins
    - fd: the descriptor that the receiver reads; it stays the receiver's
    - clock: seconds, for the tests

    Raises TypeError or ValueError for arguments that can't be and for a socket of another network namespace than the
    calling thread is in, and OSError: ENOSYS where the system is not Linux.

    What it does is logged by `logging.getLogger("multicast")`: an interface that went and one that was joined again as
    warnings. `links_lost`, `rejoins` and `silences` count.
    """

    def __init__(
        self,
        memberships: Memberships,
        *,
        silence: SupportsFloat | None = None,
        on_silence: Callable[[Silence], object] | None = None,
        fd: int,
        operation: str = "open_receiver",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._silence = _arguments.silence(silence, operation)
        self._on_silence = _arguments.on_silence(on_silence, self._silence, operation)
        if sys.platform != "linux":
            raise _errors.no_watch(operation)
        self._memberships, self._fd, self._clock = memberships, fd, clock
        self.rejoins = self.silences = self.links_lost = 0
        self._names: dict[int, str] = {}  # the interfaces that are there, as they are called now
        self._lost: dict[int, str] = {}  # the index that was joined on, and the name that is waited for
        self._refused: dict[int, int | None] = {}  # the errno that joining again met, by the index in _lost
        self._unsure = False  # whether messages were lost, here or in the kernel
        self._retry_at, self._retry = 0.0, 0.0  # not before then, by the clock; seconds to the next time, 0: none
        self._pace = 0.0  # seconds, what the timer is set to
        self._delivered, self._since = 0, clock()  # how many datagrams at the last look, and since when no more
        self._told_at = self._since  # when on_silence was called last, or when data came last
        self._timer: Timer | None = None
        self._kernel_groups: FileIO | None = None  # /proc/net/igmp or igmp6: what is joined, on each interface
        try:
            self._open(operation)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                hint = "; silence needs Python 3.13 or ctypes" if error.errno == errno.ENOSYS else ""
                raise _errors.system(error, f"{operation}: watching the interfaces", hint) from None
            raise

    def _open(self, operation: str) -> None:
        # All questions go to these descriptors, which stay in the namespace of the thread that opened them.
        self._inner, self._outer = select.epoll(), select.epoll()
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        with socket.socket(fileno=os.dup(self._fd)) as own:
            self._family = own.family
            if _namespace(own) != _namespace(self._netlink):
                raise _errors.other_namespace(operation)
        self._netlink.setblocking(False)
        _options_py.set_receive_buffer(self._netlink, _NETLINK_BUFFER)
        self._netlink.bind((0, _RTMGRP_LINK))
        self._outer.register(self._fd, select.EPOLLIN)
        self._wait_for(self._netlink)
        if self._silence is not None:
            with contextlib.suppress(OSError):  # no /proc, or no IPv6
                path = f"/proc/thread-self/net/{kernel_groups_file(self._family)}"
                self._kernel_groups = open(path, "rb", buffering=0)  # noqa: SIM115 - read anew each time
        self._track()
        for index, name in list(self._names.items()):  # it may have gone after it was joined on
            if (found := link_name(self._netlink, index)) != name:
                self._lose(None, index, found)
                self._retry = _RETRY
        self._set_timer()

    def _wait_for(self, what: socket.socket | Timer) -> None:
        self._inner.register(what.fileno(), select.EPOLLIN)
        self._outer.register(what.fileno(), select.EPOLLIN)

    # What the receiver calls --------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to handle; -1 once closed."""
        return -1 if self._inner.closed else self._inner.fileno()

    def outer_fileno(self) -> int:
        """Return the descriptor that is readable when the receiver's is, or `fileno()`; -1 once closed."""
        return -1 if self._outer.closed else self._outer.fileno()

    def handle(self, sock: Socket, delivered: int) -> None:
        """Do what there is to do, without waiting: once `fileno()` is readable, and every 100 ms or so under load.

        - sock: the receiver's socket; closed, there is nothing to heal
        - delivered: how many datagrams the receiver has delivered so far

        To be called by one thread at a time, with no batch in hand: it raises what `on_silence` raises. Whatever
        ends it early, the next call goes on with.
        """
        if self._inner.closed:
            return
        ready = [fd for fd, _ in self._inner.poll(0, 2)]
        if self._timer is not None and self._timer.fileno() in ready:
            self._timer.clear()
        heard = self._netlink.fileno() not in ready or self._hear(sock)
        if self._unsure:
            self._ask_again(sock)
        if self._lost and heard:  # else what is still to be read is older than what would be joined on
            self._heal(sock)
        if self._silence is not None:
            self._listen(sock, delivered, self._silence)

    def close(self) -> None:
        """Close the descriptors; again, it does nothing. In a forked child nothing of the parent's changes."""
        for name in ("_timer", "_netlink", "_inner", "_outer", "_kernel_groups"):
            if (each := getattr(self, name, None)) is not None:
                with contextlib.suppress(OSError):  # somebody closed it by its number: there is nothing left to let go
                    each.close()

    __del__ = close

    # Interfaces ---------------------------------------------------------------------------------------------------

    def _track(self) -> None:
        """Take notice of what the receiver has joined and left meanwhile."""
        joined = self._memberships.indexes()
        for index, name in joined.items():
            if index and index not in self._lost:
                self._names.setdefault(index, name)
        for known in (self._names, self._lost):
            for index in [each for each in known if each not in joined]:
                known.pop(index)
                self._refused.pop(index, None)

    def _hear(self, sock: Socket) -> bool:
        """Read what the kernel tells of links, and note what has gone: whether that is all, for now."""
        self._track()
        # What is taken out of the queue is nowhere else until it is noted, and a signal's handler may raise here.
        unsure, self._unsure = self._unsure, True
        heard = False
        for _ in range(_MESSAGES):
            try:
                data, (sender, _) = self._netlink.recvfrom(_MESSAGE)
            except BlockingIOError:
                heard = True
                break
            except OSError:  # ENOBUFS: they came too fast, and some are lost (netlink(7))
                unsure = True
                continue
            for gone, index, name in link_events(data) if sender == 0 else ():
                if gone and index in self._names:
                    self._lose(sock, index, None)
                elif not gone and name is not None:
                    if index in self._names:
                        self._names[index] = name
                    if name in self._lost.values():
                        self._retry_at = 0.0
        self._unsure = unsure
        return heard

    def _lose(self, sock: Socket | None, index: int, found: str | None) -> None:
        """Note that an interface has gone; another one, of the name `found`, may have its index already."""
        name = self._lost[index] = self._names[index]
        del self._names[index]
        self.links_lost += 1
        groups = [each.group for each in self._memberships.list() if each.index == index]
        if sock is not None and found is None:
            # At once. Once an interface of that index is there again, leaving by it is counted against the sockets of
            # other receivers that joined on that one, and the last but one of them to close would leave for all
            # (ip_mc_leave_group of net/ipv4/igmp.c has ip_mc_dec_group do it on whatever has the index).
            self._memberships.lose(sock, index)
        _log(
            "%s (index %d) has gone, and with it what was joined there: %s; waiting for an interface of that name",
            *(name, index, _shown(groups)),
        )
        self._retry_at = 0.0

    def _ask_again(self, sock: Socket) -> None:
        """After lost messages: ask what they can have told."""
        self._track()
        for index, name in list(self._names.items()):
            found = link_name(self._netlink, index)
            if found == name:  # Perhaps another one of the same name and index: joining again does no harm.
                _log("messages about links were lost: joining again on %s (index %d), lest one told of it", name, index)
                self._doubt(index)
            else:  # Renamed, perhaps; but joining on another one that has its index by now would be worse.
                self._lose(sock, index, found)
        self._unsure = False

    def _doubt(self, index: int) -> None:
        """Have an interface that is there joined on again."""
        self._lost[index] = self._names[index]
        del self._names[index]
        self._retry_at = 0.0

    def _heal(self, sock: Socket) -> None:
        """Join again on the interfaces that are there again."""
        if self._clock() < self._retry_at or sock.fileno() < 0:
            return
        self._track()
        again, retry, refused = bool(self._refused), self._retry, False
        for old, name in list(self._lost.items()):
            new = link_index(self._netlink, name)
            if not (new and (link_flags(self._netlink, name) or 0) & _IFF_UP):
                continue  # a message will tell
            try:
                self._memberships.rejoin(sock, old, new)
            except OSError as error:
                refused = True
                if self._refused.get(old) != error.errno:
                    self._refused[old] = error.errno
                    _log("%s (index %d) is there, but joining again on it fails: %s", name, new, error)
                continue
            self._names[new] = name
            self._lost.pop(old, None)
            self._refused.pop(old, None)
            self.rejoins += 1
            _log("joined again on %s (index %d, was %d)", name, new, old)
        self._retry = self._retry_at = 0.0
        if refused:
            self._retry = min(2 * retry, _RETRY_MAX) if again else _RETRY
            self._retry_at = self._clock() + self._retry
        self._set_timer()

    # Silence ------------------------------------------------------------------------------------------------------

    def _listen(self, sock: Socket, delivered: int, silence: float) -> None:
        """Tell of a silence if there is one."""
        now = self._clock()
        if delivered != self._delivered:
            self._delivered, self._since, self._told_at = delivered, now, now
        if now - self._told_at < silence:
            return
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        if waiting.poll(0):  # it is the receiver that has not come for it; the next look knows whether it was for us
            return
        first, self._told_at = self._told_at == self._since, now
        self.silences += 1
        found = self._judge(sock, now - self._since)
        if self._on_silence is not None:
            self._on_silence(found)
        elif first:
            _log("nothing was delivered for %.3g s: %r", found.seconds, found)

    def _judge(self, sock: Socket, seconds: float) -> Silence:
        """Look for what the silence may come from, and join again what the kernel has no more."""
        self._track()
        names = self._names | self._lost
        states = {index: self._state(name) for index, name in sorted(names.items())}
        missing = self._missing() | self._lost.keys()
        for index in missing & self._names.keys():
            if states[index] == "up":  # its MTU may have been too small for the protocol, for a while
                _log("%s (index %d) is there, but the kernel has not all that was joined", names[index], index)
                self._doubt(index)
        if self._lost:
            self._heal(sock)
        return Silence(
            seconds=seconds,
            interfaces=tuple((names[index], state) for index, state in states.items()),
            joined=not missing,
            dead=bool(missing) or any(state != "up" for state in states.values()),
        )

    def _state(self, name: str) -> str:
        flags = link_flags(self._netlink, name)
        if flags is None:
            return "gone"
        if not flags & _IFF_UP:
            return "down"
        return "up" if flags & _IFF_RUNNING else "no carrier"

    def _missing(self) -> set[int]:
        """Return the indexes of the interfaces on which the kernel has not every group."""
        if self._kernel_groups is None:
            return set()
        self._kernel_groups.seek(0)
        there = kernel_groups(self._kernel_groups.readall(), self._family)
        return {
            each.index
            for each in self._memberships.list()
            if each.index and (_arguments.address(each.group, "Watch", "group").packed, each.index) not in there
        }

    # Time ---------------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Have the timer fire as often as somebody needs it. It goes on by itself, whatever ends a call early."""
        paces = [each for each in (self._retry, (self._silence or 0) / _LOOKS) if each]
        pace = min(paces, default=0.0)
        if pace == self._pace:
            return
        try:
            if self._timer is None:
                timer = Timer()
                self._wait_for(timer)
                self._timer = timer
            self._timer.every(pace)
            self._pace = pace
        except OSError as error:
            if self._silence is not None:
                raise
            _log("no timer to try again with, only when a link changes or data comes: %s", error)


def _namespace(sock: socket.socket) -> bytes:
    """Return what tells a socket's network namespace from others; the same for all before Linux 5.14."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return b""


def _shown(groups: list[str]) -> str:
    more = len(groups) - _SHOWN
    return ", ".join(groups[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _log(text: str, *values: object) -> None:
    import logging

    logging.getLogger("multicast").warning(text, *values)
