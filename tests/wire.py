"""What a frame on the wire says: membership reports and UDP datagrams, out of Ethernet, IPv4 and IPv6.

Owns the formats of RFC 1112, 2236, 3376 (IGMP), 2710 and 3810 (MLD), and the verdict on a frame that breaks them: it is
Malformed, and a wrong checksum too. Must not open a socket, and passes over what is neither report nor datagram.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import NoReturn

IPV4, IPV6 = 0x0800, 0x86DD  # EtherType
HOP_BY_HOP, IGMP, UDP, FRAGMENT, ICMPV6 = 0, 2, 17, 44, 58  # IP protocol and IPv6 next header numbers
CONTROL = 0xC0  # the IPv4 TOS of IGMPv3: Internetwork Control (RFC 3376, 4)

# RFC 3376, 4.2.12; RFC 3810, 5.2.12, has the same.
GROUP_RECORDS = {
    1: "MODE_IS_INCLUDE",
    2: "MODE_IS_EXCLUDE",
    3: "CHANGE_TO_INCLUDE_MODE",
    4: "CHANGE_TO_EXCLUDE_MODE",
    5: "ALLOW_NEW_SOURCES",
    6: "BLOCK_OLD_SOURCES",
}
# What came before: the whole message is about one group. Type, version, name, and where a leave is sent to.
_OLDER = {
    IGMP: {
        0x12: ("IGMPv1", "Membership Report", None),  # RFC 1112, Appendix I
        0x16: ("IGMPv2", "Membership Report", None),  # RFC 2236, 2.1
        0x17: ("IGMPv2", "Leave Group", "224.0.0.2"),
    },
    ICMPV6: {
        131: ("MLDv1", "Multicast Listener Report", None),  # RFC 2710, 3.1
        132: ("MLDv1", "Multicast Listener Done", "ff02::2"),
    },
}
# Type of the report with group records, its name, and where it is sent to.
_NEWER = {IGMP: (0x22, "IGMPv3", "224.0.0.22"), ICMPV6: (143, "MLDv2", "ff02::16")}
_QUERY = {IGMP: 0x11, ICMPV6: 130}


class Malformed(Exception):
    """A frame is not what its RFC says; the text tells what is wrong and has its bytes."""


@dataclass(frozen=True)
class Record:
    """What a host reported of one group: a group record, or a whole report or leave of an older version."""

    version: str  # IGMPv1, IGMPv2, IGMPv3, MLDv1, MLDv2
    type: str  # as the RFC has it
    group: str
    sources: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Datagram:
    """A UDP datagram. ttl and tos are over IPv6 the hop limit and the traffic class."""

    source: tuple[str, int]
    destination: tuple[str, int]
    ttl: int
    tos: int
    payload: bytes


@dataclass(frozen=True)
class Packet:
    """An IP packet without its headers, and what of them the formats above it ask for."""

    source: str
    destination: str
    ttl: int
    tos: int
    alert: bool  # it has the Router Alert option (RFC 2113; RFC 2711, value 0: MLD)
    protocol: int
    payload: bytes

    @property
    def pseudo_header(self) -> bytes:
        """What a checksum above IP covers, too (RFC 768; RFC 8200, 8.1)."""
        ends = packed(self.source) + packed(self.destination)
        form = "!BBH" if len(ends) == 8 else "!I3xB"
        fields = (0, self.protocol, len(self.payload)) if len(ends) == 8 else (len(self.payload), self.protocol)
        return ends + struct.pack(form, *fields)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def checksum(data: bytes) -> int:
    """RFC 1071; over data that has a checksum in it, 0 if that is right."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# Reading -----------------------------------------------------------------------------------------------------------


def decode(frame: bytes, *, segment: int = 0, unfinished: bool = False) -> list[Record | Datagram]:
    """Return what an Ethernet frame reports or carries; nothing if it is about something else.

    - segment: the size of the datagrams that the kernel handed on in one, to be cut later (UDP_SEGMENT, udp(7)), or 0
    - unfinished: its UDP checksum is not filled in yet, which on a veth link may never happen

    Raises Malformed.
    """
    try:
        packet = _packet(frame)
        if packet is None:
            return []
        if packet.protocol == UDP:
            return _datagrams(packet, segment, unfinished)
        return _reports(packet)
    except (struct.error, IndexError, ValueError) as error:
        raise Malformed(f"cut short: {error}: {frame.hex()}") from error
    except Malformed as error:
        raise Malformed(f"{error}: {frame.hex()}") from None


def _wrong(what: str) -> NoReturn:
    raise Malformed(what)


def _packet(frame: bytes) -> Packet | None:
    (kind,) = struct.unpack_from("!12xH", frame)
    reader = {IPV4: _ipv4, IPV6: _ipv6}.get(kind)
    return reader(frame[14:]) if reader else None


def _ipv4(data: bytes) -> Packet | None:
    first, tos, total, place, ttl, protocol, _, source, destination = struct.unpack_from("!BBHxxHBBH4s4s", data)
    head = first % 16 * 4
    if first >> 4 != 4 or not 20 <= head <= total <= len(data):
        _wrong("no IPv4 header")
    if checksum(data[:head]):
        _wrong("the checksum of the IPv4 header is wrong")
    if protocol not in (UDP, IGMP):
        return None
    if place & 0x3FFF:  # More Fragments, or an offset
        _wrong("a fragment; nothing is put together here")
    alert = b"\x94\x04\0\0" in data[20:head]
    return Packet(text(source), text(destination), ttl, tos, alert, protocol, data[head:total])


def _ipv6(data: bytes) -> Packet | None:
    word, length, following, hops, source, destination = struct.unpack_from("!IHBB16s16s", data)
    if word >> 28 != 6 or 40 + length > len(data):
        _wrong("no IPv6 header")
    payload, alert = data[40 : 40 + length], False
    if following == HOP_BY_HOP:
        following, size = payload[0], payload[1] * 8 + 8
        alert = b"\x05\x02\0\0" in payload[2:size]
        payload = payload[size:]
    if following == FRAGMENT:
        _wrong("a fragment; nothing is put together here")
    if following not in (UDP, ICMPV6):
        return None
    return Packet(text(source), text(destination), hops, word >> 20 & 0xFF, alert, following, payload)


def _datagrams(packet: Packet, segment: int, unfinished: bool) -> list[Record | Datagram]:
    source, destination, length, found = struct.unpack_from("!HHHH", packet.payload)
    if length != len(packet.payload):
        _wrong(f"UDP has a length of {length}, IP one of {len(packet.payload)}")
    # None, which is 0, is allowed over IPv4 alone (RFC 768; RFC 8200, 8.1).
    if not unfinished and (found or ":" in packet.source) and checksum(packet.pseudo_header + packet.payload):
        _wrong("the UDP checksum is wrong")
    payload = packet.payload[8:]
    step = segment or len(payload) or 1
    parts = [payload[start : start + step] for start in range(0, len(payload), step)] or [b""]
    ends = (packet.source, source), (packet.destination, destination)
    return [Datagram(*ends, packet.ttl, packet.tos, part) for part in parts]


def _reports(packet: Packet) -> list[Record | Datagram]:
    data, ipv6 = packet.payload, packet.protocol == ICMPV6
    if checksum((packet.pseudo_header if ipv6 else b"") + data):
        _wrong(f"the {'ICMPv6' if ipv6 else 'IGMP'} checksum is wrong")
    newer, version, routers = _NEWER[packet.protocol]
    if data[0] == newer:
        _sent_as_required(packet, version, routers)
        return _group_records(data, version, 16 if ipv6 else 4)
    if data[0] in _OLDER[packet.protocol]:
        version, name, routers = _OLDER[packet.protocol][data[0]]
        (group,) = struct.unpack("!8x16s" if ipv6 else "!4x4s", data)
        _sent_as_required(packet, version, routers or text(group))
        return [Record(version, name, text(group))]
    if data[0] == _QUERY[packet.protocol] or ipv6:  # the rest of ICMPv6 is not about groups
        return []
    _wrong(f"no IGMP type of a host: {data[0]:#x}")


def _sent_as_required(packet: Packet, version: str, destination: str) -> None:
    """RFC 3376, 4 and 4.2.14; RFC 2236, 2; RFC 3810, 5, 5.2.13 and 5.2.14; RFC 2710, 3. IGMPv1 asks for less."""
    if packet.destination != destination:
        _wrong(f"an {version} message to {packet.destination}, which belongs to {destination}")
    if version != "IGMPv1" and (packet.ttl, packet.alert) != (1, True):
        _wrong(f"an {version} message with TTL {packet.ttl}{'' if packet.alert else ', without Router Alert'}")
    if version == "IGMPv3" and packet.tos != CONTROL:
        _wrong(f"an IGMPv3 message with TOS {packet.tos:#x}")
    own = ipaddress.ip_address(packet.source)
    if own.version == 6 and not (own.is_link_local or own.is_unspecified):
        _wrong(f"an {version} message from {own}, which is not link-local")


def _group_records(data: bytes, version: str, size: int) -> list[Record | Datagram]:
    (count,) = struct.unpack_from("!6xH", data)
    found: list[Record | Datagram] = []
    at = 8
    for _ in range(count):
        kind, auxiliary, n, group = struct.unpack_from(f"!BBH{size}s", data, at)
        sources = struct.unpack_from(f"!{n * size}s", data, at + 4 + size)[0]
        if kind not in GROUP_RECORDS:
            _wrong(f"no group record is of type {kind}")
        each = frozenset(text(sources[start : start + size]) for start in range(0, n * size, size))
        found.append(Record(version, GROUP_RECORDS[kind], text(group), each))
        at += 4 + size + n * size + 4 * auxiliary
    if at != len(data):
        _wrong(f"{count} group records are {at} bytes, there are {len(data)}")
    return found


# Writing -----------------------------------------------------------------------------------------------------------


def frame(packet: Packet) -> bytes:
    """Return a packet as an Ethernet frame; the checksum of IGMP and ICMPv6 is filled in, that of UDP is not."""
    if packet.protocol in (IGMP, ICMPV6):
        covered = packet.pseudo_header if packet.protocol == ICMPV6 else b""
        clear = packet.payload[:2] + b"\0\0" + packet.payload[4:]
        payload = clear[:2] + struct.pack("!H", checksum(covered + clear)) + clear[4:]
    else:
        payload = packet.payload
    ends = packed(packet.source), packed(packet.destination)
    own = bytes.fromhex("020000000001")  # administered locally: no maker's
    if len(ends[0]) == 4:
        options = b"\x94\x04\0\0" if packet.alert else b""
        size = 20 + len(options)
        fields = (0x40 + size // 4, packet.tos, size + len(payload), packet.ttl, packet.protocol)
        head = struct.pack("!BBHxxxxBBxx4s4s", *fields, *ends) + options
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        address = b"\x01\x00\x5e" + bytes([ends[1][1] & 0x7F]) + ends[1][2:]  # RFC 1112, 6.4
        return address + own + struct.pack("!H", IPV4) + head + payload
    options = bytes([packet.protocol, 0]) + b"\x05\x02\0\0\x01\0" if packet.alert else b""
    fields = (
        6 << 28 | packet.tos << 20,
        len(options + payload),
        HOP_BY_HOP if options else packet.protocol,
        packet.ttl,
    )
    address = b"\x33\x33" + ends[1][12:]  # RFC 2464, 7
    return address + own + struct.pack("!HIHBB16s16s", IPV6, *fields, *ends) + options + payload


def general_query(router: str, milliseconds: int = 100) -> bytes:
    """Return the frame of an IGMPv3 or MLDv2 General Query (RFC 3376, 4.1; RFC 3810, 5.1): which groups are joined?

    - router: the address it comes from, which says what protocol; over IPv6 a link-local one
    - milliseconds: the Max Response Time: hosts answer after a random part of it

    Robustness 2 and an interval of 125 s are the defaults, so that no host changes its own for them.
    """
    if ":" in router:
        payload = struct.pack("!BxxxHxx16xBBH", _QUERY[ICMPV6], milliseconds, 2, 125, 0)
        return frame(Packet(router, "ff02::1", 1, 0, True, ICMPV6, payload))
    payload = struct.pack("!BBxx4xBBH", _QUERY[IGMP], milliseconds // 100, 2, 125, 0)
    return frame(Packet(router, "224.0.0.1", 1, CONTROL, True, IGMP, payload))
