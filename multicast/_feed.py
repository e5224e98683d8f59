"""How a feed is written: [SOURCE@]GROUP[+N][:PORT][%INTERFACE]. Both ways: from text, and back.

Owns the notation, which every command takes. Must not ask the system for anything: whether there is such an interface
is for the one who opens the feed to find out.
"""

from __future__ import annotations

from . import _arguments
from ._values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

MAX_GROUPS = 65_536
_OPERATION = "parse_feed"
_NOTATION = (
    r"(?:(?P<source>\[[^\[\]]*\]|[^\[\]@%]*)@)?"
    r"(?P<group>\[[^\[\]]*\]|[^\[\]@%:+]*)"
    r"(?:\+(?P<count>[^:%@]*))?"
    r"(?::(?P<port>[^%@]*))?"
    r"(?:%(?P<interface>(?s:.*)))?"
)


class Feed(Value):
    """Where datagrams come from, as `parse_feed` read it; its text is the same feed written again.

    - group: the group's address as text; of a range, the first one
    - count: how many groups, one after another by number
    - port: the UDP port that they are sent to
    - source: the one host to receive from, as text; None for any
    - interface: an interface's name, index or own address, as text (an index may be an int, too); None for the one that
      the route leads to
    """

    __slots__ = ("group", "count", "port", "source", "interface")  # noqa: RUF023 - the order they print in
    group: str
    count: int
    port: int
    source: str | None
    interface: str | int | None

    @property
    def groups(self) -> list[str]:
        """Every group's address as text, as `open_receiver` takes them."""
        first = _arguments.group_address(self.group, "Feed")
        return [_after(first, number).text for number in range(self.count)]

    def __str__(self) -> str:
        source = "" if self.source is None else f"{_bracketed(self.source)}@"
        count = "" if self.count == 1 else f"+{self.count}"
        interface = "" if self.interface is None else f"%{self.interface}"
        return f"{source}{_bracketed(self.group)}{count}:{self.port}{interface}"


def parse_feed(text: str, *, port: SupportsIndex | None = None) -> Feed:
    """Return the `Feed` that a text names: [SOURCE@]GROUP[+N][:PORT][%INTERFACE].

    - text: such as 239.1.1.1:5000, 10.0.0.7@232.1.1.1:5000%eth0 or [ff3e::1]:5000%eth0. IPv6 addresses are in brackets.
      +N is a range: N groups from GROUP on. INTERFACE is a name, an index or one of the interface's own addresses; an
      IPv6 group may have it as its zone, too: [ff02::1%eth0]. Digits are a name if an interface is called so when the
      feed is opened, and else an index
    - port: that of a text that names none; None: it has to

    Nothing is looked up. Raises TypeError where text is no str, and ValueError that says what in it can't be.
    """
    import re  # now: of those who import this package, few read a feed

    if not isinstance(text, str):
        raise TypeError(f"{_OPERATION}: a feed is written as text, not {_arguments.shown(text)}")
    doing = f"{_OPERATION} {_arguments.shown(text)}"
    found = re.fullmatch(_NOTATION, text)
    if found is None or _arguments.parse_address(found["group"].strip("[]")) is None:
        raise ValueError(
            f"{doing}: a feed is written [SOURCE@]GROUP[+N][:PORT][%INTERFACE], an IPv6 address in brackets"
        )
    group = _arguments.group_address(_address(found["group"], doing), doing)
    source = None
    if found["source"] is not None:
        source = _arguments.source_address(_address(found["source"], doing), group, doing)
        if source.zone is not None:
            raise ValueError(f"{doing}: the interface is named at the end, not by the source {source}")
    count = 1 if found["count"] is None else _number(found["count"], doing, "N", 1, MAX_GROUPS)
    last = _after(group, count - 1)
    if not last.is_multicast or last.packed < group.packed:
        raise ValueError(f"{doing}: {count} groups from {group} on are more than there are")
    if found["port"] is not None:
        number = _number(found["port"], doing, "port", 1, 65_535)
    elif port is not None:
        number = _arguments.whole(port, doing, "port", 1, 65_535)
    else:
        raise ValueError(f"{doing}: it names no port")
    return Feed(
        group=_after(group, 0).text,
        count=count,
        port=number,
        source=None if source is None else _arguments.unpacked(source.packed).text,
        interface=_interface(found["interface"], group.zone, doing),
    )


def _address(text: str, doing: str) -> str:
    """Return an address without its brackets; IPv6 has to have them, IPv4 must not."""
    bare = text[1:-1] if text.startswith("[") else text
    if (":" in bare) != text.startswith("["):
        raise ValueError(f"{doing}: {_arguments.shown(text)}: an IPv6 address is in brackets, and nothing else is")
    return bare


def _number(text: str, doing: str, what: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        raise ValueError(f"{doing}: {what} is an integer from {low} to {high}, not {_arguments.shown(text)}")
    return _arguments.whole(int(text), doing, what, low, high)


def _interface(text: str | None, zone: str | None, doing: str) -> str | None:
    """Return the interface that the text or the group's zone names; where both do, they have to agree."""
    if text is None and zone is None:
        return None
    if text is not None and zone is not None and text != zone:
        raise ValueError(f"{doing}: the group's zone is {zone}, and the interface {text}")
    found = zone if text is None else text
    if not found or not found.isprintable() or any(each.isspace() for each in found):
        raise ValueError(f"{doing}: {_arguments.shown(found)} is no interface's name, index or address")
    if found.isascii() and found.isdecimal():
        _number(found, doing, "an interface's index", 1, 2**31 - 1)
    return found


def _after(first: _arguments.Address, number: int) -> _arguments.Address:
    """Return the address so many after this one; past the last one it starts at the first again."""
    size = len(first.packed)
    return _arguments.unpacked(((int.from_bytes(first.packed) + number) % (1 << size * 8)).to_bytes(size))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
