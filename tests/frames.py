"""Frames of Ethernet that carry UDP over IPv4 and IPv6, in one packet or in fragments, every field right or spoilt.

Owns the layout of the headers (RFC 768, 791, 8200) and their checksums. Must not decide what is spoilt.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MTU = 1500
UDP, HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION = 17, 0, 43, 44, 59, 60  # headers (RFC 8200, 4)
SENDER_MAC = b"\x02\0\0\0\0\x02"


@dataclass
class Packet:
    """What goes into an IP packet, to be spoilt: a field that is None is made right."""

    source: Address
    destination: Address
    source_port: int
    port: int
    payload: bytes
    ttl: int
    tos: int
    udp_length: int | None = None
    udp_checksum: int | None = None
    protocol: int = UDP
    options: bytes = b""  # IPv4's, a multiple of 4 bytes
    headers: list[tuple[int, bytes]] = field(
        default_factory=list
    )  # IPv6's, the kind of each and its bytes but the first
    ip_version: int | None = None
    ip_length: int | None = None
    ip_words: int | None = None  # of the IPv4 header
    ip_checksum: int | None = None
    mac: bytes | None = None
    ethertype: int | None = None


def checksum(data: bytes) -> int:
    """The checksum of RFC 1071, never 0, which UDP has for none: 65,535 is the same number."""
    return 0xFFFF - int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 0xFFFF


def udp(packet: Packet) -> bytes:
    length = 8 + len(packet.payload)
    told = length if packet.udp_length is None else packet.udp_length
    header = struct.pack("!HHH", packet.source_port, packet.port, told)
    summed = length if told < 8 else min(told, length)
    pseudo = packet.source.packed + packet.destination.packed + struct.pack("!II", summed, UDP)
    right = checksum(pseudo + header + b"\0\0" + packet.payload[: summed - 8])
    check = right if packet.udp_checksum is None else packet.udp_checksum
    return header + struct.pack("!H", check) + packet.payload


def spoilt(value: int, rng: random.Random) -> int:
    """Another checksum than this one."""
    return (value + rng.randrange(1, 0xFFFE)) % 0xFFFF or 0xFFFF


def ethernet(packet: Packet, body: bytes) -> bytes:
    mac = packet.mac
    if mac is None:
        low = packet.destination.packed
        mac = b"\x01\0\x5e" + bytes([low[1] & 0x7F]) + low[2:] if len(low) == 4 else b"\x33\x33" + low[12:]
    kind = {4: 0x0800, 6: 0x86DD}[packet.source.version] if packet.ethertype is None else packet.ethertype
    return mac + SENDER_MAC + struct.pack("!H", kind) + body


def ipv4(packet: Packet, body: bytes, identification: int = 0, fragment: int = 0) -> bytes:
    """A packet; fragment: its flags and offset."""
    size = 20 + len(packet.options)
    words = size // 4 if packet.ip_words is None else packet.ip_words
    version = 4 if packet.ip_version is None else packet.ip_version
    length = size + len(body) if packet.ip_length is None else packet.ip_length
    fields = [version << 4 | words, packet.tos, length, identification, fragment, packet.ttl, packet.protocol]
    addresses = packet.source.packed + packet.destination.packed + packet.options
    right = checksum(struct.pack("!BBHHHBBH", *fields, 0) + addresses)
    check = right if packet.ip_checksum is None else packet.ip_checksum
    return struct.pack("!BBHHHBBH", *fields, check) + addresses + body


def ipv6(packet: Packet, body: bytes, kind: int | None = None) -> bytes:
    """A packet; kind: of its first header, if the body begins with one."""
    kinds = [*(kind for kind, _ in packet.headers), packet.protocol if kind is None else kind]
    for (_, data), following in zip(reversed(packet.headers), reversed(kinds[1:]), strict=True):
        body = bytes([following]) + data + body
    version = 6 if packet.ip_version is None else packet.ip_version
    length = len(body) if packet.ip_length is None else packet.ip_length
    begin = struct.pack("!IHBB", version << 28 | packet.tos << 20, length, kinds[0], packet.ttl)
    return begin + packet.source.packed + packet.destination.packed + body


def packed(packet: Packet, body: bytes) -> bytes:
    return (ipv4 if packet.source.version == 4 else ipv6)(packet, body)


def whole(packet: Packet) -> list[bytes]:
    """The one frame of a packet."""
    return [ethernet(packet, packed(packet, udp(packet)))]


Piece = tuple[int, bytes, bool]  # of what is fragmented: where it is from, its bytes, and whether more follows


def pieces(body: bytes, size: int) -> list[Piece]:
    """Cut into pieces of this size, which is a multiple of 8."""
    return [(at, body[at : at + size], at + size < len(body)) for at in range(0, len(body), size)]


def fragments(packet: Packet, identification: int, cut: Iterable[Piece]) -> list[bytes]:
    """Frames of these pieces."""
    found = []
    for at, data, more in cut:
        if packet.source.version == 4:
            found.append(ipv4(packet, data, identification & 0xFFFF, at // 8 | more << 13))
        else:
            header = struct.pack("!BBHI", packet.protocol, 0, at | more, identification)
            found.append(ipv6(packet, header + data, FRAGMENT))
    return [ethernet(packet, each) for each in found]
