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

if TYPE_CHECKING:
    from ...skt import Receiver

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4  # linux/if_packet.h


@dataclass
class Heard:
    """What came. wire: datagrams by (interface, group, source, port); None where this process may not look."""

    received: int = 0
    sources: set[str] = field(default_factory=set)
    wire: Counter[tuple[str, str, str, int]] | None = None
    seconds: float = 0.0


def datagram(frame: bytes) -> tuple[str, str, int] | None:
    """Return destination, source and port of a UDP datagram, as its IP packet shows them; None of all else."""
    version = frame[0] >> 4 if frame else 0
    if version == 4 and len(frame) >= 28 and frame[9] == 17 and not int.from_bytes(frame[6:8]) & 0x1FFF:
        end = (frame[0] & 15) * 4
        source, destination = frame[12:16], frame[16:20]
    elif version == 6 and len(frame) >= 48 and frame[6] == 17:
        end, source, destination = 40, frame[8:24], frame[24:40]
    else:
        return None
    texts = (str(ipaddress.ip_address(each)) for each in (destination, source))
    return next(texts), next(texts), int.from_bytes(frame[end + 2 : end + 4])


def listen(receiver: Receiver, groups: list[str], seconds: float) -> Heard:
    """Listen until a datagram was received, or for so long."""
    heard = Heard()
    wanted = set(groups)
    begun = time.monotonic()
    with contextlib.ExitStack() as undo:
        wire: socket.socket | None = None
        try:
            wire = undo.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)))
            wire.setblocking(False)
            heard.wire = Counter()
        except (OSError, AttributeError):
            pass
        waiting = [each for each in (receiver, wire) if each is not None]
        while not heard.received and (left := begun + seconds - time.monotonic()) > 0:
            ready, _, _ = select.select(waiting, [], [], left)
            if wire is not None and heard.wire is not None and wire in ready:
                _look(wire, wanted, heard.wire)
            if receiver in ready:
                with contextlib.suppress(BlockingIOError):
                    batch = receiver.recv_batch(timeout=0)
                    heard.received += len(batch)
                    heard.sources |= {batch.source(at)[0] for at in range(len(batch))}
    heard.seconds = time.monotonic() - begun
    return heard


def _look(wire: socket.socket, wanted: set[str], seen: Counter[tuple[str, str, str, int]]) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(256):
            frame, (interface, _, kind, *_) = wire.recvfrom(256)
            found = datagram(frame)
            if found is not None and found[0] in wanted and (kind != _PACKET_OUTGOING or interface == "lo"):
                seen[interface, *found] += 1
