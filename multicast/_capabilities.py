"""What works here: each feature tried once, in this process and at this moment, and why one does not work.

Owns the sockets that it is tried on, each its own, and the words of the answer. Must not send to a network, compare
versions, keep an answer for the next call, or leave anything open or changed. That goes for the kernel, too: for a UDP
socket that wants time stamps or trains it switches code on for the whole host, which holds up every CPU.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys

from . import _columns, _error_queue, _errors, _options_py, _tuning
from ._ancillary_py import SOFTWARE, Ancillary
from ._arguments import SOL_UDP, UDP_GRO
from ._columns import COLUMNS, Wanted
from ._filter import attach
from ._interfaces import interfaces
from ._memberships import Memberships
from ._sending import UDP_SEGMENT
from ._timer import Timer
from ._values import Capabilities, Capability
from ._watch import _RTMGRP_LINK, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import TypeAlias

    Option: TypeAlias = tuple[str, int, int]  # how the header calls it, level, name

__all__ = ["Capabilities", "Capability", "find"]

_OPERATION = "capabilities"
_PRIVILEGE = "CAP_NET_ADMIN, outside of any user namespace"

# By family: how it is called, and a group with a source of it. No host reports these groups (RFC 3376, section 5;
# RFC 3810, section 6), so even on the loopback interface nothing is sent when they are joined.
_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_SHOWN = {_IPV4: "IPv4", _IPV6: "IPv6"}
_GROUP = {_IPV4: b"\xe0\0\0\1", _IPV6: b"\xff\2" + bytes(13) + b"\1"}
_SOURCE = {_IPV4: b"\x7f\0\0\1", _IPV6: bytes(15) + b"\1"}

_MULTICAST_ALL = ("IP_MULTICAST_ALL", socket.IPPROTO_IP, _options_py._IP_MULTICAST_ALL)
_SEGMENT = ("UDP_SEGMENT", SOL_UDP, UDP_SEGMENT)
_CALLED = {  # what `Wanted` asks for
    (socket.IPPROTO_IP, _columns._IP_PKTINFO): "IP_PKTINFO",
    (socket.IPPROTO_IP, _columns._IP_RECVTTL): "IP_RECVTTL",
    (socket.IPPROTO_IP, _columns._IP_RECVTOS): "IP_RECVTOS",
    (socket.IPPROTO_IPV6, _columns._IPV6_RECVPKTINFO): "IPV6_RECVPKTINFO",
    (socket.IPPROTO_IPV6, _columns._IPV6_RECVHOPLIMIT): "IPV6_RECVHOPLIMIT",
    (socket.IPPROTO_IPV6, _columns._IPV6_RECVTCLASS): "IPV6_RECVTCLASS",
    (socket.SOL_SOCKET, _columns._SO_TIMESTAMPNS): "SO_TIMESTAMPNS",
    (socket.SOL_SOCKET, _columns._SO_TIMESTAMPING): "SO_TIMESTAMPING",
    (socket.SOL_SOCKET, _columns._SO_RXQ_OVFL): "SO_RXQ_OVFL",
    (SOL_UDP, UDP_GRO): "UDP_GRO",
}
# The Linux that brought it, where Python may meet an older one; one built without it answers in the same way.
_SINCE = {"UDP_GRO": "5.0", "UDP_SEGMENT": "4.18", "SO_MEMINFO": "4.12", "SO_BUSY_POLL": "3.11"}
_REFUSE_ALL = ((0x06, 0, 0, 0),)  # BPF: return that 0 bytes are wanted of it


def find(backend: ModuleType, reason: str) -> Capabilities:
    """Try everything with a backend, which is in force for this reason.

    Raises OSError where it can't be tried, as with no descriptor left.
    """
    trials = _Trials(backend, reason)
    return Capabilities(**{name: _capability(name, trials) for name in Capabilities.__slots__})


def _capability(name: str, trials: _Trials) -> Capability:
    why = _why(functools.partial(trials.column, name) if name in COLUMNS else getattr(trials, name))
    return Capability(name=name, works=not why, why=why)


# Why not -----------------------------------------------------------------------------------------------------------


class _Missing(Exception):
    """That something doesn't work; its text is why."""


def _why(trial: Callable[[], None]) -> str:
    """Return why a trial failed; empty if it did not."""
    try:
        trial()
    except _Missing as missing:
        return str(missing)
    return ""


@contextlib.contextmanager
def _trying(what: str, *, privilege: str = "", limit: Callable[[int], str] | None = None) -> Iterator[None]:
    """Say what was tried, if a system call fails.

    - privilege: what that takes
    - limit: what to say, by the errno, where it is a limit of what was tried that was reached
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        hint = ""
        if number in _errors.OUT_OF:  # nothing can be said about what was tried
            if limit is None:
                raise _errors.system(error, f"{_OPERATION}: {what}") from None
            hint = limit(number)
        raise _Missing(_refused(what, number, privilege) + hint) from None


def _refused(what: str, number: int, privilege: str = "") -> str:
    """Return why something doesn't work that failed with this errno."""
    hint = ""
    if number == errno.ENOPROTOOPT and what in _SINCE:
        hint = f"; Linux has it since {_SINCE[what]}, unless it was built without"
    elif number in (errno.EPERM, errno.EACCES) and privilege:
        hint = f"; this needs {privilege}"
    elif number in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        hint = "; a sandbox denies it, as seccomp(2) can"
    elif number == errno.EAFNOSUPPORT:
        hint = "; this kernel has none of that family, or a sandbox denies them"
    return f"{what}: {os.strerror(number)}{hint}"


def _ineffective(what: str) -> _Missing:
    return _Missing(f"{what}: this system takes it without an error, and without an effect")


def _of_linux(what: str) -> None:
    """Go on only where there may be what Linux alone has in this form."""
    if sys.platform != "linux":
        raise _Missing(f"this system has no {what}: that is of Linux, this is {sys.platform}")


def _chosen(path: str) -> str:
    """Return which of the words in a file of /sys is in force, as in `always [madvise] never`."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().partition("[")[2].partition("]")[0] or "not told"
    except OSError:
        return "not readable here"


# How it is tried ---------------------------------------------------------------------------------------------------


def _opened(family: socket.AddressFamily) -> socket.socket:
    with _trying(f"making a UDP socket over {_SHOWN[family]}"):
        return socket.socket(family, socket.SOCK_DGRAM)


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two sockets, of which the second sends to the first, within this process.

    What the first gets the kernel stamps, cuts and filters by the same code as what comes from a network.
    """
    with _trying("making a pair of AF_UNIX sockets to try it on"):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        yield near, far


def _keep(sock: socket.socket, option: Option, value: int, *, privilege: str = "") -> None:
    """Set an option and read it back, since some systems take also what they don't know."""
    what, level, name = option
    with _trying(what, privilege=privilege):
        sock.setsockopt(level, name, value)
        kept = sock.getsockopt(level, name)
    if kept != value:
        raise _ineffective(what)


def _wanted(
    names: tuple[str, ...] = (), *, timestamps: str | None = None, gro: bool = False, destination: bool = False
) -> Wanted:
    return Wanted(names, timestamps, gro, destination, _OPERATION)


def _keep_all(sock: socket.socket, wanted: Wanted) -> None:
    for level, name, value, _ in wanted.options(sock.family):
        _keep(sock, (_CALLED[level, name], level, name), value)


def _loopback() -> int:
    """Return the index of the loopback interface; 0 if that is not to be found."""
    if sys.platform in ("linux", "win32"):
        return 1  # always: LOOPBACK_IFINDEX of Linux, in every network namespace; Loopback Pseudo-Interface 1
    return next((each.index for each in interfaces() if each.loopback), 0)


def _has_ipv6_address() -> bool:
    """Whether an interface has an IPv6 address."""
    with _trying("listing the interfaces"):
        return any(":" in address for each in interfaces() for address in each.addresses)


def _joining(sock: socket.socket, what: str) -> contextlib.AbstractContextManager[None]:
    """Try what joins the first group of a socket."""
    name = "net.ipv4.igmp_max_memberships" if sock.family == _IPV4 else ""
    return _trying(f"{what} over {_SHOWN[sock.family]}", limit=lambda _: _errors._limit_hint(name, "group", 0))


def _filtering(sock: socket.socket, what: str) -> contextlib.AbstractContextManager[None]:
    """Try what names the first source of a group."""
    name = "net.ipv4.igmp_max_msf" if sock.family == _IPV4 else "net.ipv6.mld_max_msf"
    return _trying(f"{what} over {_SHOWN[sock.family]}", limit=lambda _: _errors._limit_hint(name, "source", 0))


def _hear_of_links() -> None:
    with (
        _trying("hearing of interfaces through an AF_NETLINK socket"),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink,
    ):
        netlink.bind((0, _RTMGRP_LINK))


# What is tried -----------------------------------------------------------------------------------------------------


class _Trials:
    """What is tried for each field of `Capabilities`, by its name; raises `_Missing` where it doesn't work."""

    def __init__(self, backend: ModuleType, reason: str) -> None:
        self._backend, self._reason = backend, reason
        self._missing = {_IPV4: _why(self._try_ipv4), _IPV6: _why(self._try_ipv6)}

    # Batches

    def recvmmsg(self) -> None:
        self._batches("recvmmsg", 0)

    def sendmmsg(self) -> None:
        self._batches("sendmmsg", 1)

    def memory(self) -> None:
        if self._backend.batch_refusals() is None:
            raise _Missing(f"the stdlib backend copies each batch into bytes of its own ({self._reason})")

    def transparent_hugepages(self) -> None:
        _of_linux("MADV_HUGEPAGE")
        if self._on_huge_pages("transparent") == 0:
            enabled = "/sys/kernel/mm/transparent_hugepage/enabled"
            raise _Missing(f"MADV_HUGEPAGE: the kernel gave no huge page; {enabled} is {_chosen(enabled)}")

    def reserved_hugepages(self) -> None:
        _of_linux("MAP_HUGETLB")
        self._on_huge_pages("reserved")

    def _on_huge_pages(self, kind: str) -> int | None:
        """Return how much of a small receiver's memory lies on huge pages of this kind; None where that isn't told."""
        self.memory()
        with _pair() as (near, _):
            try:
                receiver = self._backend.Receiver(near, batch_size=1, datagram_size=1, hugepages=kind)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise _errors.system(error, f"{_OPERATION}: hugepages") from None
                raise _Missing(str(error.strerror).partition(": ")[2]) from None
            with receiver:
                found: int | None = receiver.stats().huge_memory
                return found

    def _batches(self, what: str, which: int) -> None:
        refusals = self._backend.batch_refusals()
        if refusals is None:
            raise _Missing(f"the stdlib backend makes one system call a datagram ({self._reason})")
        if refusals[which]:
            raise _Missing(_refused(what, refusals[which]))

    # Families

    def ipv4(self) -> None:
        self._need(_IPV4)

    def ipv6(self) -> None:
        self._need(_IPV6)

    def interfaces(self) -> None:
        with _trying("asking for the interfaces"):
            interfaces()
            socket.if_nameindex()

    def _need(self, family: socket.AddressFamily) -> None:
        if self._missing[family]:
            raise _Missing(self._missing[family])

    def _try_ipv4(self) -> None:
        with _opened(_IPV4) as sock:
            with _trying("binding to a port over IPv4"):
                sock.bind(("", 0))
            self._join(sock)

    def _try_ipv6(self) -> None:
        """Where IPv6 is switched off, sockets can be made all the same; then no interface has an address."""
        with _opened(_IPV6) as sock:
            try:
                sock.bind(("::1", 0))
            except OSError as error:
                number = error.errno or 0
                if number != errno.EADDRNOTAVAIL:
                    raise _Missing(_refused("binding to a port over IPv6", number)) from None
                if not _has_ipv6_address():  # others may have one where the loopback interface is down
                    raise _Missing(_errors.no_ipv6(number)) from None
            self._join(sock)

    def _join(self, sock: socket.socket) -> None:
        with _joining(sock, "MCAST_JOIN_GROUP"):
            self._backend.join_group(sock, _GROUP[sock.family], _loopback(), None)

    @contextlib.contextmanager
    def _sockets(self) -> Iterator[list[socket.socket]]:
        """Give a UDP socket of each family that there is, and at least one."""
        families = [family for family, why in self._missing.items() if not why]
        if not families:
            self._need(_IPV4)
        with contextlib.ExitStack() as closing:
            yield [closing.enter_context(_opened(family)) for family in families]

    # Membership

    def source_specific(self) -> None:
        what = "MCAST_JOIN_SOURCE_GROUP"
        with self._sockets() as sockets:
            for sock in sockets:
                with _joining(sock, what):
                    membership = sock, _GROUP[sock.family], _loopback(), _SOURCE[sock.family]
                    self._backend.join_group(*membership)
                try:
                    self._backend.join_group(*membership)
                except OSError:  # it has been joined
                    continue
                raise _ineffective(f"{what} over {_SHOWN[sock.family]}")

    def source_filters(self) -> None:
        what = "MCAST_MSFILTER"
        _of_linux(what)
        with self._sockets() as sockets:
            for sock in sockets:
                self._join(sock)
                group, index, source = _GROUP[sock.family], _loopback(), _SOURCE[sock.family]
                with _filtering(sock, what):
                    self._backend.set_source_filter(sock, group, index, False, [source])
                try:
                    self._backend.unblock_source(sock, group, index, source)
                except OSError:  # it has not been blocked
                    raise _ineffective(f"{what} over {_SHOWN[sock.family]}") from None

    # Isolation

    def isolation_ipv4(self) -> None:
        what, level, name = _MULTICAST_ALL
        _of_linux(what)
        self._need(_IPV4)
        with _opened(_IPV4) as sock:
            with _trying(what):
                if not self._backend.limit_to_joined(sock):
                    raise _Missing(_refused(what, errno.ENOPROTOOPT))
                kept = sock.getsockopt(level, name) == 0
            if not kept:
                raise _ineffective(what)
            _keep_all(sock, _wanted(destination=True))

    def isolation_ipv6(self) -> None:
        """Over IPv6 a receiver looks itself at what the kernel lets through, and so needs no limit."""
        _of_linux("IPV6_RECVPKTINFO with IPV6_MULTICAST_ALL")
        self._need(_IPV6)
        with _opened(_IPV6) as sock:
            with _trying("IPV6_MULTICAST_ALL"):
                self._backend.limit_to_joined(sock)
            _keep_all(sock, _wanted(destination=True))

    # What is told of a datagram

    def column(self, name: str) -> None:
        wanted = _wanted((name,))
        if wanted.control:
            _of_linux(next(_CALLED[level, option] for level, option, _, _ in wanted.options(_IPV4)))
        with self._sockets() as sockets:
            for sock in sockets:
                _keep_all(sock, wanted)

    def software_timestamps(self) -> None:
        _of_linux("SO_TIMESTAMPNS")
        with _pair() as (near, far):
            _keep_all(near, _wanted(timestamps="software"))
            with _trying("SO_TIMESTAMPNS"):
                far.send(b"stamped")
                _, messages, _, _ = near.recvmsg(1, socket.CMSG_SPACE(32))
            if Ancillary(messages).timestamp_kind != SOFTWARE:
                raise _ineffective("SO_TIMESTAMPNS")

    def hardware_timestamps(self) -> None:
        _of_linux("SO_TIMESTAMPING")
        with _pair() as (near, _):
            _keep_all(near, _wanted(timestamps="hardware"))

    def kernel_drops(self) -> None:
        _of_linux("SO_MEMINFO")
        with self._sockets() as sockets:
            for sock in sockets:
                with _trying("SO_MEMINFO"):
                    _options_py.meminfo(sock)

    def real_lengths(self) -> None:
        what = "MSG_TRUNC as a flag to receive with"
        _of_linux(what)
        with _pair() as (near, far):
            with _trying(what):
                far.send(b"cut")
                length = near.recv_into(bytearray(1), 1, socket.MSG_TRUNC)
            if length != 3:
                raise _ineffective(what)

    # What the kernel does for a socket

    def receive_buffer_force(self) -> None:
        what, size = "SO_RCVBUFFORCE", _errors.MAX_RECEIVE_BUFFER  # more than any net.core.rmem_max
        _of_linux(what)
        with self._sockets() as sockets:
            for sock in sockets:
                with _trying(what, privilege=_PRIVILEGE):
                    sock.setsockopt(socket.SOL_SOCKET, _options_py._SO_RCVBUFFORCE, size)
                    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
                if granted < size:
                    raise _ineffective(what)

    def gro(self) -> None:
        _of_linux("UDP_GRO")
        with self._sockets() as sockets:
            for sock in sockets:
                for level, name, _, _ in _wanted(gro=True).options(sock.family):
                    with _trying(_CALLED[level, name]):
                        sock.setsockopt(level, name, 0)  # off, as it is: on would be felt by the whole host

    def segmentation(self) -> None:
        _of_linux("UDP_SEGMENT")
        with self._sockets() as sockets:
            for sock in sockets:
                _keep(sock, _SEGMENT, 1000)

    def filter(self) -> None:
        what = "SO_ATTACH_FILTER"
        _of_linux(what)
        with _pair() as (near, far), _trying(what, limit=_errors.filter_hint):
            attach(near, _REFUSE_ALL, _OPERATION)
            far.send(b"refused")
            with contextlib.suppress(BlockingIOError):
                near.recv(1)
                raise _ineffective(what)

    def busy_poll(self) -> None:
        what, level, name = _tuning._BUSY_POLL
        _of_linux(what)
        with self._sockets() as sockets:
            for sock in sockets:
                with _trying(what):
                    now = sock.getsockopt(level, name)
                _keep(sock, _tuning._BUSY_POLL, now + 1, privilege=_PRIVILEGE)

    def error_queue(self) -> None:
        _of_linux("IP_RECVERR")
        with self._sockets() as sockets:
            for sock in sockets:
                for option in _error_queue.options(sock.family):
                    _keep(sock, option, 1)

    # What a receiver waits for beside datagrams

    def self_healing(self) -> None:
        _of_linux("rtnetlink")
        self._watch(None)

    def silence_watchdog(self) -> None:
        _of_linux("timerfd_create")
        if not hasattr(os, "timerfd_create"):
            try:
                import ctypes  # noqa: F401 - which the timer is made through, then
            except ImportError:
                raise _Missing("timerfd_create: this Python is older than 3.13, and has no ctypes") from None
        with _trying("timerfd_create"):
            Timer().close()
        self._watch(1.0)

    def _watch(self, silence: float | None) -> None:
        """Watch the interfaces of a receiver that has joined nothing; first what this is most often refused."""
        _hear_of_links()
        with self._sockets() as (sock, *_), _trying("watching the interfaces"):
            joined = Memberships(self._backend)
            Watch(joined, silence=silence, fd=sock.fileno(), operation=_OPERATION).close()
