"""The kinds of hostile datagrams: what is wrong with each, and in which column of the ledger Linux has it end.

Owns a maker for each kind, and the stream of them that comes out of a seed. Must not send anything.
"""

from __future__ import annotations

import ipaddress
import itertools
import struct

from chance import KINDS, Case, Chance, Made, Place, case, kind
from frames import (
    DESTINATION,
    HOP_BY_HOP,
    MTU,
    NO_NEXT,
    ROUTING,
    Packet,
    ethernet,
    fragments,
    ipv4,
    packed,
    pieces,
    spoilt,
    udp,
    whole,
)

WAITING = "waiting"
MOST_WAITING = 300  # of a kind: what waits counts against net.ipv4.ipfrag_high_thresh, 4 MiB
UNKNOWN_PROTOCOL = 253  # for experiments (RFC 3692)
CHECKED_AT_ONCE = 76  # bytes of UDP: of no more, Linux takes the checksum before it looks for a socket (CHECKSUM_BREAK)

# Datagrams that are in order, however odd ---------------------------------------------------------------------------


@kind("delivered")
def whole_in_one_packet(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.payload(MTU - 28 if packet.source.version == 4 else MTU - 48)
    return whole(packet)


@kind("delivered")
def to_the_mac_of_the_host(chance: Chance, packet: Packet) -> Made:
    packet.mac = chance.place.mac
    return whole(packet)


@kind("delivered")
def bytes_after_the_packet(chance: Chance, packet: Packet) -> Made:
    return [ethernet(packet, packed(packet, udp(packet)) + chance.payload(64, least=1))]


@kind("delivered")
def udp_shorter_than_its_packet(chance: Chance, packet: Packet) -> Made:
    kept = chance.random.randint(0, len(packet.payload))
    packet.udp_length = 8 + kept
    return whole(packet), packet.payload[:kept]


@kind("delivered", 4)
def no_checksum(_: Chance, packet: Packet) -> Made:
    packet.udp_checksum = 0
    return whole(packet)


@kind("delivered", 6)
def udp_length_0_as_of_a_jumbogram(_: Chance, packet: Packet) -> Made:
    """RFC 2675, 4: then the length is that of the packet."""
    packet.udp_length = 0
    return whole(packet)


@kind("delivered")
def in_fragments(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.big()
    cut = chance.cut(udp(packet))
    chance.random.shuffle(cut)
    return fragments(packet, chance.identify(), cut)


@kind("delivered")
def in_tiny_fragments(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.payload(400, least=1)
    cut = pieces(udp(packet), 8)
    chance.random.shuffle(cut)
    return fragments(packet, chance.identify(), cut)


@kind("delivered")
def fragments_twice(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.big()
    *cut, last = chance.cut(udp(packet))
    again = chance.random.choices(cut, k=3)
    return fragments(packet, chance.identify(), [*cut, *again, last])


# IPv4 options and IPv6 extension headers ----------------------------------------------------------------------------


def padded(options: bytes) -> bytes:
    return options + bytes(-len(options) % 4)


@kind("delivered", 4)
def options(chance: Chance, packet: Packet) -> Made:
    """RFC 791, 3.1; RFC 2113; and one for experiments (RFC 4727)."""
    room = chance.random.randint(1, 5)
    packet.options = padded(
        chance.random.choice(
            [
                b"\1" * chance.random.randint(1, 40),
                bytes([7, 3 + 4 * room, 4]) + bytes(4 * room),  # record route
                bytes([68, 4 + 4 * room, 5, 0]) + bytes(4 * room),  # timestamps
                b"\x94\4\0\0",  # router alert
                bytes([0x1E, 2 + room]) + bytes(room),
            ]
        )
    )
    return whole(packet)


@kind("headers", 4)
def options_that_are_none(chance: Chance, packet: Packet) -> Made:
    packet.options = padded(
        chance.random.choice(
            [
                b"\7\0\4\0",  # lengths of 0, of 1, and beyond the header
                b"\7\1\4\0",
                b"\1\1\7\x0b\4\0\0\0",
                b"\7\7\3\0\0\0\0",  # a pointer to before the data
                b"\x44\4\1\0",
                b"\7\7\4\0\0\0\0\7\7\4\0\0\0\0",  # two records of the route
                b"\x94\3\0",  # too short an alert
                b"\1\1\1\7",  # no length at all
            ]
        )
    )
    return whole(packet)


@kind("refused", 4)
def source_route(chance: Chance, packet: Packet) -> Made:
    """Loose or strict (RFC 791, 3.1), which hosts do not take (accept_source_route)."""
    packet.options = bytes([chance.random.choice([131, 137]), 7, 4]) + packet.source.packed + b"\0"
    return whole(packet)


PAD_N = [b"", b"\0", *(bytes([1, size]) + bytes(size) for size in range(6))]  # of 0 to 7 bytes (RFC 8200, 4.2)


def option_header(data: bytes) -> bytes:
    """What follows the first byte of a header of options: its length in units of 8 bytes, and the options."""
    fill = -(2 + len(data)) % 8
    return bytes([(2 + len(data) + fill) // 8 - 1]) + data + PAD_N[fill]


@kind("delivered", 6)
def headers_before_udp(chance: Chance, packet: Packet) -> Made:
    found = []
    if chance.random.random() < 0.5:
        found.append((HOP_BY_HOP, option_header(chance.random.choice([b"", b"\5\2\0\0", b"\x1e\1\0"]))))
    for _ in range(chance.random.randint(0 if found else 1, 3)):
        data = chance.random.choice([b"", b"\x1e\2\0\0", b"\x1e\0" * chance.random.randint(1, 4)])
        found.append((DESTINATION, option_header(data)))
    packet.headers = found
    return whole(packet)


@kind("delivered", 6)
def a_fragment_that_is_all(chance: Chance, packet: Packet) -> Made:
    """RFC 6946."""
    return fragments(packet, chance.identify(), [(0, udp(packet), False)])


@kind("headers", 6)
def an_option_to_be_discarded(chance: Chance, packet: Packet) -> Made:
    """The upper bits of an option that is not known say what to do with the packet (RFC 8200, 4.2)."""
    header = chance.random.choice([HOP_BY_HOP, DESTINATION])
    packet.headers = [(header, option_header(bytes([chance.random.choice([0x5E, 0x9E, 0xDE]), 1, 0])))]
    return whole(packet)


@kind("headers", 6)
def a_header_longer_than_the_packet(chance: Chance, packet: Packet) -> Made:
    header = chance.random.choice([HOP_BY_HOP, DESTINATION, ROUTING])
    packet.headers = [(header, b"\xff" + bytes(6))]
    return whole(packet)


@kind("headers", 6)
def a_routing_header(chance: Chance, packet: Packet) -> Made:
    """None can lead to a group (RFC 8200, 4.4)."""
    packet.headers = [(ROUTING, bytes([2, 0, chance.random.choice([0, 1])]) + bytes(20))]
    return whole(packet)


@kind("protocol", 6)
def hop_by_hop_not_first(_: Chance, packet: Packet) -> Made:
    packet.headers = [(DESTINATION, option_header(b"")), (HOP_BY_HOP, option_header(b""))]
    return whole(packet)


@kind("empty", 6)
def no_next_header(_: Chance, packet: Packet) -> Made:
    packet.protocol = NO_NEXT
    return whole(packet)


# UDP that is wrong --------------------------------------------------------------------------------------------------


@kind("checksum")
def wrong_checksum_of_a_short_one(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.payload(CHECKED_AT_ONCE - 8)
    return wrong_checksum(chance, packet)


@kind("drops")
def wrong_checksum_of_a_long_one(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.payload(1380, least=CHECKED_AT_ONCE - 7)
    return wrong_checksum(chance, packet)


def wrong_checksum(chance: Chance, packet: Packet) -> Made:
    right = int.from_bytes(udp(packet)[6:8], "big")
    packet.udp_checksum = spoilt(right, chance.random)
    return whole(packet)


@kind("drops")
def a_byte_of_a_fragment_changed(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.payload(20_000, least=CHECKED_AT_ONCE)
    body = bytearray(udp(packet))
    body[chance.random.randrange(8, len(body))] ^= chance.random.randint(1, 255)
    return fragments(packet, chance.identify(), chance.cut(bytes(body)))


@kind("ignored", 6)
def checksum_of_0(_: Chance, packet: Packet) -> Made:
    """Forbidden over IPv6 (RFC 8200, 8.1)."""
    packet.udp_checksum = 0
    return whole(packet)


@kind("length")
def udp_longer_than_its_packet(chance: Chance, packet: Packet) -> Made:
    packet.udp_length = 8 + len(packet.payload) + chance.random.randint(1, 60_000)
    return whole(packet)


@kind("length")
def udp_shorter_than_its_header(chance: Chance, packet: Packet) -> Made:
    packet.udp_length = chance.random.randint(0 if packet.source.version == 4 else 1, 7)
    return whole(packet)


@kind("length")
def a_part_of_the_udp_header(chance: Chance, packet: Packet) -> Made:
    return [ethernet(packet, packed(packet, udp(packet)[: chance.random.randint(0, 7)]))]


# Fragments that make no datagram ------------------------------------------------------------------------------------


@kind("fragments", waits=True)
def a_fragment_is_missing(chance: Chance, packet: Packet) -> Made:
    packet.payload = chance.payload(3000, least=9)
    cut = chance.cut(udp(packet))
    cut.pop(chance.random.randrange(len(cut)))
    return fragments(packet, chance.identify(), cut)


@kind("fragments")
def fragments_overlap(chance: Chance, packet: Packet) -> Made:
    """RFC 5722 discards all of such a datagram, and Linux does so over IPv4, too (CVE-2018-5391)."""
    packet.payload = chance.payload(6000, least=40)
    body = udp(packet)
    cut = pieces(body, chance.random.randrange(16, min(736, len(body) // 2), 8))
    at, data, more = cut.pop(chance.random.randrange(1, len(cut)))
    begin = at - chance.random.randrange(8, len(cut[0][1]), 8)
    return fragments(packet, chance.identify(), [*cut, (begin, body[begin : at + len(data)], more)])


@kind("fragments")
def two_ends(chance: Chance, packet: Packet) -> Made:
    """The last fragment twice, of different lengths."""
    packet.payload = chance.payload(1000, least=40)
    body = udp(packet)
    at = chance.random.randrange(8, len(body) - 16, 8)
    return fragments(packet, chance.identify(), [(at, body[at:], False), (at, body[at:-1], False)])


@kind("fragments", 4)
def an_empty_fragment(chance: Chance, packet: Packet) -> Made:
    return fragments(packet, chance.identify(), [(8 * chance.random.randint(0, 100), b"", True)])


@kind("fragments", 4)
def fragments_of_more_than_there_can_be(chance: Chance, packet: Packet) -> Made:
    packet.payload = bytes(65_507)
    body = udp(packet) + bytes(chance.random.randint(1, 60))
    return fragments(packet, chance.identify(), pieces(body, 1480))


# Linux refuses the fragment, and waits for others of its datagram all the same.
@kind("headers", 6, twice=["requests", "fragments"], waits=True)
def a_fragment_beyond_the_end(chance: Chance, packet: Packet) -> Made:
    return fragments(packet, chance.identify(), [(65_528, packet.payload + bytes(8), False)])


@kind("headers", 6, twice=["requests", "fragments"], waits=True)
def a_fragment_that_is_no_multiple_of_8(chance: Chance, packet: Packet) -> Made:
    data = packet.payload[:1000]
    return fragments(packet, chance.identify(), [(8, data + bytes(-len(data) % 8 + chance.random.randint(1, 7)), True)])


@kind("headers", 6, twice=["requests"])
def a_first_fragment_without_its_header(chance: Chance, packet: Packet) -> Made:
    """RFC 7112."""
    return fragments(packet, chance.identify(), [(0, b"", True)])


# IP that is wrong ---------------------------------------------------------------------------------------------------


@kind("headers")
def another_version(chance: Chance, packet: Packet) -> Made:
    packet.ip_version = chance.random.choice([each for each in range(16) if each != packet.source.version])
    return whole(packet)


@kind("headers")
def a_part_of_the_ip_header(chance: Chance, packet: Packet) -> Made:
    size = 20 if packet.source.version == 4 else 40
    return [ethernet(packet, packed(packet, udp(packet))[: chance.random.randint(0, size - 1)])]


@kind("headers")
def a_packet_cut_short(chance: Chance, packet: Packet) -> Made:
    """Less than the length that the IP header tells."""
    size = 20 if packet.source.version == 4 else 40
    data = packed(packet, udp(packet))
    return [ethernet(packet, data[: chance.random.randint(size, len(data) - 1)])]


@kind("headers", 4)
def a_wrong_header_checksum(chance: Chance, packet: Packet) -> Made:
    right = int.from_bytes(ipv4(packet, udp(packet))[10:12], "big")
    packet.ip_checksum = spoilt(right, chance.random)
    return whole(packet)


@kind("headers", 4)
def a_header_of_a_wrong_length(chance: Chance, packet: Packet) -> Made:
    packet.payload = packet.payload[:20]
    packet.ip_words = chance.random.choice([0, 1, 2, 3, 4, 15])
    return whole(packet)


@kind("headers", 4)
def a_packet_shorter_than_its_header(chance: Chance, packet: Packet) -> Made:
    packet.ip_length = chance.random.randint(0, 19)
    return whole(packet)


@kind("protocol")
def an_unknown_protocol(_: Chance, packet: Packet) -> Made:
    packet.protocol = UNKNOWN_PROTOCOL
    return whole(packet)


# Addresses ----------------------------------------------------------------------------------------------------------


# What else is no source, such as 240.0.0.1, 192.0.2.255 or ::ffff:192.0.2.11, some kernels take, and others don't.
@kind("refused", 4)
def a_source_that_ipv4_refuses(chance: Chance, packet: Packet) -> Made:
    found = [*chance.place.joined, chance.place.own, "0.0.0.0", "255.255.255.255", "127.0.0.1"]
    packet.source = ipaddress.ip_address(chance.random.choice(found))
    return whole(packet)


@kind("headers", 6)
def a_source_that_ipv6_refuses(chance: Chance, packet: Packet) -> Made:
    packet.source = ipaddress.ip_address(chance.random.choice([*chance.place.joined, "::1"]))
    return whole(packet)


@kind("delivered", 6)
def a_source_that_ipv6_takes(chance: Chance, packet: Packet) -> Made:
    packet.source = ipaddress.ip_address(chance.random.choice([chance.place.own, "::"]))
    return whole(packet)


@kind("refused")
def a_group_that_nobody_joined(chance: Chance, packet: Packet) -> Made:
    packet.destination = ipaddress.ip_address(chance.place.unjoined)
    return whole(packet)


@kind("others")
def a_group_that_another_socket_joined(chance: Chance, packet: Packet) -> Made:
    packet.destination = ipaddress.ip_address(chance.place.beside)
    return whole(packet)


@kind("refused", link="feed1")
def the_group_on_another_link(_: Chance, packet: Packet) -> Made:
    return whole(packet)


@kind("ignored")
def another_port(chance: Chance, packet: Packet) -> Made:
    packet.port = chance.random.choice([0, 1, chance.place.port - 1, chance.place.port + 1, 65_535])
    return whole(packet)


def to_the_host(chance: Chance, packet: Packet) -> None:
    packet.destination, packet.mac = ipaddress.ip_address(chance.place.own), chance.place.mac


@kind("foreign")
def unicast(chance: Chance, packet: Packet) -> Made:
    to_the_host(chance, packet)
    return whole(packet)


@kind("foreign")
def unicast_in_fragments(chance: Chance, packet: Packet) -> Made:
    to_the_host(chance, packet)
    return in_fragments(chance, packet)


@kind("foreign", 4)
def broadcast(chance: Chance, packet: Packet) -> Made:
    packet.destination = ipaddress.ip_address(chance.random.choice(["255.255.255.255", "192.0.2.255"]))
    packet.mac = b"\xff" * 6
    return whole(packet)


@kind("no port")
def unicast_to_another_port(chance: Chance, packet: Packet) -> Made:
    to_the_host(chance, packet)
    packet.port = chance.random.choice([1, chance.place.port - 1, chance.place.port + 1])
    return whole(packet)


@kind("headers", 6)
def a_group_of_no_link(chance: Chance, packet: Packet) -> Made:
    """Of this node alone, or of a scope that is reserved (RFC 4291, 2.7)."""
    packet.destination = ipaddress.ip_address(chance.random.choice(["ff11::1", "ff10::1", "ff01::1"]))
    return whole(packet)


# Not IP at all ------------------------------------------------------------------------------------------------------


@kind("link")
def of_a_vlan(chance: Chance, packet: Packet) -> Made:
    """IEEE 802.1Q: of a virtual network that this host is not in."""
    inner = {4: 0x0800, 6: 0x86DD}[packet.source.version]
    packet.ethertype = 0x8100
    tag = struct.pack("!HH", chance.random.randint(1, 4094), inner)
    return [ethernet(packet, tag + packed(packet, udp(packet)))]


@kind("link")
def to_the_mac_of_another_host(chance: Chance, packet: Packet) -> Made:
    packet.mac = b"\x02" + chance.random.randbytes(5)
    return whole(packet)


@kind("link")
def of_no_known_protocol(chance: Chance, packet: Packet) -> Made:
    packet.ethertype = chance.random.choice([0x88B5, 0x88B6])  # for experiments (IEEE 802)
    return whole(packet)


@kind("headers")
def in_the_name_of_the_other_ip(_: Chance, packet: Packet) -> Made:
    packet.ethertype = {4: 0x86DD, 6: 0x0800}[packet.source.version]
    packet.payload += bytes(40)  # long enough for either header
    return whole(packet)


# The stream ---------------------------------------------------------------------------------------------------------


def phases(seed: str, place: Place, count: int) -> dict[str, list[Case]]:
    """Generate about this many cases, by what they are called: each kind by itself, those that wait, and all in a mix.

    Half of them is in the mix; in that, no fragments wait.
    """
    kinds = KINDS[place.version]
    identifications = itertools.count(1)
    each = max(1, count // 2 // len(kinds))
    found: dict[str, list[Case]] = {}
    for name, found_kind in kinds.items():
        chance = Chance(f"{seed} {place.version} {name}", place, identifications)
        made = [case(chance, name) for _ in range(min(each, MOST_WAITING) if found_kind.waits else each)]
        if found_kind.waits:
            found.setdefault(WAITING, []).extend(made)
        else:
            found[name] = made
    chance = Chance(f"{seed} {place.version} mixed", place, identifications)
    names = [name for name, found_kind in kinds.items() if not found_kind.waits]
    found["mixed"] = [case(chance, chance.random.choice(names)) for _ in range(count - each * len(kinds))]
    return found
