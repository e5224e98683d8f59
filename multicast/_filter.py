"""Which datagrams the kernel queues for a socket, and which it drops: filters in classic BPF (SO_ATTACH_FILTER).

Owns `Filter`, what it compiles to, the check of programs written by hand, and how one is attached (socket(7)). Must not
choose the moment: what comes before a filter is attached is queued, so that has to happen before the socket is bound.
"""

from __future__ import annotations

import array
import itertools
import operator
import socket
import struct
import sys
from collections.abc import Mapping

from . import _arguments, _errors
from ._values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, SupportsIndex, TypeAlias

    from typing_extensions import Buffer

    from ._arguments import Address, AddressLike

    Instruction: TypeAlias = tuple[int, int, int, int]  # code, jt, jf, k: a struct sock_filter
    FilterLike: TypeAlias = "Filter | Sequence[Sequence[SupportsIndex]]"

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS of linux/bpf_common.h
MAX_PAYLOAD = 65_527  # bytes of a UDP datagram over IPv6, without jumbograms; over IPv4 20 fewer
_OPERATION = "Filter"  # what the errors of its arguments begin with

# linux/bpf_common.h, linux/filter.h
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS, and the size: past the end, they refuse
_JUMP, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST = 0x05, 0x15, 0x35  # BPF_JMP, and BPF_JA, BPF_JEQ, BPF_JGE with BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K: how many bytes to keep, none: to refuse it
_WHOLE_DATAGRAM = 0xFFFF_FFFF  # whatever is less would cut one that is longer, and nothing tells
_SO_ATTACH_FILTER = 26
_SOCK_FILTER = struct.Struct("=HBBI")

# Where a UDP socket's filter finds things: the data begins with the UDP header (RFC 768), the IP header is at
# SKF_NET_OFF, of whatever length (RFC 791, RFC 8200). Fragments are one datagram again by then.
_SOURCE_PORT, _PAYLOAD = 0, 8
_IP_HEADER = -0x100000
_IP_SOURCE = {socket.AF_INET: _IP_HEADER + 12, socket.AF_INET6: _IP_HEADER + 8}
_VERSION_6 = 0x60  # the least first byte of an IPv6 header


class Filter(Value):
    """What a datagram has to be for the kernel to queue it; all else costs neither memory nor a wake-up.

    Filter(*, source=None, source_port=None, payload=None)

    - source: the address that it comes from, or several of one family: any of these
    - source_port: the port that it comes from, 0 to 65535, or several: any of these
    - payload: the bytes that its payload begins with, or a mapping of offsets to bytes: all of these. A datagram too
      short to have them is refused.

    What is given has to hold, all of it. Fixed when made; two of the same conditions are equal, in whatever order. Many
    sources or ports are searched by halves. The kernel counts what it refuses among the socket's drops, `Stats.drops`.
    Linux only (SO_ATTACH_FILTER, socket(7)). It saves work and is no protection: sources can be forged.
    Raises TypeError or ValueError for conditions that can't be, and for more than fit into 4096 instructions of BPF:
    some 3000 sources over IPv4; over IPv6 as many with the same first 96 bits, or some 500 that share nothing.
    """

    __slots__ = ("_pieces", "_program", "source", "source_port")
    source: tuple[str, ...] | None
    source_port: tuple[int, ...] | None
    _pieces: tuple[tuple[int, bytes], ...] | None
    _program: tuple[Instruction, ...]

    def __init__(
        self,
        *,
        source: AddressLike | Iterable[AddressLike] | None = None,
        source_port: SupportsIndex | Iterable[SupportsIndex] | None = None,
        payload: Buffer | Mapping[SupportsIndex, Buffer] | None = None,
    ) -> None:
        if source is None and source_port is None and payload is None:
            raise ValueError(f"{_OPERATION}: give a source, a source_port or a payload; no filter is None")
        sources = None if source is None else _sources(source)
        ports = None if source_port is None else _ports(source_port)
        pieces = None if payload is None else _payload(payload)
        super().__init__(
            source=None if sources is None else tuple(socket.inet_ntop(each.family, each.packed) for each in sources),
            source_port=ports,
            _pieces=pieces,
            _program=_compiled(sources or (), ports or (), pieces or ()),
        )

    @property
    def payload(self) -> dict[int, bytes] | None:
        """The bytes wanted, by their offset in the payload: a new dict, pieces that touch made one; None for any."""
        return None if self._pieces is None else dict(self._pieces)

    def as_dict(self) -> dict[str, Any]:
        """Return the conditions as a new dict: arguments that make an equal filter."""
        return {"source": self.source, "source_port": self.source_port, "payload": self.payload}

    def __hash__(self) -> int:
        return hash((self.source, self.source_port, self._pieces))


def program(value: FilterLike, family: int, operation: str) -> tuple[Instruction, ...]:
    """Return the instructions (code, jt, jf, k) of a filter, for a socket of this family.

    - value: a `Filter`, or a program: a sequence of such instructions, of which only the ranges are checked here

    Raises TypeError or ValueError for what is neither, and for sources of another family.
    """
    if not isinstance(value, Filter):
        return _checked(value, operation)
    if family not in _IP_SOURCE:
        raise ValueError(f"{operation}: a Filter is for AF_INET and AF_INET6, the socket is {family!r}")
    if value.source is not None and family != _family(value.source[0]):
        wanted, has = (socket.AddressFamily(each).name for each in (_family(value.source[0]), family))
        raise ValueError(f"{operation}: the filter's source {value.source[0]} is {wanted}, the socket is {has}")
    return value._program


def attach(sock: socket.socket, program: Sequence[Instruction], doing: str) -> None:
    """Have the kernel drop what a program refuses, in place of the filter that the socket may have (socket(7)).

    Raises OSError with the errno of what failed: EINVAL (the kernel refused the program), EPERM (SO_LOCK_FILTER),
    ENOMEM (a limit, which is named), EOPNOTSUPP where there are no such filters.
    """
    doing = f"{doing}: attaching the filter"
    if sys.platform != "linux":
        raise _errors.no_filters(doing)
    # A struct sock_fprog has a pointer to the instructions: `code` has to live until the kernel has copied them.
    code = array.array("B", b"".join(itertools.starmap(_SOCK_FILTER.pack, program)))
    address, _ = code.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))
    except OSError as error:
        raise _errors.system(error, doing, _errors.filter_hint(error.errno or 0)) from None
    finally:
        del code


# Conditions --------------------------------------------------------------------------------------------------------


def _several(value: object, what: str) -> list[Any]:
    """Return the items, be it one or more; what is neither is left for the check to refuse."""
    if isinstance(value, (str, bytes, bytearray, memoryview)) or hasattr(value, "packed"):
        return [value]
    try:
        each = iter(value)  # type: ignore[call-overload]
    except TypeError:
        return [value]
    items = list(itertools.islice(each, MAX_INSTRUCTIONS + 1))
    if not items:
        raise ValueError(f"{_OPERATION}: no {what} was named; None is for any")
    if len(items) > MAX_INSTRUCTIONS:
        raise ValueError(f"{_OPERATION}: more than {MAX_INSTRUCTIONS} times {what}, which no program has room for")
    return items


def _sources(value: object) -> tuple[Address, ...]:
    """Return the addresses, each once, in order."""
    found = {}
    for each in _several(value, "source"):
        address = _arguments.address(each, _OPERATION, "source")
        if address.zone is not None:
            raise ValueError(
                f"{_OPERATION}: source {_arguments.shown(address.text)}: leave the zone out, no datagram has one"
            )
        if address.packed.startswith(b"\0" * 10 + b"\xff\xff"):  # Linux refuses them on the wire
            raise ValueError(f"{_OPERATION}: source {address} is an IPv4 address; write it as one")
        if not address.is_host:
            raise ValueError(f"{_OPERATION}: {address} is no host's address, so it can't be a source")
        found[address.packed] = address
    if len({len(packed) for packed in found}) > 1:
        raise ValueError(f"{_OPERATION}: the sources are of different families")
    return tuple(found[packed] for packed in sorted(found))


def _ports(value: object) -> tuple[int, ...]:
    """Return the ports, each once, in order."""
    each = _several(value, "source_port")
    return tuple(sorted({_arguments.whole(port, _OPERATION, "source_port", 0, 65_535) for port in each}))


def _payload(value: object) -> tuple[tuple[int, bytes], ...]:
    """Return the pieces, (offset, bytes), in order, with a gap between any two of them."""
    octets: dict[int, int] = {}
    for offset, data in value.items() if isinstance(value, Mapping) else [(0, value)]:
        start = _arguments.whole(offset, _OPERATION, "an offset of the payload", 0, MAX_PAYLOAD - 1)
        for at, octet in enumerate(_bytes(data, MAX_PAYLOAD - start), start):
            if octets.setdefault(at, octet) != octet:
                raise ValueError(f"{_OPERATION}: payload wants two different bytes at offset {at}")
    if not octets:
        raise ValueError(f"{_OPERATION}: payload is empty; None is for any")
    pieces: list[tuple[int, bytearray]] = []
    for at in sorted(octets):
        if not pieces or at != pieces[-1][0] + len(pieces[-1][1]):
            pieces.append((at, bytearray()))
        pieces[-1][1].append(octets[at])
    return tuple((start, bytes(piece)) for start, piece in pieces)


def _bytes(data: object, room: int) -> bytes:
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        raise TypeError(
            f"{_OPERATION}: payload is bytes-like, or a mapping of offsets to such, not {_arguments.shown(data)}"
        ) from None
    with view:
        if view.nbytes > room:
            raise ValueError(f"{_OPERATION}: payload ends after {MAX_PAYLOAD} bytes, which no datagram has")
        return view.tobytes()


def _family(text: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in text else socket.AF_INET


# Programs ----------------------------------------------------------------------------------------------------------

_FARTHEST = 255  # instructions: jt and jf are a byte each, and jumps go forward only
_IN_A_ROW = 4  # values compared one after the other; more are halved first


class _Code:
    """Writes a program from its end to its beginning, since jumps lead forward: to what is written already.

    A place is an instruction's number, counted from the end.
    """

    def __init__(self) -> None:
        self._written: list[Instruction] = []
        self._nearest: dict[int, int] = {}  # by place: the last jump that leads there from wherever it is wanted

    def put(self, code: int, k: int) -> int:
        """Write an instruction that has the one written before as its next; return its place."""
        self._written.append((code, 0, 0, k & 0xFFFF_FFFF))
        return len(self._written) - 1

    def jump(self, code: int, k: int, yes: int, no: int) -> int:
        """Write a conditional jump to either place; return its own."""
        yes, no = self._within_reach(yes), self._within_reach(no)
        here = len(self._written)
        self._written.append((code, here - yes - 1, here - no - 1, k))
        return here

    def _within_reach(self, place: int) -> int:
        """Return the place, or one closer by that leads to it: in reach still when one instruction more is written."""
        nearest = self._nearest.get(place, place)
        if len(self._written) - nearest > _FARTHEST:
            nearest = self._nearest[place] = self.put(_JUMP, len(self._written) - place - 1)
        return nearest

    def choose(self, leads: Sequence[tuple[int, int]], otherwise: int) -> int:
        """Go where the value loaded leads to; leads: (value, place), by rising value."""
        if len(leads) <= _IN_A_ROW:
            for value, place in reversed(leads):
                otherwise = self.jump(_JUMP_IF_EQUAL, value, place, otherwise)
            return otherwise
        middle = len(leads) // 2
        high = self.choose(leads[middle:], otherwise)
        low = self.choose(leads[:middle], otherwise)
        return self.jump(_JUMP_IF_AT_LEAST, leads[middle][0], high, low)

    def match(self, offset: int, rows: Sequence[tuple[int, ...]], yes: int, no: int) -> int:
        """Go on if the words from this offset on are one of these rows, which are in order."""
        if not rows[0]:
            return yes
        leads = []
        for word, same in itertools.groupby(rows, operator.itemgetter(0)):
            leads.append((word, self.match(offset + 4, [row[1:] for row in same], yes, no)))
        self.choose(leads, no)
        return self.put(_LOAD_WORD, offset)

    def equal(self, offset: int, data: bytes, yes: int, no: int) -> int:
        """Go on if these are the bytes from this offset on."""
        sizes = [4] * (len(data) // 4) + [size for size in (2, 1) if len(data) & size]
        end = len(data)
        for size in reversed(sizes):
            start = end - size
            self.jump(_JUMP_IF_EQUAL, int.from_bytes(data[start:end], "big"), yes, no)
            yes = self.put({4: _LOAD_WORD, 2: _LOAD_HALF, 1: _LOAD_BYTE}[size], offset + start)
            end = start
        return yes

    def program(self) -> tuple[Instruction, ...]:
        return tuple(reversed(self._written))


def _compiled(
    sources: Sequence[Address], ports: Sequence[int], pieces: Sequence[tuple[int, bytes]]
) -> tuple[Instruction, ...]:
    """Return the program that accepts what meets all of these; an empty one is met by all."""
    code = _Code()
    refuse = code.put(_RETURN, 0)
    accept = code.put(_RETURN, _WHOLE_DATAGRAM)
    for start, piece in reversed(pieces):
        accept = code.equal(_PAYLOAD + start, piece, accept, refuse)
    if sources:
        family = sources[0].family
        rows = [struct.unpack(f"!{len(each.packed) // 4}I", each.packed) for each in sources]
        accept = code.match(_IP_SOURCE[family], rows, accept, refuse)
        if family == socket.AF_INET6:  # whose sockets may be given IPv4 datagrams, too (IPV6_V6ONLY off, ipv6(7))
            code.jump(_JUMP_IF_AT_LEAST, _VERSION_6, accept, refuse)
            accept = code.put(_LOAD_BYTE, _IP_HEADER)
    if ports:
        code.choose([(port, accept) for port in ports], refuse)
        code.put(_LOAD_HALF, _SOURCE_PORT)
    instructions = code.program()
    if len(instructions) > MAX_INSTRUCTIONS:
        raise ValueError(
            f"{_OPERATION}: that takes {len(instructions)} instructions of BPF, and the kernel {MAX_INSTRUCTIONS} "
            f"at most; there are {len(sources)} sources, {len(ports)} ports and "
            f"{sum(len(piece) for _, piece in pieces)} bytes of payload"
        )
    return instructions


_RANGES = (("code", 0xFFFF), ("jt", 0xFF), ("jf", 0xFF), ("k", 0xFFFF_FFFF))


def _checked(value: object, operation: str) -> tuple[Instruction, ...]:
    """Return a program written by hand; whether it is one that ends is for the kernel to say."""
    wrong = TypeError(
        f"{operation}: filter is a multicast.Filter or a sequence of BPF instructions (code, jt, jf, k), "
        f"not {_arguments.shown(value)}"
    )
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or not hasattr(value, "__getitem__"):
        raise wrong
    try:
        each = iter(value)
    except TypeError:
        raise wrong from None
    rows = list(itertools.islice(each, MAX_INSTRUCTIONS + 1))
    if not 1 <= len(rows) <= MAX_INSTRUCTIONS:
        found = len(rows) or "none"
        raise ValueError(f"{operation}: the filter has 1 to {MAX_INSTRUCTIONS} instructions, not {found}")
    return tuple(_instruction(row, number, operation) for number, row in enumerate(rows))


def _instruction(row: Any, number: int, operation: str) -> Instruction:
    what = f"the filter's instruction {number}"
    try:
        fields = tuple(itertools.islice(row, len(_RANGES) + 1))
    except TypeError:
        raise TypeError(f"{operation}: {what} is (code, jt, jf, k), not {_arguments.shown(row)}") from None
    if len(fields) != len(_RANGES):
        raise ValueError(f"{operation}: {what} is (code, jt, jf, k), not {_arguments.shown(row)}")
    code, jt, jf, k = (
        _arguments.whole(field, operation, f"{what}: {name}", 0, most)
        for field, (name, most) in zip(fields, _RANGES, strict=True)
    )
    return code, jt, jf, k
