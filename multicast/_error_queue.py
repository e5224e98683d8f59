"""The errors that a socket's own datagrams met on their way: the error queue of ip(7) and ipv6(7).

Owns how the queue is switched on, drained and parsed. Linux alone has it. Must not wait, nor fail on what it can't
parse: an error about an error helps nobody.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from . import _arguments, _errors, _sockopts
from ._values import SocketError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MOST = 1024  # errors a call: a queue that fills as fast as it is read must not keep the caller

_IP_RECVERR = ("IP_RECVERR", socket.IPPROTO_IP, 11)  # linux/in.h
_IPV6_RECVERR = ("IPV6_RECVERR", socket.IPPROTO_IPV6, 25)  # linux/in6.h
_CARRIERS = {option[1:] for option in (_IP_RECVERR, _IPV6_RECVERR)}
_SO_WIFI_STATUS = 41  # asm-generic/socket.h
_CONTROL_SIZE = 4096  # the error and its offender take 64 bytes; IPv6 options that are asked for, the most of the rest

# struct sock_extended_err of linux/errqueue.h: errno, origin, type, code, pad, info, data. The offender's sockaddr
# follows it.
_EXTENDED = struct.Struct("=IBBBxII")
_ORIGINS = ("none", "local", "icmp", "icmp6", "timestamping", "zerocopy", "txtime")


def set_error_queue(sock: socket.socket, enabled: bool) -> None:
    """Say whether the kernel keeps what happened to datagrams that this socket sent (IP_RECVERR, IPV6_RECVERR).

    With it on, an ICMP error that comes back reaches also a socket that is not connected: it is queued for
    `read_errors`, and until it is read the next call on the socket, be it to send or to receive, may raise it. So it is
    for sockets that send. Switching it off discards what is queued.
    A socket of IPv6 gets the errors of both, since it may send to IPv4 (RFC 4291, 2.5.5.2). Neither is changed if one
    is refused. Raises TypeError, ValueError, and OSError; ENOSYS: not Linux.
    """
    doing = "set_error_queue"
    checked = _arguments.multicast_socket(sock, doing)
    wanted = int(_arguments.boolean(enabled, doing, "enabled"))
    if sys.platform != "linux":
        raise _errors.linux_only(doing)
    _sockopts.set_together(checked, [(each, wanted) for each in options(checked.family)], doing, lambda _: "")


def options(family: int) -> list[_sockopts.Option]:
    """Return the options that switch it on for sockets of a family."""
    return [_IP_RECVERR] if family == socket.AF_INET else [_IPV6_RECVERR, _IP_RECVERR]


def read_errors(sock: socket.socket) -> list[SocketError]:
    """Take the errors off a socket's error queue, oldest first; an empty list if there are none. Never waits.

    At most 1024 a call: call again if there were as many. What the kernel reports there that is no error comes, too,
    as transmit timestamps do where they were asked for: `origin` says what it is.
    Raises TypeError, ValueError, and OSError; ENOSYS: not Linux.
    """
    doing = "read_errors"
    checked = _arguments.multicast_socket(sock, doing)
    if sys.platform != "linux":
        raise _errors.linux_only(doing)
    found: list[SocketError] = []
    try:
        with _never_waiting(checked) as own:
            while len(found) < MOST:
                # Of the datagram itself nothing is asked for.
                _, control, _, to = own.recvmsg(0, _CONTROL_SIZE, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
                found.append(parsed(control, to))
    except BlockingIOError:
        return found
    except OSError as error:
        if not found:  # else these are told first; the error, if it stays, by the next call
            raise _errors.system(error, doing) from None
    return found


def _never_waiting(sock: socket.socket) -> socket.socket:
    """Return another object for the same socket: one with a timeout would wait for data before it asks the kernel.

    Made so, as settimeout would not, it leaves O_NONBLOCK alone, which the two share.
    """
    descriptor = os.dup(sock.fileno())
    try:
        return socket.socket(sock.family, sock.type | socket.SOCK_NONBLOCK, sock.proto, fileno=descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def parsed(control: Sequence[tuple[int, int, bytes]], destination: Any) -> SocketError:
    """Return what one message of the queue says; of origin "unknown" if it has no error that could be read."""
    number = type_ = code = info = data = 0
    origin, offender = "unknown", None
    for level, name, content in control:
        if (level, name) in _CARRIERS and len(content) >= _EXTENDED.size:
            number, from_, type_, code, info, data = _EXTENDED.unpack_from(content)
            origin = _ORIGINS[from_] if from_ < len(_ORIGINS) else str(from_)
            offender = _address(content[_EXTENDED.size :])
    if origin == "timestamping" and any(each[:2] == (socket.SOL_SOCKET, _SO_WIFI_STATUS) for each in control):
        origin = "txstatus"  # the two have one number; what came along tells which it is
    return SocketError(
        errno=number,
        origin=origin,
        type=type_,
        code=code,
        info=info,
        data=data,
        offender=offender,
        destination=destination or None,
    )


def _address(sockaddr: bytes) -> str | None:
    """Return the address in a struct sockaddr_in or sockaddr_in6, with its zone by index; None if it is neither."""
    family = int.from_bytes(sockaddr[:2], sys.byteorder)
    if family == socket.AF_INET and len(sockaddr) >= 8:
        return socket.inet_ntop(family, sockaddr[4:8])
    if family == socket.AF_INET6 and len(sockaddr) >= 28:
        zone = int.from_bytes(sockaddr[24:28], sys.byteorder)
        return socket.inet_ntop(family, sockaddr[8:24]) + (f"%{zone}" if zone else "")
    return None
