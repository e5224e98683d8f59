"""What can be kept of each datagram beside its bytes: the columns' names, and the options that make the kernel tell.

Owns both, for both backends. Must not read what the kernel then tells: `_ancillary.pxd` and `_ancillary_py.py` do.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from . import _arguments, _errors
from ._arguments import SOL_UDP, UDP_GRO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    Option: TypeAlias = tuple[int, int, int, int]  # level, name, value to set, bytes of the message that it brings

COLUMNS = ("source", "destination", "interface", "ttl", "tos", "drops")
MOST_TEXTS = 4096  # addresses a receiver remembers the text of
KINDS = (None, "software", "hardware")  # of timestamps, by the number in `Batch.timestamp_kinds`

# Linux's numbers (asm-generic), since the socket module names few of them.
_SO_TIMESTAMPNS, _SO_TIMESTAMPING, _SO_RXQ_OVFL = 35, 37, 40
_IP_PKTINFO, _IP_RECVTTL, _IP_RECVTOS = 8, 12, 13
_IPV6_RECVPKTINFO, _IPV6_RECVHOPLIMIT, _IPV6_RECVTCLASS = 49, 51, 66
# SOF_TIMESTAMPING_: RX_HARDWARE and RAW_HARDWARE; RX_SOFTWARE and SOFTWARE stand in for a card that has none.
_FROM_THE_CARD = 1 << 2 | 1 << 6 | 1 << 3 | 1 << 4
_SPARE = 64  # bytes for messages that a user's own socket asks for, lest they push ours out


class Wanted:
    """What a receiver was asked to keep or to check: checked names, and whether the kernel has to tell more for it."""

    __slots__ = ("gro", "isolation", "names", "timestamps")

    def __init__(self, columns: object, timestamps: object, gro: object, isolation: object, operation: str) -> None:
        self.names = _names(columns, operation)
        if timestamps is not None and (not isinstance(timestamps, str) or timestamps not in KINDS):
            raise ValueError(
                f'{operation}: timestamps is "software", "hardware" or None, not {_arguments.shown(timestamps)}'
            )
        self.timestamps: str | None = timestamps
        self.gro = _arguments.boolean(gro, operation, "gro")  # type: ignore[arg-type]
        self.isolation = _arguments.boolean(isolation, operation, "isolation")  # type: ignore[arg-type]

    @property
    def kept(self) -> frozenset[str]:
        """The names by which `Batch` is asked."""
        return self.names | ({"timestamps"} if self.timestamps else set())

    @property
    def control(self) -> bool:
        """Whether control messages are needed: for all but the source, which is the datagram's name (msg_name)."""
        return bool(self.names - {"source"}) or self.timestamps is not None or self.gro or self.isolation

    def enable(self, sock: socket.socket, operation: str) -> int:
        """Set the options; return how many bytes of control messages a datagram can have with them, 0 for none.

        Raises OSError with the errno of what failed: EOPNOTSUPP where this system tells none of that; ENOPROTOOPT
        where its kernel is too old for one of them.
        """
        if not self.control and "source" not in self.names:
            return 0
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"{operation}: the socket is {sock.family!r}; columns are of AF_INET and AF_INET6")
        if not self.control:
            return 0
        if sys.platform != "linux":
            text = f"{operation}: of a datagram's columns this system tells the source alone"
            raise OSError(errno.EOPNOTSUPP, f"{text} ({os.strerror(errno.EOPNOTSUPP)})")
        size = _SPARE
        for level, name, value, message in self.options(sock.family):
            try:
                sock.setsockopt(level, name, value)
            except OSError as error:
                raise _errors.system(error, f"{operation}: asking the kernel for {self}") from None
            size += socket.CMSG_SPACE(message)
        return size

    def options(self, family: int) -> Iterator[Option]:
        """Give the options that make the kernel of Linux tell it, on a socket of this family."""
        wants = self.names.__contains__
        if self.timestamps == "software":
            yield socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1, 32  # of both widths, where time_t has changed its own
        if self.timestamps == "hardware":
            yield socket.SOL_SOCKET, _SO_TIMESTAMPING, _FROM_THE_CARD, 96
        if wants("drops"):
            yield socket.SOL_SOCKET, _SO_RXQ_OVFL, 1, 4
        if self.gro:
            yield SOL_UDP, UDP_GRO, 1, 4
        if self.isolation or wants("destination") or wants("interface"):
            if family == socket.AF_INET6:
                yield socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1, 20
            else:
                yield socket.IPPROTO_IP, _IP_PKTINFO, 1, 12
        if wants("ttl"):
            yield socket.IPPROTO_IP, _IP_RECVTTL, 1, 4  # over IPv6, too: for what came by IPv4 to a socket for both
            if family == socket.AF_INET6:
                yield socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1, 4
        if wants("tos"):
            yield socket.IPPROTO_IP, _IP_RECVTOS, 1, 1
            if family == socket.AF_INET6:
                yield socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1, 4

    def __str__(self) -> str:
        words = [name for name in COLUMNS if name in self.names]
        words += [f"{self.timestamps} timestamps"] * (self.timestamps is not None)
        words += ["gro"] * self.gro + ["isolation"] * self.isolation
        return ", ".join(words)


def _names(columns: object, operation: str) -> frozenset[str]:
    try:
        given: Iterable[object] = [columns] if isinstance(columns, str) else list(columns)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(
            f"{operation}: columns are names out of {', '.join(COLUMNS)}, not {_arguments.shown(columns)}"
        ) from None
    for name in given:
        if not isinstance(name, str) or name not in COLUMNS:
            raise ValueError(f"{operation}: no column {_arguments.shown(name)} (there are: {', '.join(COLUMNS)})")
    return frozenset(given)  # type: ignore[arg-type]


def socket_address(name: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return a struct sockaddr_in or sockaddr_in6 as the socket module shows it."""
    port = int.from_bytes(name[2:4], "big")
    if len(name) < 28:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    flow, zone = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, zone


def address_text(packed: bytes) -> tuple[str]:
    """Return the bytes of an address as text, alone in a tuple."""
    return (socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed),)


def joined_table(entries: Iterable[tuple[bytes, int]]) -> bytes:
    """Return groups and the indexes of their interfaces as the native loop looks them up (`Joined`)."""
    return b"".join(sorted(group.ljust(16, b"\0") + index.to_bytes(4, sys.byteorder) for group, index in entries))


def not_kept(what: str, column: str) -> ValueError:
    """A column is read that nobody asked for."""
    asked = f'timestamps="{KINDS[1]}" or "{KINDS[2]}"' if column == "timestamps" else f'columns=["{column}"]'
    return ValueError(f"{what} was not kept; open the receiver with {asked}")
