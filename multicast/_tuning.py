"""How a socket gets its packets from the network card: busy polling, and the CPU and the queue that they come through.

Owns the options of busy polling, and the order in which they can all be set or none. Linux alone has them; elsewhere
setting is an error and asking answers None. Must not touch a sysctl: those are the whole host's.
"""

from __future__ import annotations

import socket
import sys

from . import _arguments, _errors, _sockopts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

# asm-generic/socket.h
_BUSY_POLL = ("SO_BUSY_POLL", socket.SOL_SOCKET, 46)
_PREFER_BUSY_POLL = ("SO_PREFER_BUSY_POLL", socket.SOL_SOCKET, 69)
_BUSY_POLL_BUDGET = ("SO_BUSY_POLL_BUDGET", socket.SOL_SOCKET, 70)
_INCOMING_CPU = ("SO_INCOMING_CPU", socket.SOL_SOCKET, 49)
_INCOMING_NAPI_ID = ("SO_INCOMING_NAPI_ID", socket.SOL_SOCKET, 56)


def set_busy_poll(
    sock: socket.socket, microseconds: SupportsIndex, *, prefer: bool | None = None, budget: SupportsIndex | None = None
) -> None:
    """Have a receive that finds nothing poll the network card's queue itself, instead of waiting for its interrupt.

    - microseconds: for how long, 0 to 2**31 - 1; 0 switches it off (SO_BUSY_POLL, socket(7))
    - prefer: whether polling may keep the card's interrupts off meanwhile (SO_PREFER_BUSY_POLL, Linux 5.11; it takes
      effect where the interface's napi_defer_hard_irqs and gro_flush_timeout are set); None leaves it as it is
    - budget: how many packets one round takes at most, 1 to 65535 (SO_BUSY_POLL_BUDGET, Linux 5.11; the kernel's own
      is 8); None leaves it as it is

    It is for receiving from a card whose driver uses NAPI: it costs a CPU, and does nothing on the loopback interface.
    A receive that blocks in the kernel polls for so long, one that does not wait polls once. `Receiver` makes the
    latter, with `spin` again and again, and waits in poll(2), which polls for so long only where net.core.busy_poll is
    set, too.

    CAP_NET_ADMIN in the first user namespace is needed (EPERM says so) to switch `prefer` on and to set `budget` higher
    than the socket has it, which begins at 0; by socket(7), but no longer on Linux 6.18, also to set `microseconds`
    higher than the socket has it, which begins at net.core.busy_read. If one is refused, none is changed.
    Raises TypeError, ValueError, and OSError: EPERM; ENOPROTOOPT: the kernel was built without, or is older; ENOSYS:
    not Linux.
    """
    doing = "set_busy_poll"
    checked = _arguments.open_socket(sock, doing)
    time = _arguments.whole(microseconds, doing, "microseconds", 0, 2**31 - 1)
    preferred = None if prefer is None else _arguments.boolean(prefer, doing, "prefer")
    packets = None if budget is None else _arguments.whole(budget, doing, "budget", 1, 65_535)
    if sys.platform != "linux":
        raise _errors.linux_only(doing)
    wanted = [(_BUSY_POLL, time)]
    if preferred is not None:
        wanted.append((_PREFER_BUSY_POLL, int(preferred)))
    # What is raised comes first. It may be refused, and is lowered again by anybody; what is lowered never is, but
    # putting that back would be raising. No kernel tells the budget (getsockopt: ENOPROTOOPT), so nothing that can be
    # refused comes after it.
    raised: list[_sockopts.Wanted] = []
    lowered: list[_sockopts.Wanted] = []
    for option, value in wanted:
        before = _sockopts.read(checked, option, doing)
        (raised if before is None or value > before else lowered).append((option, value))
    middle = [] if packets is None else [(_BUSY_POLL_BUDGET, packets)]
    _sockopts.set_together(checked, [*raised, *middle, *lowered], doing, _errors.busy_poll_hint)


def incoming_cpu(sock: socket.socket) -> int | None:
    """Return the CPU on which a connected socket's latest packet was received (SO_INCOMING_CPU, socket(7)).

    None for a receiver's: Linux notes it for a UDP socket that is connected, and no other (__udp_queue_rcv_skb in
    net/ipv4/udp.c), so one that is bound to a group has none but what was set on it. What is set chooses between
    sockets that share a port, and for unicast alone: a multicast datagram goes to each that has joined, on whichever
    CPU it came in. Where a card's datagrams come in, /proc/interrupts and /proc/net/softnet_stat tell.
    None, too: no packet has come, or the system does not tell.
    Raises TypeError and OSError.
    """
    return _incoming(sock, "incoming_cpu", _INCOMING_CPU, -1)


def incoming_napi_id(sock: socket.socket) -> int | None:
    """Return the NAPI ID of the network card's queue that this socket's packets come through (SO_INCOMING_NAPI_ID).

    Sockets with the same one are best read by one thread. For a UDP socket that is not connected it is that of the
    first packet. None: no packet has come, or none through NAPI (the loopback interface has no such queue), or the
    system does not tell (Linux 4.12, built with CONFIG_NET_RX_BUSY_POLL).
    Raises TypeError and OSError.
    """
    return _incoming(sock, "incoming_napi_id", _INCOMING_NAPI_ID, 0)


def _incoming(sock: socket.socket, doing: str, option: _sockopts.Option, unknown: int) -> int | None:
    checked = _arguments.open_socket(sock, doing)
    if sys.platform != "linux":
        return None
    value = _sockopts.read(checked, option, doing)
    return None if value == unknown else value
