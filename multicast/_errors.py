"""What goes wrong, in words: every exception that both backends and the door raise on the system's behalf.

Owns the words, so that they are the same whichever backend is in force. Must not raise: callers do.
"""

from __future__ import annotations

import errno
import os
import sys

from . import _sysctl
from ._arguments import shown

# What a process or the system has run out of: it is for the caller to know, not a thing that is refused here for good.
OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
MAX_RECEIVE_BUFFER = (2**31 - 1) // 2  # the kernel keeps twice of it in an int (__sock_set_rcvbuf)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def closed(operation: str) -> OSError:
    """`close()` came before this call, or while it waited."""
    return OSError(errno.EBADF, f"{operation}: already closed")


def receiver_closed(operation: str) -> OSError:
    """What is to be waited for is closed."""
    return OSError(errno.EBADF, f"{operation}: the receiver is closed")


def registered(operation: str) -> ValueError:
    """A poller knows each receiver once."""
    return ValueError(f"{operation}: this receiver is registered already")


def not_registered(operation: str) -> ValueError:
    """A poller can't forget what it doesn't know."""
    return ValueError(f"{operation}: this receiver is not registered")


def nothing_registered(operation: str) -> ValueError:
    """There is nothing that could be waited for, and waiting would never end."""
    return ValueError(f"{operation}: no receiver is registered, so there is nothing to wait for")


def epoll_hint(number: int) -> str:
    """Say which limit was met when a receiver could not be registered (epoll(7))."""
    if number == errno.ENOSPC:
        return f"; a limit was reached: fs.epoll.max_user_watches ({_now('fs.epoll.max_user_watches')})"
    return ""


def no_descriptor(operation: str) -> OSError:
    """What waits for several descriptors here has none itself."""
    return OSError(errno.ENOSYS, f"{operation}: this system has no descriptor that is ready when one of several is")


def initialised(operation: str) -> RuntimeError:
    """`__init__` was called again."""
    return RuntimeError(f"{operation}: already initialised")


def busy(operation: str) -> RuntimeError:
    """One thread or task at a time may use the memory of a receiver or a sender."""
    return RuntimeError(f"{operation}: another thread or task is in this call; one at a time")


def forked(operation: str) -> RuntimeError:
    """After os.fork() parent and child share the socket's queue: each datagram would reach only one of them."""
    return RuntimeError(f"{operation}: opened before os.fork(), by another process; open one in this process")


def no_loop(operation: str) -> RuntimeError:
    """It was awaited where no event loop runs that could wake it."""
    return RuntimeError(f"{operation}: no event loop of asyncio or trio runs here; recv_batch waits without one")


def would_block(operation: str) -> BlockingIOError:
    """Nothing was ready and timeout is 0."""
    return BlockingIOError(errno.EAGAIN, f"{operation}: nothing is ready and timeout is 0")


def timed_out(operation: str, seconds: float) -> TimeoutError:
    """Nothing came in time."""
    return TimeoutError(errno.ETIMEDOUT, f"{operation}: nothing came within {seconds:g} s")


def shut_down(operation: str) -> OSError:
    """The socket was shut down for reading: nothing can come any more."""
    return OSError(errno.ESHUTDOWN, f"{operation}: the socket was shut down for reading")


def error_queue(operation: str) -> OSError:
    """Poll reports an error that no receive and no SO_ERROR explains: a message on the error queue."""
    return OSError(
        errno.ENOMSG,
        f"{operation}: the socket's error queue holds messages (IP_RECVERR or transmit timestamps); "
        "read them with recvmsg(..., MSG_ERRQUEUE), or switch that option off",
    )


def no_watch(operation: str) -> OSError:
    """Nothing tells here of interfaces that come and go, nor of time, through a descriptor."""
    return OSError(
        errno.ENOSYS, f"{operation}: watching the interfaces needs Linux: rtnetlink(7), timerfd_create(2) and epoll(7)"
    )


def other_namespace(operation: str) -> ValueError:
    """The socket was made in another network namespace than the thread is in."""
    return ValueError(
        f"{operation}: the socket is of another network namespace than this thread is in, so the interfaces it joined "
        "on can't be watched from here; open the receiver in that namespace (setns(2))"
    )


def no_block(operation: str, blocks: int) -> BufferError:
    """Every block is held, and `max_blocks`, or the caller's memory, has no room for another."""
    return BufferError(
        f"{operation}: all {blocks} blocks are held by batches or views (max_blocks, or as many as fit into memory); "
        "let some go, or keep bytes(view) instead of view"
    )


def not_sent(number: int, operation: str) -> OSError:
    """The first datagram could not be sent."""
    if number == errno.EBADF:
        return closed(operation)
    if number == errno.ENOBUFS:
        return failed(number, operation, "; the device's queue took nothing for a second")
    if number == errno.EPERM:  # that is what netfilter answers for a packet dropped on its way out
        return failed(number, operation, "; a firewall of this host refused it (nft list ruleset, iptables -S)")
    return error_queue(operation) if number == errno.ENOMSG else failed(number, operation)


def failed(number: int, doing: str, hint: str = "") -> OSError:
    """A system call failed: its errno, what was being done, and a hint; OSError picks the subclass."""
    return OSError(number, f"{doing}: {os.strerror(number)}{hint}")


def system(error: OSError, doing: str, hint: str = "") -> OSError:
    """Return what a system call raised, saying what was being done."""
    return failed(error.errno or 0, doing, hint)


def no_interface(doing: str, wanted: object, names: Iterable[str]) -> OSError:
    """There is no such interface."""
    there = ", ".join(names)
    return OSError(errno.ENODEV, f"{doing}: no interface {shown(wanted)}" + (f" (there are: {there})" if there else ""))


BOUND = "; the socket is bound to the interface that has gone, as one for a group of one link is: open a new receiver"
NOT_JOINED_FROM = "; this socket has not joined it from this source"
# What a socket's membership of a group was when something was refused: None, not a member; "", it can't be told.
OTHER_MODE = {
    "include": "; this socket has joined the group in the other mode, from named sources",
    "exclude": "; this socket has joined the group in the other mode, from any source",
}


def membership_hint(
    number: int,
    *,
    verb: str,
    mode: str | None,
    listed: int,
    source: bool,
    ipv6: bool,
    named: bool,
    here: bool,
    names: Iterable[str],
    anew: bool,
    groups: int | None = None,
    asked: int = 0,
) -> str:
    """Say what the errno of a refused change of a membership means, by what the socket's membership was.

    - verb: the primitive; source: whether for one source; named: whether on a named interface, here: which is there
    - mode: of the membership; listed: how many sources it has, or of a new filter how many were given
    - names: of the interfaces that there are; anew: whether this one does not know of the membership
    - groups: how many were joined before, None if not known; asked: how many in all, 0 if not known
    """
    if number == errno.ENODEV:
        return _no_device_hint(ipv6=ipv6, named=named, here=here, names=names)
    if number == errno.ESRCH or (number == errno.EADDRINUSE and anew):
        return "; the interface was made anew since this socket joined the group on it: leave it, and join again"
    if number == errno.EADDRINUSE:
        how = {"include": ", from named sources; set_source_filter changes which", "exclude": ", from any source"}
        return "; this socket has joined it already" + how.get(mode or "", "")
    if number == errno.EADDRNOTAVAIL:
        return _not_available_hint(verb, source=source)
    if number == errno.EINVAL:
        return _invalid_hint(mode, joining=verb == "join_group", ipv6=ipv6)
    if number in (errno.ENOBUFS, errno.ENOMEM) and sys.platform == "linux":
        if verb == "join_group" and (mode is None or not source):
            return _limit_hint("" if ipv6 else "net.ipv4.igmp_max_memberships", "group", groups, asked)
        before = listed - 1 if verb == "set_source_filter" else listed if mode else None
        return _limit_hint("net.ipv6.mld_max_msf" if ipv6 else "net.ipv4.igmp_max_msf", "source", before)
    return ""


def _no_device_hint(*, ipv6: bool, named: bool, here: bool, names: Iterable[str]) -> str:
    if not named:
        return "; no interface was named, and no route leads to the group"
    if here:
        return f"; this interface has no {'IPv6' if ipv6 else 'IPv4'}"
    return f"; there is no such interface (there are: {', '.join(names)})"


def _not_available_hint(verb: str, *, source: bool) -> str:
    if verb == "block_source":
        return "; this source is blocked already"
    if verb == "unblock_source":
        return "; this source is not blocked"
    if verb == "join_group":
        return "; joined from this source already" if source else ""
    return NOT_JOINED_FROM if source else "; this socket has not joined it"


def _invalid_hint(mode: str | None, *, joining: bool, ipv6: bool) -> str:
    if mode:
        return OTHER_MODE[mode]
    if mode == "":
        return "; this socket has joined the group in the other mode, or not at all"
    if joining:
        return "; this interface has no IPv6: that needs an MTU of 1280" if ipv6 else ""
    return "; this socket has not joined the group"


def _limit_hint(name: str, what: str, before: int | None, asked: int = 0) -> str:
    """Name the limit that was met: this one or, since all of it takes memory, net.core.optmem_max.

    - before: how many there were, None if not known; asked: how many there should have been, 0 if not known
    """
    limit = _sysctl.value(name) if name else None
    below = before is None or limit is None or before < limit
    names = [name] if name else []
    if below and name and before is not None and limit is not None:
        # Of sources the kernel has told how many there are. Groups a socket may have that nobody declared.
        names, before = ([], before) if what == "source" else (names, None)
    if below:
        names.append("net.core.optmem_max")
    said = "; a limit was reached: " + " or ".join(f"{each} ({_now(each)})" for each in names)
    if before is None:
        return said
    return f"{said}; this would be {what} {before + 1}" + (f" of {asked}" if asked > before else "")


def _now(name: str) -> str:
    value = _sysctl.value(name)
    return "not readable here" if value is None else f"now {value}"


def no_ipv6(number: int) -> str:
    """Say that no interface has an IPv6 address, and why if that is known."""
    said = f"no interface has an IPv6 address: {os.strerror(number)}"
    name = "net.ipv6.conf.all.disable_ipv6"
    return f"{said}; {name} ({_now(name)}) forbids it" if _sysctl.value(name) else said


def filter_hint(number: int) -> str:
    """Say what a filter that could not be attached most often means (sk_attach_filter of net/core/filter.c)."""
    if number == errno.EPERM:
        return "; the socket's filter is locked (SO_LOCK_FILTER)"
    if number == errno.EINVAL:
        return "; the kernel refused the program: an unknown instruction, a jump past the end, or no return there"
    if number in (errno.ENOMEM, errno.ENOBUFS):
        return f"; a limit was reached: net.core.optmem_max ({_now('net.core.optmem_max')})"
    if number == errno.ENOPROTOOPT:
        return "; this kernel has no socket filters"
    return ""


def no_filters(doing: str) -> OSError:
    """The system has no socket filters."""
    return failed(errno.EOPNOTSUPP, doing, f"; socket filters are a thing of Linux, this is {sys.platform}")


def bind_hint(error: OSError) -> str:
    """Say what a refused bind most often means."""
    if error.errno == errno.EADDRINUSE:
        return "; another socket has this port, and one of the two was opened not to share it (exclusive=True)"
    return ""


def clamped(requested: int, granted: int) -> str:
    """Say that the kernel granted a smaller receive buffer, and what to do about it."""
    said = f"set_receive_buffer: asked for {requested} bytes, granted {granted}: "
    if granted >= MAX_RECEIVE_BUFFER or sys.platform != "linux":
        return said + "this system has no larger one"
    return (
        f"{said}net.core.rmem_max limits it ({_now('net.core.rmem_max')}). "
        f"Put the line 'net.core.rmem_max = {requested}' into sysctl.conf; "
        f"for now, as root: sysctl -w net.core.rmem_max={requested}"
    )


def no_memory(operation: str, data: object) -> TypeError:
    """What the datagrams should be written into has no bytes."""
    return TypeError(f"{operation}: memory is a writable buffer or None, not {shown(data)}")


def memory_not_writable(operation: str, data: object, error: Exception) -> BufferError:
    """What the datagrams should be written into can't be, or is in several pieces."""
    return BufferError(f"{operation}: memory, a {type(data).__name__}, is not writable or not contiguous: {error}")


def memory_too_small(operation: str, nbytes: int, block: int) -> ValueError:
    """What the datagrams should be written into has no room for a block."""
    return ValueError(f"{operation}: memory has {nbytes} bytes, and one block of batch_size slots takes {block}")


def no_own_memory(operation: str) -> OSError:
    """The stdlib backend copies each batch into bytes."""
    return OSError(errno.EOPNOTSUPP, f"{operation}: memory: the stdlib backend can't use memory of the caller's")


def no_own_hugepages(operation: str) -> OSError:
    """The stdlib backend receives into one scratch area, and copies each batch out of it."""
    return OSError(
        errno.EOPNOTSUPP,
        f"{operation}: hugepages: the stdlib backend keeps datagrams in bytes, not in slots of its own",
    )


def no_huge_pages(operation: str, kind: str, file: str) -> OSError:
    """Nothing tells how large a huge page is."""
    return OSError(
        errno.EOPNOTSUPP,
        f"{operation}: hugepages={kind!r}: {file} tells no size: this kernel has none, or it can't be read here",
    )


def huge_pages_not_mapped(number: int, operation: str, reserved: bool, pages: int, size: int) -> OSError:
    """The kernel refused a mapping on huge pages.

    - pages: how many it would have taken; size: bytes of each
    """
    kind = "reserved" if reserved else "transparent"
    hint = ""
    if reserved and number == errno.ENOMEM:
        hint = (
            f"; vm.nr_hugepages ({_now('vm.nr_hugepages')}) is how many there are for all processes, "
            f"and {pages} more would have to be free"
        )
    elif reserved and number == errno.EFAULT:
        hint = "; those that are free this thread may not use: by its cpuset(7), its memory policy or a cgroup's limit"
    elif not reserved and number == errno.EINVAL:
        hint = "; this kernel has no transparent huge pages"
    said = f"{operation}: hugepages={kind!r}: mapping {pages} huge page{'s' * (pages > 1)} of {size >> 10} KiB"
    return failed(number, said, hint)


def no_buffer(operation: str, data: object) -> TypeError:
    """What should be sent has no bytes to show."""
    return TypeError(f"{operation}: a contiguous bytes-like object is needed, not {type(data).__name__}")


def not_contiguous(operation: str, data: object) -> BufferError:
    """What should be sent has its bytes in several pieces."""
    return BufferError(f"{operation}: the bytes of this {type(data).__name__} are not contiguous")


def no_own_address(doing: str, wanted: object) -> OSError:
    """No interface has the address by which one was meant."""
    return OSError(errno.EADDRNOTAVAIL, f"{doing}: no interface has the address {str(wanted)[:200]}")


def ambiguous_address(doing: str, wanted: object, names: Iterable[str]) -> ValueError:
    """Several interfaces have the address by which one was meant."""
    return ValueError(f"{doing}: {', '.join(names)} all have the address {wanted}; say which, as in {wanted}%name")


def linux_only(doing: str) -> OSError:
    """The call asks for what no other system has."""
    return OSError(errno.ENOSYS, f"{doing}: this is for Linux, not {sys.platform}")


def busy_poll_hint(number: int) -> str:
    """Say what a refused option of busy polling most often means."""
    if number == errno.EPERM:
        return "; this needs CAP_NET_ADMIN, outside of any user namespace"
    if number == errno.ENOPROTOOPT:
        return "; this kernel is too old for it, or was built without CONFIG_NET_RX_BUSY_POLL"
    return ""


def no_hardware_timestamps(doing: str, interface: str, offered: Iterable[str] = ()) -> OSError:
    """The network card can't stamp what is received, or none of what comes by UDP."""
    names = ", ".join(offered)
    only = f" for UDP (it offers {names})" if names else ""
    return OSError(
        errno.EOPNOTSUPP, f"{doing}: {interface} has no hardware receive timestamps{only}; ask for software ones"
    )


def card_filter_hint(number: int, asked: Iterable[str]) -> str:
    """Say what a refused receive filter of hardware timestamps most often means."""
    if number == errno.EPERM:
        return "; this needs CAP_NET_ADMIN"
    if number == errno.ERANGE:
        return f"; the network card refused {', '.join(asked)}; ask for software timestamps"
    return ""


def not_measured(doing: str, *, dropped: bool) -> OSError:
    """Not one datagram got into an empty buffer, where the kernel takes one of any size."""
    if dropped:
        return failed(errno.ENOBUFS, doing, f"; net.ipv4.udp_mem ({_now('net.ipv4.udp_mem')}) limits it")
    return failed(errno.ETIMEDOUT, doing, "; nothing came: is the interface up, and does a firewall let UDP through?")
