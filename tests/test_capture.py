"""The capture of tests/capture.py itself: it sees what is sent, tells it right, and accepts nothing that is wrong."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import sys

import pytest
from capture import Capture
from protocols import ALLOW, IGMP, MLD, TO_EXCLUDE
from rig import LINKS
from wire import (
    CONTROL,
    ICMPV6,
    UDP,
    Datagram,
    Malformed,
    Packet,
    Record,
    checksum,
    decode,
    frame,
    general_query,
    packed,
)
from wire import IGMP as IGMP_PROTOCOL

pytest_plugins = ["rig_fixtures", "report_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_000


def igmp(payload: str, destination: str) -> Packet:
    return Packet("192.0.2.1", destination, 1, CONTROL, True, IGMP_PROTOCOL, bytes.fromhex(payload))


def mld(payload: str, destination: str) -> Packet:
    return Packet("fe80::1", destination, 1, 0, True, ICMPV6, bytes.fromhex(payload))


def udp(source: str, destination: str, payload: bytes) -> Packet:
    """A datagram with its checksum; from port 1 to 2."""
    head = struct.pack("!HHHH", 1, 2, 8 + len(payload), 0)
    packet = Packet(source, destination, 7, 0xB8, False, UDP, head + payload)
    found = checksum(packet.pseudo_header + packet.payload) or 0xFFFF
    return dataclasses.replace(packet, payload=head[:6] + struct.pack("!H", found) + payload)


GROUP4, GROUP6 = "efc30001", "ff150000000000000000000000001951"
A4, B4 = "c000020b", "c000020c"
A6, B6 = (f"20010db80000000000000000000000{each}" for each in ("11", "12"))
# As the RFCs draw them; the zeros behind the first two bytes are the checksum, which is filled in.
MESSAGES = {
    "IGMPv1 report": (
        igmp(f"12000000 {GROUP4}", "239.195.0.1"),
        [Record("IGMPv1", "Membership Report", "239.195.0.1")],
    ),
    "IGMPv2 report": (
        igmp(f"16000000 {GROUP4}", "239.195.0.1"),
        [Record("IGMPv2", "Membership Report", "239.195.0.1")],
    ),
    "IGMPv2 leave": (igmp(f"17000000 {GROUP4}", "224.0.0.2"), [Record("IGMPv2", "Leave Group", "239.195.0.1")]),
    "IGMPv3 report of every type": (
        igmp(
            f"2200000000000006 0100 0002 {GROUP4} {A4}{B4} 0200 0000 {GROUP4} 0300 0001 {GROUP4} {A4}"
            f"0400 0001 {GROUP4} {B4} 0501 0001 {GROUP4} {A4} 00c0ffee 0600 0001 {GROUP4} {B4}",
            "224.0.0.22",
        ),
        [
            Record("IGMPv3", "MODE_IS_INCLUDE", "239.195.0.1", frozenset({"192.0.2.11", "192.0.2.12"})),
            Record("IGMPv3", "MODE_IS_EXCLUDE", "239.195.0.1"),
            Record("IGMPv3", "CHANGE_TO_INCLUDE_MODE", "239.195.0.1", frozenset({"192.0.2.11"})),
            Record("IGMPv3", "CHANGE_TO_EXCLUDE_MODE", "239.195.0.1", frozenset({"192.0.2.12"})),
            Record("IGMPv3", "ALLOW_NEW_SOURCES", "239.195.0.1", frozenset({"192.0.2.11"})),
            Record("IGMPv3", "BLOCK_OLD_SOURCES", "239.195.0.1", frozenset({"192.0.2.12"})),
        ],
    ),
    "MLDv1 report": (
        mld(f"8300000000000000 {GROUP6}", "ff15::1951"),
        [Record("MLDv1", "Multicast Listener Report", "ff15::1951")],
    ),
    "MLDv1 done": (
        mld(f"8400000000000000 {GROUP6}", "ff02::2"),
        [Record("MLDv1", "Multicast Listener Done", "ff15::1951")],
    ),
    "MLDv2 report": (
        mld(f"8f00000000000002 0500 0002 {GROUP6} {A6}{B6} 0401 0000 {GROUP6} 00c0ffee", "ff02::16"),
        [
            Record("MLDv2", "ALLOW_NEW_SOURCES", "ff15::1951", frozenset({"2001:db8::11", "2001:db8::12"})),
            Record("MLDv2", "CHANGE_TO_EXCLUDE_MODE", "ff15::1951"),
        ],
    ),
    "UDP over IPv4": (
        udp("192.0.2.11", "239.195.0.1", b"payload"),
        [Datagram(("192.0.2.11", 1), ("239.195.0.1", 2), 7, 0xB8, b"payload")],
    ),
    "UDP over IPv6": (
        udp("2001:db8::11", "ff15::1951", b""),
        [Datagram(("2001:db8::11", 1), ("ff15::1951", 2), 7, 0xB8, b"")],
    ),
}


@pytest.fixture(params=MESSAGES.values(), ids=MESSAGES)
def message(request):
    return request.param


# What a frame says -------------------------------------------------------------------------------------------------


def test_each_message_is_read_as_its_rfc_has_it(message):
    packet, expected = message
    assert decode(frame(packet)) == expected
    assert decode(frame(packet) + bytes(20)) == expected  # Ethernet fills up what is short


def test_no_flipped_bit_goes_unnoticed(message):
    packet, _ = message
    right = frame(packet)
    # IPv6 has no checksum of its header; above it there is one of all, of which these are the last bytes.
    begin = 14 if ":" not in packet.source else len(right) - len(packet.payload)
    for position in range(begin * 8, len(right) * 8):
        wrong = bytearray(right)
        wrong[position // 8] ^= 0x80 >> position % 8
        with pytest.raises(Malformed):
            decode(bytes(wrong))


def test_a_message_that_is_cut_short_is_malformed(message):
    packet, _ = message
    for length in range(14, len(frame(packet))):
        with pytest.raises(Malformed):
            decode(frame(packet)[:length])


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("IGMPv3 report of every type", {"ttl": 2}, "TTL 2"),
        ("IGMPv3 report of every type", {"alert": False}, "without Router Alert"),
        ("IGMPv3 report of every type", {"tos": 0}, "TOS 0x0"),
        ("IGMPv3 report of every type", {"destination": "239.195.0.1"}, "which belongs to 224.0.0.22"),
        ("IGMPv2 report", {"destination": "239.195.0.2"}, "which belongs to 239.195.0.1"),
        ("IGMPv2 leave", {"destination": "239.195.0.1"}, "which belongs to 224.0.0.2"),
        ("MLDv2 report", {"ttl": 255}, "TTL 255"),
        ("MLDv2 report", {"alert": False}, "without Router Alert"),
        ("MLDv2 report", {"source": "2001:db8::1"}, "not link-local"),
        ("MLDv1 report", {"destination": "ff02::16"}, "which belongs to ff15::1951"),
        (
            "IGMPv3 report of every type",
            {"payload": bytes.fromhex("22000000 00000001 0700 0000 efc30001")},
            "of type 7",
        ),
        ("IGMPv3 report of every type", {"payload": bytes.fromhex("22000000 00000000 00000000")}, "there are 12"),
        ("IGMPv1 report", {"payload": bytes.fromhex("13000000 efc30001")}, "no IGMP type of a host: 0x13"),
    ],
)
def test_a_report_is_sent_as_the_rfc_requires(name, change, wrong):
    packet, _ = MESSAGES[name]
    with pytest.raises(Malformed, match=wrong):
        decode(frame(dataclasses.replace(packet, **change)))


def test_a_fragment_is_refused():
    whole = bytearray(frame(udp("192.0.2.11", "239.195.0.1", b"payload")))
    whole[20] |= 0x20  # More Fragments
    whole[24:26] = b"\0\0"
    whole[24:26] = struct.pack("!H", checksum(bytes(whole[14:34])))
    with pytest.raises(Malformed, match="a fragment"):
        decode(bytes(whole))
    with pytest.raises(Malformed, match="a fragment"):
        decode(frame(Packet("fe80::1", "ff15::1951", 1, 0, False, 44, bytes.fromhex("1100000100000001"))))


def test_what_is_not_about_groups_is_passed_over():
    assert decode(bytes(12) + b"\x08\x06" + bytes(28)) == []  # ARP
    assert decode(frame(Packet("192.0.2.11", "192.0.2.1", 64, 0, False, 6, bytes(20)))) == []  # TCP
    assert decode(frame(Packet("fe80::1", "ff02::1:ff00:1", 255, 0, False, ICMPV6, bytes([135, *bytes(23)])))) == []
    assert decode(general_query(IGMP.router)) == decode(general_query(MLD.router)) == []


# What is captured --------------------------------------------------------------------------------------------------

# Sends from the first address to the second, with options (level, name, value) set.
SEND = """if True:
    import json, socket, sys
    source, to, port, options, payloads = json.loads(sys.argv[1])
    sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    for option in options:
        sock.setsockopt(*option)
    for payload in payloads:
        sock.sendto(payload.encode(), (to, port))
"""
INTERFACE = [
    (socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 0),  # by the address it is bound to
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, LINKS["feed0"]["tx"][0]),
]
UDP_SEGMENT = 103  # linux/udp.h


def send(host, source: str, to: str, *payloads: str, options=()) -> None:
    every = [*(each for each in INTERFACE if (each[0] == socket.IPPROTO_IPV6) == (":" in to)), *options]
    host.run(sys.executable, "-P", "-c", SEND, json.dumps([source, to, PORT, every, payloads]))


def test_a_join_right_after_the_capture_began_is_seen(rig, rx, protocol):
    for _ in range(10):
        with Capture(rig.tx, "feed0") as wire:
            group = protocol.new_group()
            rx.receiver(group, PORT, interface="feed0")
            assert wire.until(len, group=group) == {protocol.record(TO_EXCLUDE, group)}


def test_what_the_host_itself_sends_is_seen_at_the_other_end_alone(rig, rx, wire, protocol, group):
    with Capture(rig.rx, "feed0") as own:
        rx.receiver(group, PORT, interface="feed0")
        wire.until(len, group=group)
        send(rig.tx, protocol.sources[0], group, "end")
        own.datagrams_until(len)
        assert [each for each in own.records if each.group == group] == []


def test_datagrams_are_seen_with_all_that_they_were_sent_with(rig, protocol, group):
    options = [
        [(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 7), (socket.IPPROTO_IP, socket.IP_TOS, 0xB8)],
        [(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 7), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xB8)],
    ][protocol is MLD]
    with Capture(rig.rx, "feed0") as wire:
        send(rig.tx, protocol.sources[1], group, "first", "", "x" * 1400, options=options)
        came = wire.datagrams_until(lambda seen: len(seen) == 3)
    assert [each.payload for each in came] == [b"first", b"", b"x" * 1400]
    assert {(each.source[0], each.destination) for each in came} == {(protocol.sources[1], (group, PORT))}
    assert {(each.ttl, each.tos) for each in came} == {(7, 0xB8)}
    assert len({each.source[1] for each in came}) == 1


def test_segments_that_the_kernel_did_not_cut_yet_are_told_apart(rig, protocol, group):
    """A veth link takes what UDP_SEGMENT sends in one piece."""
    with Capture(rig.rx, "feed0") as wire:
        send(rig.tx, protocol.sources[0], group, "aaabbbcc", options=[(socket.IPPROTO_UDP, UDP_SEGMENT, 3)])
        came = wire.datagrams_until(lambda seen: b"cc" in [each.payload for each in seen])
    assert [each.payload for each in came] == [b"aaa", b"bbb", b"cc"]


# What it does not accept -------------------------------------------------------------------------------------------


def report(protocol, group: str) -> bytes:
    """Return the frame of a report by which rx allows the first source of this group."""
    record = bytes([5, 0, 0, 1]) + packed(group) + packed(protocol.sources[0])
    if protocol is IGMP:
        return frame(igmp(f"2200000000000001{record.hex()}", "224.0.0.22"))
    return frame(mld(f"8f00000000000001{record.hex()}", "ff02::16"))


def test_a_wrong_checksum_on_the_wire_fails_the_test(rig, protocol, group):
    right = report(protocol, group)
    with Capture(rig.rx, "feed0") as elsewhere, Capture(rig.tx, "feed0") as wire:
        elsewhere.put(right)
        assert wire.until(len, group=group) == {protocol.record(ALLOW, group, protocol.sources[0])}
        elsewhere.put(right[:-1] + bytes([right[-1] ^ 1]))
        with pytest.raises(Malformed, match=f"the {'ICMPv6' if protocol is MLD else 'IGMP'} checksum is wrong"):
            wire.until(lambda seen: len(seen) > 1, group=group)


def test_a_wrong_frame_fails_the_test_that_does_not_look_at_it_too(rig, protocol, group):
    right = report(protocol, group)
    with (
        Capture(rig.rx, "feed0") as elsewhere,
        Capture(rig.tx, "feed0") as witness,
        pytest.raises(Malformed),
        Capture(rig.tx, "feed0"),
    ):
        elsewhere.put(right[:-1] + bytes([right[-1] ^ 1]))
        with pytest.raises(Malformed):  # so it is there
            witness.until(len, group=group)


def test_a_frame_that_the_kernel_dropped_fails_the_test(rig, protocol, group):
    payloads = [f"{number:1000}" for number in range(50)]
    dropped = pytest.raises(AssertionError, match=r"^feed0 of rx: the kernel dropped \d+ frames")
    with Capture(rig.rx, "feed0") as witness, dropped, Capture(rig.rx, "feed0", receive_buffer=1):
        send(rig.tx, protocol.sources[0], group, *payloads)
        witness.datagrams_until(lambda seen: len(seen) == len(payloads))


def test_what_did_not_come_fails_the_test_and_is_told_with_what_did(rig, rx, wire, protocol, group):
    rx.receiver(group, PORT, interface="feed0", source=protocol.sources[0])
    allowed = protocol.record(ALLOW, group, protocol.sources[0])
    wire.until(lambda seen: allowed in seen)
    for wait in (wire.until, wire.datagrams_until):
        with pytest.raises(pytest.fail.Exception, match="did not come within 0 s; seen:\n") as failed:
            wait(lambda seen: False, seconds=0)
        assert f"\n  {allowed}" in str(failed.value)


@pytest.mark.parametrize("kind", ["missing", "another source", "another kind"])
def test_expected_is_just_what_was_reported(rig, wire, protocol, group, kind):
    own, other, _ = protocol.sources
    with Capture(rig.rx, "feed0") as elsewhere:
        elsewhere.put(report(protocol, group))
        wire.expect(group, {ALLOW: {own}})
        expected = {"missing": {ALLOW: {own, other}}, "another source": {ALLOW: set()}, "another kind": {}}[kind]
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            wire.expect(group, expected, seconds=0)
