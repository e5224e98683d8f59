"""What a receive call brought, one datagram or train a slot: which are foreign, and what a train comes apart into.

Owns both questions, as `_accounting.pxd` does for the native backend. Must not make a system call.
"""

from __future__ import annotations

from ._ancillary_py import Ancillary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ._ancillary_py import Message


class Isolation:
    """Which datagrams a receiver delivers, if that is checked: its memberships say so, without knowing the receiver."""

    __slots__ = ("joined", "on")

    def __init__(self, on: bool) -> None:
        self.on = on
        self.joined: frozenset[tuple[bytes, int]] = frozenset()  # replaced, never changed

    def __call__(self, entries: Iterable[tuple[bytes, int]]) -> None:
        self.joined = frozenset(entries)


class Came:
    """What one slot was filled with.

    - length: bytes that came, also those that the slot has no room for
    - name: the source, as the socket module shows it
    - messages: control messages; control_cut: whether the kernel had more to tell
    """

    __slots__ = ("_ancillary", "control_cut", "length", "messages", "name")

    def __init__(
        self, length: int, name: Any = None, messages: list[Message] | None = None, control_cut: bool = False
    ) -> None:
        self.length, self.name, self.messages, self.control_cut = length, name, messages or [], control_cut
        self._ancillary: Ancillary | None = None

    @property
    def ancillary(self) -> Ancillary:
        """What the control messages tell."""
        if self._ancillary is None:
            self._ancillary = Ancillary(self.messages)
        return self._ancillary

    def pieces(self) -> list[range]:
        """Return where in the slot each datagram lies: one, or those of a train, of which the last may be shorter."""
        step = self.ancillary.segment
        if step == 0 or step >= self.length:
            return [range(self.length)]
        return [range(start, min(start + step, self.length)) for start in range(0, self.length, step)]

    def is_joined(self, joined: frozenset[tuple[bytes, int]]) -> bool:
        """Whether it is to a group joined on the interface that it came in on, or joined wherever that be (0)."""
        group = self.ancillary.destination
        return (group, self.ancillary.interface) in joined or (group, 0) in joined
