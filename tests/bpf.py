"""What the tests of filters have in common: a classic BPF machine, a plain model of `Filter`, and datagrams to judge.

Owns both ways to say whether a datagram passes, which have nothing in common. Must not send anything.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

IP_HEADER = -0x100000  # SKF_NET_OFF
LOADS = {0x20: 4, 0x28: 2, 0x30: 1}
JUMP, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, RETURN = 0x05, 0x15, 0x35, 0x06
WHOLE = 0xFFFF_FFFF
ACCEPT_ALL = ((RETURN, 0, 0, WHOLE),)


@dataclass(frozen=True)
class Datagram:
    source: str
    port: int
    payload: bytes
    headers: bytes = b""  # IPv4 options, or IPv6 extension headers: between the fixed header and UDP's

    @property
    def data(self) -> bytes:
        """What a UDP socket's filter has at offset 0: the UDP header (RFC 768), then the payload."""
        return struct.pack("!4H", self.port, 40_000, 8 + len(self.payload), 0) + self.payload

    @property
    def packet(self) -> bytes:
        """What it has at SKF_NET_OFF: the IP header (RFC 791, RFC 8200), as far as it matters, and all that follows."""
        source = ipaddress.ip_address(self.source)
        if source.version == 4:
            first = 0x45 + len(self.headers) // 4
            fixed = struct.pack("!B11x4s4s", first, source.packed, bytes([239, 255, 0, 1]))
        else:
            fixed = struct.pack("!B7x16s16s", 0x60, source.packed, bytes([0xFF, 0x15, *range(14)]))
        return fixed + self.headers + self.data


def run(program, datagram: Datagram) -> tuple[int, int]:
    """Do what the kernel does: what the program returns, and how many instructions that took."""
    value = at = steps = 0
    while True:
        code, yes, no, k = program[at]
        at, steps = at + 1, steps + 1
        if code == RETURN:
            return k, steps
        if code == JUMP:
            at += k
        elif code == JUMP_IF_EQUAL:
            at += yes if value == k else no
        elif code == JUMP_IF_AT_LEAST:
            at += yes if value >= k else no
        else:
            offset, size = struct.unpack("!i", struct.pack("!I", k))[0], LOADS[code]
            where, start = (datagram.data, offset) if offset >= 0 else (datagram.packet, offset - IP_HEADER)
            found = where[start : start + size]
            if len(found) < size:
                return 0, steps
            value = int.from_bytes(found, "big")


def accepts(program, datagram: Datagram) -> bool:
    """Whether the program lets a datagram pass; one that it would cut is wrong."""
    kept, _ = run(program, datagram)
    assert kept in (0, WHOLE)
    return kept == WHOLE


def check(program) -> None:
    """Refuse what the kernel refuses (bpf_check_classic of net/core/filter.c), and what can never be reached."""
    assert 1 <= len(program) <= 4096
    reached = {0}
    for at, (code, yes, no, k) in enumerate(program):
        assert 0 <= code <= 0xFFFF
        assert 0 <= yes <= 0xFF
        assert 0 <= no <= 0xFF
        assert 0 <= k <= 0xFFFF_FFFF
        if code == JUMP:
            following = {at + 1 + k}
        elif code in (JUMP_IF_EQUAL, JUMP_IF_AT_LEAST):
            following = {at + 1 + yes, at + 1 + no}
        else:
            assert code in LOADS or code == RETURN
            following = set() if code == RETURN else {at + 1}
        assert all(each < len(program) for each in following)
        reached |= following
    assert program[-1][0] == RETURN
    assert reached == set(range(len(program)))


def wanted(conditions: dict[str, object], datagram: Datagram) -> bool:
    """What `Filter(**conditions)` promises, said plainly; each condition a list, a mapping or None."""
    sources, ports, payload = (conditions.get(name) for name in ("source", "source_port", "payload"))
    if sources is not None and ipaddress.ip_address(datagram.source) not in map(ipaddress.ip_address, sources):
        return False
    if ports is not None and datagram.port not in ports:
        return False
    pieces = {} if payload is None else payload
    return all(datagram.payload[offset : offset + len(piece)] == piece for offset, piece in pieces.items())
