"""Listening to a feed for a moment: what a receiver gets and, for who may look, what is on the wire beside.

Owns the two sockets and when it is enough. Must not switch an interface to promiscuous mode, and must send nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ... import _filter

if TYPE_CHECKING:
    from ...skt import Receiver

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4  # linux/if_packet.h
_IGMP, _UDP, _ICMPV6, _HOP_BY_HOP = 2, 17, 58, 0
_IGMP_QUERY, _MLD_QUERY = 0x11, 130  # RFC 3376, 4; RFC 3810, 5
_FRAME = 256  # bytes: headers, and all that is looked at behind them
# Programs for the kernel: code, jt, jf, k of linux/filter.h. At first it shows what is sent to groups alone: on a busy
# host the rest would push that out.
_MULTICAST = (
    (0x30, 0, 0, 0),  # the IP version: A = byte 0
    (0x74, 0, 0, 4),  # A >>= 4
    (0x15, 3, 0, 6),  # if it is 6, skip 3
    (0x30, 0, 0, 16),  # A = the first byte of the destination of IPv4
    (0x74, 0, 0, 4),  # A >>= 4
    (0x15, 2, 3, 0xE),  # whether it is in 224.0.0.0/4
    (0x30, 0, 0, 24),  # A = the first byte of the destination of IPv6
    (0x15, 0, 1, 0xFF),  # whether it is in ff00::/8
    (0x06, 0, 0, _FRAME),
    (0x06, 0, 0, 0),
)
# Once a datagram came it shows all but UDP: from others nothing is to be learned then, and to read all of a fast feed
# twice could make this process too slow for it.
_NO_UDP = (
    (0x30, 0, 0, 0),  # the IP version: A = byte 0
    (0x74, 0, 0, 4),  # A >>= 4
    (0x15, 2, 0, 6),  # if it is 6, skip 2
    (0x30, 0, 0, 9),  # A = the protocol of IPv4
    (0x05, 0, 0, 1),  # skip 1
    (0x30, 0, 0, 6),  # A = the next header of IPv6
    (0x15, 0, 1, _UDP),  # if it is not UDP, skip 1
    (0x06, 0, 0, 0),  # none of it
    (0x06, 0, 0, _FRAME),
)


@dataclass
class Heard:
    """What came.

    - received, groups: how many datagrams, and how many of each group where the system tells that
    - first: after how many seconds the first one came
    - drops: how many the kernel dropped, since the receiver did not fetch them in time; None where it does not tell
    - wire: datagrams by (interface, group, source, port); None where this process may not look
    - queriers: (interface, address, version) of each that asked for memberships
    """

    received: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)
    first: float = 0.0
    drops: int | None = None
    wire: Counter[tuple[str, str, str, int]] | None = None
    queriers: set[tuple[str, str, str]] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def silent(self) -> bool:
        """Whether it is certain that nothing of the feed came to this host."""
        return not self.received and self.wire is not None and not self.wire

    def came(self, interface: str, port: int, source: str | None) -> bool | None:
        """Whether something of the feed came as far as this interface of the host; None where that can't be told."""
        if self.received or self.wire is None:
            return True if self.received else None
        return any((seen[0], seen[3]) == (interface, port) and source in (None, seen[2]) for seen in self.wire)


def datagram(packet: bytes) -> tuple[str, str, int] | None:
    """Return destination, source and port of a UDP datagram, as its IP packet shows them; None of all else."""
    found = _payload(packet)
    if found is None or found[0] != _UDP or len(found[1]) < 4:
        return None
    source, destination = _ends(packet)
    return destination, source, int.from_bytes(found[1][2:4], "big")


def query(packet: bytes) -> tuple[str, str] | None:
    """Return who asks for memberships with this packet, and in which version of IGMP or MLD; None of all else."""
    found = _payload(packet)
    if found is None:
        return None
    protocol, payload = found
    if protocol == _IGMP and payload[:1] == bytes([_IGMP_QUERY]) and len(payload) >= 8:
        version = "IGMPv3" if len(payload) >= 12 else "IGMPv2" if payload[1] else "IGMPv1"
    elif protocol == _ICMPV6 and payload[:1] == bytes([_MLD_QUERY]) and len(payload) >= 24:
        version = "MLDv2" if len(payload) >= 28 else "MLDv1"
    else:
        return None
    return _ends(packet)[0], version


def _payload(packet: bytes) -> tuple[int, bytes] | None:
    """Return the protocol and what follows the IP headers, without the padding behind it; None of a later fragment."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20 and not int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return packet[9], packet[(packet[0] & 15) * 4 : int.from_bytes(packet[2:4], "big")]
    if version == 6 and len(packet) >= 48:
        end = 40 + int.from_bytes(packet[4:6], "big")
        if packet[6] == _HOP_BY_HOP:
            return packet[40], packet[48 + 8 * packet[41] : end]
        return packet[6], packet[40:end]
    return None


def _ends(packet: bytes) -> tuple[str, str]:
    at, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    source, destination = packet[at : at + size], packet[at + size : at + 2 * size]
    return str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination))


def listen(
    receiver: Receiver, groups: list[str], seconds: float, *, most: int | None = None, by_group: bool = False
) -> Heard:
    """Listen for so long, or until so many datagrams were received.

    - by_group: whether the receiver keeps the column "destination"
    """
    heard = Heard()
    wanted = set(groups)
    with contextlib.ExitStack() as undo:
        wire: socket.socket | None = None
        with contextlib.suppress(OSError, AttributeError):
            wire = undo.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)))
            wire.setblocking(False)
            heard.wire = Counter()
            _filter.attach(wire, _MULTICAST, "doctor")
        begun = time.monotonic()
        waiting = [each for each in (receiver, wire) if each is not None]
        while (left := begun + seconds - time.monotonic()) > 0 and (most is None or heard.received < most):
            ready, _, _ = select.select(waiting, [], [], left)
            if wire is not None and wire in ready:
                _look(wire, wanted, heard)
            if receiver in ready:
                with contextlib.suppress(BlockingIOError):
                    batch = receiver.recv_batch(timeout=0)
                    if not heard.received:
                        heard.first = time.monotonic() - begun
                        if wire is not None:
                            _filter.attach(wire, _NO_UDP, "doctor")
                    heard.received += len(batch)
                    heard.sources |= {batch.source(at)[0] for at in range(len(batch))}
                    heard.groups.update(batch.destination(at) for at in range(len(batch) if by_group else 0))
        heard.drops = receiver.stats().drops
        heard.seconds = time.monotonic() - begun
    return heard


def _look(wire: socket.socket, wanted: set[str], heard: Heard) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(256):
            packet, (interface, _, kind, *_) = wire.recvfrom(_FRAME)
            if kind == _PACKET_OUTGOING and interface != "lo":
                continue
            if (asking := query(packet)) is not None:
                heard.queriers.add((interface, *asking))
            elif heard.wire is not None and (found := datagram(packet)) is not None and found[0] in wanted:
                heard.wire[interface, *found] += 1
