"""Where datagrams carry their sequence numbers: MoldUDP64, RTP, CME's MDP 3.0, or a number at an offset.

Owns the layouts and how a number is read from a datagram and written into one. Must not keep what it read: what is
missing is for a tracker to say.
"""

from __future__ import annotations

import struct

from ._arguments import shown
from ._moldudp64 import BLOCK_LENGTH, HEADER, SEQUENCE_AT
from ._values import Value

NOTATION = "moldudp64, rtp, cme or offset=N[,width=1|2|4|8][,order=big|little]"
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ORDERS = {"big": ">", "little": "<"}
MAX_OFFSET = 65_000  # a UDP datagram has at most 65,507 bytes over IPv4


class Sequence(Value):
    """A layout of sequence numbers in datagrams.

    - name: as it is written; `parse_sequence` reads it back
    - offset, width, order: where the number is, in bytes, and whether it is "big" (network order) or "little" endian
    - messages_at: where the 16-bit big-endian number of messages in the datagram is, which the sequence number counts;
      None: it counts datagrams
    - stream_at: offset and length of what tells streams apart that share a group; None: nothing does
    - size: bytes of the header, without which a datagram has no number
    """

    __slots__ = ("name", "offset", "width", "order", "messages_at", "stream_at", "size")  # noqa: RUF023 - as they print
    name: str
    offset: int
    width: int
    order: str
    messages_at: int | None
    stream_at: tuple[int, int] | None
    size: int

    @property
    def number(self) -> struct.Struct:
        """How the number itself is packed, at `offset`."""
        return struct.Struct(_ORDERS[self.order] + _CODES[self.width])

    @property
    def modulus(self) -> int:
        """How many numbers there are, until they begin again at 0."""
        return 1 << 8 * self.width

    @property
    def smallest(self) -> int:
        """The fewest bytes of a datagram that `stamp` can write to."""
        return self.size + BLOCK_LENGTH.size * (self is MOLDUDP64)

    def stamp(self, datagram: bytearray | memoryview, number: int) -> None:
        """Write a sequence number into a datagram, and what else makes it one of its kind.

        Of MoldUDP64 it becomes one message, of RTP a packet of version 2. Raises struct.error where it is too short.
        """
        if self is MOLDUDP64:
            HEADER.pack_into(datagram, 0, SESSION, number % self.modulus, 1)
            BLOCK_LENGTH.pack_into(datagram, self.size, len(datagram) - self.smallest)
            return
        if self is RTP:
            struct.pack_into(">BB", datagram, 0, 0x80, 96)  # version 2, the first dynamic payload type (RFC 3551)
        self.number.pack_into(datagram, self.offset, number % self.modulus)


SESSION = b"MULTICAST0"  # of what is stamped as MoldUDP64
# A downstream packet: session, sequence number of the first message, message count. A heartbeat is the header alone.
MOLDUDP64 = Sequence(
    name="moldudp64", offset=SEQUENCE_AT, width=8, order="big", messages_at=18, stream_at=(0, 10), size=HEADER.size
)
RTP = Sequence(  # RFC 3550, section 5.1: the stream is the SSRC
    name="rtp", offset=2, width=2, order="big", messages_at=None, stream_at=(8, 4), size=12
)
CME = Sequence(  # the binary packet header of MDP 3.0: sequence number, then the sending time, both little endian
    name="cme", offset=0, width=4, order="little", messages_at=None, stream_at=None, size=12
)
_NAMED = {each.name: each for each in (MOLDUDP64, RTP, CME)}


def parse_sequence(text: str) -> Sequence:
    """Return the layout that a text names: one of the three, or offset=N[,width=1|2|4|8][,order=big|little].

    Left out, the width is 4 and the order big. Raises ValueError.
    """
    if text in _NAMED:
        return _NAMED[text]
    fields = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name in fields or name not in ("offset", "width", "order"):
            break
        fields[name] = value
    else:
        offset, width, order = fields.get("offset", ""), fields.get("width", "4"), fields.get("order", "big")
        if (
            (offset.isascii() and offset.isdecimal() and len(offset) <= 5 and int(offset) <= MAX_OFFSET)
            and width in ("1", "2", "4", "8")
            and order in _ORDERS
        ):
            return Sequence(
                name=f"offset={int(offset)},width={width},order={order}",
                offset=int(offset),
                width=int(width),
                order=order,
                messages_at=None,
                stream_at=None,
                size=int(offset) + int(width),
            )
    raise ValueError(f"a layout of sequence numbers is {NOTATION}, not {shown(text)}")
