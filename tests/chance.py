"""What hostile datagrams are made of: a place, draws out of a seed, the kinds that are known, and the ledger's columns.

Owns how a case is made of its kind. Must not draw on any chance but the seed's, and must not send.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from frames import MTU, Packet, Piece, pieces

# Where a datagram can end, all that there is: the sum of these is what was injected.
COLUMNS = (
    "delivered",
    "foreign",  # stats().foreign
    "drops",  # stats().drops
    "others",  # delivered to another socket of the host
    "checksum",  # InCsumErrors of UDP that are not in drops
    "length",  # other InErrors of UDP
    "no port",  # NoPorts
    "ignored",  # IgnoredMulti: a group that no socket wants on this port
    "headers",  # InHdrErrors, InTruncatedPkts, InAddrErrors, InDiscards of IP
    "protocol",  # InUnknownProtos
    "empty",  # delivered by IP to nobody: there is no next header
    "fragments",  # ReasmFails
    "refused",  # received by IP, and no route or membership leads any further: Linux counts it nowhere
    "link",  # never seen by IP
)


@dataclass(frozen=True)
class Place:
    """Between whom it goes: addresses as text, and the MACs.

    - joined: the receiver's groups; beside: another socket's of the host; unjoined: nobody's
    """

    version: int
    port: int
    sources: tuple[str, ...]
    own: str
    joined: tuple[str, ...]
    beside: str
    unjoined: str
    mac: bytes


@dataclass(frozen=True)
class Delivered:
    """What a receiver has to show."""

    payload: bytes
    source: str
    source_port: int
    destination: str
    ttl: int
    tos: int


@dataclass(frozen=True)
class Case:
    """A hostile datagram: of what kind, its frames and the link they go over, and where it has to end."""

    kind: str
    frames: list[bytes]
    link: str
    column: str
    twice: frozenset[str]  # other columns that Linux counts it in, and "requests": to reassemble (ReasmReqds)
    delivered: Delivered | None


class Chance:
    """Draws what a case needs, out of a seed, for a place.

    - identifications: to tell the fragments of one datagram from those of others, given out in turn
    """

    def __init__(self, seed: str, place: Place, identifications: Iterator[int]) -> None:
        self.random = random.Random(seed)
        self.place = place
        self._identifications = identifications

    def identify(self) -> int:
        return next(self._identifications)

    def size(self, most: int) -> int:
        """A length of payload, small ones and the edges the most often."""
        edges = [0, 1, 7, 8, 9, 511, 512, 513, most - 1, most]
        draw = self.random.random()
        if draw < 0.3:
            return min(most, self.random.choice(edges))
        return self.random.randint(0, most if draw > 0.97 else min(most, 1400 if draw > 0.8 else 200))

    def payload(self, most: int, least: int = 0) -> bytes:
        return self.random.randbytes(max(least, self.size(most)))

    def packet(self) -> Packet:
        """A packet to one of the joined groups that is in order, if odd."""
        draw, place = self.random, self.place
        strange = (
            f"203.0.113.{draw.randint(1, 254)}" if place.version == 4 else f"2001:db8:ffff::{draw.randint(1, 999):x}"
        )
        return Packet(
            source=ipaddress.ip_address(draw.choice([*place.sources, strange])),
            destination=ipaddress.ip_address(draw.choice(place.joined)),
            source_port=draw.choice([0, 1, 53, place.port, 65_535, draw.randint(0, 65_535)]),
            port=place.port,
            payload=self.payload(1380),
            ttl=draw.choice([0, 1, 2, 64, 255]),
            tos=draw.randint(0, 255),
        )

    def big(self) -> bytes:
        """A payload to be fragmented, up to the longest that there is."""
        return self.payload(65_507 if self.place.version == 4 else 65_527, least=9)

    def cut(self, body: bytes) -> list[Piece]:
        """Cut into at least two pieces, of a random size."""
        largest = (MTU - 20 if self.place.version == 4 else MTU - 48) // 8 * 8
        smallest = max(8, -(-len(body) // 60 // 8) * 8)
        last = min(largest, (len(body) - 1) // 8 * 8)
        return pieces(body, self.random.randrange(min(smallest, last), last + 8, 8))


Made = list[bytes] | tuple[list[bytes], bytes]  # the frames, and what is delivered if that is not the payload
Maker = Callable[[Chance, Packet], Made]


@dataclass(frozen=True)
class Kind:
    """A kind of hostility, and what Linux has to make of it.

    - waits: fragments of it stay until their time is over; twice: where it is counted beside its column
    """

    make: Maker
    column: str
    twice: frozenset[str]
    waits: bool
    link: str


KINDS: dict[int, dict[str, Kind]] = {4: {}, 6: {}}


def kind(
    column: str, *versions: int, twice: Iterable[str] = (), waits: bool = False, link: str = "feed0"
) -> Callable[[Maker], Maker]:
    """Register a kind for these versions of IP; for both, if none is named."""
    assert {column, *twice} <= {*COLUMNS, "requests"}

    def register(make: Maker) -> Maker:
        for version in versions or (4, 6):
            KINDS[version][make.__name__.replace("_", " ")] = Kind(make, column, frozenset(twice), waits, link)
        return make

    return register


def case(chance: Chance, name: str) -> Case:
    """Make a case of a kind."""
    kind = KINDS[chance.place.version][name]
    packet = chance.packet()
    made = kind.make(chance, packet)
    frames, payload = made if isinstance(made, tuple) else (made, packet.payload)
    delivered = None
    if kind.column == "delivered":
        where = str(packet.source), packet.source_port, str(packet.destination)
        delivered = Delivered(payload, *where, packet.ttl, packet.tos)
    return Case(name, frames, kind.link, kind.column, kind.twice, delivered)
