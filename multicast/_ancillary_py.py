"""Control messages: what the kernel says about a datagram beside its bytes, as socket.recvmsg returns it.

Owns the reading of each, and leaves out what makes no sense, as `_ancillary.pxd` does. Must not make a system call.
"""

from __future__ import annotations

import socket
import struct
import sys

from ._arguments import SOL_UDP, UDP_GRO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    Message: TypeAlias = tuple[int, int, bytes]  # level, type, data

NO_TIMESTAMP, SOFTWARE, HARDWARE = range(3)

# Linux's numbers (asm-generic), since the socket module names few of them; each generation of time stamps has its own.
_TIMESTAMPNS, _TIMESTAMPING, _RXQ_OVFL = (35, 64), (37, 65), 40
_IP_TOS, _IP_TTL, _IP_PKTINFO = 1, 2, 8
_IPV6_PKTINFO, _IPV6_HOPLIMIT, _IPV6_TCLASS = 50, 52, 67
_IPPROTO_IPV6 = 41


class Ancillary:
    """What the control messages of one datagram tell; 0 or nothing where they don't."""

    __slots__ = ("destination", "drops", "interface", "segment", "timestamp", "timestamp_kind", "tos", "ttl")

    def __init__(self, messages: Iterable[Message]) -> None:
        self.destination = b""
        self.interface = self.drops = self.segment = self.ttl = self.tos = 0
        self.timestamp, self.timestamp_kind = 0, NO_TIMESTAMP
        for level, kind, data in messages:
            if level == socket.SOL_SOCKET:
                self._of_socket(kind, data)
            elif level == socket.IPPROTO_IP:
                self._of_ipv4(kind, data)
            elif level == _IPPROTO_IPV6:
                self._of_ipv6(kind, data)
            elif level == SOL_UDP and kind == UDP_GRO and len(data) == 4:  # an int, whatever udp(7) says
                self.segment = max(0, struct.unpack("=i", data)[0])

    def _of_socket(self, kind: int, data: bytes) -> None:
        if kind == _RXQ_OVFL and len(data) == 4:
            (self.drops,) = struct.unpack("=I", data)
        elif kind in _TIMESTAMPNS and len(data) in (8, 16):
            self._stamp(_nanoseconds(data), SOFTWARE)
        elif kind in _TIMESTAMPING and len(data) in (24, 48):  # by software, an unused one, by hardware
            width = len(data) // 3
            self._stamp(_nanoseconds(data[:width]), SOFTWARE)
            self._stamp(_nanoseconds(data[2 * width :]), HARDWARE)

    def _of_ipv4(self, kind: int, data: bytes) -> None:
        if kind == _IP_PKTINFO and len(data) == 12:  # struct in_pktinfo: index, local address, destination
            self.interface, self.destination = int.from_bytes(data[:4], sys.byteorder), data[8:]
        elif kind == _IP_TTL:
            self.ttl = _small(data, self.ttl)
        elif kind == _IP_TOS:
            self.tos = _small(data, self.tos)

    def _of_ipv6(self, kind: int, data: bytes) -> None:
        if kind == _IPV6_PKTINFO and len(data) == 20:  # struct in6_pktinfo: destination, index
            self.destination, self.interface = data[:16], int.from_bytes(data[16:], sys.byteorder)
        elif kind == _IPV6_HOPLIMIT:
            self.ttl = _small(data, self.ttl)
        elif kind == _IPV6_TCLASS:
            self.tos = _small(data, self.tos)

    def _stamp(self, time: int, kind: int) -> None:
        if time and kind >= self.timestamp_kind:
            self.timestamp, self.timestamp_kind = time, kind


def _nanoseconds(data: bytes) -> int:
    """Return the ns since 1970 of a struct timespec of either width; 0, which means none, for what is no time."""
    seconds, rest = struct.unpack("=qq" if len(data) == 16 else "=ii", data)
    return seconds * 1_000_000_000 + rest if 0 <= seconds < 9_000_000_000 and 0 <= rest < 1_000_000_000 else 0


def _small(data: bytes, known: int) -> int:
    """Return a number from 0 to 255 that the kernel gives as an int, or as the byte that it is; else the one known."""
    if len(data) == 4:
        return int.from_bytes(data, sys.byteorder) & 0xFF
    return data[0] if len(data) == 1 else known


def widened(known: int, count: int) -> int:
    """Return the count whose lower half, of 32 bits, is `count`, and which is nearest to the one known."""
    return known + ((count - known + 2**31) % 2**32 - 2**31)


def stamped(known: int, drops: int) -> int:
    """Return the count that a datagram was stamped with.

    It has no stamp (0) if it was queued before there was a drop, or before SO_RXQ_OVFL was set: no news of drops then,
    however near to the next 2**32 the one known is.
    """
    return widened(known, drops) if drops else known >> 32 << 32
