"""MoldUDP64 framing, and a synthetic feed in it: session, sequence number, message count, message blocks.

Owns the layout of a downstream packet and which datagrams the synthetic feed is made of. Must not send or receive.
"""

from __future__ import annotations

import random
import struct

# A downstream packet begins with the session, the sequence number of its first message, and how many follow. Each
# message then comes after its length. Sequence numbers count messages, not datagrams, from 1.
HEADER = struct.Struct(">10sQH")
SEQUENCE = struct.Struct(">Q")
SEQUENCE_AT = 10
BLOCK_LENGTH = struct.Struct(">H")

_TRAINS = 256  # until the feed repeats
_MESSAGE_SIZES = (19, 23, 31, 35, 36, 40, 44)  # of an equity feed: cancelled, replaced, executed, add order, trade...
_SEED = 64


class Train:
    """Datagrams of one length that leave back to back, as a burst of orders does: one after another in a buffer."""

    __slots__ = ("buffer", "datagrams", "messages", "size", "views")

    def __init__(self, session: bytes, datagrams: int, message: bytes, messages: int) -> None:
        packet = HEADER.pack(session, 0, messages) + (BLOCK_LENGTH.pack(len(message)) + message) * messages
        self.buffer = bytearray(packet * datagrams)
        self.datagrams = datagrams
        self.messages = messages  # in each datagram
        self.size = len(packet)
        view = memoryview(self.buffer)
        self.views = [view[at : at + self.size] for at in range(0, len(view), self.size)]  # each datagram

    def number(self, sequence: int) -> int:
        """Write the sequence numbers, from `sequence` on; return the next one."""
        pack_into, buffer, messages = SEQUENCE.pack_into, self.buffer, self.messages
        for at in range(SEQUENCE_AT, len(buffer), self.size):
            pack_into(buffer, at, sequence)
            sequence += messages
        return sequence


class SyntheticFeed:
    """A feed of trains whose sizes repeat: sender and receiver both know them, without a word.

    Most datagrams carry one to four messages (41 to 204 bytes), some up to 28 (1,308 bytes).
    """

    def __init__(self, session: bytes) -> None:
        if len(session) != 10:
            raise ValueError(f"a MoldUDP64 session has 10 bytes, not {len(session)}")
        self.session = session
        dice = random.Random(_SEED)
        self.trains: list[Train] = []
        self._firsts: dict[int, int] = {}  # message number within the cycle -> datagram that begins with it
        self._messages = 0  # in a cycle
        self._datagrams = 0
        for _ in range(_TRAINS):
            messages = dice.choices((1, 2, 3, 4, 12, 28), weights=(46, 24, 12, 8, 7, 3))[0]
            train = Train(session, dice.randint(8, 40), dice.randbytes(dice.choice(_MESSAGE_SIZES)), messages)
            self.trains.append(train)
            for _ in range(train.datagrams):
                self._firsts[self._messages] = self._datagrams
                self._messages += messages
                self._datagrams += 1

    def datagram_number(self, sequence: int) -> int:
        """Return how many datagrams come before the one whose first message has this sequence number."""
        cycles, message = divmod(sequence - 1, self._messages)
        return cycles * self._datagrams + self._firsts[message]
