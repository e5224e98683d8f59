"""The stdlib backend's verbs on a socket: each a primitive that the door has checked the arguments of.

Owns how an option is packed, and the constants that the socket module lacks. Must not look up an interface or word an
error.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys

_LINUX = sys.platform == "linux"

# By system, since the socket module names none of them (RFC 3678, section 5).
(
    _MCAST_JOIN_GROUP,
    _MCAST_UNBLOCK_SOURCE,
    _MCAST_LEAVE_GROUP,
    _MCAST_JOIN_SOURCE_GROUP,
    _MCAST_LEAVE_SOURCE_GROUP,
) = {
    "linux": (42, 44, 45, 46, 47),
    "win32": (41, 44, 42, 45, 46),
}.get(sys.platform, (80, 85, 81, 82, 83))  # macOS and the BSDs
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_QUEUED, _MEMINFO_DROPS = 0, 8
_SOCKADDR_STORAGE_SIZE = 128
# Before the sockaddr_storage in group_req: it is aligned as a pointer is, except on macOS, which packs to 4 bytes.
_INDEX = struct.Struct("=I") if sys.platform == "darwin" else struct.Struct("@I0P")
_SOCKADDR_HAS_LENGTH = not _LINUX and sys.platform != "win32"


def _sockaddr_storage(packed: bytes) -> bytes:
    if len(packed) == 4:
        family, rest, size = socket.AF_INET, bytes(2) + packed, 16
    else:
        family, rest, size = socket.AF_INET6, bytes(6) + packed, 28
    head = struct.pack("=BB", size, family) if _SOCKADDR_HAS_LENGTH else struct.pack("=H", family)
    return (head + rest).ljust(_SOCKADDR_STORAGE_SIZE, b"\0")


def _set_int(sock: socket.socket, ipv4_name: int, ipv6_name: int, value: int) -> None:
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, ipv4_name, value)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, ipv6_name, value)


def _membership(
    sock: socket.socket, any_source: int, one_source: int, group: bytes, index: int, source: bytes | None
) -> None:
    level = socket.IPPROTO_IP if len(group) == 4 else socket.IPPROTO_IPV6
    request = _INDEX.pack(index) + _sockaddr_storage(group)
    if source is None:
        sock.setsockopt(level, any_source, request)
    else:
        sock.setsockopt(level, one_source, request + _sockaddr_storage(source))


def join_group(sock: socket.socket, group: bytes, index: int, source: bytes | None) -> None:
    _membership(sock, _MCAST_JOIN_GROUP, _MCAST_JOIN_SOURCE_GROUP, group, index, source)


def leave_group(sock: socket.socket, group: bytes, index: int, source: bytes | None) -> None:
    _membership(sock, _MCAST_LEAVE_GROUP, _MCAST_LEAVE_SOURCE_GROUP, group, index, source)


def unblock_source(sock: socket.socket, group: bytes, index: int, source: bytes) -> None:
    _membership(sock, 0, _MCAST_UNBLOCK_SOURCE, group, index, source)


def set_multicast_interface(sock: socket.socket, index: int) -> None:
    if sock.family != socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    elif sys.platform == "win32":
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("!I", index))
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("@4s4si", bytes(4), bytes(4), index))


def set_multicast_ttl(sock: socket.socket, ttl: int) -> None:
    _set_int(sock, socket.IP_MULTICAST_TTL, socket.IPV6_MULTICAST_HOPS, ttl)


def set_multicast_loopback(sock: socket.socket, enabled: bool) -> None:
    _set_int(sock, socket.IP_MULTICAST_LOOP, socket.IPV6_MULTICAST_LOOP, int(enabled))


def limit_to_joined(sock: socket.socket) -> bool:
    """Deliver only groups joined on this socket (IP_MULTICAST_ALL off, ip(7)); False where the system can't."""
    if not _LINUX:
        return False
    try:
        _set_int(sock, _IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL, 0)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return False
    return True


def _receive_buffer(sock: socket.socket) -> int:
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return size // 2 if _LINUX else size  # Linux doubles what is asked for, for its own book-keeping (socket(7))


def set_receive_buffer(sock: socket.socket, nbytes: int) -> int:
    """Past net.core.rmem_max where this process may (CAP_NET_ADMIN), else as far as that allows: bytes granted."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE if _LINUX else socket.SO_RCVBUF, nbytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, nbytes)
    return _receive_buffer(sock)


def memory_of(sock: socket.socket) -> tuple[int, int] | None:
    """Return the drops the kernel counted for this socket and the bytes queued (SO_MEMINFO); None if it does not tell.

    The drops are modulo 2**32; the bytes are in the unit of the receive buffer.
    """
    if not _LINUX:
        return None
    try:
        words = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except OSError:  # a kernel before 4.12
        return None
    return words[_MEMINFO_DROPS], words[_MEMINFO_QUEUED] // 2
