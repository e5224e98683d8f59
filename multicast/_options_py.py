"""The stdlib backend's verbs on a socket: each a primitive that the door has checked the arguments of.

Owns how an option is packed, and the constants that the socket module lacks. Must not look up an interface or word an
error.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LINUX = sys.platform == "linux"

# By system, since the socket module names none of them (RFC 3678, section 5).
(
    _MCAST_JOIN_GROUP,
    _MCAST_BLOCK_SOURCE,
    _MCAST_UNBLOCK_SOURCE,
    _MCAST_LEAVE_GROUP,
    _MCAST_JOIN_SOURCE_GROUP,
    _MCAST_LEAVE_SOURCE_GROUP,
) = {
    "linux": (42, 43, 44, 45, 46, 47),
    "win32": (41, 43, 44, 42, 45, 46),
}.get(sys.platform, (80, 84, 85, 81, 82, 83))  # macOS and the BSDs
_MCAST_MSFILTER, _MCAST_INCLUDE, _MCAST_EXCLUDE = 48, 1, 0  # Linux
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
_SO_RCVBUFFORCE, _SO_MEMINFO, _SO_BINDTOIFINDEX = 33, 55, 62
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


def block_source(sock: socket.socket, group: bytes, index: int, source: bytes) -> None:
    _membership(sock, 0, _MCAST_BLOCK_SOURCE, group, index, source)


def unblock_source(sock: socket.socket, group: bytes, index: int, source: bytes) -> None:
    _membership(sock, 0, _MCAST_UNBLOCK_SOURCE, group, index, source)


def _filter_request(group: bytes, index: int, mode: int, n: int) -> tuple[int, bytes]:
    """Return the level and the begin of a struct group_filter; systems other than Linux have other structs."""
    if not _LINUX:
        raise OSError(errno.ENOSYS, f"MCAST_MSFILTER: {os.strerror(errno.ENOSYS)}")
    level = socket.IPPROTO_IP if len(group) == 4 else socket.IPPROTO_IPV6
    return level, _INDEX.pack(index) + _sockaddr_storage(group) + struct.pack("=II", mode, n)


def set_source_filter(sock: socket.socket, group: bytes, index: int, including: bool, sources: Sequence[bytes]) -> None:
    """Set mode and sources of a membership at once: `sources` is a sequence of packed addresses."""
    level, head = _filter_request(group, index, _MCAST_INCLUDE if including else _MCAST_EXCLUDE, len(sources))
    sock.setsockopt(level, _MCAST_MSFILTER, head + b"".join(map(_sockaddr_storage, sources)))


def get_source_filter(sock: socket.socket, group: bytes, index: int) -> tuple[bool, list[bytes]]:
    """A membership's filter: whether it includes, and the packed sources.

    By the C library's getsockopt: the socket module's takes no struct that says what is asked for.
    """
    room = 64
    while True:
        level, head = _filter_request(group, index, 0, room)
        import ctypes

        buffer = ctypes.create_string_buffer(head, len(head) + room * _SOCKADDR_STORAGE_SIZE)
        length = ctypes.c_uint(len(buffer))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(sock.fileno(), level, _MCAST_MSFILTER, buffer, ctypes.byref(length)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"get_source_filter: {os.strerror(number)}")
        mode, n = struct.unpack_from("=II", buffer, len(head) - 8)
        if n <= room:
            break
        room = n  # the kernel tells how many there are: ask again, with room for them
    begin, size = (4, 4) if len(group) == 4 else (8, 16)
    starts = [len(head) + i * _SOCKADDR_STORAGE_SIZE + begin for i in range(n)]
    raw = buffer.raw
    return mode == _MCAST_INCLUDE, [raw[start : start + size] for start in starts]


def bound_address(sock: socket.socket) -> bytes:
    """The packed address that a socket is bound to: all zeros for any."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, f"bound_address: {os.strerror(errno.EAFNOSUPPORT)}")
    return socket.inet_pton(sock.family, sock.getsockname()[0].partition("%")[0])


def follow_interface(sock: socket.socket, old: int, new: int) -> bool:
    """Bind to the interface `new` a socket that was bound to `old` (SO_BINDTOIFINDEX); whether it was."""
    if not _LINUX:
        return False
    try:
        if sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX) != old:
            return False
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:  # a kernel before 5.0
            raise
        return False
    sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, new)
    return True


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
    """Return the drops the kernel counted for this socket, and the bytes it charges for the queue; None if it has none.

    The drops are modulo 2**32; the bytes are in the kernel's own unit, half of that of the receive buffer.
    """
    if not _LINUX:
        return None
    try:
        return meminfo(sock)
    except OSError:  # a kernel before 4.12
        return None


def meminfo(sock: socket.socket) -> tuple[int, int]:
    """Return drops and bytes as `memory_of` does (SO_MEMINFO); raise OSError where the kernel has none."""
    words = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    return words[_MEMINFO_DROPS], words[_MEMINFO_QUEUED]
