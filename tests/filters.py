"""The source filter that the kernel keeps for a socket's membership of a group, asked for by getsockopt (RFC 3678).

Per socket; /proc/net/mcfilter is of the host, and shows nothing of an interface whose latest group has no sources.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct

EXCLUDE, INCLUDE = 0, 1  # MCAST_EXCLUDE, MCAST_INCLUDE
MCAST_MSFILTER = 48  # linux/in.h
MOST_SOURCES = 64
SOCKADDR_STORAGE = 128


def sockaddr_storage(address: str) -> bytes:
    """Pack an address as MCAST_JOIN_GROUP and its kin take it."""
    packed = ipaddress.ip_address(address).packed
    head = struct.pack("=H2x", socket.AF_INET) if len(packed) == 4 else struct.pack("=H6x", socket.AF_INET6)
    return (head + packed).ljust(SOCKADDR_STORAGE, b"\0")


def group_request(index: int, *addresses: str) -> bytes:
    """Pack a struct group_req, or with a source behind the group a struct group_source_req."""
    return struct.pack("@I0P", index) + b"".join(map(sockaddr_storage, addresses))


def source_filter(sock: socket.socket, group: str, index: int) -> tuple[int, set[str]] | None:
    """Return the mode and the sources of a membership, None if the socket is no member."""
    ipv4 = sock.family == socket.AF_INET
    head = group_request(index, group)
    buffer = ctypes.create_string_buffer(head + struct.pack("=II", 0, MOST_SOURCES), len(head) + 8 + MOST_SOURCES * 128)
    length = ctypes.c_uint(len(buffer))
    level = socket.IPPROTO_IP if ipv4 else socket.IPPROTO_IPV6
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), level, MCAST_MSFILTER, buffer, ctypes.byref(length)) < 0:
        number = ctypes.get_errno()
        if number == errno.EADDRNOTAVAIL:
            return None
        raise OSError(number, f"MCAST_MSFILTER: {os.strerror(number)}")
    mode, n = struct.unpack_from("=II", buffer, len(head))
    begin, size = (4, 4) if ipv4 else (8, 16)
    starts = [len(head) + 8 + i * SOCKADDR_STORAGE + begin for i in range(n)]
    return mode, {str(ipaddress.ip_address(buffer.raw[start : start + size])) for start in starts}
