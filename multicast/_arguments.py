"""What callers may pass: addresses, sockets, sizes, times. Checked here once, for the door and for both backends.

Owns the rules for arguments and the words of their errors. Must not change anything, in the system or in an argument.
"""

from __future__ import annotations

import errno
import math
import operator
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any, SupportsFloat, SupportsIndex, TypeAlias, TypeVar

    from ._values import Silence

    T = TypeVar("T")

    AddressLike: TypeAlias = str | IPv4Address | IPv6Address

MAX_BATCH_SIZE = 1024  # UIO_MAXIOV: what sendmmsg(2) takes; recvmmsg(2) has no limit of its own, so this is fairness
MAX_DATAGRAM_SIZE = 65_535  # more than any UDP payload: 65,507 bytes over IPv4, 65,527 over IPv6
MAX_BLOCKS = 1_000_000
MAX_TIMEOUT = 1_000_000_000  # seconds, some 31 years: what is longer is None, or a mistake
MIN_SILENCE = 0.01  # seconds: what is looked at more often than every few milliseconds is no rest for a thread
_CACHE_LINE = 64
SOL_UDP, UDP_GRO = 17, 104  # linux/udp.h; the socket module names neither


def shown(value: object) -> str:
    """Return how an argument looks in an error, whatever it is: some can't be printed, some are long."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__} that can't be printed"
    return text if len(text) <= 1000 else f"{text[:1000]}... ({len(text)} characters)"


class Address:
    """An IPv4 or IPv6 address: its family, its bytes in network order, its text, and its zone, if it had one."""

    __slots__ = ("family", "packed", "text", "zone")

    def __init__(self, family: socket.AddressFamily, packed: bytes, text: str, zone: str | None) -> None:
        self.family, self.packed, self.text, self.zone = family, packed, text, zone

    def __str__(self) -> str:
        return self.text

    @property
    def is_multicast(self) -> bool:
        """Whether it is a group: 224.0.0.0/4 (RFC 1112) or ff00::/8 (RFC 4291)."""
        return self.packed[0] >> 4 == 0xE if self.family == socket.AF_INET else self.packed[0] == 0xFF

    @property
    def needs_zone(self) -> bool:
        """Whether it means another group on every interface or link: IPv6 scopes 1 and 2 (RFC 4291, section 2.7)."""
        return self.family == socket.AF_INET6 and self.is_multicast and self.packed[1] & 0x0F in (1, 2)

    @property
    def is_host(self) -> bool:
        """Whether it can be the address of one host: no group, not all zeros, not the IPv4 broadcast address."""
        return not self.is_multicast and any(self.packed) and self.packed != b"\xff\xff\xff\xff"

    def sockaddr(self, port: int, index: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return what the socket module takes; over IPv6 with the interface, which link-local addresses need."""
        host = self.text.partition("%")[0]
        return (host, port) if self.family == socket.AF_INET else (host, port, 0, index)


def parse_address(value: object) -> Address | None:
    """Return the address that a text or an `ipaddress` object is; None if it is neither."""
    text = value if isinstance(value, str) else str(value) if hasattr(value, "packed") else ""
    bare, _, zone = text.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, bare)
        except (OSError, ValueError):  # no such address; a NUL or a surrogate in the text
            continue
        if "%" in text and (family == socket.AF_INET or not zone):
            return None
        return Address(family, packed, text, zone or None)
    return None


def unpacked(packed: bytes) -> Address:
    """Return the address that these bytes are, in network order."""
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return Address(family, packed, socket.inet_ntop(family, packed), None)


def address(value: object, operation: str, what: str) -> Address:
    """Return the address, or raise TypeError or ValueError that says which argument is none."""
    if not isinstance(value, str) and not hasattr(value, "packed"):
        raise TypeError(
            f"{operation}: {what} is an IPv4 or IPv6 address as text or ipaddress object, not {shown(value)}"
        )
    parsed = parse_address(value)
    if parsed is None:
        raise ValueError(f"{operation}: {shown(value)} is no IPv4 or IPv6 address (as {what})")
    return parsed


def group_address(value: object, operation: str) -> Address:
    """Return a group's address."""
    group = address(value, operation, "group")
    if not group.is_multicast:
        raise ValueError(f"{operation}: {group} is no multicast group (224.0.0.0/4 or ff00::/8)")
    return group


def source_address(value: object, group: Address, operation: str) -> Address:
    """Return the address of a source of `group`, of the same family."""
    source = address(value, operation, "source")
    if source.family != group.family:
        raise ValueError(f"{operation}: source {source} and group {group} are of different families")
    if not source.is_host:
        raise ValueError(f"{operation}: {source} is no host's address, so it can't be a source of {group}")
    return source


def is_one(value: Any) -> bool:
    """Whether it is one value, and not several of them, be it in a list of one."""
    return isinstance(value, (str, bytes, bytearray)) or hasattr(value, "packed") or not hasattr(value, "__iter__")


def several(value: Any) -> Iterable[Any]:
    """Return the values, be it one or more; what is no address and no interface is left for the check to refuse."""
    found: Iterable[Any] = [value] if is_one(value) else value
    return found


def source_addresses(value: object, group: Address, operation: str) -> list[Address]:
    """Return the addresses of the sources of `group`, each once."""
    sources = [source_address(each, group, operation) for each in several(value)]
    return list({each.packed: each for each in sources}.values())


def filter_mode(value: str, operation: str) -> bool:
    """Return whether a source filter includes what it lists."""
    if not isinstance(value, str):
        raise TypeError(f'{operation}: mode is "include" or "exclude", not {shown(value)}')
    if value not in ("include", "exclude"):
        raise ValueError(f'{operation}: mode is "include" or "exclude", not {shown(value)}')
    return value == "include"


def whole(value: SupportsIndex, operation: str, what: str, low: int, high: int) -> int:
    """Return an integer within `low` and `high`."""
    if isinstance(value, bool):
        raise TypeError(f"{operation}: {what} is an integer from {low} to {high}, not {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{operation}: {what} is an integer from {low} to {high}, not {shown(value)}") from None
    if not low <= number <= high:
        raise ValueError(f"{operation}: {what} is an integer from {low} to {high}, not {shown(number)}")
    return number


def boolean(value: bool, operation: str, what: str) -> bool:
    """Return True or False, also for 1 and 0."""
    if not isinstance(value, int) or value not in (0, 1):
        raise TypeError(f"{operation}: {what} is True or False, not {shown(value)}")
    return bool(value)


def timeout_ns(value: SupportsFloat | None, operation: str) -> int:
    """Return a timeout in ns, rounded up so that waiting never ends early; -1 for None, to wait without end."""
    return -1 if value is None else math.ceil(_seconds(value, operation, "timeout", 0) * 1e9)


def spin_ns(value: SupportsFloat | None, operation: str) -> int:
    """Return for how long to spin, in ns; 0 for None, not at all; -1 for math.inf, for as long as it waits."""
    if value is None:
        return 0
    seconds = _seconds(value, operation, "spin", 0, endless=True)
    return -1 if seconds == math.inf else math.ceil(seconds * 1e9)


def silence(value: SupportsFloat | None, operation: str) -> float | None:
    """Return after how many seconds without a datagram a receiver is called silent; None for None, never."""
    return None if value is None else _seconds(value, operation, "silence", MIN_SILENCE)


def _seconds(value: SupportsFloat, operation: str, what: str, low: float, *, endless: bool = False) -> float:
    try:
        if isinstance(value, bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
            raise TypeError  # float() reads text, too
        seconds = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{operation}: {what} is a number of seconds or None, not {shown(value)}") from None
    except OverflowError:  # a number too large, but a number
        seconds = sys.float_info.max
    if endless and seconds == math.inf:
        return seconds
    if not low <= seconds <= MAX_TIMEOUT:  # NaN is within no bounds either
        words = "None, math.inf" if endless else "None"
        raise ValueError(f"{operation}: {what} is {words} or from {low} to {MAX_TIMEOUT} seconds, not {shown(value)}")
    return seconds


def on_silence(value: object, after: float | None, operation: str) -> Callable[[Silence], object] | None:
    """Return what to call when a receiver is silent; None for None, to log it."""
    if value is None:
        return None
    if not callable(value):
        raise TypeError(f"{operation}: on_silence is callable or None, not {shown(value)}")
    if after is None:
        raise ValueError(f"{operation}: on_silence is never called without silence, the seconds to wait for")
    return value


def receiver(value: object, kind: type[T], operation: str) -> T:
    """Return the receiver if it is one of this backend's kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{operation}: receiver is a Receiver of the backend in force, not {shown(value)}")
    return value


def receivers(value: Any, kind: type[T], poller: type, operation: str) -> list[T]:
    """Return the receivers. One alone, and a poller, could be iterated, too, but then they receive."""
    if isinstance(value, (kind, poller)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{operation}: receivers is several of them, in a list or the like, not {shown(value)}")
    return [receiver(each, kind, operation) for each in value]


def open_socket(sock: object, operation: str) -> socket.socket:
    """Return the socket if it is one and it is open."""
    if not isinstance(sock, socket.socket):
        raise TypeError(f"{operation}: sock is a socket.socket, not {shown(sock)}")
    if sock.fileno() < 0:
        raise OSError(errno.EBADF, f"{operation}: the socket is closed")
    return sock


def datagram_socket(sock: object, operation: str) -> socket.socket:
    """Return the socket if it is open and carries datagrams."""
    checked = open_socket(sock, operation)
    if checked.type != socket.SOCK_DGRAM:
        raise ValueError(f"{operation}: the socket is {checked.type!r}, not SOCK_DGRAM")
    return checked


def receiving_socket(sock: object, trains: bool, operation: str) -> socket.socket:
    """Return the socket if it is open, carries datagrams, and gives each as it came, or trains if those are meant."""
    checked = datagram_socket(sock, operation)
    if not trains and sys.platform == "linux" and checked.family in (socket.AF_INET, socket.AF_INET6):
        try:
            joins = checked.getsockopt(SOL_UDP, UDP_GRO)
        except OSError:  # a kernel before 5.0, or another protocol's datagrams
            return checked
        if joins:
            raise ValueError(
                f"{operation}: the socket has UDP_GRO on, which joins datagrams; switch it off, or say gro=True"
            )
    return checked


def connected_socket(sock: object, operation: str) -> socket.socket:
    """Return the socket if it is open, carries datagrams, and knows where to."""
    checked = datagram_socket(sock, operation)
    try:
        checked.getpeername()
    except OSError:
        raise ValueError(f"{operation}: the socket is not connected; connect it, or use open_sender") from None
    return checked


def multicast_socket(sock: object, operation: str) -> socket.socket:
    """Return the socket if it is open, carries datagrams, and is of a family that has multicast."""
    checked = datagram_socket(sock, operation)
    if checked.family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError(f"{operation}: the socket is {checked.family!r}, not AF_INET or AF_INET6")
    return checked


def batch_size(value: SupportsIndex, operation: str) -> int:
    """Return how many datagrams one batch holds at most."""
    return whole(value, operation, "batch_size", 1, MAX_BATCH_SIZE)


def datagram_size(value: SupportsIndex, operation: str) -> int:
    """Return how many bytes of a datagram are kept."""
    return whole(value, operation, "datagram_size", 1, MAX_DATAGRAM_SIZE)


def max_blocks(value: SupportsIndex | None, operation: str) -> int:
    """Return how many blocks a receiver may have; 0 for None, no limit."""
    return 0 if value is None else whole(value, operation, "max_blocks", 1, MAX_BLOCKS)


def hugepages(value: object, memory: object, operation: str) -> str | None:
    """Return on which huge pages a receiver's own memory is to lie; None: on ordinary ones."""
    if value is None:
        return None
    said = f'{operation}: hugepages is None, "transparent" or "reserved", not {shown(value)}'
    if not isinstance(value, str):
        raise TypeError(said)
    if value not in ("transparent", "reserved"):
        raise ValueError(said)
    if memory is not None:
        raise ValueError(f"{operation}: hugepages is for the receiver's own memory; map yours on huge pages yourself")
    return value


def slot_size(datagram_size: int) -> int:
    """Return the distance from one slot of a block to the next: whole cache lines, the same on both backends."""
    return -(-datagram_size // _CACHE_LINE) * _CACHE_LINE
